"""The package's pytest plugin, as a project uses it in its own tests."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from contextlib import suppress

import psutil
import pytest

from dev.procfile import ROOT
from tests.deployment import Deployment

pytestmark = pytest.mark.once

TESTS = """
import os
import pytest
pytest_plugins = ["prodserver_celery5.pytest_plugin"]

def test_that_passes(prodserver):
    worker = prodserver("worker")
    print("worker", worker.pid)
    assert worker.stop() == 0

def test_that_fails(prodserver):
    worker = prodserver("worker", env={**os.environ, "WORKER_CONCURRENCY": "2"})
    print("worker", worker.pid)
    assert False

def test_what_never_comes(prodserver):
    prodserver("worker", ready="no such words", timeout=1)

def test_a_process_that_cannot_start(prodserver):
    prodserver("worker", env={**os.environ, "WORKER_CONCURRENCY": "-1"})

def test_one_after_the_other(prodserver):
    for _ in range(2):
        worker = prodserver("worker")
        assert worker.output.count("ready.") == 1
        assert worker.stop() == 0

def test_what_has_to_be_told(prodserver):
    with pytest.raises(ValueError, match="'wroker' is not a key"):
        prodserver("wroker")
"""


@pytest.fixture
def report(deployment: Deployment) -> str:
    """What pytest prints for a project's tests that start a worker."""
    tests = deployment.folder / "test_project.py"
    tests.write_text(TESTS)
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-rA",
            "-p",
            "no:cacheprovider",
            str(tests),
            f"--rootdir={ROOT}",
            "-c",
            "/dev/null",
            "-p",
            "no:django",
        ],
        cwd=ROOT,
        env=deployment.env,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    return done.stdout + done.stderr


def test_a_process_is_ready_shown_and_gone(report: str) -> None:
    assert re.search("3 passed, 3 failed|3 failed, 3 passed", report)
    # The process's log is shown below the failed test.
    assert re.search(r"-+ \S*python\S* manage.py prodserver worker -", report)
    assert "--concurrency=2" in report
    assert "took longer than 1 s; awaited: no such words" in report
    assert "ended with 1; awaited" in report
    pids = [int(pid) for pid in re.findall(r"^worker (\d+)$", report, re.MULTILINE)]
    assert len(set(pids)) == 2
    assert not any(map(psutil.pid_exists, pids))
    groups = set()
    for process in psutil.process_iter(["status"]):
        if process.info["status"] != psutil.STATUS_ZOMBIE:
            # A process may end meanwhile.
            with suppress(ProcessLookupError):
                groups.add(os.getpgid(process.pid))
    assert not groups & set(pids)
