"""What a lock asks of a database's driver; tests/processes asks real servers."""

from __future__ import annotations

import fcntl
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from prodserver_celery5.leader import locks
from prodserver_celery5.leader.locks import RefusedError, UnavailableError, lock_of

# The lock "a" of the database "shop": beats of two releases have to agree on these.
KEY = -3848465438864589366
NAME = "beat-3dbdc6af2f32711078f81be0d8ba8947f472bcedb3ee9034"

# What a server that keeps the lock answers.
POSTGRESQL = {
    "SELECT pg_backend_pid(), pg_is_in_recovery()": (7, False),
    f"SELECT pg_try_advisory_lock({KEY})": (True,),
    "SELECT pg_backend_pid()": (7,),
}
MYSQL = {
    "SELECT CONNECTION_ID(), @@GLOBAL.read_only": (2**32 + 7, 0),
    "SHOW GLOBAL VARIABLES LIKE 'wsrep_on'": ("wsrep_on", "OFF"),
    f"SELECT GET_LOCK('{NAME}', 0)": (1,),
    f"SELECT IS_USED_LOCK('{NAME}') = CONNECTION_ID()": (1,),
}

POOLER, REPLICA, GALERA = (
    "before this {}, and gives the session of the lock to others.",
    "this {} is a read replica, whose locks are its own.",
    "this server is a node of a Galera cluster, whose locks are each node's own.",
)
DIRECT = "Name an alias of DATABASES that connects directly to the primary server."


class Driver:
    """A driver for a server that knows some answers by heart."""

    class Error(Exception):
        """What the driver raises."""

    def __init__(self, answers: dict[str, Any]) -> None:
        self.answers = answers
        self.params: dict[str, Any] = {}
        self.asked: list[str] = []
        self.ended = 0
        self.open_cursors = 0
        # Of its session:
        self.autocommit = False
        self.info = SimpleNamespace(backend_pid=7, server_version=140_000)
        self.thread_id = lambda: 7
        self.fileno = lambda: -1

    def connect(self, **params: Any) -> Driver:
        self.params = params
        return self

    def cursor(self) -> Cursor:
        self.open_cursors += 1
        return Cursor(self)

    def close(self) -> None:
        self.ended += 1


class Cursor:
    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self.description: object = None

    def execute(self, query: str) -> None:
        self._driver.asked.append(query)
        self._answer = self._driver.answers.get(query)
        if isinstance(self._answer, Exception):
            raise self._answer
        self.description = self._answer

    def fetchone(self) -> Any:
        if self.description is None:
            raise Driver.Error("there is no answer to read")
        return self._answer

    def close(self) -> None:
        self._driver.open_cursors -= 1


Make = Callable[[str], tuple[Any, Driver]]


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch) -> Make:
    """Make a lock in a database of some kind, and the driver that it uses."""

    def make(vendor: str) -> tuple[Any, Driver]:
        driver = Driver(dict(POSTGRESQL if vendor == "postgresql" else MYSQL))
        wrapper = SimpleNamespace(
            vendor=vendor,
            Database=driver,
            settings_dict={"NAME": "shop"},
            get_connection_params=lambda: {"user": "me", "connect_timeout": 99},
        )
        monkeypatch.setattr(locks, "connections", {"default": wrapper})
        return lock_of("default", "a"), driver

    return make


SETTINGS = [
    "SET tcp_keepalives_idle = '10s'",
    "SET tcp_keepalives_interval = '5s'",
    "SET tcp_keepalives_count = '4'",
    "SET tcp_user_timeout = '30s'",
    "SET idle_session_timeout = '30s'",
]


@pytest.mark.parametrize(("version", "settings"), [(140_000, 5), (139_999, 4)])
def test_postgresql(make: Make, version: int, settings: int) -> None:
    lock, driver = make("postgresql")
    driver.info.server_version = version
    assert not lock.is_held()
    lock.connect()
    lock.connect()
    assert driver.params == {
        "user": "me", "connect_timeout": 5, "keepalives": 1, "keepalives_idle": 10,
        "keepalives_interval": 5, "keepalives_count": 3,
    }  # fmt: skip
    assert driver.autocommit
    begin, take, has = POSTGRESQL
    assert driver.asked == [begin, *SETTINGS[:settings]]
    assert lock.acquire() is True
    assert lock.is_held() is True
    assert driver.asked[-2:] == [take, has]
    driver.answers[has] = (8,)
    assert lock.is_held() is False
    driver.answers[take] = (False,)
    assert lock.acquire() is False
    assert (driver.open_cursors, driver.ended) == (0, 0)


def test_mysql(make: Make) -> None:
    lock, driver = make("mysql")
    assert lock.acquire() is True
    assert driver.params == {
        "user": "me", "connect_timeout": 5, "read_timeout": 5, "write_timeout": 5,
        "autocommit": True,
    }  # fmt: skip
    begin, galera, take, has = MYSQL
    assert driver.asked == [begin, galera, "SET SESSION wait_timeout = 30", take]
    assert lock.is_held() is True
    assert driver.asked[-1] == has
    # NULL if nobody has it.
    for answer in (0, None):
        driver.answers[has] = driver.answers[take] = (answer,)
        assert lock.is_held() is False
    assert lock.acquire() is False


@pytest.mark.parametrize(
    ("vendor", "query", "answer", "message", "hint"),
    [
        ("postgresql", 0, (8, False), POOLER.format("PostgreSQL"), DIRECT),
        ("postgresql", 0, (7, True), REPLICA.format("PostgreSQL"), DIRECT),
        ("mysql", 0, (8, 0), POOLER.format("server"), DIRECT),
        *(
            ("mysql", 0, (7, read_only), REPLICA.format("server"), DIRECT)
            for read_only in (1, "1", "ON")
        ),
        *(
            ("mysql", 1, ("wsrep_on", on), GALERA, "Name an alias of another database.")
            for on in ("ON", b"ON")
        ),
    ],
)
def test_what_cannot_keep_a_lock(
    make: Make, vendor: str, query: int, answer: Any, message: str, hint: str
) -> None:
    lock, driver = make(vendor)
    driver.answers[[*driver.answers][query]] = answer
    with pytest.raises(RefusedError) as refused:
        lock.acquire()
    assert str(refused.value).endswith(message)
    assert refused.value.hint == hint
    assert driver.ended == 1


def test_a_mysql_that_has_never_heard_of_galera(make: Make) -> None:
    lock, driver = make("mysql")
    del driver.answers["SHOW GLOBAL VARIABLES LIKE 'wsrep_on'"]
    assert lock.acquire()


@pytest.mark.parametrize("vendor", ["postgresql", "mysql"])
def test_a_server_that_fails(make: Make, vendor: str) -> None:
    """The session is given up, and another one asked for the next time."""
    lock, driver = make(vendor)
    assert lock.acquire()
    *_, take, has = driver.answers
    answers = dict(driver.answers)
    driver.answers[has] = Driver.Error("it is gone")
    assert lock.is_held() is False
    driver.answers[take] = Driver.Error("it is\ngone")
    with pytest.raises(UnavailableError, match=r"^it is gone$"):
        lock.acquire()
    assert (driver.open_cursors, driver.ended) == (0, 1)
    driver.answers = answers
    assert not lock.is_held()
    assert lock.acquire()
    lock.close()
    lock.close()
    assert driver.ended == 2
    assert not lock.is_held()


def test_postgresqls_driver_would_wait_for_ever(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So each question has a time limit, after which its socket is shut down."""
    done: list[object] = []

    class Timer:
        daemon = False

        def __init__(self, *args: object) -> None:
            done.append(args)

        def start(self) -> None:
            done.append(self.daemon)

        def cancel(self) -> None:
            done.append("cancelled")

    lock, driver = make("postgresql")
    lock.connect()
    monkeypatch.setattr(threading, "Timer", Timer)
    here, there = socket.socketpair()
    with here, there:
        driver.fileno = here.fileno
        lock.acquire()
        args: Any = done[0]
        assert done == [args, True, "cancelled"]
        seconds, hang_up, words = args
        assert seconds == 5
        hang_up(*words)
        assert there.recv(1) == b""
        # The driver closes the socket itself.
        os.fstat(here.fileno())
    hang_up(-1)  # it has gone in the meantime


# The lock beside an SQLite database


@pytest.mark.usefixtures("databases")
def test_one_has_it(tmp_path: Path) -> None:
    first, second, other = (lock_of("default", name) for name in ("a", "a", "b"))
    assert first.acquire()
    assert first.is_held()
    assert not second.acquire()
    assert not second.is_held()
    assert other.acquire()
    first.close()
    assert not first.is_held()
    assert second.acquire()


@pytest.mark.usefixtures("databases")
def test_a_file_that_somebody_has_removed(tmp_path: Path) -> None:
    first, second = lock_of("default", "a"), lock_of("default", "a")
    assert first.acquire()
    assert not second.acquire()
    (file,) = tmp_path.glob("*.lock")
    file.unlink()
    assert second.acquire()
    assert second.is_held()
    assert not first.is_held()


@pytest.mark.usefixtures("databases")
def test_a_file_that_is_removed_before_it_is_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flock = fcntl.flock

    def too_late(file: int, operation: int) -> None:
        for path in tmp_path.glob("*.lock"):
            path.unlink()
        flock(file, operation)

    lock = lock_of("default", "a")
    with monkeypatch.context() as patch:
        patch.setattr(fcntl, "flock", too_late)
        assert not lock.acquire()
    assert lock.acquire()


def test_the_file_stands_beside_the_database(
    databases: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "data")
    engine = {"ENGINE": "django.db.backends.sqlite3"}
    databases["default"] = engine | {"NAME": f"file:{tmp_path}/data/x.db?mode=rwc"}
    databases["other"] = engine | {"NAME": f"{tmp_path}/link/x.db"}
    first, second = lock_of("default", "a"), lock_of("other", "a")
    assert first.acquire()
    (file,) = (tmp_path / "data").glob("*.lock")
    assert file.name.startswith("x.db-beat-")
    assert not second.acquire()


def test_a_database_that_is_not_there_yet(
    databases: dict[str, Any], tmp_path: Path
) -> None:
    databases["default"]["NAME"] = str(tmp_path / "volume" / "db.sqlite3")
    lock = lock_of("default", "a")
    with pytest.raises(UnavailableError, match="unable to open database file"):
        lock.acquire()
    (tmp_path / "volume").mkdir()
    assert lock.acquire()


def test_what_is_refused_says_what_to_do(databases: dict[str, Any]) -> None:
    with pytest.raises(RefusedError) as refused:
        lock_of("nowhere", "a")
    assert refused.value.hint == "It has 'default'."
