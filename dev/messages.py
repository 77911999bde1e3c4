"""Every message of the package in one list, for somebody who did not write it.

A plugin of pytest's: it collects what the unit tests make the rules and the starts say,
one of each kind, and prints it when they have run.
"""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.core.management import CommandError

from prodserver_celery5.findings import Finding

# By id, and by what is left of a message without its values.
said: dict[tuple[str, str], tuple[str, str]] = {}


def collect(id: str, message: str, hint: str = "") -> None:
    kind = re.sub(r"""'[^']*'|"[^"]*"|\d+(\.\d+)*|/\S+""", "…", f"{message} {hint}")
    said.setdefault((id, kind), (message, hint))


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    finding, error = Finding.__init__, CommandError.__init__

    def found(self: Finding, *args: Any, **kwargs: Any) -> None:
        finding(self, *args, **kwargs)
        collect(self.id, self.message, self.hint)

    def raised(self: CommandError, *args: Any, **kwargs: Any) -> None:
        error(self, *args, **kwargs)
        collect("start", str(self))

    Finding.__init__ = found  # type: ignore[method-assign] # to hear of each
    CommandError.__init__ = raised  # type: ignore[method-assign] # and of these


def pytest_terminal_summary(terminalreporter: Any) -> None:
    # What a start says of findings is theirs.
    messages = {message for message, _ in said.values()}
    for (id, _), (message, hint) in sorted(said.items()):
        if id != "start" or not any(known in message for known in messages - {message}):
            terminalreporter.write_line(f"{id:6}{message}")
            if hint:
                terminalreporter.write_line(f"      {hint}")
