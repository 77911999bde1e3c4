"""A lock that a database keeps for one process at a time, without a table.

It belongs to a session and ends with it: however the process ends and, where the server
can be told so, after `LEASE` seconds of silence. The session has a connection of its
own, made with the alias' settings and driver: Django may pool its own connection, close
it after each use or silently reconnect, and the lock would be gone.
"""

from __future__ import annotations

import hashlib
import os
import socket
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.db import connections

__all__ = (
    "LEASE", "Lock", "NotHereError", "RefusedError", "UnavailableError", "lock_of",
)  # fmt: skip

# How long a server keeps the lock for a silent process, in seconds.
LEASE = 30

# How long to wait for an answer of the server, in seconds: a network that has fallen
# silent is noticed well before the lease ends.
_PATIENCE = 5

_DIRECT = "Name an alias of DATABASES that connects directly to the primary server."
_POOLER = (
    "a pooler such as {} stands before this {}, and gives the session of the lock to"
    " others."
)
_REPLICA = "this {} is a read replica, whose locks are its own."


class UnavailableError(Exception):
    """The database does not answer; it may do so later."""


class RefusedError(Exception):
    """The database cannot keep the lock, now or later.

    Args:
        message: what is wrong.
        hint: what to do; ``""`` where the message says it.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class NotHereError(RefusedError):
    """The database cannot keep the lock on this machine; elsewhere it may."""


class Lock(ABC):
    """A lock in a database.

    Args:
        alias: an alias of DATABASES.
        name: what is locked: in one database, one process at a time has it.
    """

    def __init__(self, alias: str, name: str) -> None:
        self.wrapper: Any = connections[alias]
        self.alias = alias
        self.name = name

    @abstractmethod
    def connect(self) -> None:
        """Connect to the database, unless connected already.

        Raises:
            UnavailableError: the database does not answer.
            RefusedError: the database cannot keep the lock.
        """

    @abstractmethod
    def acquire(self) -> bool:
        """Take the lock if nobody has it; return whether it is ours now.

        Raises:
            UnavailableError, RefusedError: as `connect`.
        """

    @abstractmethod
    def is_held(self) -> bool:
        """Ask the database whether the lock is ours; no answer is a no."""

    @abstractmethod
    def close(self) -> None:
        """Give the lock back, with the connection."""

    def _digest(self, *words: str) -> str:
        text = "\0".join((self.name, *words))
        return hashlib.sha256(text.encode()).hexdigest()


def lock_of(alias: object, name: str) -> Lock:
    """Return the lock of that name in a database.

    Args:
        alias: an alias of DATABASES.
        name: what is locked.

    Raises:
        RefusedError: there is no such alias, or no lock for that kind of database.
        NotHereError: the driver of the database is missing, the database is in memory,
            or this is no POSIX system.
    """
    if os.name != "posix":
        # A new start has the same pid only there, and SQLite's lock is `flock`.
        raise NotHereError("it needs a POSIX system.")
    if not isinstance(alias, str) or alias not in connections:
        known = ", ".join(map(repr, connections))
        raise RefusedError("DATABASES has no such alias.", f"It has {known}.")
    try:
        wrapper: Any = connections[alias]
    except ImproperlyConfigured as exc:
        raise NotHereError(f"the database cannot be used here: {exc}") from exc
    kind = _KINDS.get(wrapper.vendor)
    if kind is None:
        raise RefusedError(
            f"the ENGINE {wrapper.settings_dict['ENGINE']!r} is not supported.",
            "Name an alias of a PostgreSQL, MySQL, MariaDB or SQLite database.",
        )
    # `manage.py test` runs the checks with this database in place of the real one.
    test = f"file:memorydb_{alias}?mode=memory&cache=shared"
    is_sqlite, file = wrapper.vendor == "sqlite", wrapper.settings_dict["NAME"]
    if is_sqlite and wrapper.is_in_memory_db() and file != test:
        raise _in_memory()
    return kind(alias, name)


class _SessionLock(Lock):
    """A lock that a server keeps for the session of a connection."""

    _connection: Any = None
    _taken = False

    @abstractmethod
    def _new_connection(self) -> Any:
        """Connect, with a timeout on each wait for the server."""

    @abstractmethod
    def _prepare(self) -> None:
        """Refuse a server that cannot keep the lock, and set the lease."""

    @abstractmethod
    def _take(self) -> bool:
        """Take the lock if nobody has it."""

    @abstractmethod
    def _has(self) -> bool:
        """Whether this session has the lock."""

    def connect(self) -> None:
        if self._connection is None:
            with self._unavailable():
                self._connection = self._new_connection()
                self._prepare()

    def acquire(self) -> bool:
        self.connect()
        with self._unavailable():
            self._taken = self._take()
        return self._taken

    def is_held(self) -> bool:
        try:
            return self._taken and self._has()
        except self.wrapper.Database.Error:
            return False

    def close(self) -> None:
        connection, self._connection, self._taken = self._connection, None, False
        if connection is not None:
            with suppress(self.wrapper.Database.Error):
                connection.close()

    @contextmanager
    def _unavailable(self) -> Iterator[None]:
        try:
            yield
        except RefusedError:
            self.close()
            raise
        except self.wrapper.Database.Error as exc:
            self.close()
            raise UnavailableError(" ".join(str(exc).split())) from exc

    def _ask(self, query: str) -> Any:
        """Return the first row of the answer, if it has one."""
        cursor = self._connection.cursor()
        try:
            cursor.execute(query)
            return cursor.fetchone() if cursor.description else None
        finally:
            with suppress(self.wrapper.Database.Error):
                cursor.close()


class _PostgreSQLLock(_SessionLock):
    """A session's advisory lock, in the database of the alias."""

    def _new_connection(self) -> Any:
        params = self.wrapper.get_connection_params() | {
            "connect_timeout": _PATIENCE,
            "keepalives": 1,
            "keepalives_idle": 10,
            "keepalives_interval": 5,
            "keepalives_count": 3,
        }
        connection = self.wrapper.Database.connect(**params)
        # A session in a transaction is never idle, so it would have no lease.
        connection.autocommit = True
        return connection

    def _prepare(self) -> None:
        pid, is_replica = self._ask("SELECT pg_backend_pid(), pg_is_in_recovery()")
        if pid != self._connection.info.backend_pid:
            raise RefusedError(_POOLER.format("PgBouncer", "PostgreSQL"), _DIRECT)
        if is_replica:
            raise RefusedError(_REPLICA.format("PostgreSQL"), _DIRECT)
        # For a host that is gone and, from PostgreSQL 14 on, for a stopped process.
        settings = {
            "tcp_keepalives_idle": "10s",
            "tcp_keepalives_interval": "5s",
            "tcp_keepalives_count": "4",
            "tcp_user_timeout": f"{LEASE}s",
        }
        if self._connection.info.server_version >= 140_000:
            settings["idle_session_timeout"] = f"{LEASE}s"
        for name, value in settings.items():
            self._ask(f"SET {name} = '{value}'")

    def _take(self) -> bool:
        key = int.from_bytes(bytes.fromhex(self._digest()[:16]), "big", signed=True)
        return bool(self._ask(f"SELECT pg_try_advisory_lock({key})")[0])

    def _has(self) -> bool:
        # The lock lives as long as the session, and libpq never reconnects by itself.
        answer = self._ask("SELECT pg_backend_pid()")
        return bool(answer[0] == self._connection.info.backend_pid)

    def _ask(self, query: str) -> Any:
        # libpq itself would wait for ever.
        timer = threading.Timer(_PATIENCE, _hang_up, (self._connection.fileno(),))
        timer.daemon = True
        timer.start()
        try:
            return super()._ask(query)
        finally:
            timer.cancel()


class _MySQLLock(_SessionLock):
    """GET_LOCK of MySQL and MariaDB, one for the whole server."""

    def _new_connection(self) -> Any:
        params = self.wrapper.get_connection_params() | {
            "connect_timeout": _PATIENCE,
            "read_timeout": _PATIENCE,
            "write_timeout": _PATIENCE,
            "autocommit": True,
        }
        return self.wrapper.Database.connect(**params)

    def _prepare(self) -> None:
        session, read_only = self._ask("SELECT CONNECTION_ID(), @@GLOBAL.read_only")
        # The server's greeting has room for only 32 bits of it.
        if session & 0xFFFFFFFF != self._connection.thread_id() & 0xFFFFFFFF:
            raise RefusedError(_POOLER.format("ProxySQL", "server"), _DIRECT)
        if read_only in (1, "1", "ON"):
            raise RefusedError(_REPLICA.format("server"), _DIRECT)
        galera = self._ask("SHOW GLOBAL VARIABLES LIKE 'wsrep_on'")
        if galera and galera[1] in ("ON", b"ON"):
            raise RefusedError(
                "this server is a node of a Galera cluster, whose locks are each"
                " node's own.",
                "Name an alias of another database.",
            )
        self._ask(f"SET SESSION wait_timeout = {LEASE}")

    def _take(self) -> bool:
        return bool(self._ask(f"SELECT GET_LOCK('{self._key()}', 0)")[0] == 1)

    def _has(self) -> bool:
        query = f"SELECT IS_USED_LOCK('{self._key()}') = CONNECTION_ID()"
        return bool(self._ask(query)[0] == 1)

    def _key(self) -> str:
        # A name has at most 64 characters, and is the server's, not the database's.
        return f"beat-{self._digest(str(self.wrapper.settings_dict['NAME']))[:48]}"


class _SQLiteLock(Lock):
    """A locked file beside the database's."""

    _file: int | None = None
    _path = ""

    def connect(self) -> None:
        self._open()

    def acquire(self) -> bool:
        import fcntl  # which only POSIX has

        file = self._open()
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.close()
            return False
        except OSError as exc:
            self.close()
            raise UnavailableError(str(exc)) from exc
        if not self.is_held():
            self.close()
        return self._file is not None

    def is_held(self) -> bool:
        # Somebody may have removed the file, and another beat locked a new one.
        try:
            return self._file is not None and os.path.samestat(
                os.fstat(self._file), os.stat(self._path)
            )
        except OSError:
            return False

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _open(self) -> int:
        if self._file is None:
            try:
                if not self._path:
                    self._path = f"{self._database()}-beat-{self._digest()[:8]}.lock"
                self._file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
            except (OSError, self.wrapper.Database.Error) as exc:
                raise UnavailableError(str(exc)) from exc
        return self._file

    def _database(self) -> str:
        """Return the path of the database's file, whatever NAME calls it."""
        params = self.wrapper.get_connection_params()
        with closing(self.wrapper.Database.connect(**params)) as connection:
            path = connection.execute("PRAGMA database_list").fetchone()[2]
        if not path:
            raise _in_memory()
        return str(path)


def _in_memory() -> NotHereError:
    return NotHereError(
        "processes do not share SQLite in memory.",
        "Name an alias of a database that all processes share.",
    )


# By Django's name for the kind of database; third-party engines use it, too.
_KINDS: dict[str, type[Lock]] = {
    "mysql": _MySQLLock,
    "postgresql": _PostgreSQLLock,
    "sqlite": _SQLiteLock,
}


def _hang_up(fileno: int) -> None:
    with suppress(OSError), socket.socket(fileno=os.dup(fileno)) as line:
        line.shutdown(socket.SHUT_RDWR)
