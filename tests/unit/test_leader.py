"""Mistakes in LEADER_LOCK, the lock beside an SQLite database, and the lead."""

from __future__ import annotations

import fcntl
import os
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from celery import Celery
from django.core import checks
from django.core.exceptions import ObjectDoesNotExist
from django.core.management import CommandError
from django.db import ConnectionHandler, OperationalError, connections
from django_celery_beat.models import IntervalSchedule, PeriodicTask
from django_celery_beat.schedulers import DatabaseScheduler

from prodserver_celery5 import leader, locks, restart
from prodserver_celery5.backends import CeleryBeat, CeleryWorker
from prodserver_celery5.checks import check_processes
from prodserver_celery5.entries import Entry
from prodserver_celery5.locks import RefusedError, UnavailableError, lock_of

PATH = "prodserver_celery5.backends.CeleryBeat"
DATABASE = "django_celery_beat.schedulers:DatabaseScheduler"


@pytest.fixture
def beat(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """An entry without a mistake."""
    module = ModuleType("shop")
    module.app = Celery("shop", set_as_current=False, broker="memory://")  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "shop", module)
    args = {"scheduler": DATABASE}
    return {"BACKEND": PATH, "APP": "shop", "LEADER_LOCK": "default", "ARGS": args}


@pytest.fixture
def databases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The aliases of DATABASES; tests may add some."""
    settings = {
        "default": {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": tmp_path / "db.sqlite3",
        }
    }
    monkeypatch.setattr(locks, "connections", ConnectionHandler(settings))
    return settings


def found(settings: Any, entry: dict[str, Any]) -> list[checks.CheckMessage]:
    settings.PRODUCTION_PROCESSES = {"beat": entry}
    return check_processes()


@pytest.mark.parametrize("alias", ["defualt", None, 5, ["default"]])
def test_no_such_alias(
    settings: Any, beat: dict[str, Any], databases: dict[str, Any], alias: Any
) -> None:
    databases["other"] = databases["default"]
    entry = {**beat, "LEADER_LOCK": alias}
    assert found(settings, entry) == [
        checks.Error(
            f"LEADER_LOCK = {alias!r}: DATABASES has no such alias.",
            hint="It has 'default', 'other'.",
            obj="PRODUCTION_PROCESSES['beat']",
            id="prodserver_celery5.E013",
        )
    ]
    with pytest.raises(CommandError, match="DATABASES has no such alias"):
        CeleryBeat(**entry).prep_server_args()


def test_a_database_that_has_no_lock(
    settings: Any, beat: dict[str, Any], databases: dict[str, Any]
) -> None:
    databases["default"] = {"ENGINE": "django.db.backends.dummy"}
    (error,) = found(settings, beat)
    assert (error.id, error.level) == ("prodserver_celery5.E013", checks.ERROR)
    assert error.msg == (
        "LEADER_LOCK = 'default': the ENGINE 'django.db.backends.dummy' has no lock"
        " for it."
    )
    assert error.hint.startswith("Name an alias of a PostgreSQL")


@pytest.mark.parametrize("name", [":memory:", "file:x?mode=memory&cache=shared"])
def test_sqlite_in_memory(
    settings: Any, beat: dict[str, Any], databases: dict[str, Any], name: str
) -> None:
    databases["default"]["NAME"] = name
    (warning,) = found(settings, beat)
    assert (warning.id, warning.level) == ("prodserver_celery5.W008", checks.WARNING)
    assert warning.msg.endswith("SQLite in memory is each process's own.")
    with pytest.raises(CommandError, match="in memory is each process's own"):
        CeleryBeat(**beat).prep_server_args()


@pytest.mark.django_db
def test_the_database_of_djangos_tests(settings: Any, beat: dict[str, Any]) -> None:
    """Django's test command runs the checks after it has replaced the database."""
    assert connections["default"].is_in_memory_db()  # type: ignore[attr-defined]
    assert found(settings, beat) == []
    with pytest.raises(RefusedError, match="in memory"):
        lock_of("default", "a").connect()


def test_a_driver_that_is_missing_here(
    settings: Any,
    beat: dict[str, Any],
    databases: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    databases["default"] = {"ENGINE": "django.db.backends.mysql", "NAME": "any"}
    monkeypatch.setitem(sys.modules, "MySQLdb", None)
    monkeypatch.delitem(sys.modules, "django.db.backends.mysql.base", raising=False)
    (warning,) = found(settings, beat)
    assert (warning.id, warning.level) == ("prodserver_celery5.W008", checks.WARNING)
    assert "the database cannot be used here: Error loading" in warning.msg
    with pytest.raises(CommandError, match="cannot be used here"):
        CeleryBeat(**beat).prep_server_args()


@pytest.mark.usefixtures("databases")
def test_a_machine_without_posix(
    settings: Any, beat: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "name", "nt")
    (warning,) = found(settings, beat)
    assert (warning.id, warning.level) == ("prodserver_celery5.W008", checks.WARNING)
    assert warning.msg == "LEADER_LOCK = 'default': only POSIX has what it needs."


@pytest.mark.usefixtures("databases")
@pytest.mark.parametrize("option", [{"detach": True}, {"uid": "root"}, {"gid": "root"}])
def test_options_that_cannot_be_repeated(
    settings: Any, beat: dict[str, Any], option: dict[str, Any]
) -> None:
    entry = {**beat, "ARGS": {**beat["ARGS"], **option}}
    assert found(settings, entry) == [
        checks.Error(
            f"{next(iter(option))} does not go with LEADER_LOCK, whose beat starts"
            " again under the same pid when it has lost the lead.",
            hint="Leave it to what starts the process.",
            obj="PRODUCTION_PROCESSES['beat']",
            id="prodserver_celery5.E014",
        )
    ]
    del entry["LEADER_LOCK"]
    assert found(settings, entry) == []


@pytest.mark.usefixtures("databases")
def test_a_file_of_last_runs(settings: Any, beat: dict[str, Any]) -> None:
    entry = {**beat, "ARGS": {"scheduler": "celery.beat:PersistentScheduler"}}
    (warning,) = found(settings, entry)
    assert (warning.id, warning.level) == ("prodserver_celery5.W009", checks.WARNING)
    assert warning.msg == (
        "scheduler = 'celery.beat:PersistentScheduler' keeps its last runs in a file:"
        " what comes due while no beat leads is left out, unless all beats share the"
        " file."
    )
    assert warning.hint == (
        "Share it, or use a scheduler that keeps them in a database."
    )
    # A doubt does not stop the start.
    assert CeleryBeat(**entry).prep_server_args()
    del entry["LEADER_LOCK"]
    assert found(settings, entry) == []


@pytest.mark.usefixtures("databases")
def test_nothing_wrong(settings: Any, beat: dict[str, Any]) -> None:
    assert found(settings, beat) == []
    assert found(settings, {**beat, "ARGS": {**beat["ARGS"], "pidfile": "b.pid"}}) == []


@pytest.mark.usefixtures("databases")
def test_a_worker_has_no_such_key(settings: Any, beat: dict[str, Any]) -> None:
    path = f"{CeleryWorker.__module__}.{CeleryWorker.__name__}"
    (error,) = found(settings, {**beat, "BACKEND": path, "ARGS": {}})
    assert error.id == "prodserver_celery5.E010"


# The lock of SQLite


def entered(entry: dict[str, Any], settings: Any, **processes: Any) -> locks.Lock:
    """Return the lock that a beat with an entry would use."""
    settings.PRODUCTION_PROCESSES = processes
    made = Entry("beat", entry)
    made.app.Beat.Service = object
    leader.enter(made, made.context)
    lead = made.app.Beat.Service.start.__closure__[1].cell_contents
    assert isinstance(lead, leader.Lead)
    return lead.lock


def test_the_name_has_app_and_key_and_nothing_of_args(
    settings: Any, beat: dict[str, Any], databases: dict[str, Any], tmp_path: Path
) -> None:
    changed = {**beat, "ARGS": {**beat["ARGS"], "loglevel": "DEBUG"}}
    other = {**beat, "ARGS": {**beat["ARGS"], "max-interval": 5}}
    names = [
        entered(beat, settings, beat=beat).name,
        entered(changed, settings, beat=changed).name,
        entered(beat, settings, beat=beat, other=other).name,
        entered(other, settings, beat=beat, other=other).name,
        entered(beat, settings, b=beat).name,
        entered({**beat, "APP": "shop:app"}, settings).name,
    ]
    assert names == [
        "shop\0beat", "shop\0beat", "shop\0beat", "shop\0other", "shop\0b",
        "shop:app\0beat",
    ]  # fmt: skip


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


def test_a_table_that_is_missing_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It ends beat, as it ends `celery beat`; a database that is down does not."""
    lead = leader.Lead(locks.lock_of("default", "beat"))
    waited: list[str] = []

    def start_anew(reason: str, pause: float) -> None:
        waited.append(reason)

    monkeypatch.setattr(lead, "start_anew", start_anew)
    lead.wait_for_database(OperationalError("server closed the connection"))
    assert waited == [
        "the database of the schedule is away: server closed the connection"
    ]
    missing = OperationalError("no such table: django_celery_beat_periodictask")
    with pytest.raises(OperationalError, match="no such table"):
        lead.wait_for_database(missing)
    assert len(waited) == 1


# The lead itself


@pytest.fixture
def lead(
    databases: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> leader.Lead:
    """A lead whose process cannot be started again."""

    def again() -> None:
        raise restart.RestartError("this program cannot be started again")

    monkeypatch.setattr(restart, "again", again)
    return leader.Lead(lock_of("default", "a"), str(tmp_path / "beat.pid"))


def test_a_database_that_turns_out_to_have_no_lock(
    lead: leader.Lead, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was down at the start, so nobody could tell."""

    def acquire() -> bool:
        raise RefusedError("a pooler stands before this server.", "Name another alias.")

    monkeypatch.setattr(lead.lock, "acquire", acquire)
    with pytest.raises(SystemExit) as ended:
        lead.gain()
    assert ended.value.code == (
        "beat cannot lead: a pooler stands before this server. Name another alias."
    )


def test_a_beat_that_is_ending_neither_leads_nor_starts_again(
    lead: leader.Lead,
) -> None:
    lead.end()
    for act in (lead.gain, lambda: lead.start_anew("the lock is lost")):
        with pytest.raises(SystemExit) as ended:
            act()
        assert ended.value.code is None
    assert not lead.lock.is_held()


@pytest.mark.parametrize(
    ("written", "is_left"), [(f"{os.getpid()}\n", False), ("1\n", True), ("?", True)]
)
def test_a_beat_that_cannot_start_again_gives_the_lock_back_and_says_why(
    lead: leader.Lead, tmp_path: Path, written: str, is_left: bool
) -> None:
    pidfile = tmp_path / "beat.pid"
    pidfile.write_text(written)
    assert lead.lock.acquire()
    with pytest.raises(SystemExit) as ended:
        lead.start_anew("the lock is lost")
    assert ended.value.code == (
        "beat cannot start again: this program cannot be started again"
    )
    assert pidfile.exists() is is_left
    assert lock_of("default", "a").acquire()


def test_a_beat_that_hangs_lets_another_one_lead(
    lead: leader.Lead, monkeypatch: pytest.MonkeyPatch
) -> None:
    reasons: list[str] = []
    monkeypatch.setattr(lead, "start_anew", reasons.append)
    assert lead.lock.acquire()
    lead._held_at = time.monotonic() - 60
    lead._watch()
    assert reasons == ["it has not come round for 35 s"]
    # Once it is ending, it may take its time.
    lead.hold()
    lead.end()
    lead._watch()
    assert len(reasons) == 1


@pytest.mark.django_db
def test_a_task_that_was_deleted_a_moment_ago_is_not_sent(
    lead: leader.Lead, beat: dict[str, Any]
) -> None:
    """Celery logs the error, and beat goes on leading."""
    every = IntervalSchedule.objects.create(every=1, period="seconds")
    task = PeriodicTask.objects.create(name="gone", task="gone", interval=every)
    assert lead.lock.acquire()
    kind = leader._fenced(DatabaseScheduler, lead)
    scheduler = kind(app=Entry("beat", beat).app, lazy=True)
    # When the interpreter exits, the database is gone.
    scheduler._finalize.cancel()
    entry = scheduler.schedule["gone"]
    task.delete()
    with pytest.raises(ObjectDoesNotExist):
        scheduler.apply_async(entry)
    assert lead.lock.is_held()
