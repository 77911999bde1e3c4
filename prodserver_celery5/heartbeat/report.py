"""The heartbeat: the working loop reports that it is running, and its state.

Nothing here runs by itself: a thread or timer would keep running while the loop hangs.
A loop with a good reason to be silent says beforehand for how long.
"""

from __future__ import annotations

import atexit
import errno
import logging
import os
import time
from collections.abc import Sequence
from typing import Protocol

__all__ = (
    "CONNECTING", "READY", "STARTING", "STOPPING", "TURN", "WAIT", "WORK",
    "Heartbeat", "Sink",
)  # fmt: skip

# The states of a process; `leader` has two more: "standing by" and "leading".
STARTING = "starting"
CONNECTING = "connecting"
READY = "ready"
STOPPING = "stopping"

# How long a process may be silent, in seconds. The documentation repeats them.
TURN = 30.0
"""A loop at work: kombu's sleeps for ten seconds at most."""
WAIT = 300.0
"""A start, an attempt to connect, a tick of beat: TCP may try for two minutes."""
WORK = 3600.0
"""The tasks that a warm shutdown waits for, or that a solo pool runs in the loop."""

# How often a process repeats an unchanged state, in seconds.
_EVERY = 1.0

# Errors that prevent a file from being opened now, and perhaps not a minute later.
_FULL = (errno.ENOSPC, errno.EDQUOT)


class Sink(Protocol):
    """Takes what a process says."""

    def open(self) -> None:
        """Begin; raise an `OSError` if that is impossible."""

    def say(self, state: str, silence: float, again: bool) -> None:
        """Take it; an `OSError` is logged once, and does not disturb the work.

        Args:
            state: what the process does.
            silence: how long it may be silent from now on, in seconds.
            again: whether it starts again, under its pid, once it has stopped.
        """

    def close(self) -> None:
        """The process ends."""


class Heartbeat:
    """What a process says of itself, to whoever listens.

    Args:
        sinks: the listeners.
    """

    def __init__(self, sinks: Sequence[Sink]) -> None:
        self.state = STARTING
        self._sinks = sinks
        self._pid = 0
        self._silence = 0.0
        self._stopping: float | None = None
        self._again = False
        self._next = 0.0
        self._complained: set[Sink] = set()

    def begin(self) -> None:
        """Send the first report: after the last fork except those of a pool.

        Raises:
            OSError: a sink cannot be used; the text says which and why, in one line.
        """
        if self._pid == os.getpid():
            return
        self._pid = os.getpid()
        for sink in self._sinks:
            try:
                sink.open()
            except OSError as exc:
                if exc.errno not in _FULL:  # else `say` opens it, or complains
                    raise OSError(f"{sink}: {_reason(exc)}") from exc
        self._say(STARTING, WAIT)
        atexit.register(self.end)

    def say(self, state: str, silence: float = WAIT, *, again: bool = False) -> None:
        """Say what the process does; once it is stopping, it stays so.

        Args:
            state: a state of this module, or of a beat that leads.
            silence: how long it may be silent from now on, in seconds.
            again: whether it starts again, under its pid, once it has stopped.
        """
        if os.getpid() != self._pid:
            return  # nobody asks about the loop of a child
        if state == STOPPING and self._stopping is None:
            self._stopping, self._again = silence, again
        if self._stopping is not None:
            state, silence = STOPPING, self._stopping
        now = time.monotonic()
        if state == self.state and silence == self._silence and now < self._next:
            return
        self._next = now + _EVERY
        self._say(state, silence)
        if self._stopping is not None and state != STOPPING:
            # A signal handler has said so in between.
            self._say(STOPPING, self._stopping)

    def beat(self) -> None:
        """Report that the loop is running, and so that the process is ready."""
        is_new = self.state in (STARTING, CONNECTING)
        self.say(READY if is_new else self.state, TURN)

    def end(self) -> None:
        """Stop reporting: the process ends, and does not start again under its pid."""
        if os.getpid() != self._pid:
            return
        self._pid = 0
        atexit.unregister(self.end)
        for sink in self._sinks:
            try:
                sink.close()
            except OSError as exc:
                self._complain(sink, exc)

    def _say(self, state: str, silence: float) -> None:
        self.state, self._silence = state, silence
        for sink in self._sinks:
            try:
                sink.say(state, silence, self._again)
            except OSError as exc:
                self._complain(sink, exc)

    def _complain(self, sink: Sink, error: OSError) -> None:
        if sink not in self._complained:
            self._complained.add(sink)
            # Not made earlier: applying LOGGING may disable the loggers that exist.
            logger = logging.getLogger(f"celery.{__name__}")
            logger.warning("%s: %s. The work goes on.", sink, _reason(error))


def _reason(error: OSError) -> str:
    return error.strerror or str(error)
