"""A program started for real: wait for what it says, end it, and read its status."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext, suppress
from pathlib import Path

__all__ = ("DEADLINE", "ProcessError", "StartedProcess")

# Seconds until a test gives up on what hangs: on a busy machine, nothing is late.
DEADLINE = 120


class ProcessError(AssertionError):
    """A process did not do what was expected; the message ends with its log."""


class StartedProcess:
    """A process in a session of its own, whose output goes to a file.

    In a session of its own, Ctrl-C at the terminal does not reach it or its
    children; a file, unlike a pipe, is never full.

    Args:
        command: the program and its arguments.
        log: the file that takes its output; ``None`` to leave it on the terminal.
        cwd: the folder it starts in.
        env: its environment, all but ``PYTHONUNBUFFERED``.
        notify: whether it is given a ``NOTIFY_SOCKET``, on which it says when it is
            ready, whatever becomes of its log.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        log: Path | None,
        cwd: Path,
        env: Mapping[str, str],
        notify: bool = False,
    ) -> None:
        self.command = list(command)
        env = {"PYTHONUNBUFFERED": "1", **env}
        self._listener = _Listener() if notify else None
        if self._listener:
            env["NOTIFY_SOCKET"] = self._listener.address
        self.log = log
        # What an earlier process wrote to the same file is not this one's.
        self._begin = log.stat().st_size if log and log.exists() else 0
        with log.open("ab") if log else nullcontext() as output:
            self.popen = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=None if output is None else subprocess.STDOUT,
                cwd=cwd,
                env=env,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """The process id, which is its group's as well."""
        return self.popen.pid

    @property
    def output(self) -> str:
        """What it has written so far, to standard output and standard error."""
        written = self.log.read_bytes()[self._begin :] if self.log else b""
        return written.decode(errors="replace")

    def wait_for(
        self, pattern: str, *, timeout: float = DEADLINE, count: int = 1
    ) -> str:
        """Wait until the output matches ``count`` times, and return that match.

        Args:
            pattern: a regular expression.
            timeout: how long to wait, in seconds.
            count: how many matches to wait for.

        Raises:
            ProcessError: the process ended, or the time is over.
        """
        deadline = time.monotonic() + timeout
        while True:
            # Asked before the output is read: what a process says last counts.
            ended = self.popen.poll() is not None
            matches = list(re.finditer(pattern, self.output))
            if len(matches) >= count:
                return matches[count - 1].group()
            if ended:
                raise self._error(f"ended with {self.popen.returncode}", pattern)
            if time.monotonic() > deadline:
                raise self._error(f"took longer than {timeout} s", pattern)
            time.sleep(0.05)

    def wait_until_ready(self, *, timeout: float = DEADLINE, count: int = 1) -> None:
        """Wait until the process has said ``READY=1`` ``count`` times.

        A worker says so when it consumes, and a beat after its first look at the
        schedule; after a reload or a lost connection they say it again.

        Args:
            timeout: how long to wait, in seconds.
            count: how many times to wait for, since the start of the process.

        Raises:
            ProcessError: the process ended, or the time is over.
        """
        awaited = "READY=1 on NOTIFY_SOCKET"
        deadline = time.monotonic() + timeout
        while True:
            ended = self.popen.poll() is not None
            if self.notified.count("READY=1") >= count:
                return
            if ended:
                raise self._error(f"ended with {self.popen.returncode}", awaited)
            if time.monotonic() > deadline:
                raise self._error(f"took longer than {timeout} s", awaited)
            time.sleep(0.05)

    @property
    def notified(self) -> list[str]:
        """What it has said so far on its ``NOTIFY_SOCKET``, such as ``"READY=1"``."""
        return self._listener.heard() if self._listener else []

    def send(self, number: int) -> None:
        """Send a signal to the process alone, not to its children.

        Args:
            number: the signal, such as ``signal.SIGHUP``.
        """
        os.kill(self.pid, number)

    def wait(self, *, timeout: float = DEADLINE) -> int:
        """Wait for the end, and return the exit status.

        Args:
            timeout: how long to wait, in seconds.

        Raises:
            ProcessError: the time is over.
        """
        try:
            return self.popen.wait(timeout)
        except subprocess.TimeoutExpired:
            raise self._error(f"took longer than {timeout} s", "its end") from None

    def stop(self, number: int = signal.SIGTERM, *, timeout: float = DEADLINE) -> int:
        """Signal the process alone, wait for its end, and return the exit status.

        Args:
            number: the signal.
            timeout: how long to wait, in seconds.

        Raises:
            ProcessError: the time is over.
        """
        if self.popen.poll() is None:
            self.send(number)
        return self.wait(timeout=timeout)

    def kill(self) -> None:
        """End the process with its group, at once."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self.popen.wait()
        if self._listener:
            self._listener.close()

    def __enter__(self) -> StartedProcess:
        return self

    def __exit__(self, *error: object) -> None:
        self.kill()

    def _error(self, what: str, awaited: str) -> ProcessError:
        return ProcessError(
            f"{' '.join(self.command)} {what}; awaited: {awaited}\n{self.output}"
        )


class _Listener:
    """A socket such as systemd gives to a service."""

    def __init__(self) -> None:
        # A socket's address has at most a hundred characters; pytest's folders more.
        self._folder = tempfile.mkdtemp(prefix="notify-")
        self.address = os.path.join(self._folder, "socket")
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self.address)
        # As systemd's: a worker may become another user.
        os.chmod(self._folder, 0o711)  # noqa: S103 - for that user
        os.chmod(self.address, 0o666)  # noqa: S103 - for that user
        self._socket.setblocking(False)
        self._heard: list[str] = []

    def heard(self) -> list[str]:
        with suppress(OSError):  # nothing more, or closed
            while True:
                self._heard += self._socket.recv(4096).decode().splitlines()
        return self._heard

    def close(self) -> None:
        self.heard()
        self._socket.close()
        shutil.rmtree(self._folder, ignore_errors=True)
