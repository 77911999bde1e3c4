"""The loop that does the work says that it comes round, and what it does.

Nothing here runs by itself: a thread or a timer would go on while the loop hangs. Where
the loop has a good reason to be silent, it says before for how long.
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
    "CONNECTING",
    "LEADING",
    "READY",
    "STANDING_BY",
    "STARTING",
    "STOPPING",
    "TURN",
    "WAIT",
    "WORK",
    "Heartbeat",
    "Sink",
)

STARTING = "starting"
CONNECTING = "connecting"
READY = "ready"
STANDING_BY = "standing by"
LEADING = "leading"
STOPPING = "stopping"

# How long a process may be silent, in seconds. The documentation has them as well.
TURN = 30.0
"""A loop at work: kombu's sleeps for ten seconds at the most."""
WAIT = 300.0
"""A start, an attempt to connect, a tick of beat: TCP may try for two minutes."""
WORK = 3600.0
"""The tasks that a warm shutdown waits for, or that a solo pool runs in the loop."""

# How often a state that stays is said again, in seconds.
_EVERY = 1.0

# What keeps a file from being opened now, and may not a minute later.
_FULL = (errno.ENOSPC, errno.EDQUOT)


class Sink(Protocol):
    """Takes what a process says."""

    def open(self) -> None:
        """Begin; raise an `OSError` if that is impossible."""

    def say(self, state: str, silence: float, again: bool) -> None:
        """Take it; an `OSError` is told once, and does not disturb the work.

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
        sinks: who listens.
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
        """Say for the first time: after the last fork that does not end in a pool.

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
                if exc.errno not in _FULL:
                    raise OSError(f"{sink}: {_reason(exc)}") from exc
                self._complain(sink, exc)
        self._say(STARTING, WAIT)
        atexit.register(self.end)

    def say(self, state: str, silence: float = WAIT, *, again: bool = False) -> None:
        """Say what the process does; once it is stopping, it is always stopping.

        Args:
            state: one of this module's.
            silence: how long it may be silent from now on, in seconds.
            again: whether it starts again, under its pid, once it has stopped.
        """
        if os.getpid() != self._pid:
            return  # a child's loop is not the one that is asked about
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
            # The handler of a signal has said so in between.
            self._say(STOPPING, self._stopping)

    def beat(self, silence: float = TURN) -> None:
        """Say that the loop has come round: a process that was not ready is ready now.

        Args:
            silence: how long it may be silent from now on, in seconds.
        """
        is_new = self.state == STARTING or self.state == CONNECTING
        self.say(READY if is_new else self.state, silence)

    def end(self) -> None:
        """Say no more: the process ends, and does not start again under its pid."""
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
            # Not made before: LOGGING may disable what exists when it is applied.
            logger = logging.getLogger(__name__)
            logger.warning("%s: %s. The work goes on.", sink, _reason(error))


def _reason(error: OSError) -> str:
    return error.strerror or str(error)
