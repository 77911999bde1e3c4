"""Locks on database servers: who has one, how it is lost, and what is refused."""

from __future__ import annotations

from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from django.db import ConnectionHandler

from dev.servers import MariaDB, PgBouncer, PostgreSQL
from dev.waiting import wait_until
from prodserver_celery5.leader import locks
from prodserver_celery5.leader.locks import RefusedError, UnavailableError, lock_of
from tests.blows.relay import Relay
from tests.services import Services

ENGINES = {
    "postgresql": "django.db.backends.postgresql",
    "mariadb": "django.db.backends.mysql",
}


@pytest.fixture(params=["postgresql", pytest.param("mariadb", marks=pytest.mark.once)])
def server(request: pytest.FixtureRequest, all_services: Services) -> Any:
    if find_spec("MySQLdb") is None:  # mysqlclient, Django's own choice
        pytest.importorskip("pymysql").install_as_MySQLdb()
    return all_services.server(request.param)


@pytest.fixture
def database(server: Any) -> dict[str, Any]:
    """The entry in DATABASES for the server's own database."""
    is_postgresql = isinstance(server, PostgreSQL)
    return {
        "ENGINE": ENGINES["postgresql" if is_postgresql else "mariadb"],
        "NAME": "postgres" if is_postgresql else "mysql",
        "USER": "tests" if is_postgresql else "root",
        "HOST": "127.0.0.1",
        "PORT": server.port,
    }


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Point each alias at the database given for it."""

    def use(**databases: dict[str, Any]) -> None:
        handler = ConnectionHandler({"default": {}, **databases})
        monkeypatch.setattr(locks, "connections", handler)

    return use


def sessions(server: Any) -> list[str]:
    """Return the sessions that hold a lock; of MariaDB, all idle ones."""
    if isinstance(server, PostgreSQL):
        query = "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted"
        return server.sql("postgres", query).split()
    query = (
        "SELECT id FROM information_schema.processlist"
        " WHERE id <> CONNECTION_ID() AND command = 'Sleep'"
    )
    return str(server.sql("", query)).split()


def end(server: Any, session: str) -> None:
    if isinstance(server, PostgreSQL):
        server.sql("postgres", f"SELECT pg_terminate_backend({session})")
    else:
        server.sql("", f"KILL {session}")


def test_one_has_it_until_its_session_ends(
    server: Any, database: dict[str, Any], use: Any
) -> None:
    use(default=database)
    first, second, other = (lock_of("default", name) for name in ("a", "a", "b"))
    assert first.acquire()
    assert first.is_held()
    # A session shows what it did last a moment later.
    (session,) = wait_until(lambda: sessions(server))
    assert not second.acquire()
    assert not second.is_held()
    assert other.acquire()
    end(server, session)
    assert not first.is_held()
    wait_until(second.acquire, locks.LEASE / 2)
    assert second.is_held()
    # The other lock is on the same server, under another name.
    assert other.is_held()
    assert not first.is_held()
    for lock in (first, second, other):
        lock.close()


def test_each_database_has_its_own(
    server: Any, database: dict[str, Any], use: Any
) -> None:
    names = {"postgres": "template1", "mysql": "sys"}
    use(default=database, other=database | {"NAME": names[database["NAME"]]})
    first, second = lock_of("default", "a"), lock_of("other", "a")
    assert first.acquire()
    assert second.acquire()
    first.close()
    second.close()


def test_the_server_has_the_lease(
    server: Any, database: dict[str, Any], use: Any
) -> None:
    use(default=database)
    lock: Any = lock_of("default", "a")
    lock.connect()
    if isinstance(server, PostgreSQL):
        assert lock._ask("SHOW idle_session_timeout") == ("30s",)
        assert lock._ask("SHOW tcp_user_timeout") == ("30000",)
    else:
        assert lock._ask("SELECT @@SESSION.wait_timeout") == (30,)
    lock.close()


def test_a_silent_network_is_noticed(
    server: Any, database: dict[str, Any], use: Any
) -> None:
    with Relay(server.port) as relay:
        use(default=database | {"PORT": relay.port})
        lock, other = lock_of("default", "a"), lock_of("default", "b")
        assert lock.acquire()
        relay.silence()
        assert not lock.is_held()
        with pytest.raises(UnavailableError):
            other.acquire()
        relay.speak()
        lock.close()
        assert other.acquire()
        other.close()


def test_a_server_that_is_away(server: Any, database: dict[str, Any], use: Any) -> None:
    with Relay(server.port) as relay:
        use(default=database | {"PORT": relay.port})
        relay.leave()
        lock = lock_of("default", "a")
        with pytest.raises(UnavailableError) as unavailable:
            lock.acquire()
        assert "\n" not in str(unavailable.value)
        assert not lock.is_held()
        relay.come_back()
        assert lock.acquire()
        lock.close()


@pytest.mark.parametrize("server", ["postgresql"], indirect=True)
@pytest.mark.parametrize("mode", ["session", "transaction", "statement"])
def test_a_pooler_is_refused(
    server: PostgreSQL, database: dict[str, Any], use: Any, tmp_path: Path, mode: str
) -> None:
    with ExitStack() as stack:
        pooler = PgBouncer(tmp_path, stack, server, mode)
        use(default=database | {"PORT": pooler.port})
        with pytest.raises(RefusedError, match="a pooler such as PgBouncer") as refused:
            lock_of("default", "a").connect()
        assert refused.value.hint.startswith("Name an alias of DATABASES")


@pytest.mark.once
@pytest.mark.parametrize("server", ["mariadb"], indirect=True)
def test_a_read_replica_of_mariadb_is_refused(
    server: MariaDB, database: dict[str, Any], use: Any
) -> None:
    use(default=database)
    server.sql("", "SET GLOBAL read_only = 1")
    try:
        with pytest.raises(RefusedError, match="a read replica"):
            lock_of("default", "a").connect()
    finally:
        server.sql("", "SET GLOBAL read_only = 0")


@pytest.mark.parametrize("server", ["postgresql"], indirect=True)
def test_a_read_replica_of_postgresql_is_refused(
    server: PostgreSQL, database: dict[str, Any], use: Any, tmp_path: Path
) -> None:
    with ExitStack() as stack:
        replica = PostgreSQL(tmp_path, stack)
        # It waits for a primary that does not exist.
        replica.pause(lambda: (replica.home / "standby.signal").touch())
        use(default=database | {"PORT": replica.port})
        with pytest.raises(RefusedError, match="a read replica"):
            lock_of("default", "a").connect()


GALERA = Path("/usr/lib/galera/libgalera_smm.so")


@pytest.mark.once
@pytest.mark.parametrize("server", ["mariadb"], indirect=True)
@pytest.mark.skipif(not GALERA.exists(), reason="no Galera on this machine")
def test_a_galera_cluster_is_refused(
    server: MariaDB, database: dict[str, Any], use: Any, tmp_path: Path
) -> None:
    from dev.procfile import free_port

    with ExitStack() as stack:
        node = MariaDB(
            tmp_path,
            stack,
            "--wsrep-on=ON",
            f"--wsrep-provider={GALERA}",
            "--wsrep-cluster-address=gcomm://",
            "--wsrep-node-address=127.0.0.1",
            "--wsrep-provider-options="
            f"gmcast.listen_addr=tcp://127.0.0.1:{free_port()}",
            "--binlog-format=ROW",
        )
        use(default=database | {"PORT": node.port})
        with pytest.raises(RefusedError, match="a node of a Galera cluster"):
            lock_of("default", "a").connect()
