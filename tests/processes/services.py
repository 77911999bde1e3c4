"""The brokers and databases on which the process tests run."""

from __future__ import annotations

import os
import pwd
import subprocess
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from prodserver_celery5.process import Process
from tests.behaviour.servers import RabbitMQ, Redis, free_port

__all__ = ("SERVERS", "PostgreSQL", "Services")


class PostgreSQL:
    """A PostgreSQL server; each deployment has a migrated database of its own in it.

    Args:
        folder: for its data and its log.
        stack: ends it.
    """

    program = next(map(str, sorted(Path("/usr/lib/postgresql").glob("*/bin"))), None)

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        assert self.program
        self.port = free_port()
        self._bin = Path(self.program)
        self._databases = 0
        # The server refuses to run as root, and Debian has a user for it.
        self._user = "postgres" if os.geteuid() == 0 else None
        home = folder / "postgresql"
        home.mkdir()
        if self._user:
            user = pwd.getpwnam(self._user)
            os.chown(home, user.pw_uid, user.pw_gid)
            for parent in home.parents:
                if parent.stat().st_uid == 0 and parent.stat().st_mode & 0o077 == 0:
                    # pytest's folders are their owner's alone.
                    parent.chmod(0o711)
        self._run("initdb", "--auth=trust", "--username=tests", "--pgdata", str(home))
        words = [str(self._bin / "postgres"), "-D", str(home), "-p", str(self.port)]
        words += ["-c", "listen_addresses=127.0.0.1", "-c", "fsync=off"]
        words += ["-c", "unix_socket_directories="]
        if self._user:
            change = ["setpriv", f"--reuid={self._user}", f"--regid={self._user}"]
            words = [*change, "--init-groups", *words]
        server = Process(words, log=folder / "log", cwd=Path("/"), env=dict(os.environ))
        stack.enter_context(server)
        server.wait_for("ready to accept connections")

    def url(self, migrate: Callable[[str], None]) -> str:
        """Return the address of a database as the release phase leaves it."""
        if not self._databases:
            self._create("migrated")
            migrate(self._address("migrated"))
        self._databases += 1
        name = f"site{self._databases}"
        self._create(name, "--template=migrated")
        return self._address(name)

    def _address(self, name: str) -> str:
        return f"postgres://tests@127.0.0.1:{self.port}/{name}"

    def _create(self, *words: str) -> None:
        address = ["--host=127.0.0.1", f"--port={self.port}", "--username=tests"]
        self._run("createdb", *address, *words)

    def _run(self, program: str, *words: str) -> None:
        subprocess.run(
            [str(self._bin / program), *words],
            user=self._user,
            cwd="/",
            env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"},
            check=True,
            capture_output=True,
            timeout=60,
        )


SERVERS = {"redis": Redis, "rabbitmq": RabbitMQ, "postgresql": PostgreSQL}


class Services:
    """Starts each server that is asked for, once.

    Args:
        make_folder: makes a folder for a server.
        stack: ends the servers.
    """

    def __init__(self, make_folder: Callable[[str], Path], stack: ExitStack) -> None:
        self._make_folder = make_folder
        self._stack = stack
        self._running: dict[str, Redis | RabbitMQ | PostgreSQL] = {}

    def env(self, names: str, migrate: Callable[[str], None]) -> dict[str, str]:
        """Return the variables of a deployment that uses some services.

        Args:
            names: separated by hyphens; those that are no servers need none.
            migrate: runs the release phase on a database.
        """
        env = {}
        for name in names.split("-"):
            if name in SERVERS:
                if name not in self._running:
                    folder = self._make_folder(name)
                    self._running[name] = SERVERS[name](folder, self._stack)
                server = self._running[name]
                if isinstance(server, PostgreSQL):
                    env["DATABASE_URL"] = server.url(migrate)
                else:
                    env[f"{name.upper()}_URL"] = server.url()
        return env
