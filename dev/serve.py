"""Runs the Procfile's web, worker and beat in your terminal until Ctrl-C.

Not honcho: it signals process groups, which ends the worker's children in the middle of
their tasks, and it kills after five seconds.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import socket
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO, TextIO

from dev.mails import Mailbox, show
from dev.procfile import ROOT, commands
from prodserver_celery5.pytest_plugin.process import StartedProcess

# From the terminal's own palette, so that they suit light and dark themes.
COLOURS = (36, 33, 32, 35, 34)
# Seconds to wait for a stop, fewer than nox waits (see the noxfile), and for a start.
PATIENCE, START = 55, 15
READY = {"worker": " ready.", "beat": "beat: Starting"}
# django-prodserver 3 prints this at each start. The Procfile keeps the old command on
# purpose: it works on django-prodserver 2 too.
KNOWN = "DeprecationWarning: The `prodserver` management command is deprecated"


class Output:
    """Shows the output of several processes, each line after its process's name.

    Args:
        names: of all processes, for the width and the colours.
        terminal: where to show it, in colour if it is a terminal.
    """

    def __init__(self, names: list[str], terminal: TextIO) -> None:
        self._terminal = terminal
        width = max(map(len, names))
        coloured = terminal.isatty() and "NO_COLOR" not in os.environ
        self._prefixes = {
            name: f"\x1b[{COLOURS[number % len(COLOURS)]}m{name:<{width}} |\x1b[0m "
            if coloured
            else f"{name:<{width}} | "
            for number, name in enumerate(names)
        }
        self._logs: dict[str, BinaryIO] = {}
        self._begun: dict[str, bytes] = {}

    def follow(self, name: str, log: Path) -> None:
        """Show a process's log, from its beginning."""
        self._logs[name] = log.open("rb")
        self._begun[name] = b""

    def write(self, name: str, text: str) -> None:
        for line in text.splitlines() or [""]:
            if not line.startswith(KNOWN):
                print(self._prefixes[name] + line, file=self._terminal, flush=True)

    def update(self) -> None:
        """Show the lines completed since the last call."""
        for name, log in self._logs.items():
            *lines, self._begun[name] = (self._begun[name] + log.read()).split(b"\n")
            for line in lines:
                self.write(name, line.decode(errors="replace"))

    def close(self) -> None:
        """Show what is left, complete or not."""
        self.update()
        for name, log in self._logs.items():
            log.close()
            if self._begun[name]:
                self.write(name, self._begun[name].decode(errors="replace"))


def in_the_way(host: str, port: str) -> str | None:
    """Return one line on why web cannot listen there, or None."""
    if not (port.isdecimal() and 0 < int(port) < 65536):
        return f"PORT={port}: a port is a number from 1 to 65535."
    with socket.socket() as probe:
        # As gunicorn does: a server that has just ended is not in the way.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, int(port)))
        except OSError as error:
            another = int(port) + 1 if int(port) < 65535 else 8000
            return (
                f"Port {port} on {host}: {error.strerror}. "
                f"Try another one: PORT={another} {nox_here()} -s serve"
            )
    return None


def listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def nox_here() -> str:
    """Return the command that runs nox, as this reader has typed it."""
    typed = Path(os.environ.get("NOX_TYPED", "nox"))  # from the noxfile
    runner = "uv" if "UV" in os.environ else "pipx"
    wrapped = {"noxfile.py": f"{runner} run noxfile.py", "__main__.py": "python -m nox"}
    if typed.name in wrapped:
        return wrapped[typed.name]
    return "nox" if str(typed) in ("nox", shutil.which("nox")) else short(typed)


def short(path: Path) -> str:
    """Return a path as it is typed in the project's folder."""
    # Not through `..`: Python 3.14 warns of an environment that it finds so.
    whole = ROOT / path
    return str(whole.relative_to(ROOT) if whole.is_relative_to(ROOT) else whole)


def where_the_data_is() -> Iterator[str]:
    """Yield the variables that a command needs to use the same data."""
    for name in ("DATA_DIR", "DATABASE_URL", "REDIS_URL", "RABBITMQ_URL"):
        if value := os.environ.get(name):
            # A password is never shown: the other terminal must have the variable.
            yield (
                f'{name}="${name}"' if "@" in value else f"{name}={shlex.quote(value)}"
            )


def what_now(port: str) -> str:
    """Return what there is to see, with commands to copy."""
    base = f"http://127.0.0.1:{port}"
    python = " ".join([*where_the_data_is(), short(Path(sys.executable))])
    return textwrap.dedent(
        f"""
        {base}/               what runs here
        {base}/admin/         where the team works
        {base}/api/requests/  the approved requests; to post one:
          curl -H 'Content-Type: application/json' \\
              -d '{{"text": "For my neighbour"}}' {base}/api/requests/

        In another terminal, in {ROOT}:
          DEBUG=on {python} manage.py createsuperuser
              to log in to the admin
          {python} -m dev.digest
              to see the moderators' digest here, within seconds

        Ctrl-C ends web, worker and beat.
        """
    )


def serve() -> int:
    """Run all processes until Ctrl-C or SIGTERM, or until one of them ends.

    It signals each process alone, never its group: see the top.
    """
    env = {"HOST": "127.0.0.1", "PORT": "8000", **os.environ}
    if problem := in_the_way(env["HOST"], env["PORT"]):
        print(problem, file=sys.stderr)
        return 1
    asked: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: asked.append(number))
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        mailbox = Mailbox(folder / "mails")
        if not env.get("EMAIL_URL"):
            env["EMAIL_URL"] = mailbox.url
        output = Output([*commands(), "mail"], sys.stdout)
        stack.callback(output.close)

        def start(name: str) -> StartedProcess:
            log = folder / f"{name}.log"
            process = StartedProcess(commands()[name], log=log, cwd=ROOT, env=env)
            output.follow(name, log)
            return stack.enter_context(process)

        def show_until(condition: Callable[[], object]) -> None:
            while True:
                done = condition()
                output.update()
                for message in mailbox.new():
                    output.write("mail", show(message))
                if done:
                    return
                time.sleep(0.1)

        release = start("release")
        show_until(lambda: asked or release.popen.poll() is not None)
        if asked or release.popen.returncode:
            return release.popen.returncode or 1

        running = {name: start(name) for name in commands() if name != "release"}

        def ended() -> list[bool]:
            return [process.popen.poll() is not None for process in running.values()]

        def over() -> bool:
            return bool(asked) or any(ended())

        def ready() -> bool:
            return listens(int(env["PORT"])) and (
                # Their startup output would scroll the addresses out of sight.
                time.monotonic() > deadline
                or all(text in running[name].output for name, text in READY.items())
            )

        deadline = time.monotonic() + START
        show_until(lambda: over() or ready())
        if not over():
            print(textwrap.indent(what_now(env["PORT"]), "  "), flush=True)
        show_until(over)
        for process in running.values():
            if process.popen.poll() is None:
                process.send(signal.SIGTERM)
        # Let tasks finish.
        deadline = time.monotonic() + PATIENCE
        show_until(lambda: all(ended()) or time.monotonic() > deadline)
    statuses = {name: process.popen.returncode for name, process in running.items()}
    print(", ".join(f"{name} ended with {s}" for name, s in statuses.items()))
    return 0 if asked and not any(statuses.values()) else 1


if __name__ == "__main__":
    sys.exit(serve())
