"""The socket on which systemd, or a test, hears from a service: sd_notify(3)."""

from __future__ import annotations

import os
import socket
import time

from ..probe import READY
from .report import STOPPING

__all__ = ("Notify",)


class Notify:
    """Tells whoever listens on ``NOTIFY_SOCKET`` what the process does.

    Args:
        address: the socket's address: a path, or an abstract name of Linux, after an
            ``@``.
        watchdog: systemd's ``WatchdogSec``, in seconds, or 0.
    """

    def __init__(self, address: str, watchdog: float = 0) -> None:
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self._watchdog = watchdog
        self._said: list[str] = []
        self._socket: socket.socket | None = None

    @classmethod
    def from_environment(cls) -> Notify:
        """Make one from systemd's variables; ``NOTIFY_SOCKET`` has to be set."""
        usec = os.environ.get("WATCHDOG_USEC", "")
        pid = os.environ.get("WATCHDOG_PID", str(os.getpid()))
        is_ours = usec.isdecimal() and pid == str(os.getpid())
        return cls(os.environ["NOTIFY_SOCKET"], int(usec) / 1e6 if is_ours else 0)

    def __str__(self) -> str:
        return "NOTIFY_SOCKET"

    def open(self) -> None:
        """Make a socket that never waits."""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)

    def say(self, state: str, silence: float, again: bool) -> None:
        """Send what has changed; with a watchdog, also that the loop is running.

        The watchdog is as patient as the process asks the probe to be.
        """
        if self._socket is None:
            return
        said = [f"STATUS={state}"]
        if state in READY:
            said.append("READY=1")
        elif state == STOPPING:
            said.append("RELOADING=1" if again else "STOPPING=1")
        if self._watchdog:
            patience = max(self._watchdog, silence)
            said.append(f"WATCHDOG_USEC={patience * 1e6:.0f}")
        now = []
        if "RELOADING=1" in said:
            now.append(f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")
        if self._watchdog:
            now.append("WATCHDOG=1")
        elif said == self._said:
            return
        self._socket.sendto("\n".join([*said, *now]).encode(), self._address)
        self._said = said

    def close(self) -> None:
        """Close the socket: systemd sees the end itself."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
