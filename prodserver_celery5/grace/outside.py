"""A guard outside a worker whose tasks run in threads.

Python handles signals in its main thread. While C code in a task's thread keeps the
interpreter, the worker does not even notice SIGTERM, and no code in it can end it.
"""

from __future__ import annotations

import atexit
import faulthandler
import math
import os
import select
import signal
import time

__all__ = ("watch",)


def watch(seconds: float) -> None:
    """Fork a process that ends this one if it outlives SIGTERM by so many seconds.

    That shows the line of each thread on standard error first. The guard leaves with
    the worker.

    Args:
        seconds: the time from SIGTERM on.
    """
    faulthandler.register(signal.SIGALRM, file=2, chain=True)
    worker = os.getpid()
    out, into = os.pipe()
    os.set_blocking(into, False)
    if os.fork():
        os.close(out)
        # C code writes the number of a signal there, whoever has the interpreter.
        signal.set_wakeup_fd(into, warn_on_full_buffer=False)
        atexit.register(signal.set_wakeup_fd, -1)
        atexit.register(os.close, into)
        return
    try:
        os.close(into)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
            signal.signal(number, signal.SIG_IGN)  # they go to the group
        if _outlives(out, seconds):
            for number in (signal.SIGALRM, signal.SIGKILL):
                if os.getppid() == worker:
                    os.kill(worker, number)
                    time.sleep(0.5)
    finally:
        os._exit(0)


def _outlives(out: int, seconds: float) -> bool:
    """Wait for SIGTERM, and then for the end of the worker, which closes the pipe."""
    poll = select.poll()
    poll.register(out, select.POLLIN)
    ends = math.inf
    while (left := ends - time.monotonic()) > 0:
        if poll.poll(None if left == math.inf else left * 1000):
            numbers = os.read(out, 4096)
            if not numbers:
                return False
            if signal.SIGTERM in numbers and ends == math.inf:
                ends = time.monotonic() + seconds
    return True
