"""A deployment of the example project in a temporary folder."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil

from dev.procfile import ROOT, commands
from dev.waiting import wait_until
from prodserver_celery5.pytest_plugin import ProdserverFixture
from prodserver_celery5.pytest_plugin.process import DEADLINE, StartedProcess

__all__ = (
    "Deployment",
    "is_alive",
    "stop_asleep",
    "wait_until",
    "wait_until_asleep",
)

# Nothing else: tests must not depend on the environment of the machine.
INHERITED = ("LANG", "PATH", "TMPDIR")

# A start takes three tenths less CPU without the API, which only web's tests need.
WITHOUT_API = (
    'INSTALLED_APPS.remove("rest_framework")\nROOT_URLCONF = "tests.processes.urls"\n'
)


class Deployment:
    """The example project with its own database and broker.

    Args:
        folder: for its database, its settings, its notes and its logs.
        prodserver: starts its processes.
        api: whether the project has its API.
    """

    def __init__(
        self, folder: Path, prodserver: ProdserverFixture, *, api: bool = True
    ) -> None:
        self.folder = folder
        self._api = api
        self._prodserver = prodserver
        self.notes_file = folder / "notes"
        self.gate = folder / "gate"
        self.outbox = folder / "outbox"
        self.settings_file = folder / "deployed_settings.py"
        self.configure("")
        self.env = {
            **{name: os.environ[name] for name in INHERITED if name in os.environ},
            "ALLOWED_HOSTS": "127.0.0.1",
            "DATA_DIR": str(folder),
            "DJANGO_SETTINGS_MODULE": "deployed_settings",
            "GATE": str(self.gate),
            "HOME": str(folder),
            "HOST": "127.0.0.1",
            "NOTES": str(self.notes_file),
            "PYTHONPATH": str(folder),
            "SECRET_KEY": "only-for-tests",
            "WORKER_CONCURRENCY": "1",
        }

    def trace(self) -> None:
        """Measure the coverage of processes; that takes twice the CPU.

        Few tests need it: nearly every line that a process runs has a unit test.
        """
        name = "COVERAGE_PROCESS_CONFIG"
        if name in os.environ:
            self.env[name] = os.environ[name]

    def configure(self, code: str) -> None:
        """Write settings: the project's own, then some code that changes them.

        LEADER_LOCK leaves beat's entry: most tests want a beat like `celery beat`.
        Messages that `shell` writes as files reach the workers whole.
        """
        self.settings_file.write_text(
            "from prayer_room_api.settings import *\n"
            f"{'' if self._api else WITHOUT_API}"
            'CELERY_IMPORTS = ("tests.processes.tasks",)\n'
            'PRODUCTION_PROCESSES["beat"]["ARGS"]["loglevel"] = "DEBUG"\n'
            'LEADER_LOCK = PRODUCTION_PROCESSES["beat"].pop("LEADER_LOCK")\n'
            "import os\n"
            "if 'OUTBOX' in os.environ and CELERY_BROKER_URL == 'filesystem://':\n"
            "    outbox = {'data_folder_out': os.environ['OUTBOX']}\n"
            "    CELERY_BROKER_TRANSPORT_OPTIONS |= outbox\n" + code
        )

    def start(self, name: str, *, command: list[str] | None = None) -> StartedProcess:
        """Start a process of the Procfile, or another command."""
        python, *words = command or commands()[name]
        assert python in ("python", sys.executable)
        return self._prodserver.start(name, words, env=self.env)

    def manage(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run manage.py to completion."""
        return self._python("manage.py", *words)

    def _python(self, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *words],
            cwd=ROOT,
            env=self.env | env,
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            check=False,
        )

    def shell(self, code: str) -> str:
        """Run Python code in the project and return its output."""
        # kombu's transport of files raises, and ends the worker, if it reads a message
        # that is only half written.
        self.outbox.mkdir(exist_ok=True)
        done = self._python(
            "-c", f"import django; django.setup()\n{code}", OUTBOX=str(self.outbox)
        )
        inbox = Path(self.env["DATA_DIR"], "broker", "messages")
        for message in sorted(self.outbox.iterdir()):
            message.rename(inbox / message.name)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def notes(self) -> list[str]:
        """What the tasks have written."""
        return (
            self.notes_file.read_text().splitlines() if self.notes_file.exists() else []
        )

    def wait_for_notes(self, count: int, timeout: float = DEADLINE) -> list[str]:
        return wait_until(lambda: len(n := self.notes()) >= count and n, timeout)


def is_alive(process: psutil.Process) -> bool:
    """Whether a process runs; a dead one that nobody waits for remains as a zombie."""
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def wait_until_asleep(process: StartedProcess, timeout: float = DEADLINE) -> None:
    """Wait until a process has slept for half a second."""
    asked = psutil.Process(process.pid)

    def rests() -> bool:
        for _ in range(10):
            if asked.status() != psutil.STATUS_SLEEPING:
                return False
            time.sleep(0.05)
        return True

    wait_until(rests, timeout)


def stop_asleep(beat: StartedProcess) -> int:
    """Stop a once-a-second beat while it sleeps, and return its exit status.

    A SIGTERM that arrives while it sends can be lost, as with `celery beat`.
    """
    sleeps = "beat: Waking up"
    beat.wait_for(sleeps, count=beat.output.count(sleeps) + 1)
    return beat.stop()
