"""
A Celery app and a project around it, for tests that need no broker.

All of Celery is real except its last step: what would run until a signal comes
ends at once, with a status of its own.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from celery import Celery

import django_prodserver

STATUS = 42
ROOT = Path(__file__).resolve().parent.parent
SOURCE = Path(django_prodserver.__file__).parent.parent

app = Celery("tests", broker="memory://", set_as_current=False)


class FakeWorker:
    """Keeps its keyword arguments, says what is loaded, and ends."""

    kwargs: dict[str, Any]
    exitcode = 0

    def __init__(self, **kwargs: Any) -> None:
        FakeWorker.kwargs = kwargs

    def start(self) -> None:
        """End as a worker does whose blueprint has been stopped with a status."""
        monkey = sys.modules.get("gevent.monkey")
        eventlet = sys.modules.get("eventlet.patcher")
        if os.environ.get("TELL"):
            print(
                {
                    "celery command": "celery.bin.celery" in sys.modules,
                    "gevent": bool(monkey and monkey.is_module_patched("socket")),
                    "eventlet": bool(eventlet and eventlet.is_monkey_patched("socket")),
                    "pid": os.getpid(),
                    "dev mode": sys.flags.dev_mode,
                }
            )
        self.exitcode = STATUS


class FakeBeat(FakeWorker):
    """Is to Celery's beat what FakeWorker is to its worker."""

    def run(self) -> None:
        """End with a status, as click has it."""
        from click.exceptions import Exit

        self.start()
        raise Exit(self.exitcode)


app.Worker = FakeWorker
app.Beat = FakeBeat

# An app with nothing replaced.
real_app = Celery("tests", broker="memory://", set_as_current=False)


def manage(
    folder: Path, processes: dict[str, Any], *words: str, **env: str
) -> tuple[int, int, str]:
    """
    Run a manage.py of a project with these processes, to its end.

    Returns:
        The pid, the exit status, and the output.

    """
    script = folder / "manage.py"
    script.write_text(
        "from django.conf import settings\n"
        "from django.core.management import execute_from_command_line\n"
        "import sys\n"
        "settings.configure(\n"
        "    INSTALLED_APPS=['django_prodserver'],\n"
        f"    PRODUCTION_PROCESSES={processes!r},\n"
        ")\n"
        "execute_from_command_line(sys.argv)\n"
    )
    path = os.pathsep.join([str(SOURCE), str(ROOT)])
    # The program and its arguments are the test's own.
    process = subprocess.Popen(  # noqa: S603 - see above
        [sys.executable, "-X", "dev", str(script), *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path, "TELL": "1", **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    output, _ = process.communicate(timeout=60)
    return process.pid, process.returncode, output
