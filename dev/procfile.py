"""The processes of the Procfile, started as a platform starts them."""

from __future__ import annotations

import os
import shlex
import signal
import socket
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from prodserver_celery5.pytest_plugin.process import StartedProcess

ROOT = Path(__file__).resolve().parent.parent

__all__ = ("ROOT", "commands", "free_port", "release", "serve")


def commands() -> dict[str, list[str]]:
    """Read the Procfile: each process with its command."""
    lines = (ROOT / "Procfile").read_text().splitlines()
    pairs = (line.partition(":") for line in lines if line.strip())
    return {name: shlex.split(command) for name, _, command in pairs}


def free_port() -> int:
    """Find a port of the loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def release(env: Mapping[str, str], log: Path | None = None) -> None:
    """Run the release phase, as a platform does before it starts the processes.

    Args:
        env: the environment of the processes.
        log: the file that takes the output; ``None`` for the terminal.
    """
    with StartedProcess(commands()["release"], log=log, cwd=ROOT, env=env) as process:
        # As long as migrations take.
        status = process.popen.wait()
    if status:
        sys.exit(status)


def serve() -> int:
    """Run all processes until Ctrl-C or SIGTERM, or until one of them ends.

    Each is signalled alone: SIGTERM to a whole group, as other process managers
    send it, ends the worker's children in the midst of their tasks.
    """
    env = dict(os.environ)
    port = env.setdefault("PORT", "8000")
    env.setdefault("HOST", "127.0.0.1")
    release(env)
    asked: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: asked.append(number))
    with ExitStack() as stack:
        running = {
            name: stack.enter_context(
                StartedProcess(command, log=None, cwd=ROOT, env=env)
            )
            for name, command in commands().items()
            if name != "release"
        }
        print(
            f"\n  http://127.0.0.1:{port}/              what runs here\n"
            f"  http://127.0.0.1:{port}/admin/       after:"
            " nox -s manage -- createsuperuser\n"
            f"  http://127.0.0.1:{port}/api/requests/ the approved requests; to post"
            " one:\n"
            f'    curl --json \'{{"text": "For my neighbour"}}\''
            f" http://127.0.0.1:{port}/api/requests/\n"
            "  Ctrl-C ends web, worker and beat.\n",
            flush=True,
        )

        def ended() -> list[bool]:
            return [process.popen.poll() is not None for process in running.values()]

        while not asked and not any(ended()):
            time.sleep(0.2)
        for process in running.values():
            if process.popen.poll() is None:
                process.send(signal.SIGTERM)
        # Tasks may be finished, until nox would kill: see the noxfile.
        deadline = time.monotonic() + 55
        while not all(ended()) and time.monotonic() < deadline:
            time.sleep(0.2)
    statuses = {name: process.popen.returncode for name, process in running.items()}
    print(", ".join(f"{name} ended with {s}" for name, s in statuses.items()))
    return 0 if asked and not any(statuses.values()) else 1


if __name__ == "__main__":
    sys.exit(serve())
