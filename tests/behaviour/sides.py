"""The example project, run by ``celery`` or by ``manage.py prodserver``."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from celery import Celery

from dev.procfile import ROOT
from prodserver_celery5.pytest_plugin import ProdserverFixture
from prodserver_celery5.pytest_plugin.process import DEADLINE, StartedProcess
from tests.deployment import Deployment, wait_until, wait_until_asleep

__all__ = ("READY", "SIDES", "Site", "both", "title")

SIDES = ("celery", "prodserver")

READY = r"\S+ ready\."

# Apps that cost CPU at each start, and that one scenario alone has a use for.
UNUSED = ("django.contrib.admin", "django_celery_beat")


class Site(Deployment):
    """A deployment whose processes are run by one of the two sides.

    Args:
        side: ``"celery"`` or ``"prodserver"``.
        folder: for its database, its settings, its notes and its logs.
        stack: ends its processes.
        broker: the URL of a broker that no other site uses.
        server: the server behind that URL.
    """

    def __init__(
        self, side: str, folder: Path, stack: ExitStack, broker: str, server: Any
    ) -> None:
        self.side = side
        self.broker = broker
        self.server = server
        self._code = ""
        self._entries: dict[str, Mapping[str, Any]] = {}
        self._stack = stack
        super().__init__(folder, ProdserverFixture(ROOT, folder, stack), api=False)
        self.env["REDIS_URL"] = broker

    def configure(self, code: str) -> None:
        """Write the settings: the project's own, changed by some code."""
        self._code = code
        entries = "".join(
            f"PRODUCTION_PROCESSES[{program!r}]['ARGS'] = {dict(args)!r}\n"
            for program, args in self._entries.items()
        )
        super().configure(
            f"INSTALLED_APPS = [n for n in INSTALLED_APPS if n not in {UNUSED}]\n"
            "CELERY_IMPORTS = ('tests.behaviour.tasks',)\n"
            # Celery says so of a child that is late, and kills it.
            f"CELERY_WORKER_PROC_ALIVE_TIMEOUT = 60\n{entries}{code}"
        )

    def words(self, program: str, **args: Any) -> list[str]:
        """Return the arguments for Python that start this side's worker or beat.

        Args:
            program: ``"worker"`` or ``"beat"``.
            **args: ARGS, with underscores.
        """
        args = {"loglevel": "INFO", **args}
        args = {k: str(v) if isinstance(v, Path) else v for k, v in args.items()}
        if program == "beat":
            # The default scheduler's file would land in the project's folder.
            args.setdefault("schedule", str(self.folder / "schedule"))
        if self.side == "celery":
            script = str(Path(sys.executable).with_name("celery"))
            return [script, "--app=prayer_room_api", program, *_spelled(args)]
        self._entries[program] = args
        self.configure(self._code)
        return ["manage.py", "prodserver", program]

    def start_command(
        self, command: Sequence[str], cwd: Path = ROOT, name: str = "worker"
    ) -> StartedProcess:
        """Start a command.

        Args:
            command: its words.
            cwd: the folder it starts in.
            name: of the log.
        """
        log = self.folder / f"{name}.log"
        process = StartedProcess(command, log=log, cwd=cwd, env=self.env)
        return self._stack.enter_context(process)

    def run(
        self,
        program: str,
        *,
        python: Sequence[str] = (),
        wrapper: Sequence[str] = (),
        **args: Any,
    ) -> StartedProcess:
        """Start this side's worker or beat.

        Args:
            program: ``"worker"`` or ``"beat"``.
            python: flags of the interpreter.
            wrapper: a program that runs the command.
            **args: ARGS, with underscores.
        """
        words = self.words(program, **args)
        command = [*wrapper, sys.executable, *python, *words]
        return self.start_command(command, name=program)

    def ready(self, program: str = "worker", **args: Any) -> StartedProcess:
        """Start a worker or beat, and wait until it is ready."""
        process = self.run(program, **args)
        at_work = READY if program == "worker" else r"beat: Starting"
        process.wait_for(at_work)
        return process

    def logs(self) -> str:
        """Return the end of each log of the site's processes and its own broker."""
        return "\n".join(
            f"--- {self.side}: {log.name}\n"
            + "\n".join(log.read_text(errors="replace").splitlines()[-200:])
            for log in sorted(self.folder.glob("*.log"))
        )

    def app(self) -> Celery:
        """Return a Celery client for the site's broker."""
        return Celery("client", broker=self.broker, set_as_current=False)

    def send(self, task: str, *calls: Iterable[Any]) -> list[str]:
        """Send a test task once for each tuple of arguments; return the ids."""
        name = f"tests.behaviour.tasks.{task}"
        with (
            self.app() as app,
            app.connection_for_write() as connection,
            app.amqp.Producer(connection) as producer,
        ):
            return [
                app.send_task(name, args=tuple(call), producer=producer).id
                for call in calls
            ]

    def waiting(self) -> int:
        """Count the queued messages; on Redis, the unacknowledged ones, too."""
        with self.app() as app, app.connection_for_write() as connection:
            channel = connection.default_channel
            if self.broker.startswith("redis:"):
                client = channel.client
                return int(client.llen("celery") + client.hlen("unacked"))
            queue = channel.queue_declare("celery", passive=True)
            return int(queue.message_count)

    def done(self, word: str = "ended ") -> set[str]:
        """Return the notes that begin with a word."""
        return {note for note in self.notes() if note.startswith(word)}

    def wait_until_under_way(self, worker: StartedProcess, count: int) -> None:
        """Wait until that many tasks have begun and the worker sleeps.

        It learns of a task's start a moment later; what a cold shutdown does before
        then is a matter of chance, on both sides.
        """
        self.wait_until(lambda: len(self.done("began ")) == count)
        wait_until_asleep(worker)

    def end(self, process: StartedProcess, number: int) -> dict[str, Any]:
        """Signal the process alone; return its status and how long it took to end."""
        began = time.monotonic()
        process.send(number)
        return self.ended(process, began)

    def end_idle(self, process: StartedProcess) -> dict[str, Any]:
        """Wait until the process sleeps, and end it with SIGTERM.

        Up to Celery 5.2 the handler raises wherever the signal finds the worker: if it
        is reading a result just then, it may wait for ever, on both sides.
        """
        wait_until_asleep(process)
        return self.end(process, signal.SIGTERM)

    def ended(self, process: StartedProcess, began: float) -> dict[str, Any]:
        """Wait for the end; return the status and the time since `began`."""
        status = process.wait()
        return {"status": status, "seconds": time.monotonic() - began}

    def fails(self, program: str, **args: Any) -> dict[str, Any]:
        """Start what ends by itself; return its status and how long it took."""
        began = time.monotonic()
        return self.ended(self.run(program, **args), began)

    def children(self, process: StartedProcess) -> set[int]:
        """Return the pids of the pool's children."""
        path = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        return {int(pid) for pid in path.read_text().split()}

    def wait_until(self, condition: Any, timeout: float = DEADLINE) -> Any:
        """Wait until a condition is true, and return it."""
        return wait_until(condition, timeout)


def both(act: Callable[[Site], Any], sites: Iterable[Site]) -> list[Any]:
    """Act at all sites at once, and return the outcomes.

    A failure names the sides that failed, with their logs.
    """

    def attempt(site: Site) -> tuple[Any, str]:
        try:
            return act(site), ""
        except Exception as exc:
            what = f"{type(exc).__name__}: {exc}"
            return None, f"with {site.side}: {what}\n{site.logs()}"

    with ThreadPoolExecutor() as pool:
        outcomes = list(pool.map(attempt, sites))
    assert not any(error for _, error in outcomes), "\n".join(
        error for _, error in outcomes
    )
    return [outcome for outcome, _ in outcomes]


def _spelled(args: Mapping[str, Any]) -> list[str]:
    """Spell ARGS as an operator would type them."""
    words = []
    for key, value in args.items():
        option = f"--{key.replace('_', '-')}"
        words.append(option if value is True else f"{option}={value}")
    return words


def title(pid: int) -> str:
    """Return what `ps` shows for a process."""
    raw = Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0")
    return os.fsdecode(raw.replace(b"\0", b" "))
