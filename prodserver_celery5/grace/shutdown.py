"""The end of a worker within its platform's time limit (GRACE_SECONDS).

Platforms send SIGTERM, and SIGKILL 10 to 30 seconds later. Celery's warm shutdown waits
for the longest task. What is not done by SIGKILL dies with the process, and its
message, ``acks_late`` or not, waits for the broker's visibility timeout, an hour on
Redis. Here a thread waits beside the warm shutdown, and ends the worker in time.

The order matters: the messages go back first. If a child of the pool died before that,
Celery would take its task for failed, and acknowledge the message.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib import import_module
from typing import Any

from billiard import active_children
from celery import bootsteps, signals

from ..process import green

__all__ = ("Grace", "apply")

# How long giving back may take, in seconds, if the broker does not answer.
SECONDS_TO_GIVE_BACK = 3.0

# How often a pool without an event loop acknowledges what has ended, in seconds.
TICK = 0.1


def apply(seconds: float) -> None:
    """Make the worker that this process is about to run end in time.

    Args:
        seconds: the time from SIGTERM until unfinished tasks go back.
    """

    def watch(sender: Any, **_: Any) -> None:
        signals.worker_shutting_down.connect(Grace(sender, seconds).begin, weak=False)

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
        # A patched thread or sleep would wait for the hub, which a task may block. They
        # are looked up now because `begin` runs in a signal handler.
        self._start_thread = _unpatched("_thread", "start_new_thread")
        self._sleep = _unpatched("time", "sleep")
        if green.is_patched("eventlet"):
            # See `_wait`: Celery counts only eventlet's own threads, and none of those
            # can be started in a signal handler.
            idle = threading.Event().wait
            threading.Thread(target=idle, name="grace", daemon=True).start()

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
        for step in (self._acknowledge_by_the_loop, self._give_back, self._tell):
            try:
                step()
            except Exception:
                logging.getLogger(__name__).critical(
                    "Ending without having done all of %s", step.__name__, exc_info=True
                )
        self._end()

    def _guard(self, ends: float) -> None:
        """End the worker, whatever hangs."""
        self._sleep(max(0, ends - time.monotonic()))
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

    def _give_back(self) -> None:
        connection = self._worker.consumer.connection
        if connection is not None and connection.connected:
            give_back(connection, self._sleep)

    def _tell(self) -> None:
        logger = logging.getLogger(__name__)
        running = set(self._worker.state.active_requests)
        back = [r for r in running if not r.acknowledged]
        lost = [r for r in running if r.acknowledged and not r.task.acks_late]
        waiting = [r for r in self._received if not r.time_start and not r.acknowledged]
        for request in back:
            logger.warning("Given back: %s[%s]", request.name, request.id)
        for request in lost:
            logger.error("Lost, not acks_late: %s[%s]", request.name, request.id)
        logger.warning(
            "%g s after SIGTERM: gave back %d running and %d unstarted tasks; lost %d.",
            self._seconds, len(back), len(waiting), len(lost),
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


def give_back(connection: Any, sleep: Callable[[float], None]) -> None:
    """Give back to the broker what a connection has not acknowledged.

    Args:
        connection: the connection of a worker's consumer; of no use afterwards.
        sleep: a function that waits for a number of seconds in a native thread.
    """
    kind = connection.transport.driver_type
    if kind == "amqp":
        # RabbitMQ does it as soon as the connection is gone. Closing the socket is not
        # enough: a child that was forked later holds it, too.
        socket = _unpatched("socket", "socket")
        at_once = _unpatched("socket", "MSG_DONTWAIT")
        # Unlike select(), poll() takes file descriptors above 1023.
        poll = _unpatched("select", "poll")()
        ends = time.monotonic() + 1
        with suppress(OSError):  # it is gone already
            copy = socket(fileno=os.dup(connection.connection.sock.fileno()))
            copy.shutdown(_unpatched("socket", "SHUT_WR"))
            # RabbitMQ closes its side when it has read everything. Ending before, with
            # an answer unread, would discard acknowledgements on their way to it.
            poll.register(copy, _unpatched("select", "POLLIN"))
            while (left := ends - time.monotonic()) > 0:
                if poll.poll(left * 1000) and not copy.recv(65536, at_once):
                    break
    elif kind == "redis":
        _give_back_to_redis(connection, sleep)
    else:
        connection.close()


def _give_back_to_redis(connection: Any, sleep: Callable[[float], None]) -> None:
    """Restore the messages through a connection of this thread's own.

    Closing the worker's own does not work: kombu then reads a last answer, which never
    comes if a task runs in the middle of that reading, as with the solo pool.
    """
    with connection.clone() as fresh:
        fresh.connect()
        mine = fresh.channel()
        for channel in list(connection.transport.channels):
            try:
                if answer := _last_answer(channel, sleep):
                    mine.client.rpush(*answer)
            finally:
                # The oldest last, so that it comes next.
                for tag in reversed(list(channel.qos._delivered)):
                    mine.qos.restore_by_tag(tag)


def _last_answer(channel: Any, sleep: Callable[[float], None]) -> Any:
    """Read the queue and the message that Redis has sent and nobody has read.

    Redis forgets a message as it hands it out: it would be lost with this socket.
    """
    if not channel._in_poll:
        return None
    connection = channel.client.connection
    # Up to kombu 5.5 the time that Redis waits before it answers is fixed.
    ends = time.monotonic() + getattr(channel, "brpop_timeout", 1) + 0.5
    while not connection.can_read(0):
        if time.monotonic() > ends:
            return None  # it has been read, and is being handled
        sleep(0.02)
    return channel.client.parse_response(connection, "BRPOP")


def _scheduled(timer: Any) -> Iterator[Any]:
    """Find the requests that wait for their time, as ``inspect scheduled`` does."""
    from celery.worker.request import Request

    for waiting in timer.schedule.queue:
        arguments = waiting.entry.args
        if arguments and isinstance(arguments[0], Request):
            yield arguments[0]


def _unpatched(module: str, name: str) -> Any:
    """Return a name of the standard library as it was before a green pool's patches."""
    if green.is_patched("gevent"):
        from gevent.monkey import get_original

        return get_original(module, name)
    if green.is_patched("eventlet"):
        from eventlet.patcher import original

        return getattr(original(module), name)
    return getattr(import_module(module), name)
