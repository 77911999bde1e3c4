"""How each broker gets back what a worker has not acknowledged."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from importlib import import_module
from typing import Any

from ..process import green

__all__ = ("Broker", "broker_of", "unpatched")


class Broker:
    """A broker that keeps messages until their worker acknowledges them.

    Args:
        connection: of a worker's consumer, or one like it; of no use after `give_back`.
        sleep: a function that waits for a number of seconds in a native thread.

    Attributes:
        error: why not everything has gone back.
        later: when what has not gone back is handed out again.
        keeps_lost: whether it keeps what a connection that is lost has fetched.
    """

    error = "it does not answer"
    later = "The broker keeps them."
    keeps_lost = False

    def __init__(self, connection: Any, sleep: Callable[[float], None]) -> None:
        self._connection = connection
        self._sleep = sleep
        self._all_back = False

    def give_back(self, requests: Iterable[Any]) -> None:
        """Give back what the connection, and any that it replaced, has fetched.

        Args:
            requests: Celery's requests that are not done.
        """
        self._connection.close()
        self._all_back = True

    def has(self, request: Any) -> bool:
        """Whether a request's message is certain to have gone back."""
        return self._all_back and not request.message.acknowledged

    def lacks(self, request: Any) -> bool:
        """Whether a request's message was no longer there to go back."""
        return False


class RabbitMQ(Broker):
    """Takes everything back as soon as it sees that the connection is gone."""

    later = "RabbitMQ hands them out as soon as it sees that the connection is gone."

    def give_back(self, requests: Iterable[Any]) -> None:
        """Close the connection, and wait until RabbitMQ has read it to its end."""
        if not self._connection.connected:
            self.error = "the connection is lost"
            return
        # Closing the socket is not enough: a child that was forked later holds it, too.
        socket = unpatched("socket", "socket")
        at_once = unpatched("socket", "MSG_DONTWAIT")
        # Unlike select(), poll() takes file descriptors above 1023.
        poll = unpatched("select", "poll")()
        ends = time.monotonic() + 1
        asked = False
        try:
            fd = os.dup(self._connection.connection.sock.fileno())
            with socket(fileno=fd) as copy:
                poll.register(copy, unpatched("select", "POLLIN"))
                while poll.poll(0):
                    if not copy.recv(65536, at_once):
                        raise ConnectionError  # something between may have closed it
                copy.shutdown(unpatched("socket", "SHUT_WR"))
                asked = True
                # RabbitMQ closes its side when it has read everything. Ending before,
                # with an answer unread, would discard acknowledgements on their way.
                while (left := ends - time.monotonic()) > 0:
                    if poll.poll(left * 1000) and not copy.recv(65536, at_once):
                        self._all_back = True
                        return
        except OSError:
            self._all_back = asked
            if not asked:
                self.error = "the connection is lost"


class Redis(Broker):
    """Keeps a message for its visibility timeout, even if the connection is lost."""

    keeps_lost = True

    def __init__(self, connection: Any, sleep: Callable[[float], None]) -> None:
        super().__init__(connection, sleep)
        options, kind = connection.transport_options, connection.transport.Channel
        seconds = options.get("visibility_timeout", kind.visibility_timeout)
        self.later = f"Redis hands each out again {seconds:g} s after it was fetched."
        self._back: set[str] = set()
        self._gone: set[str] = set()

    def give_back(self, requests: Iterable[Any]) -> None:
        """Restore the messages through a connection of this thread's own.

        Closing the worker's own does not work: kombu then reads a last answer, which
        never comes if a task runs in the middle of that reading, as with the solo pool.
        """
        with self._connection.clone() as fresh:
            fresh.connect()
            mine = fresh.channel()
            for channel in list(self._connection.transport.channels or ()):
                try:
                    if answer := self._last_answer(channel):
                        queue, message = answer
                        # kombu would put a key prefix before what str() makes of it.
                        name = queue.decode() if isinstance(queue, bytes) else queue
                        mine.client.rpush(name, message)
                finally:
                    # The oldest last, so that it comes next.
                    for tag in reversed(list(channel.qos._delivered)):
                        self._restore(mine, tag)
            # And what came on connections that are lost.
            for request in requests:
                self._restore(mine, request.message.delivery_tag)

    def has(self, request: Any) -> bool:
        """Whether a request's message is certain to have gone back."""
        return request.message.delivery_tag in self._back

    def lacks(self, request: Any) -> bool:
        """Whether its message had timed out, or Redis has lost it."""
        return request.message.delivery_tag in self._gone

    def _restore(self, channel: Any, tag: str) -> None:
        if tag in self._back or tag in self._gone:
            return
        # Not HEXISTS, to which kombu does not add a key prefix.
        if channel.client.hget(channel.unacked_key, tag) is None:
            self._gone.add(tag)
        else:
            channel.qos.restore_by_tag(tag)
            self._back.add(tag)

    def _last_answer(self, channel: Any) -> Any:
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
            self._sleep(0.02)
        return channel.client.parse_response(connection, "BRPOP")


def broker_of(consumer: Any, sleep: Callable[[float], None]) -> Broker:
    """Return the broker of a worker's consumer, which may have lost its connection.

    Args:
        consumer: the consumer.
        sleep: a function that waits for a number of seconds in a native thread.
    """
    connection = consumer.connection or consumer.app.connection_for_read()
    kinds = {"amqp": RabbitMQ, "redis": Redis}
    return kinds.get(connection.transport.driver_type, Broker)(connection, sleep)


def unpatched(module: str, name: str) -> Any:
    """Return a name of the standard library as it was before a green pool's patches."""
    if green.is_patched("gevent"):
        from gevent.monkey import get_original

        return get_original(module, name)
    if green.is_patched("eventlet"):
        from eventlet.patcher import original

        return getattr(original(module), name)
    return getattr(import_module(module), name)
