"""Brokers of one's own: started by hand on the loopback, ended with their folder."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from prodserver_celery5.process import Process

__all__ = ("RabbitMQ", "Redis", "free_port")

# Debian's script in PATH changes to the user rabbitmq, whose the folder is not.
_RABBITMQ = "/usr/lib/rabbitmq/bin/rabbitmq-server"
_VHOSTS = 40


class Redis:
    """A Redis server; each site has a database of its own in it.

    Args:
        folder: for its log.
        stack: ends it.
    """

    program = shutil.which("redis-server")

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder = folder
        self.port = free_port()
        self.process = self._start()
        stack.callback(lambda: self.process.kill())
        self._databases = 0

    def url(self) -> str:
        """Return the address of a database that nobody has used."""
        self._databases += 1
        return f"redis://127.0.0.1:{self.port}/{self._databases}"

    def pause(self, meanwhile: Callable[[], None]) -> None:
        """End the server, without its data, and start it again."""
        self.process.kill()
        meanwhile()
        self.process = self._start()

    def _start(self) -> Process:
        words = ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1"]
        words += ["--save", "", "--appendonly", "no", "--databases", "1000"]
        log = self.folder / "redis.log"
        process = Process(words, log=log, cwd=self.folder, env=dict(os.environ))
        process.wait_for("Ready to accept connections")
        return process


class RabbitMQ:
    """A RabbitMQ server; each site has a virtual host of its own in it.

    Args:
        folder: for its data, its cookie and its log.
        stack: ends it.
    """

    program = shutil.which(_RABBITMQ)

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.port, names_port = free_port(), free_port()
        self._vhosts = 0
        env = {
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_PORT": str(names_port),
            "HOME": str(folder),
            "PATH": os.environ["PATH"],
            "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
            "RABBITMQ_DIST_PORT": str(free_port()),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
            "RABBITMQ_LOG_BASE": str(folder),
            "RABBITMQ_MNESIA_BASE": str(folder / "data"),
            "RABBITMQ_NODENAME": "behaviour@localhost",
            "RABBITMQ_PID_FILE": str(folder / "pid"),
        }
        (folder / "plugins").write_text("[].\n")
        (folder / "definitions.json").write_text(json.dumps(_definitions()))
        (folder / "rabbitmq.conf").write_text(
            f"listeners.tcp.default = 127.0.0.1:{self.port}\n"
            f"load_definitions = {folder / 'definitions.json'}\n"
            "log.console = true\n"
        )
        # Erlang's register of names: started here, it is not left behind as a daemon.
        names = ["epmd", "-port", str(names_port), "-address", "127.0.0.1"]
        stack.enter_context(
            Process(names, log=folder / "names.log", cwd=folder, env=env)
        )
        _wait_for_port(names_port)
        server = Process([_RABBITMQ], log=folder / "output", cwd=folder, env=env)
        stack.enter_context(server)
        server.wait_for("Server startup complete", timeout=60)

    def url(self) -> str:
        """Return the address of a virtual host that nobody has used."""
        self._vhosts += 1
        assert self._vhosts < _VHOSTS
        return f"amqp://site:site@127.0.0.1:{self.port}/site{self._vhosts}"


def free_port() -> int:
    """Return a port of the loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_for_port(port: int) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            assert time.monotonic() < deadline, "no answer within 20 s"
            time.sleep(0.05)
        else:
            return


def _definitions() -> dict[str, object]:
    """A user and its virtual hosts, as RabbitMQ imports them at its start."""
    salt = b"salt"
    password = base64.b64encode(salt + hashlib.sha256(salt + b"site").digest())
    vhosts = [f"site{number}" for number in range(1, _VHOSTS)]
    everything = {"configure": ".*", "write": ".*", "read": ".*"}
    return {
        "users": [
            {
                "name": "site",
                "password_hash": password.decode(),
                "hashing_algorithm": "rabbit_password_hashing_sha256",
                "tags": "",
            }
        ],
        "vhosts": [{"name": name} for name in vhosts],
        "permissions": [
            {"user": "site", "vhost": name, **everything} for name in vhosts
        ],
    }
