"""Start the processes of PRODUCTION_PROCESSES for real, in tests of one's own project.

In ``conftest.py``: ``pytest_plugins = ["prodserver_celery5.pytest_plugin"]``. Then::

    def test_a_task(prodserver):
        prodserver("worker")
        send_invoice.delay(1)
        …

It has no assert statements, and a ``conftest.py`` may import it for its annotations
before pytest loads it: PYTEST_DONT_REWRITE.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from .process import DEADLINE, StartedProcess

__all__ = ("ProdserverFixture", "prodserver")


class ProdserverFixture:
    """Starts processes, and ends each with its group when the test ends.

    Args:
        folder: the folder of manage.py, in which processes start.
        logs: the folder for what they write.
        stack: what ends them.
    """

    def __init__(self, folder: Path, logs: Path, stack: ExitStack) -> None:
        self.folder = folder
        self.started: list[StartedProcess] = []
        self._logs = logs
        self._stack = stack

    def __call__(
        self,
        name: str,
        *,
        ready: str | None = None,
        timeout: float = DEADLINE,
        env: Mapping[str, str] | None = None,
    ) -> StartedProcess:
        """Start ``manage.py prodserver NAME`` and wait until it is ready.

        Args:
            name: a key of PRODUCTION_PROCESSES.
            ready: a regular expression for what the process writes when it is ready; by
                default what a worker, beat or gunicorn says on ``NOTIFY_SOCKET``.
            timeout: how long to wait, in seconds.
            env: the whole environment of the process, if not the tests'.

        Raises:
            ProcessError: the process ended, or was not ready in time.
            ValueError: there is no such process.
        """
        from django.conf import settings

        if name not in settings.PRODUCTION_PROCESSES:
            raise ValueError(f"{name!r} is not a key of PRODUCTION_PROCESSES.")
        process = self.start(name, ["manage.py", "prodserver", name], env=env)
        if ready is None:
            process.wait_until_ready(timeout=timeout)
        else:
            process.wait_for(ready, timeout=timeout)
        return process

    def start(
        self, name: str, words: Sequence[str], *, env: Mapping[str, str] | None = None
    ) -> StartedProcess:
        """Start Python with other words, and wait for nothing.

        Args:
            name: the log's name.
            words: what follows ``python`` on the command line.
            env: the whole environment of the process, if not the tests'.
        """
        process = StartedProcess(
            [sys.executable, *words],
            log=self._logs / f"{name}.log",
            cwd=self.folder,
            env=os.environ if env is None else env,
            notify=True,
        )
        self.started.append(self._stack.enter_context(process))
        return process


_FIXTURE = pytest.StashKey[ProdserverFixture]()


@pytest.fixture
def prodserver(
    request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[ProdserverFixture]:
    """Start processes of the project under test; see `ProdserverFixture`."""
    with ExitStack() as stack:
        fixture = ProdserverFixture(request.config.rootpath, tmp_path, stack)
        request.node.stash[_FIXTURE] = fixture
        yield fixture


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show what the processes wrote when a test fails."""
    report = yield
    if report.failed and _FIXTURE in item.stash:
        for process in item.stash[_FIXTURE].started:
            report.sections.append((" ".join(process.command), process.output))
    return report
