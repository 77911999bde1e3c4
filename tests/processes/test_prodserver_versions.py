"""What the matrix does not run: another command, another release, its own backends.

`nox -s everything` unpacks the versions into the folder that PRODSERVER_VERSIONS names.
"""

from __future__ import annotations

import os
import urllib.request
from pathlib import Path

import pytest

from dev.procfile import free_port
from prodserver_celery5.pytest_plugin.process import DEADLINE
from tests.deployment import Deployment

pytestmark = pytest.mark.once

# The Procfile's `prodserver` runs on 2.2, 2.4 and 3.0 in the matrix.
COMMANDS = [("2.3.0", "prodserver"), ("3.0.0", "server"), ("3.0.0", "worker")]


@pytest.fixture
def use(deployment: Deployment):
    """Put a version of django-prodserver ahead of the installed one."""

    def use_version(version: str) -> None:
        unpacked = os.environ.get("PRODSERVER_VERSIONS")
        if not unpacked:
            pytest.skip("PRODSERVER_VERSIONS is not set; `nox -s everything` sets it")
        folder = Path(unpacked, version)
        assert folder.is_dir(), f"there is no {folder}"
        deployment.env["PYTHONPATH"] += os.pathsep + str(folder)
        printed = deployment.shell(
            "import importlib.metadata; print(importlib.metadata.version("
            "'django-prodserver'))"
        )
        assert printed == version

    return use_version


@pytest.mark.parametrize("process", ["worker", "beat"])
@pytest.mark.parametrize(("version", "command"), COMMANDS)
def test_our_backends_run(
    deployment: Deployment, use, version: str, command: str, process: str
) -> None:
    use(version)
    started = deployment.start(
        process, command=["python", "manage.py", command, process]
    )
    started.wait_until_ready()
    if process == "worker":
        deployment.shell("from tests.processes.tasks import write; write.delay('hi')")
        assert deployment.wait_for_notes(1) == ["hi"]
    assert started.stop() == 0


def test_web_runs_on_the_oldest(deployment: Deployment, use) -> None:
    use("2.2.0")
    port = free_port()
    deployment.env |= {"PORT": str(port), "WEB_CONCURRENCY": "1"}
    web = deployment.start("web")
    web.wait_until_ready()
    # gunicorn forgets a SIGTERM if its child is not ready for one.
    urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=DEADLINE).close()
    assert web.stop() == 0


@pytest.mark.parametrize(
    ("process", "backend", "error"),
    [
        ("worker", "CeleryWorker", "'str' object has no attribute 'loader'"),
        ("beat", "CeleryBeat", "'str' object has no attribute 'either'"),
    ],
)
def test_the_backends_of_2_4_fail_on_the_same_settings(
    deployment: Deployment, use, process: str, backend: str, error: str
) -> None:
    """Why this package exists: 2.4.0 passes strings to app.Worker and app.Beat."""
    use("2.4.0")
    deployment.configure(
        f"PRODUCTION_PROCESSES[{process!r}].update(\n"
        f"    BACKEND='django_prodserver.backends.celery.{backend}',\n"
        "    APP='prayer_room_api.celery.app',\n"
        ")\n"
    )
    done = deployment.manage("prodserver", process)
    assert done.returncode == 1
    assert f"AttributeError: {error}" in done.stderr

    ours = f"prodserver_celery5.backends.{backend}"
    deployment.configure(
        f"PRODUCTION_PROCESSES[{process!r}].update(\n"
        f"    BACKEND={ours!r}, APP='prayer_room_api.celery.app'\n"
        ")\n"
    )
    started = deployment.start(process)
    started.wait_until_ready()
    assert started.stop() == 0
