"""Start the processes of PRODUCTION_PROCESSES for real, in tests of one's own project.

In ``conftest.py``: ``pytest_plugins = ["prodserver_celery5.pytest_plugin"]``. Then::

    def test_a_task(prodserver):
        prodserver("worker")
        send_invoice.delay(1)
        …
"""

from __future__ import annotations

import os
import sys
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from .process import Process

__all__ = ("ProdserverFixture", "prodserver")

# What a process says, at log level INFO, when it is ready.
_READY = {
    "CeleryWorker": r"\S+ ready\.",
    "CeleryBeat": r"beat: Starting",
    "GunicornServer": r"Booting worker",
}
_STARTED = pytest.StashKey[list[Process]]()


class ProdserverFixture:
    """Starts processes, and ends each with its group when the test ends.

    Args:
        folder: the folder of manage.py, in which processes start.
        logs: the folder for what they write.
        stack: what ends them.
        started: takes each process that was started.
    """

    def __init__(
        self, folder: Path, logs: Path, stack: ExitStack, started: list[Process]
    ) -> None:
        self.folder = folder
        self._logs = logs
        self._stack = stack
        self._started = started

    def __call__(
        self,
        name: str,
        *,
        ready: str | None = None,
        timeout: float = 30,
        env: Mapping[str, str] | None = None,
    ) -> Process:
        """Start ``manage.py prodserver NAME`` and wait until it is ready.

        Args:
            name: a key of PRODUCTION_PROCESSES.
            ready: a regular expression: what the process writes when it is ready. By
                default what a worker, beat or gunicorn writes at log level INFO.
            timeout: how long to wait, in seconds.
            env: the whole environment of the process, if not that of the tests.

        Raises:
            ProcessError: the process ended, or was not ready in time.
        """
        process = self.start(name, ["manage.py", "prodserver", name], env=env)
        process.wait_for(ready or _ready(name), timeout=timeout)
        return process

    def start(
        self, name: str, words: Sequence[str], *, env: Mapping[str, str] | None = None
    ) -> Process:
        """Start Python with other words, and wait for nothing.

        Args:
            name: of the log.
            words: what stands behind ``python`` on the command line.
            env: as above.
        """
        process = Process(
            [sys.executable, *words],
            log=self._logs / f"{name}.log",
            cwd=self.folder,
            env=os.environ if env is None else env,
        )
        self._started.append(self._stack.enter_context(process))
        return process


def _ready(name: str) -> str:
    from django.conf import settings

    backend = settings.PRODUCTION_PROCESSES[name]["BACKEND"]
    return _READY[backend.rpartition(".")[2]]


@pytest.fixture
def prodserver(
    request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[ProdserverFixture]:
    """Start processes of the project under test; see `ProdserverFixture`."""
    started = request.node.stash.setdefault(_STARTED, [])
    with ExitStack() as stack:
        yield ProdserverFixture(request.config.rootpath, tmp_path, stack, started)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show what the processes wrote when a test fails."""
    report = yield
    if report.failed:
        for process in item.stash.get(_STARTED, []):
            report.sections.append((" ".join(process.command), process.output))
    return report
