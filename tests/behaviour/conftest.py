"""Both sides of each scenario, the brokers they use, and the table of what came out."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.processes.conftest import migrated

from .outcomes import Outcomes
from .servers import RabbitMQ, Redis
from .sides import Site

__all__ = ("migrated",)

OUTCOMES = pytest.StashKey[Outcomes]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[OUTCOMES] = Outcomes()


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    lines = config.stash[OUTCOMES].table()
    if lines:
        terminalreporter.section("celery beside manage.py prodserver")
        for line in lines:
            terminalreporter.line(line)


@pytest.fixture(scope="session")
def outcomes(pytestconfig: pytest.Config) -> Outcomes:
    return pytestconfig.stash[OUTCOMES]


def _serve(
    kind: type[Redis] | type[RabbitMQ], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Any]:
    if kind.program is None:
        reason = f"there is no {kind.__name__} server on this machine"
        # There, a skipped comparison would be taken for a passed one.
        (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)
    with ExitStack() as stack:
        yield kind(tmp_path_factory.mktemp(kind.__name__.lower()), stack)


@pytest.fixture(scope="session")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    yield from _serve(Redis, tmp_path_factory)


@pytest.fixture(scope="session")
def rabbitmq(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitMQ]:
    yield from _serve(RabbitMQ, tmp_path_factory)


@pytest.fixture
def broker(request: pytest.FixtureRequest) -> Callable[[str, Path, ExitStack], Any]:
    """Find a broker by name; one of its own for a site that will end it."""

    def find(name: str, folder: Path, stack: ExitStack) -> Any:
        if name == "redis of its own":
            request.getfixturevalue("redis")
            return Redis(folder, stack)
        return request.getfixturevalue(name)

    return find


@pytest.fixture
def make_site(
    tmp_path: Path, migrated: Path, broker: Callable[[str, Path, ExitStack], Any]
) -> Iterator[Callable[[str, str], Site]]:
    """Make the site of a side, with its database and its place at a broker."""
    with ExitStack() as stack:

        def make(side: str, name: str) -> Site:
            folder = tmp_path / side
            folder.mkdir()
            shutil.copy(migrated, folder / "db.sqlite3")
            server = broker(name, folder, stack)
            return Site(side, folder, stack, server.url(), server)

        yield make
