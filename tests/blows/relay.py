"""A TCP relay that can fall silent, or go away."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from types import TracebackType

from dev.servers import hold_port

__all__ = ("Relay",)


class Relay:
    """Forwards between a port of its own and another on the loopback.

    Args:
        target: the port that it connects to.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._forgotten: set[socket.socket] = set()
        self._speaking = threading.Event()
        self._speaking.set()
        self._held = hold_port()
        self.port = int(self._held.getsockname()[1])
        self._server = self._listen()

    def silence(self) -> None:
        """Accept everything and forward nothing; connections stay open."""
        self._speaking.clear()

    def speak(self) -> None:
        """Forward again, first what was sent in the silence."""
        self._speaking.set()

    def forget(self) -> None:
        """Close what came in and leave what went out, as a router that restarts."""
        for near, far in self._pairs:
            self._forgotten |= {near, far}
            with suppress(OSError):
                near.shutdown(socket.SHUT_RDWR)

    def turn_to(self, target: int) -> None:
        """Connect to another port from now on."""
        self._target = target

    def leave(self) -> None:
        """Close all connections, and accept no new ones."""
        with suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        pairs, self._pairs = self._pairs, []
        for line in (line for pair in pairs for line in pair):
            with suppress(OSError):
                line.shutdown(socket.SHUT_RDWR)
            line.close()

    def come_back(self) -> None:
        """Accept connections again, on the same port."""
        self._server = self._listen()

    def __enter__(self) -> Relay:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._speaking.set()
        self.leave()
        self._held.close()

    def _listen(self) -> socket.socket:
        server = socket.create_server(("127.0.0.1", self.port))
        self._start(self._accept, server)
        return server

    def _accept(self, server: socket.socket) -> None:
        with suppress(OSError):
            while True:
                near, _ = server.accept()
                try:
                    far = socket.create_connection(("127.0.0.1", self._target))
                except OSError:
                    near.close()
                    continue
                self._pairs.append((near, far))
                self._start(self._hand_on, near, far)
                self._start(self._hand_on, far, near)

    def _hand_on(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                self._speaking.wait()
                target.sendall(data)
        # If one side closes, close the other, but not in a silence.
        self._speaking.wait()
        for line in {source, target} - self._forgotten:
            with suppress(OSError):
                line.shutdown(socket.SHUT_RDWR)

    def _start(self, target: object, *args: socket.socket) -> None:
        threading.Thread(target=target, args=args, daemon=True).start()  # type: ignore[arg-type]
