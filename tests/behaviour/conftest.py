"""The sites and brokers of the scenarios, and the table of their outcomes."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from dev.servers import Redis
from tests.services import Services

from .outcomes import Outcomes, table
from .sides import Site


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    stats = terminalreporter.stats
    lines = table([*stats.get("passed", ()), *stats.get("failed", ())])
    if lines:
        terminalreporter.section("celery beside manage.py prodserver")
        for line in lines:
            terminalreporter.line(line)


@pytest.fixture
def outcomes(record_property: Callable[[str, object], None]) -> Outcomes:
    return Outcomes(record_property)


@pytest.fixture
def broker(all_services: Services) -> Callable[[str, Path, ExitStack], Any]:
    """Find a broker by name; a site that stops its broker gets one of its own."""

    def find(name: str, folder: Path, stack: ExitStack) -> Any:
        server = all_services.server(name.partition(" ")[0])
        return Redis(folder, stack) if name == "redis of its own" else server

    return find


@pytest.fixture
def make_site(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    migrated: Path,
    broker: Callable[[str, Path, ExitStack], Any],
) -> Iterator[Callable[[str, str], Site]]:
    """Make a site for one side, with a database and a broker URL of its own."""
    with ExitStack() as stack:

        def make(side: str, name: str) -> Site:
            folder = tmp_path / str(len(list(tmp_path.glob(f"*/{side}")))) / side
            folder.mkdir(parents=True)
            shutil.copy(migrated, folder / "db.sqlite3")
            server = broker(name, folder, stack)
            site = Site(side, folder, stack, server.url(), server)
            if "threads" in request.node.name:  # no unit test has their guard
                site.trace()
            return site

        yield make
