"""Beats that share a schedule, of which one leads."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from dev.procfile import ROOT
from dev.servers import PgBouncer
from dev.waiting import wait_until
from prodserver_celery5.leader.locks import LEASE
from prodserver_celery5.probe import judge
from prodserver_celery5.pytest_plugin.process import StartedProcess
from tests.blows.__main__ import wrongs
from tests.blows.relay import Relay
from tests.blows.site import Site
from tests.services import Services

pytest.importorskip("pymysql")

# In seconds, on a machine with much else to do: long before the lease is over.
AT_ONCE = LEASE / 2

LEADING = "beat: Leading"
STANDING_BY = "beat: Standing by: another one leads"

# What depends on the lock, or on the database and its driver, alone.
once = pytest.mark.once


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def make(tmp_path: Path, all_services: Services, stack: ExitStack) -> Any:
    """Make a schedule in a database."""

    def make(database: str = "sqlite", **env: str) -> Site:
        server = None if database == "sqlite" else all_services.server(database)
        return Site(tmp_path, stack, all_services.server("redis"), server, **env)

    return make


@pytest.mark.parametrize(
    ("database", "env"),
    [
        ("sqlite", {}),
        pytest.param("postgresql", {"CONN_MAX_AGE": "0"}, marks=once),
        pytest.param("postgresql", {"CONN_MAX_AGE": "null"}, marks=once),
        pytest.param("postgresql", {"OPTIONS": '{"pool": true}'}, marks=once),
        pytest.param("postgresql", {"DRIVER": "psycopg2"}, marks=once),
        pytest.param("mariadb", {"CONN_MAX_AGE": "null"}, marks=once),
        pytest.param("mariadb", {"MYSQL_DRIVER": "mysqlclient"}, marks=once),
    ],
    ids=lambda value: "-".join(value.values()) if isinstance(value, dict) else value,
)
def test_one_sends_and_the_other_takes_over(
    make: Any, database: str, env: dict[str, str]
) -> None:
    if env.get("MYSQL_DRIVER") == "mysqlclient":
        pytest.importorskip("MySQLdb._mysql")
    if "pool" in env.get("OPTIONS", ""):
        pytest.importorskip("psycopg_pool")
        if __import__("django").VERSION < (5, 1):
            pytest.skip("no pool in this Django")
    site = make(database, **env)
    first = site.start("first")
    first.wait_for(LEADING)
    second, third = site.start("second"), site.start("third")
    second.wait_for(STANDING_BY)
    third.wait_for(STANDING_BY)
    site.inbox.wait_for(4)
    assert third.stop(timeout=AT_ONCE) == 0
    assert first.stop() == 0
    # It said so once, and sent nothing until it led.
    second.wait_for(LEADING, timeout=AT_ONCE)
    second.wait_for("Sending due")
    said = second.output
    assert said.count(STANDING_BY) == 1
    assert said.index(STANDING_BY) < said.index(LEADING) < said.index("Sending due")
    assert "Sending" not in third.output
    site.inbox.wait_for_one(time.time())
    second.kill()
    assert not wrongs(site.inbox.messages, site.runs())


def end_session(site: Site) -> None:
    site.sql(
        "SELECT pg_terminate_backend(pid) FROM pg_locks"
        " WHERE locktype = 'advisory' AND granted"
    )


def test_a_beat_that_has_lost_its_lead_starts_again_under_its_pid(make: Any) -> None:
    site = make("postgresql")
    args = {"BEAT_ARGS": f'{{"pidfile": "{site.folder}/beat.pid"}}'}
    first = site.start("first", **args)
    first.wait_for(LEADING)
    second = site.start("second")
    second.wait_for(STANDING_BY)
    site.inbox.wait_for(2)
    end_session(site)
    second.wait_for(LEADING, timeout=AT_ONCE)
    first.wait_for(STANDING_BY)
    assert first.output.count("the lock is lost") == 1
    assert first.popen.poll() is None
    assert not (site.folder / "beat.pid").exists()
    assert second.stop() == 0
    first.wait_for(LEADING, count=2, timeout=AT_ONCE)
    assert (site.folder / "beat.pid").read_text() == f"{first.pid}\n"
    site.inbox.wait_for_one(time.time())
    assert first.stop() == 0
    assert not (site.folder / "beat.pid").exists()
    assert not wrongs(site.inbox.messages, site.runs())


@once
def test_a_leader_that_is_stopped_past_its_lease(make: Any) -> None:
    site = make("postgresql")
    first = site.start("first")
    first.wait_for(LEADING)
    second = site.start("second")
    second.wait_for(STANDING_BY)
    site.inbox.wait_for(2)
    first.send(signal.SIGSTOP)
    second.wait_for(LEADING, timeout=LEASE + AT_ONCE)
    site.inbox.wait_for_one(time.time())
    first.send(signal.SIGCONT)
    first.wait_for(STANDING_BY)
    # The same pid. In the middle of a tick it says "Sending", and then sends nothing.
    assert first.popen.poll() is None
    site.inbox.wait_for_one(time.time() + 1)
    second.kill()
    assert not wrongs(site.inbox.messages, site.runs())


@once
def test_a_leader_that_is_stopped_and_then_ended(make: Any) -> None:
    """It neither sends nor saves on its way out."""
    site = make("postgresql")
    first = site.start("first")
    first.wait_for(LEADING)
    second = site.start("second")
    second.wait_for(STANDING_BY)
    site.inbox.wait_for(1)
    first.send(signal.SIGSTOP)
    end_session(site)
    second.wait_for("Sending due")
    first.send(signal.SIGTERM)
    first.send(signal.SIGCONT)
    assert first.wait(timeout=AT_ONCE) == 0
    site.inbox.wait_for_one(time.time() + 1)
    second.kill()
    assert not wrongs(site.inbox.messages, site.runs())


@once
@pytest.mark.parametrize("mode", ["session", "transaction"])
def test_a_pooler_is_refused_in_one_line(
    make: Any, stack: ExitStack, mode: str
) -> None:
    site = make("postgresql")
    pooler = PgBouncer(site.folder, stack, site.server, mode)
    beat = site.start("beat", DATABASE_URL=_at(site.url, pooler.port))
    assert beat.wait() == 1
    line = (
        "CommandError: beat: LEADER_LOCK = 'default': a pooler such as PgBouncer stands"
        " before this PostgreSQL, and gives the session of the lock to others. Name an"
        " alias of DATABASES that connects directly to the primary server."
    )
    assert beat.output.splitlines()[-1] == line
    assert "Traceback" not in beat.output


@once
def test_a_database_that_is_away(make: Any, stack: ExitStack) -> None:
    """At the start and later, beat waits and says so; it neither dies nor sends."""
    site = make("postgresql")
    with Relay(site.server.port) as relay:
        relay.leave()
        beat = site.start("beat", relay)
        beat.wait_for("beat: Standing by: the database of the lock is away: ")
        relay.come_back()
        beat.wait_for(LEADING, timeout=AT_ONCE)
        site.inbox.wait_for(2)
        relay.leave()
        beat.wait_for("the lock is lost: nothing is sent; starting again")
        beat.wait_for("the database of the lock is away", count=2)
        sent = len(site.inbox.messages)
        time.sleep(2)
        assert beat.popen.poll() is None
        assert len(site.inbox.messages) == sent
        relay.come_back()
        site.inbox.wait_for(sent + 1)
        assert beat.stop() == 0
    assert not wrongs(site.inbox.messages, site.runs())


@once
def test_a_run_that_cannot_be_saved_is_not_sent(make: Any) -> None:
    site = make("postgresql")
    beat = site.start("beat")
    site.inbox.wait_for(2)
    site.sql(
        "CREATE FUNCTION refuse() RETURNS trigger AS"
        " $$ BEGIN RAISE EXCEPTION 'no, not now'; END $$ LANGUAGE plpgsql;"
        "CREATE TRIGGER refuse BEFORE UPDATE ON django_celery_beat_periodictask"
        " FOR EACH ROW EXECUTE FUNCTION refuse()"
    )
    said = "the run of each second cannot be saved, and is not sent: .*no, not now"
    beat.wait_for(said)
    sent = len(site.inbox.messages)
    beat.wait_for(said, count=2)
    assert len(site.inbox.messages) == sent
    site.sql("DROP TRIGGER refuse ON django_celery_beat_periodictask")
    site.inbox.wait_for(sent + 1)
    beat.kill()
    assert not wrongs(site.inbox.messages, site.runs())


@once
@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_leader_that_is_killed_around_a_message(make: Any, moment: str) -> None:
    site = make("sqlite")
    beats = [site.start(f"beat{number}") for number in range(2)]
    for number in range(2, 5):
        site.inbox.wait_for(number)
        (site.folder / f"die {moment}").touch()
        wait_until_one_has_ended(beats)
        beats = [beat for beat in beats if beat.popen.poll() is None]
        site.inbox.wait_for_one(time.time())
        beats.append(site.start(f"beat{number}"))
    for beat in beats:
        beat.kill()
    assert not wrongs(site.inbox.messages, site.runs())
    # Each beat killed before it sent lost the run that it had saved.
    lost = site.runs() - len(site.inbox.messages)
    assert lost == {"before": 3, "after": 0}[moment]


def wait_until_one_has_ended(beats: list[StartedProcess]) -> None:
    wait_until(lambda: any(beat.popen.poll() is not None for beat in beats))


def test_redbeat(make: Any) -> None:
    pytest.importorskip("redbeat")
    site = make(
        SCHEDULER="tests.blows.scheduler:NotedRedBeat", BEAT_SCHEDULE="each second"
    )
    first, second = site.start("first"), site.start("second")
    site.inbox.wait_for(2)
    leader, other = (first, second) if LEADING in first.output else (second, first)
    # redbeat's own lock is off: a successor would wait until it expires.
    assert "lock ->" not in leader.output
    leader.kill()
    other.wait_for(LEADING, timeout=AT_ONCE)
    site.inbox.wait_for_one(time.time())
    assert other.stop() == 0
    messages = site.inbox.messages
    assert not wrongs(messages, max(message.run for message in messages))


CHANGE = """
import django; django.setup()
from django_celery_beat.models import PeriodicTasks
PeriodicTasks.update_changed()
"""


@once
@pytest.mark.parametrize("program", ["celery", "without the key", "with the key"])
def test_a_schedule_that_changes_twice_within_a_tick(make: Any, program: str) -> None:
    """django-celery-beat sends the run of that tick twice, whoever starts it.

    A tick asks for the schedule three times. If a later time reads a change, the next
    tick fills the heap once more, with entries that know nothing of the run.
    """
    site = make(SCHEDULER="tests.blows.scheduler:Changing")
    if program == "celery":
        words = ["celery", "-A", "tests.blows.app", "beat", "-l", "INFO", "-S"]
        beat = StartedProcess(
            [sys.executable, "-m", *words, site.env["SCHEDULER"]],
            log=site.folder / "beat",
            cwd=ROOT,
            env={**site.env, "DATABASE_URL": site.url},
        )
        site.stack.callback(beat.kill)
    else:
        alias = "default" if program == "with the key" else ""
        beat = site.start("beat", LEADER_LOCK=alias)
    site.inbox.wait_for(2)
    (site.folder / "change it").touch()
    site.python(CHANGE)
    beat.wait_for("Schedule changed", count=2)
    seen = len(site.inbox.messages)
    site.inbox.wait_for(seen + 3)
    assert beat.stop() == 0
    twice = Counter(message.run for message in site.inbox.messages)
    assert sorted(twice.values())[-2:] == [1, 2], site.inbox.messages


def test_a_scheduler_that_sends_by_itself(make: Any) -> None:
    """However it sends, it sends nothing without the lock."""
    site = make(SCHEDULER="tests.blows.scheduler:Careless")
    beat = site.start("beat")
    site.inbox.wait_for(3)
    (site.folder / "lose it").touch()
    beat.wait_for("the lock is lost")
    (site.folder / "lose it").unlink()
    beat.wait_for(LEADING, count=2)
    assert "sent without the lock" not in beat.output
    assert beat.stop() == 0


def test_without_the_key_nothing_of_it_is_loaded(make: Any) -> None:
    site = make(LEADER_LOCK="")
    beat = site.start("beat", SHOW_MODULES="yes")
    shown = beat.wait_for("modules: .*")
    assert "prodserver_celery5.backends" in shown
    assert "prodserver_celery5.leader.lead" not in shown
    assert "prodserver_celery5.leader.locks" not in shown
    # The fixture kills it: without the key, as with the command, a SIGTERM can be lost
    # while beat sends to Redis.


@once
def test_a_start_may_take_longer_than_the_lease(
    all_services: Services, stack: ExitStack, tmp_path: Path
) -> None:
    """Each database keeps the lock meanwhile: a second beat only stands by."""
    beats = []
    for database in ("sqlite", "postgresql", "mariadb"):
        server = None if database == "sqlite" else all_services.server(database)
        (folder := tmp_path / database).mkdir()
        redis = all_services.server("redis")
        site = Site(folder, stack, redis, server, SLOW_START=str(LEASE + 10))
        first = site.start("first")
        first.wait_for(LEADING)
        beats.append((site, first, site.start("second")))
    for site, first, second in beats:
        first.wait_for("Sending due", timeout=LEASE + 60)
        site.inbox.wait_for(2)
        assert "starting again" not in first.output
        assert LEADING not in second.output
        assert first.stop() == 0


def test_the_pidfile_is_the_leaders(make: Any) -> None:
    site = make()
    pidfile = site.folder / "beat.pid"
    site.env["BEAT_ARGS"] = f'{{"pidfile": "{pidfile}"}}'
    first = site.start("first")
    first.wait_for("Sending due")
    second, third = site.start("second"), site.start("third")
    second.wait_for(STANDING_BY)
    third.wait_for(STANDING_BY)
    assert pidfile.read_text() == f"{first.pid}\n"
    assert third.stop() == 0
    assert pidfile.read_text() == f"{first.pid}\n"
    first.kill()
    second.wait_for(LEADING, timeout=AT_ONCE)
    wait_until(lambda: pidfile.read_text() == f"{second.pid}\n")
    third = site.start("third")
    third.wait_for(STANDING_BY)
    assert second.stop() == 0
    third.wait_for(LEADING, timeout=AT_ONCE)
    assert pidfile.read_text() == f"{third.pid}\n"
    assert third.stop() == 0
    assert not pidfile.exists()


def test_a_pidfile_of_another_process(make: Any) -> None:
    """Such as that of `celery beat`, before the first deploy with the key."""
    site = make()
    (site.folder / "beat.pid").write_text(f"{os.getpid()}\n")
    beat = site.start("beat", BEAT_ARGS=f'{{"pidfile": "{site.folder}/beat.pid"}}')
    beat.wait_for("beat: Standing by: another process has the pidfile")
    (site.folder / "beat.pid").unlink()
    beat.wait_for(LEADING, timeout=AT_ONCE)
    assert beat.stop() == 0


@once
def test_a_leader_is_ready_once_it_has_ticked(make: Any) -> None:
    """Not while it has the lock, and cannot read its schedule."""
    site = make("postgresql")
    site.sql("CREATE ROLE narrow LOGIN CONNECTION LIMIT 1")
    for kind in ("TABLES", "SEQUENCES"):
        site.sql(f"GRANT ALL ON ALL {kind} IN SCHEMA public TO narrow")
    file = site.folder / "heartbeat"
    url = site.url.replace("//tests@", "//narrow@")
    beat = site.start("beat", DATABASE_URL=url, HEARTBEAT_FILE=str(file))
    answers = set()

    def has_tried_twice() -> bool:
        answers.add(judge(str(file), ready=True)[0])
        return beat.output.count("the database of the schedule is away") > 1

    wait_until(has_tried_twice)
    assert "too many connections" in beat.output
    assert answers == {False}
    site.sql("ALTER ROLE narrow CONNECTION LIMIT -1")
    wait_until(lambda: judge(str(file), ready=True)[0])
    assert "leading" in judge(str(file))[1]
    assert beat.stop() == 0


@pytest.mark.parametrize("state", ["leading", "standing by"])
def test_sigterm_ends_it_though_its_exit_is_swallowed(make: Any, state: str) -> None:
    """As when the handler runs in a `__del__`."""
    site = make(SWALLOW="yes")
    beat = site.start("beat")
    beat.wait_for("Sending due")
    if state == "standing by":
        beat = site.start("other")
        beat.wait_for(STANDING_BY)
    assert beat.stop(timeout=AT_ONCE) == 0
    assert "swallowed" in beat.output


def test_a_file_of_last_runs_that_is_not_shared(make: Any) -> None:
    """A leads, then B, then A again, which must not repeat what B has sent."""
    site = make(SCHEDULER="celery.beat:PersistentScheduler", BEAT_SCHEDULE="rare")
    files = {name: str(site.folder / name) for name in ("a", "b")}

    def start(name: str) -> StartedProcess:
        args = f'{{"schedule": "{files[name]}.runs"}}'
        return site.start(name, BEAT_ARGS=args)

    a = start("a")
    a.wait_for("Sending due", count=1)
    b = start("b")
    b.wait_for(STANDING_BY)
    assert a.stop() == 0
    b.wait_for("Sending due", count=2)
    assert b.stop() == 0
    # As old as on a host that has not led for long.
    for path in site.folder.glob("a.runs.leader"):
        os.utime(path, (0, 0))
    sent = len(site.inbox.messages)
    again = start("a")
    again.wait_for("Leading")
    time.sleep(3)
    assert len(site.inbox.messages) == sent
    assert again.stop() == 0
    # A file that all share is trusted: what came due is sent at once.
    time.sleep(10)
    shared = start("a")
    shared.wait_for("Leading")
    site.inbox.wait_for(sent + 1, timeout=8)
    assert shared.stop() == 0


def _at(url: str, port: int) -> str:
    before, _, name = url.rpartition("/")
    return f"{before.rpartition(':')[0]}:{port}/{name}"
