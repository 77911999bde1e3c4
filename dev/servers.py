"""Servers of one's own on the loopback interface, for the tests and the benchmark."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import pwd
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from prodserver_celery5.pytest_plugin.process import DEADLINE, StartedProcess

from .procfile import free_port
from .waiting import wait_until

__all__ = (
    "MariaDB",
    "PgBouncer",
    "PostgreSQL",
    "RabbitMQ",
    "Redis",
    "SecureRedis",
    "Sentinel",
    "hold_port",
)

# Debian's script in PATH switches to the user rabbitmq, who cannot use the folder.
_RABBITMQ = "/usr/lib/rabbitmq/bin/rabbitmq-server"
_VHOSTS = 60


def hold_port() -> socket.socket:
    """Return a socket that keeps a port for a server, even while that is away.

    It never listens, so the server can.
    """
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.bind(("127.0.0.1", 0))
    return held


class Redis:
    """A Redis server; each deployment gets its own database.

    Args:
        folder: for its log.
        stack: ends it.
    """

    program = shutil.which("redis-server")
    options: tuple[str, ...] = ("--save", "", "--appendonly", "no")
    # What a client has to know beside the address.
    transport_options: dict[str, Any] = {}  # noqa: RUF012 - only read
    use_ssl: dict[str, Any] | None = None

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder = folder
        self.port: int = stack.enter_context(hold_port()).getsockname()[1]
        self.process = self._start()
        stack.callback(lambda: self.process.kill())
        self._databases = 0

    def url(self) -> str:
        """Return the address of an unused database."""
        self._databases += 1
        return f"redis://127.0.0.1:{self.port}/{self._databases}"

    def pause(self, meanwhile: Callable[[], None]) -> None:
        """Stop the server, which loses its data, and start it again."""
        self.process.kill()
        try:
            meanwhile()
        finally:
            self.process = self._start()

    def _start(self) -> StartedProcess:
        words = ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1"]
        words += [*self.options, "--databases", "1000"]
        log = self.folder / "redis.log"
        process = StartedProcess(words, log=log, cwd=self.folder, env=dict(os.environ))
        process.wait_for("Ready to accept connections")
        return process


class SecureRedis(Redis):
    """A Redis server that speaks TLS, and without it only to what looks inside."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.secure_port: int = stack.enter_context(hold_port()).getsockname()[1]
        key, cert = _make_certificate(folder)
        self.use_ssl = {"ssl_cert_reqs": "none"}
        self.options += (
            "--tls-port", str(self.secure_port), "--tls-auth-clients", "no",
            "--tls-key-file", str(key), "--tls-cert-file", str(cert),
            "--tls-ca-cert-file", str(cert),
        )  # fmt: skip
        super().__init__(folder, stack)

    def url(self) -> str:
        """Return the address of an unused database."""
        super().url()
        return f"rediss://127.0.0.1:{self.secure_port}/{self._databases}"


class Sentinel(Redis):
    """A Redis server that clients find through a Sentinel."""

    transport_options: dict[str, Any] = {"master_name": "main"}  # noqa: RUF012 - only read

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        super().__init__(folder, stack)
        self.sentinel_port: int = stack.enter_context(hold_port()).getsockname()[1]
        file = folder / "sentinel.conf"
        file.write_text(
            f"port {self.sentinel_port}\nbind 127.0.0.1\n"
            f"sentinel monitor main 127.0.0.1 {self.port} 1\n"
        )
        words = ["redis-server", str(file), "--sentinel"]
        sentinel = StartedProcess(
            words, log=folder / "sentinel.log", cwd=folder, env=dict(os.environ)
        )
        stack.enter_context(sentinel)
        sentinel.wait_for("Sentinel ID is")

    def url(self) -> str:
        """Return the address of an unused database."""
        super().url()
        return f"sentinel://127.0.0.1:{self.sentinel_port}/{self._databases}"


class RabbitMQ:
    """A RabbitMQ server, on a second port with TLS; each site has its virtual host.

    Args:
        folder: for its data, its cookie and its log.
        stack: ends it.
    """

    program = shutil.which(_RABBITMQ)

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.port, self.secure_port, names_port = free_port(), free_port(), free_port()
        self._vhosts = 0
        key, cert = _make_certificate(folder)
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
            "RABBITMQ_NODENAME": "tests@localhost",
            "RABBITMQ_PID_FILE": str(folder / "pid"),
        }
        (folder / "plugins").write_text("[].\n")
        (folder / "definitions.json").write_text(json.dumps(_definitions()))
        (folder / "rabbitmq.conf").write_text(
            f"listeners.tcp.default = 127.0.0.1:{self.port}\n"
            f"listeners.ssl.default = 127.0.0.1:{self.secure_port}\n"
            f"ssl_options.keyfile = {key}\nssl_options.certfile = {cert}\n"
            f"load_definitions = {folder / 'definitions.json'}\n"
            "log.console = true\n"
        )
        # Erlang's name server: the broker would leave it behind as a daemon.
        names = ["epmd", "-port", str(names_port), "-address", "127.0.0.1"]
        stack.enter_context(
            StartedProcess(names, log=folder / "names.log", cwd=folder, env=env)
        )
        _wait_for_port(names_port)
        server = StartedProcess([_RABBITMQ], log=folder / "output", cwd=folder, env=env)
        stack.enter_context(server)
        server.wait_for("Server startup complete", timeout=DEADLINE)

    def url(self) -> str:
        """Return the address of an unused virtual host."""
        self._vhosts += 1
        assert self._vhosts < _VHOSTS
        return f"amqp://site:site@127.0.0.1:{self.port}/site{self._vhosts}"


class PostgreSQL:
    """A PostgreSQL server; each deployment gets its own migrated database.

    Args:
        folder: for its data and its log.
        stack: ends it.
        words: more words of its command line.
    """

    program = next(map(str, sorted(Path("/usr/lib/postgresql").glob("*/bin"))), None)

    def __init__(self, folder: Path, stack: ExitStack, *words: str) -> None:
        assert self.program
        self.folder = folder
        self.port = free_port()
        self._words = words
        self._bin = Path(self.program)
        self._databases = 0
        self._migrated: set[str] = set()
        # PostgreSQL refuses to run as root; Debian has a user for it.
        self._user = "postgres" if os.geteuid() == 0 else None
        self.home = _make_home(self._user, stack)
        options = ["--auth=trust", "--username=tests", "--no-sync"]
        self._run("initdb", *options, "--pgdata", str(self.home))
        self.process = self._start()
        stack.callback(lambda: self.process.kill())

    def pause(self, meanwhile: Callable[[], None]) -> None:
        """Stop the server, and start it again."""
        # The fast shutdown: SIGTERM would wait for the clients.
        self.process.stop(signal.SIGINT)
        try:
            meanwhile()
        finally:
            self.process = self._start()

    def sql(self, database: str, query: str) -> str:
        """Run a query and return its rows, as psql prints them."""
        words = ["--host=127.0.0.1", f"--port={self.port}", "--username=tests"]
        words += ["--no-psqlrc", "--tuples-only", "--no-align", "--command", query]
        return self._run("psql", *words, database).strip()

    def _start(self) -> StartedProcess:
        words = [str(self._bin / "postgres"), "-D", str(self.home)]
        words += ["-p", str(self.port), "-c", "listen_addresses=127.0.0.1"]
        words += ["-c", "fsync=off", "-c", "unix_socket_directories=", *self._words]
        process = _start(words, self._user, self.folder / "log")
        process.wait_for("ready to accept (read-only )?connections")
        return process

    def url(self, migrate: Callable[[str], None], project: str = "prayer_room") -> str:
        """Return the address of a database as the release phase leaves it.

        Args:
            migrate: runs a project's release phase; called once per project.
            project: the project's name.
        """
        if project not in self._migrated:
            self._create(project)
            migrate(self._address(project))
            self._migrated.add(project)
        self._databases += 1
        name = f"site{self._databases}"
        self._create(name, f"--template={project}")
        return self._address(name)

    def _address(self, name: str) -> str:
        return f"postgres://tests@127.0.0.1:{self.port}/{name}"

    def _create(self, *words: str) -> None:
        address = ["--host=127.0.0.1", f"--port={self.port}", "--username=tests"]
        self._run("createdb", *address, *words)

    def _run(self, program: str, *words: str) -> str:
        done = subprocess.run(
            [str(self._bin / program), *words],
            user=self._user,
            cwd="/",
            env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"},
            check=True,
            capture_output=True,
            text=True,
            timeout=DEADLINE,
        )
        return done.stdout


class PgBouncer:
    """A pooler in front of a PostgreSQL server.

    Args:
        folder: for its configuration and its log.
        stack: ends it.
        server: the PostgreSQL server.
        mode: ``"session"``, ``"transaction"`` or ``"statement"``.
    """

    program = shutil.which("pgbouncer")

    def __init__(
        self, folder: Path, stack: ExitStack, server: PostgreSQL, mode: str
    ) -> None:
        assert self.program
        self.port = free_port()
        user = "postgres" if os.geteuid() == 0 else None
        home = _make_home(user, stack)
        (home / "users").write_text('"tests" ""\n')
        (home / "ini").write_text(
            f"[databases]\n* = host=127.0.0.1 port={server.port}\n"
            f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {self.port}\n"
            f"unix_socket_dir =\npool_mode = {mode}\nauth_type = trust\n"
            f"auth_file = {home / 'users'}\n"
            "ignore_startup_parameters = extra_float_digits\n"
        )
        server_ = _start([self.program, str(home / "ini")], user, folder / "log")
        stack.enter_context(server_)
        server_.wait_for("process up")


class MariaDB:
    """A MariaDB server; each deployment gets its own migrated database.

    Args:
        folder: for its data and its log.
        stack: ends it.
        *options: of the server.
    """

    program = shutil.which("mariadbd", path=f"{os.environ['PATH']}:/usr/sbin")

    def __init__(self, folder: Path, stack: ExitStack, *options: str) -> None:
        assert self.program
        self.folder = folder
        self.port = free_port()
        self._options = options
        self._databases = 0
        self._user = "mysql" if os.geteuid() == 0 else None
        self.home = _make_home(self._user, stack)
        words = ["mariadb-install-db", "--no-defaults", f"--datadir={self.home}"]
        words += ["--auth-root-authentication-method=normal", "--skip-test-db"]
        subprocess.run(
            words, user=self._user, cwd="/", env=_ENV, check=True,
            capture_output=True, timeout=DEADLINE,
        )  # fmt: skip
        self.process = self._start()
        stack.callback(lambda: self.process.kill())

    def pause(self, meanwhile: Callable[[], None]) -> None:
        """Stop the server, and start it again."""
        self.process.stop()
        try:
            meanwhile()
        finally:
            self.process = self._start()

    def url(self, migrate: Callable[[str], None], project: str = "prayer_room") -> str:
        """Return the address of a database as the release phase leaves it."""
        self._databases += 1
        name = f"site{self._databases}"
        self.sql("", f"CREATE DATABASE {name}")
        url = f"mysql://root@127.0.0.1:{self.port}/{name}"
        migrate(url)
        return url

    def sql(self, database: str, query: str) -> str:
        """Run a query and return its rows."""
        words = ["mariadb", "--no-defaults", "--host=127.0.0.1", f"--port={self.port}"]
        words += ["--user=root", "--batch", "--skip-column-names", "--execute", query]
        done = subprocess.run(
            [*words, *([database] if database else [])],
            check=True,
            capture_output=True,
            text=True,
            timeout=DEADLINE,
        )
        return done.stdout.strip()

    def _start(self) -> StartedProcess:
        assert self.program
        words = [self.program, "--no-defaults", f"--datadir={self.home}"]
        words += [f"--port={self.port}", "--bind-address=127.0.0.1"]
        words += [f"--socket={self.home / 'socket'}", "--skip-log-bin"]
        words += ["--innodb-flush-log-at-trx-commit=0", *self._options]
        process = _start(words, self._user, self.folder / "log")
        process.wait_for("ready for connections")
        return process


# A server's user may not be allowed to write to the tests' TMPDIR.
_ENV = {name: value for name, value in os.environ.items() if name != "TMPDIR"}


def _make_certificate(folder: Path) -> tuple[Path, Path]:
    """Make a key and a certificate signed with it."""
    key, cert = folder / "key.pem", folder / "cert.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
         "-subj", "/CN=127.0.0.1", "-keyout", key, "-out", cert],
        check=True, capture_output=True, timeout=60,
    )  # fmt: skip
    return key, cert


def _make_home(user: str | None, stack: ExitStack) -> Path:
    """Make a folder for a server, which may run as another user.

    Not in one of pytest's: those are private to their owner, and each new pytest makes
    them so again. Nor in a TMPDIR that another user cannot enter, such as nox's in
    root's home.
    """
    folder = Path(tempfile.gettempdir()).resolve()
    if user and not all(
        path.stat().st_mode & stat.S_IXOTH for path in (folder, *folder.parents)
    ):
        folder = Path("/tmp")
    made = tempfile.TemporaryDirectory(prefix="server-", dir=folder)
    home = Path(stack.enter_context(made))
    if user:
        entry = pwd.getpwnam(user)
        os.chown(home, entry.pw_uid, entry.pw_gid)
    return home


def _start(words: list[str], user: str | None, log: Path) -> StartedProcess:
    """Start a server, as another user if it refuses to run as root."""
    if user:
        change = ["setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups"]
        words = [*change, *words]
    return StartedProcess(words, log=log, cwd=Path("/"), env=_ENV)


def _wait_for_port(port: int) -> None:
    def answers() -> bool:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            return False
        return True

    wait_until(answers)


def _definitions() -> dict[str, object]:
    """Return a user and its virtual hosts, for RabbitMQ to import at startup."""
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
