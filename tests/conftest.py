"""A deployment for each test, and the servers that all tests share.

The package's own pytest plugin starts the processes under test.
"""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from dev.procfile import ROOT
from prodserver_celery5.pytest_plugin import ProdserverFixture

from .deployment import Deployment
from .services import Services

pytest_plugins = ["prodserver_celery5.pytest_plugin"]

# Folders whose tests start processes.
SLOW = ("behaviour", "processes")

# Files in them whose tests need the project's API.
WEB = ("test_procfile.py", "test_internet.py")

# Servers that take long to start; the names of their tests have the word.
HEAVY = ("mariadb", "rabbitmq")


@pytest.hookimpl(trylast=True)  # after the terminal's reporter
def pytest_configure(config: pytest.Config) -> None:
    if terminal := config.pluginmanager.get_plugin("terminalreporter"):
        config.pluginmanager.register(Failures(terminal))
    # A shell's background jobs ignore the first two, and `nohup` ignores SIGHUP. The
    # tests' processes would inherit that, and a beat would survive its SIGQUIT.
    for number, handler in (
        (signal.SIGINT, signal.default_int_handler),
        (signal.SIGQUIT, signal.SIG_DFL),
        (signal.SIGHUP, signal.SIG_DFL),
    ):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Let one of pytest's processes have all tests of a server that is heavy."""
    from xdist.scheduler import LoadScopeScheduling

    class ByServer(LoadScopeScheduling):  # type: ignore[misc] # xdist has no types
        def _split_scope(self, nodeid: str) -> str:
            name = nodeid.lower().replace("amqps", "rabbitmq")  # which is that with TLS
            return next((server for server in HEAVY if server in name), nodeid)

    return ByServer(config, log)


@pytest.hookimpl(trylast=True)  # after pytest-django, which puts its own first
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the slow ones, so that what is left to do is less than it looks."""
    items.sort(key=lambda item: item.path.parent.name not in SLOW)


class Failures:
    """Shows each failure when it happens, and not only at the end."""

    def __init__(self, terminal: pytest.TerminalReporter) -> None:
        self._terminal = terminal

    @pytest.hookimpl(trylast=True)  # after its letter
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self._terminal.ensure_newline()
            self._terminal.line(f"{report.nodeid} ({report.when}):", red=True)
            self._terminal.line(report.longreprtext)


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database as the release phase leaves it."""
    folder = tmp_path_factory.mktemp("migrated")
    with ExitStack() as stack:
        deployment = Deployment(folder, ProdserverFixture(ROOT, folder, stack))
        done = deployment.manage("migrate", "--noinput")
        assert done.returncode == 0, done.stderr
    return folder / "db.sqlite3"


@pytest.fixture(scope="session")
def all_services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    with ExitStack() as stack:
        yield Services(tmp_path_factory.mktemp, stack)


@pytest.fixture
def services() -> str:
    """The services that a deployment uses; tests parametrize it with others."""
    return "filesystem-sqlite"


@pytest.fixture
def deployment(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    migrated: Path,
    prodserver: ProdserverFixture,
    services: str,
    all_services: Services,
) -> Deployment:
    file = request.path.name
    api = request.path.parent.name != "processes" or file in WEB
    deployment = Deployment(tmp_path, prodserver, api=api)

    def migrate(url: str) -> None:
        deployment.env["DATABASE_URL"] = url
        done = deployment.manage("migrate", "--noinput")
        assert done.returncode == 0, done.stderr

    deployment.env |= all_services.env(services, migrate)
    if file == "test_procfile.py" and services == "filesystem-sqlite":
        deployment.trace()
    if "DATABASE_URL" not in deployment.env:
        shutil.copy(migrated, tmp_path / "db.sqlite3")
    return deployment
