"""Measures what each django-prodserver does with Celery, as a table of UPSTREAM.md."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from prodserver_celery5.pytest_plugin.process import ProcessError, StartedProcess

__all__ = ("CHECKS", "table")

FILES = {
    "manage.py": """
import os, sys
os.environ["DJANGO_SETTINGS_MODULE"] = "proj.settings"
from django.core.management import execute_from_command_line
execute_from_command_line(sys.argv)
""",
    "proj/__init__.py": "from .celery import app",
    "proj/settings.py": """
import json, os
SECRET_KEY = "only-for-tests"
INSTALLED_APPS = ["django_prodserver"]
PRODUCTION_PROCESSES = json.loads(os.environ["PROCESSES"])
""",
    "proj/celery.py": """
import os, time
from celery import Celery
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "proj.settings")
app = Celery("proj", broker="filesystem://", set_as_current=True)
app.conf.broker_transport_options = {
    "data_folder_in": "messages", "data_folder_out": "messages",
    "control_folder": "control",
}
app.conf.task_ignore_result = True
app.conf.worker_hijack_root_logger = True
@app.task
def nap():
    time.sleep(0.2)
    with open("notes", "a") as notes:
        notes.write("nap\\n")
""",
}


@dataclass
class Deployment:
    """A small project on one version of django-prodserver.

    Args:
        folder: where the project is.
        source: the folder that has the package.
    """

    folder: Path
    source: Path
    count: int = 0

    @property
    def is_3(self) -> bool:
        """Whether it has the commands of 3.0.0."""
        return (self.source / "django_prodserver/backends/workers").exists()

    @property
    def command(self) -> str:
        """The command that is meant for workers."""
        return "worker" if self.is_3 else "prodserver"

    def has(self, backend: str) -> bool:
        """Whether the version has a backend."""
        place = "workers/celery.py" if self.is_3 else "celery.py"
        code = self.source / "django_prodserver/backends" / place
        return f"class {backend}" in code.read_text()

    @contextmanager
    def start(
        self, command: str, backend: str = "CeleryWorker", **args: object
    ) -> Iterator[StartedProcess]:
        """Start `manage.py COMMAND proc` on an entry with these ARGS."""
        self.count += 1
        module = "workers.celery" if self.is_3 else "celery"
        args = {name.replace("_", "-"): value for name, value in args.items()}
        entry = {
            "BACKEND": f"django_prodserver.backends.{module}.{backend}",
            "APP": "proj.celery.app",
            "ARGS": {"loglevel": "INFO", **args},
        }
        env = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(self.source),
            "PROCESSES": json.dumps({"proc": entry}),
        }
        words = [sys.executable, "manage.py", command, "proc"]
        log = self.folder / f"{self.count}.log"
        with StartedProcess(words, log=log, cwd=self.folder, env=env) as process:
            yield process


def _starts(
    command: str | None, backend: str, said: str, **args: object
) -> Callable[[Deployment], str]:
    def check(deployment: Deployment) -> str:
        if not deployment.has(backend):
            return "no backend"
        name = command or deployment.command
        if name == "worker" and not deployment.is_3:
            return "no command"
        with deployment.start(name, backend, **args) as process:
            try:
                process.wait_for(said, timeout=60)
            except ProcessError:
                return f"**no** {_error(process)}"
            return "yes" if process.stop(timeout=15) == 0 else "**no** end"

    return check


def _error(process: StartedProcess) -> str:
    """The last line of the output, in short."""
    lines = [line for line in process.output.splitlines() if line.strip()]
    for line in reversed(lines):
        if "Error" in line and "Deprecation" not in line:
            return f"`{line.strip()}`"
    return f"`{lines[-1].strip()[:90]}`" if lines else "nothing said"


def _status(deployment: Deployment) -> str:
    (deployment.folder / "in-use.pid").write_text(f"{os.getpid()}\n")
    with deployment.start(deployment.command, pidfile="in-use.pid") as process:
        status = process.wait()
        started = "already" in process.output
    if not started:
        return "does not start"
    return "73" if status == 73 else f"**{status}**"


def _mistake(deployment: Deployment) -> str:
    with deployment.start(deployment.command, concurency=2) as process:
        status = process.wait()
        lines = [
            line
            for line in process.output.splitlines()
            if line.strip() and not line.startswith(("Starting", "Deprecation"))
        ]
    if "concurency" not in lines[-1]:
        return "does not start"
    text = f"{len(lines)} line{'s' * (len(lines) != 1)}, status {status}"
    return text if len(lines) == 1 else f"**{text}**"


def _naps(deployment: Deployment) -> str:
    for name in ("messages", "control"):
        (deployment.folder / name).mkdir(exist_ok=True)
    code = "from proj.celery import nap\nfor _ in range(100): nap.delay()"
    env = {**os.environ, "PROCESSES": "{}"}
    subprocess.run(
        [sys.executable, "-c", code], cwd=deployment.folder, env=env, check=True
    )
    notes = deployment.folder / "notes"
    notes.touch()
    with deployment.start(
        deployment.command, pool="gevent", concurrency="100"
    ) as process:
        done, since, limit = 0, None, time.monotonic() + 20
        while done < 100 and time.monotonic() < limit and process.popen.poll() is None:
            time.sleep(0.02)
            done = notes.read_text().count("nap")
            if since is None and ("ready." in process.output or done):
                since = time.monotonic()
        if since is None:
            return "does not start"
        took = time.monotonic() - since
        try:
            status = str(process.stop(signal.SIGTERM, timeout=5))
        except ProcessError:
            status = "none within 5 s"
    text = f"{done} of 100 in {took:.1f} s, SIGTERM: {status}"
    return text if (done, status) == (100, "0") else f"**{text}**"


READY = r"\S+ ready\."
CHECKS: dict[str, Callable[[Deployment], str]] = {
    "`manage.py prodserver proc` starts a worker": _starts(
        "prodserver", "CeleryWorker", READY
    ),
    "`manage.py worker proc` starts a worker": _starts("worker", "CeleryWorker", READY),
    "`manage.py prodserver proc` starts beat": _starts(
        "prodserver", "CeleryBeat", "Waking up", loglevel="DEBUG"
    ),
    "`manage.py worker proc` starts beat": _starts(
        "worker", "CeleryBeat", "Waking up", loglevel="DEBUG"
    ),
    '`"pidfile"` in use: the exit status (`celery worker`: 73)': _status,
    '`"queues": ["a", "b"]`': _starts(
        None, "CeleryWorker", r"exchange=b\((.|\n)*ready\.", queues=["a", "b"]
    ),
    '`"without-gossip": True`': _starts(
        None, "CeleryWorker", READY, without_gossip=True
    ),
    '`"concurrency": None`': _starts(None, "CeleryWorker", READY, concurrency=None),
    '`"concurency": 2`, misspelt': _mistake,
    '`"pool": "gevent", "concurrency": "100"`: 100 tasks of 0.2 s': _naps,
}


def table(sources: dict[str, Path]) -> str:
    """Measure each version, and return a table in Markdown.

    Args:
        sources: for each column the folder that has the package.
    """
    rows = [["", *sources], ["---"] * (len(sources) + 1)]
    rows += [[name] for name in CHECKS]
    for source in sources.values():
        for row, check in zip(rows[2:], CHECKS.values(), strict=True):
            with tempfile.TemporaryDirectory() as folder:
                for name, text in FILES.items():
                    file = Path(folder, name)
                    file.parent.mkdir(exist_ok=True)
                    file.write_text(text.lstrip())
                for name in ("messages", "control"):
                    Path(folder, name).mkdir()
                row.append(check(Deployment(Path(folder), source)))
    notes: list[str] = []
    for row in rows[2:]:
        row[1:] = [_noted(cell, notes) for cell in row[1:]]
    lines = [f"| {' | '.join(row)} |\n" for row in rows]
    lines += [f"\n{number}. {note}" for number, note in enumerate(notes, 1)]
    return "".join(lines)


def _noted(cell: str, notes: list[str]) -> str:
    """Put an error into the notes below the table, once."""
    text, quote, error = cell.partition("`")
    if not quote:
        return cell
    if quote + error not in notes:
        notes.append(quote + error)
    return f"{text}({notes.index(quote + error) + 1})"
