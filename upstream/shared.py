"""The package's own modules, as they stand in django-prodserver's tree.

The shim and the patches have them in common; here they are only given another
place and upstream's form. The session's ruff does the rest, with upstream's rules.
"""

from __future__ import annotations

import ast
import re
from itertools import pairwise

from .source import ROOT

__all__ = ("green", "options")

PACKAGE = ROOT / "prodserver_celery5"


def options(*without: str) -> str:
    """The module that turns ARGS into keyword arguments.

    Args:
        without: functions that are not part of it yet.
    """
    return _module("options.py", without)


def green() -> str:
    """The launcher that patches first."""
    text = _module("green.py", ())
    # Upstream's ruff has the rule S606; replacing the process is the purpose here.
    return re.sub(r"^( +os\.execv\(.*)$", r"\1  # noqa: S606", text, flags=re.M)


def _module(name: str, without: tuple[str, ...]) -> str:
    text = (PACKAGE / name).read_text()
    for function in without:
        text = _removed(text, function).replace(f'    "{function}",\n', "")
    # They are for rules, and for types, that upstream does not check with.
    return re.sub(r"  # (noqa|type: ignore)\b.*$", "", text, flags=re.MULTILINE)


def _removed(text: str, function: str) -> str:
    """Leave a function out, with the comments before it."""
    body = ast.parse(text).body
    for before, node in pairwise(body):
        if isinstance(node, ast.FunctionDef) and node.name == function:
            lines = text.splitlines(keepends=True)
            del lines[before.end_lineno or 0 : node.end_lineno or 0]
            return "".join(lines)
    raise LookupError(f"{function} is not in the module.")
