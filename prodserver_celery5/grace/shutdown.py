"""The end of a worker within its platform's time limit (GRACE_SECONDS).

Platforms send SIGTERM, and SIGKILL 10 to 30 seconds later. Celery's warm shutdown waits
for the longest task. What is not done by SIGKILL dies with the process, and its
message, ``acks_late`` or not, waits for the broker's visibility timeout, an hour on
Redis. Here a thread waits beside the warm shutdown, and ends the worker in time.

The order matters: the messages go back first. If a child of the pool died before that,
Celery would take its task for failed, and acknowledge the message.
"""

from __future__ import annotations

import atexit
import faulthandler
import logging
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import chain
from typing import Any

from billiard import active_children
from celery import bootsteps, signals

from ..process import green
from .brokers import Broker, broker_of, unpatched
from .results import Results

__all__ = ("Grace", "apply")

# How long giving back may take, in seconds, if the broker does not answer.
SECONDS_TO_GIVE_BACK = 2.0

# When the process ends in any case, in seconds from the deadline: with C code that
# keeps the interpreter, no thread of Python's gets a turn to end it.
SECONDS_TO_END = 3.0

# How long results that have come may take to be read, and then what has ended to be
# acknowledged, in seconds each.
SECONDS_TO_READ = 1.0

# How often a pool without an event loop acknowledges what has ended, in seconds.
TICK = 0.1


def apply(seconds: float) -> None:
    """Make the worker that this process is about to run end in time.

    Args:
        seconds: the time from SIGTERM until unfinished tasks go back.
    """

    def watch(sender: Any, **_: Any) -> None:
        grace = Grace(sender, seconds)
        signals.worker_ready.connect(grace.watch, weak=False)
        signals.worker_shutting_down.connect(grace.begin, weak=False)

    signals.worker_init.connect(watch, weak=False)


class Grace:
    """The time from SIGTERM to the end of a worker.

    Args:
        worker: Celery's worker, before it starts.
        seconds: how long its tasks have from SIGTERM on.
    """

    def __init__(self, worker: Any, seconds: float) -> None:
        self._worker = worker
        self._seconds = seconds
        self._begun = False
        self._counts = False
        self._received: set[Any] = set()
        # Bounded: a worker may lose its connection now and then for a year.
        self._dropped: deque[Any] = deque(maxlen=1000)
        self._results: Results | None = None
        self._broker: Broker | None = None
        # What ran and what waited as it went back.
        self._unfinished: tuple[list[Any], list[Any]] | None = None
        # A patched thread or sleep would wait for the hub, which a task may block. They
        # are looked up now because `begin` runs in a signal handler.
        self._start_thread = unpatched("_thread", "start_new_thread")
        self._sleep = unpatched("time", "sleep")
        self._telling = unpatched("_thread", "allocate_lock")()
        self._leaving = unpatched("_thread", "allocate_lock")()
        # As early as here, so that it is called after what others register.
        atexit.register(self._leave)
        if green.is_patched("eventlet"):
            # See `_wait`: Celery counts only eventlet's own threads, and none of those
            # can be started in a signal handler.
            idle = threading.Event().wait
            threading.Thread(target=idle, name="grace", daemon=True).start()

    def watch(self, sender: Any, **_: Any) -> None:
        """Remember what a lost connection has fetched, which Celery forgets."""
        on_close = sender.on_close

        def keep() -> None:
            state = self._worker.state
            self._dropped.extend(
                set(state.reserved_requests) - set(state.active_requests)
            )
            self._dropped.extend(_scheduled(sender.timer))
            on_close()

        sender.on_close = keep

    def begin(self, sig: str, **_: Any) -> None:
        """Begin to count; Celery calls this for each signal that stops the worker.

        Args:
            sig: the name of the signal. Only SIGTERM comes with a limit.
        """
        if sig != "SIGTERM" or self._begun:
            return
        self._begun = True
        began = time.monotonic()
        ends = began + self._seconds
        self._start_thread(_traced, (self._wait, ends))
        self._start_thread(_traced, (self._guard, ends + SECONDS_TO_GIVE_BACK))
        faulthandler.dump_traceback_later(
            self._seconds + SECONDS_TO_END, exit=True, file=2
        )
        # A worker that has ended by itself may take its time to leave.
        atexit.register(faulthandler.cancel_dump_traceback_later)
        handler = getattr(
            getattr(self._worker.pool, "_pool", None), "_result_handler", None
        )
        if hasattr(handler, "_flush_outqueue"):  # a pool with an event loop
            self._results = Results(handler)
        while not self._counts and time.monotonic() < began + 1:
            self._sleep(0.001)
        # Celery is about to forget those that have not begun: here they never will.
        timer = self._worker.consumer.timer
        self._received = {
            *self._worker.state.reserved_requests,
            *_scheduled(timer),
        }
        if self._worker.pool.is_green:
            # Its connections belong to the hub, and so to the main thread.
            self._worker.pool.spawn_n(self._acknowledge_in_the_hub)
        if self._worker.statedb:
            # What has been revoked, which Celery would save by `atexit`.
            self._worker._persistence.sync()

    def _wait(self, ends: float) -> None:
        """At the deadline, give back unfinished tasks and end the worker."""
        # Up to Celery 5.2 its signal handler counts the threads that are no dummies. If
        # there is only one, it raises the shutdown there and then: in the middle of a
        # task, or of a message, which is lost.
        threading.current_thread().name = "grace"
        self._counts = True
        while (left := ends - time.monotonic()) > 0:
            if not self._worker.pool.is_green:
                self._acknowledge()
            self._sleep(min(TICK, left))
        if not self._leaving.acquire(blocking=False):
            return
        steps = self._read, self._acknowledge_by_the_loop, self._settle, self._give_back
        for step in steps:
            try:
                step()
            except Exception:
                logging.getLogger(f"celery.{__name__}").critical(
                    "Ending, though %s failed", step.__name__.strip("_"), exc_info=True
                )
        self._tell_and_end()

    def _leave(self) -> None:
        """Leave, if the deadline has not come; if it has, let `_wait` end the process.

        Up to Python 3.13 an interpreter that ends unwinds the stacks of other threads,
        and crashes where greenlets have switched, as they do for a patched socket.
        """
        self._leaving.acquire(timeout=SECONDS_TO_END)

    def _guard(self, ends: float) -> None:
        """End the worker, even if the broker does not answer."""
        self._sleep(max(0, ends - time.monotonic()))
        self._tell_and_end()

    def _tell_and_end(self) -> None:
        """End in the first thread that comes here; the other one gets no further."""
        self._telling.acquire()
        try:
            self._tell()
        finally:
            self._end()

    def _acknowledge(self) -> None:
        """Acknowledge the tasks that have ended since Celery's loop did.

        Up to Celery 5.6 these acknowledgements would wait for the last task.
        """
        consumer = self._worker.consumer
        if consumer.blueprint.state != bootsteps.RUN:
            consumer.perform_pending_operations()

    def _acknowledge_in_the_hub(self) -> None:
        while True:
            self._acknowledge()
            time.sleep(TICK)

    def _acknowledge_by_the_loop(self) -> None:
        """Acknowledge what an event loop has put off: it does so when it closes."""
        if self._worker.hub and self._worker.consumer.blueprint.state != bootsteps.RUN:
            self._worker.hub.close()

    def _settle(self) -> None:
        """Let what has ended be acknowledged; a hub that a task blocks does not."""
        if not self._worker.pool.is_green:
            self._acknowledge()
        ends = time.monotonic() + SECONDS_TO_READ
        while time.monotonic() < ends and any(
            r.acknowledged and not r.message.acknowledged for r in self._received
        ):
            self._sleep(0.005)

    def _read(self) -> None:
        """Let Celery read the results that children have sent until now."""
        if self._results:
            self._results.take(SECONDS_TO_READ, self._sleep)

    def _give_back(self) -> None:
        self._broker = broker_of(self._worker.consumer, self._sleep)
        # What ends from now on goes back all the same, and has to be named.
        self._unfinished = self._running(), self._unstarted()
        try:
            self._broker.give_back(chain(*self._unfinished))
        except Exception as exc:
            self._broker.error = f"{type(exc).__name__}: {exc}"

    def _running(self) -> list[Any]:
        """Return the requests whose tasks run, and whose messages can go back."""
        return [r for r in self._worker.state.active_requests if not r.acknowledged]

    def _unstarted(self) -> list[Any]:
        """Return the requests that the worker has fetched and never begun."""
        kept = self._dropped if self._broker and self._broker.keeps_lost else ()
        return [
            r
            for r in self._received.union(kept)
            if not r.time_start and not r.acknowledged
        ]

    def _tell(self) -> None:
        logger = logging.getLogger(f"celery.{__name__}")
        broker = self._broker or Broker(None, self._sleep)
        running, unstarted = self._unfinished or (self._running(), self._unstarted())
        back = [r for r in running if broker.has(r)]
        waiting = [r for r in unstarted if broker.has(r)]
        active = list(self._worker.state.active_requests)
        lost = [r for r in active if r.acknowledged and not r.task.acks_late]
        gone = [r for r in running if broker.lacks(r) and not r.acknowledged]
        for request in back:
            logger.warning("Given back: %s[%s]", request.name, request.id)
        for request in gone:
            logger.warning("No longer in the broker: %s[%s]", request.name, request.id)
        for request in lost:
            logger.error("Lost, not acks_late: %s[%s]", request.name, request.id)
        stuck = [
            r
            for r in (*running, *unstarted)
            if not (broker.has(r) or broker.lacks(r) or r.acknowledged)
        ]
        for request in stuck:
            logger.error("Not given back: %s[%s]", request.name, request.id)
        logger.warning(
            "%g s after SIGTERM: gave back %d running and %d unstarted tasks; lost %d.",
            self._seconds, len(back), len(waiting), len(lost),
        )  # fmt: skip
        if stuck:
            logger.error(
                "%d could not be given back (%s). %s",
                len(stuck), broker.error, broker.later,
            )  # fmt: skip
        sys.stdout.flush()
        sys.stderr.flush()

    def _end(self) -> None:
        with suppress(Exception):
            if self._worker.pidlock:
                self._worker.pidlock.release()
        # From here on no other thread gets a turn: Celery would take the end of the
        # children for a failure of their tasks, and store that.
        sys.setswitchinterval(60)
        for child in active_children():
            with suppress(ProcessLookupError):
                os.kill(child.pid, signal.SIGKILL)
        os._exit(0)


def _traced(run: Callable[[float], None], ends: float) -> None:
    """Run in a thread as `threading` would: for debuggers, and to measure coverage."""
    sys.settrace(threading.gettrace())
    run(ends)


def _scheduled(timer: Any) -> Iterator[Any]:
    """Find the requests that wait for their time, as ``inspect scheduled`` does."""
    from celery.worker.request import Request

    for waiting in timer.schedule.queue:
        arguments = waiting.entry.args
        if arguments and isinstance(arguments[0], Request):
            yield arguments[0]
