"""The Procfile, and its release phase."""

from __future__ import annotations

import random
import shlex
import socket
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from prodserver_celery5.pytest_plugin.process import StartedProcess

ROOT = Path(__file__).resolve().parent.parent

__all__ = ("ROOT", "commands", "free_port", "release")


def commands() -> dict[str, list[str]]:
    """Return the Procfile's commands, by process."""
    lines = (ROOT / "Procfile").read_text().splitlines()
    pairs = (line.partition(":") for line in lines if line.strip())
    return {name: shlex.split(command) for name, _, command in pairs}


def free_port() -> int:
    """Find a free port on the loopback interface.

    It is below those that the system gives to outgoing connections: one of them could
    take it before the server does.
    """
    while True:
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", random.randrange(10_000, 32_768)))
            return int(probe.getsockname()[1])


def release(env: Mapping[str, str], log: Path) -> None:
    """Run the release phase, as a platform does before it starts the processes.

    Args:
        env: the environment of the processes.
        log: the file for the output, which is shown if the phase fails.
    """
    with StartedProcess(commands()["release"], log=log, cwd=ROOT, env=env) as process:
        # Without a timeout: migrations take as long as they take.
        status = process.popen.wait()
    if status:
        print(process.output, file=sys.stderr)
        sys.exit(status)
