"""The results of a prefork pool's children, read as they come.

In a warm shutdown Celery goes round the children, and sleeps for half a second at each
that has nothing to say: with 32 of them a result can wait for 16 seconds.
"""

from __future__ import annotations

import select
import threading
import time
from collections.abc import Callable
from typing import Any

__all__ = ("Results",)

# How long Celery sleeps at a child with nothing to say, in milliseconds.
PAUSE = 500


class Results:
    """Reads the results that Celery waits for in a warm shutdown.

    Args:
        handler: what a pool with an event loop reads its children's results with.
    """

    def __init__(self, handler: Any) -> None:
        self._children = handler.fileno_to_outq
        self._flush = handler._flush_outqueue
        self._reading = threading.Lock()
        handler._flush_outqueue = self._flush_if_ready

    def _flush_if_ready(self, fd: int, remove: Any, children: Any, *args: Any) -> Any:
        """Read a child's result; if it has none, wait until any child has one."""
        if fd in children and fd not in self._ready(PAUSE):
            return None
        with self._reading:
            return self._flush(fd, remove, children, *args)

    def take(self, seconds: float, sleep: Callable[[float], None]) -> None:
        """Let everything be read that has come, and nothing afterwards.

        Args:
            seconds: how long to wait for that at most.
            sleep: a function that waits for a number of seconds in a native thread.
        """
        ends = time.monotonic() + seconds
        while self._ready(0) and time.monotonic() < ends:
            sleep(0.005)
        # Kept for good, so that what is given back next has not ended meanwhile.
        self._reading.acquire(timeout=max(0, ends - time.monotonic()))

    def _ready(self, milliseconds: int) -> set[int]:
        # Unlike select(), poll() takes file descriptors above 1023.
        poll = select.poll()
        for fd in list(self._children):
            poll.register(fd, select.POLLIN)
        return {fd for fd, _ in poll.poll(milliseconds)}
