"""Mistakes in LEADER_LOCK, the lock beside an SQLite database, and the lead."""

from __future__ import annotations

import fcntl
import logging
import os
import pickle
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from celery import Celery, signals
from celery.beat import PersistentScheduler, Scheduler
from celery.schedules import schedule
from django.core import checks
from django.core.exceptions import ObjectDoesNotExist
from django.core.management import CommandError
from django.db import (
    ConnectionHandler,
    InterfaceError,
    OperationalError,
    connection,
    connections,
)
from django.utils.module_loading import import_string
from django_celery_beat.models import IntervalSchedule, PeriodicTask
from django_celery_beat.schedulers import DatabaseScheduler

from prodserver_celery5.backends import CeleryBeat, CeleryWorker
from prodserver_celery5.checks import check_processes
from prodserver_celery5.entry import Entry
from prodserver_celery5.key import Start
from prodserver_celery5.leader import lead as leader
from prodserver_celery5.leader import locks
from prodserver_celery5.leader.key import LeaderLock
from prodserver_celery5.leader.locks import RefusedError, UnavailableError, lock_of
from prodserver_celery5.options.errors import OptionError
from prodserver_celery5.process import restart

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


@pytest.mark.parametrize("alias", ["defualt", 5, ["default"]])
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
    assert error.hint == (
        "Name an alias of a PostgreSQL, MySQL, MariaDB or SQLite database."
    )


@pytest.mark.parametrize("name", [":memory:", "file:x?mode=memory&cache=shared"])
def test_sqlite_in_memory(
    settings: Any, beat: dict[str, Any], databases: dict[str, Any], name: str
) -> None:
    databases["default"]["NAME"] = name
    (warning,) = found(settings, beat)
    assert (warning.id, warning.level) == ("prodserver_celery5.W008", checks.WARNING)
    assert warning.msg.endswith("SQLite in memory is each process's own.")
    assert warning.hint == "Name an alias of a database that all processes share."
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
    return LeaderLock().read(CeleryBeat(**entry).entry)


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


class RegionalBeat(CeleryBeat):
    """A backend with a key of its own, which changes ARGS."""

    def __init__(self, REGION: str, **config: Any) -> None:  # noqa: N803 - a key
        config["ARGS"] = {**config["ARGS"], "pidfile": f"{REGION}.pid"}
        super().__init__(**config)


@pytest.mark.usefixtures("databases")
@pytest.mark.parametrize("name", ["beat", "nightly", "beat-eu", "beat-us"])
def test_the_name_is_the_word_that_was_typed(
    settings: Any, beat: dict[str, Any], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Whether entries are equal, or the environment changed one, or a backend did."""
    path = f"{__name__}.RegionalBeat"
    settings.PRODUCTION_PROCESSES = processes = {
        "beat": beat,
        "nightly": dict(beat),
        "beat-eu": {**beat, "BACKEND": path, "REGION": "eu"},
        "beat-us": {**beat, "BACKEND": path, "REGION": "us"},
        "worker": {**beat, "BACKEND": "prodserver_celery5.backends.CeleryWorker"},
    }
    monkeypatch.setattr(sys, "argv", ["manage.py", "worker", "worker", name])
    backend = import_string(processes[name]["BACKEND"])
    for loglevel in ("INFO", "DEBUG"):
        given = {**processes[name], "ARGS": {**beat["ARGS"], "loglevel": loglevel}}
        assert LeaderLock().read(backend(**given).entry).name == f"shop\0{name}"


@pytest.mark.usefixtures("databases")
def test_what_a_beat_hands_to_its_lead(
    settings: Any, beat: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.PRODUCTION_PROCESSES = {}
    entry = Entry("beat", {**beat, "ARGS": {"pidfile": "beat.pid"}})
    start = Start(entry, entry.context)
    made: list[tuple[Any, ...]] = []

    def lead(*args: Any) -> None:
        made.append(args)

    monkeypatch.setattr(leader, "Lead", lead)
    LeaderLock().prepare(start)
    ((lock, pidfile, say),) = made
    assert lock._path, "it has tried to connect"
    assert pidfile == "beat.pid"
    # Whatever comes to listen after that.
    said: list[str] = []
    start.say = said.append
    say("leading")
    assert said == ["leading"]


@pytest.mark.usefixtures("databases")
@pytest.mark.parametrize("error", [RefusedError("a replica.", "Go."), UnavailableError])
def test_a_database_that_refuses_stops_the_start(
    beat: dict[str, Any], monkeypatch: pytest.MonkeyPatch, error: Any
) -> None:
    """One that is away does not: beat waits for it."""

    def connect(lock: object) -> None:
        raise error

    monkeypatch.setattr(locks._SQLiteLock, "connect", connect)
    entry = Entry("beat", beat)
    start = Start(entry, entry.context)
    if error is UnavailableError:
        LeaderLock().prepare(start)
        return
    with pytest.raises(OptionError) as refused:
        LeaderLock().prepare(start)
    assert (str(refused.value.where), str(refused.value), refused.value.hint) == (
        "LEADER_LOCK = 'default'", "a replica.", "Go."
    )  # fmt: skip


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


# The lead itself


@pytest.fixture
def lead(
    databases: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> leader.Lead:
    """A lead whose process cannot be started again."""

    def again() -> None:
        raise restart.RestartError("this program cannot be started again")

    monkeypatch.setattr(restart, "again", again)
    monkeypatch.setattr(signals.before_task_publish, "receivers", [])
    return leader.Lead(lock_of("default", "a"), str(tmp_path / "beat.pid"))


@pytest.fixture
def anew(lead: leader.Lead, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, float]]:
    """Why, and after which pause, the lead would have started again."""
    told: list[tuple[str, float]] = []

    def start_anew(reason: str, pause: float = 0) -> None:
        told.append((reason, pause))
        raise SystemExit

    monkeypatch.setattr(lead, "start_anew", start_anew)
    return told


def test_it_stands_by_and_says_so_until_it_leads(
    lead: leader.Lead, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The log has each reason once; who asks for the state hears it all the time."""
    answers = iter([False, False, UnavailableError("no\nroute"), False, True])
    told: list[object] = []
    watches: list[tuple[str, bool]] = []
    is_watched = threading.Event()

    def acquire() -> bool:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def watch() -> None:
        thread = threading.current_thread()
        watches.append((thread.name, thread.daemon))
        is_watched.set()

    monkeypatch.setattr(lead.lock, "acquire", acquire)
    lead = leader.Lead(lead.lock, say=told.append)
    monkeypatch.setattr(lead, "_watch", watch)
    monkeypatch.setattr(time, "sleep", told.append)
    before = time.monotonic()
    caplog.set_level(logging.INFO)
    lead.gain()
    assert is_watched.wait(10)
    assert told == [*["standing by", 0.25] * 4, "leading"]
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("INFO", "beat: Standing by: another one leads."),
        ("INFO", "beat: Standing by: the database of the lock is away: no route."),
        ("INFO", "beat: Standing by: another one leads."),
        ("INFO", "beat: Leading."),
    ]
    assert watches == [("lead", True)]
    assert before <= lead._held_at <= time.monotonic()


def test_only_the_schedule_of_a_leader_asks_for_the_lock(
    lead: leader.Lead, anew: list[tuple[str, float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What other threads send is the project's own affair."""

    def publish() -> None:
        signals.before_task_publish.send(sender="shop.tidy")

    monkeypatch.setattr(lead, "_watch", lambda: None)
    publish()
    lead.gain()
    lead._held_at = 0
    publish()
    assert time.monotonic() - lead._held_at < 60
    lead.lock.close()
    other = threading.Thread(target=publish)
    other.start()
    other.join()
    assert anew == []
    with pytest.raises(SystemExit):
        publish()
    assert anew == [("the lock is lost: nothing is sent", 0)]


@pytest.mark.parametrize(
    ("pidfile", "pause"), [(None, {"pause": 2}), ("of another", {})]
)
def test_a_new_start_says_why_and_gives_the_lock_back_first(
    lead: leader.Lead,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    pidfile: str | None,
    pause: dict[str, float],
) -> None:
    done: list[object] = []
    monkeypatch.setattr(lead.lock, "close", lambda: done.append("given back"))
    monkeypatch.setattr(time, "sleep", done.append)
    monkeypatch.setattr(lead, "_pidfile", pidfile)
    with pytest.raises(SystemExit):
        lead.start_anew("the\nlock is lost", **pause)
    assert done == ["given back", pause.get("pause", 0)]
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("WARNING", "beat: the lock is lost; starting again, to stand by.")
    ]


def test_a_table_that_is_missing_is_not_waited_for(
    lead: leader.Lead, anew: list[tuple[str, float]]
) -> None:
    """It ends beat, as it ends `celery beat`; a database that is down does not."""
    with pytest.raises(SystemExit):
        lead.wait_for_database(OperationalError("server closed the connection"))
    reason = "the database of the schedule is away: server closed the connection"
    assert anew == [(reason, 1)]
    missing = OperationalError("no such table: django_celery_beat_periodictask")
    with pytest.raises(OperationalError, match="no such table"):
        lead.wait_for_database(missing)
    assert len(anew) == 1


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
    ("written", "is_left"),
    [
        pytest.param(f"{os.getpid()}\n", False, id="this process"),
        ("1\n", True),
        ("?", True),
    ],
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
    now = 1000.0

    def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds

    reasons: list[str] = []
    monkeypatch.setattr(lead, "start_anew", reasons.append)
    monkeypatch.setattr(time, "monotonic", lambda: now)
    monkeypatch.setattr(time, "sleep", sleep)
    assert lead.lock.acquire()
    lead.hold()
    lead._watch()
    assert reasons == ["it has not come round for 35 s"]
    assert now == 1035
    # Once it is ending, it may take its time.
    lead.hold()
    lead.end()
    lead._watch()
    assert (len(reasons), now) == (1, 1036)


def test_a_beat_that_hangs_and_cannot_start_again_ends(
    lead: leader.Lead, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    statuses: list[int] = []
    monkeypatch.setattr(os, "_exit", statuses.append)
    lead._held_at = -1000
    lead._watch()
    assert statuses == [1]
    assert (caplog.records[-1].levelname, caplog.records[-1].getMessage()) == (
        "CRITICAL",
        "beat: cannot start again: this program cannot be started again",
    )
    # But if it has begun to end meanwhile, it may do so in its own time.
    lead.end()
    lead._watch()
    assert statuses == [1]


def test_another_thread_starts_anew_without_touching_the_connection(
    lead: leader.Lead, caplog: pytest.LogCaptureFixture
) -> None:
    """The one that leads may be using it."""

    def start() -> None:
        with suppress(SystemExit):
            lead.start_anew("it hangs")

    assert lead.lock.acquire()
    other = threading.Thread(target=start)
    other.start()
    other.join()
    assert "it hangs; starting again" in caplog.text
    assert lead.lock.is_held()


@pytest.fixture
def task(db: None) -> PeriodicTask:
    every = IntervalSchedule.objects.create(every=1, period="seconds")
    return PeriodicTask.objects.create(name="a", task="a", interval=every)


@pytest.fixture
def scheduler(lead: leader.Lead, beat: dict[str, Any], task: PeriodicTask) -> Any:
    """The database's scheduler, of a beat that leads."""
    assert lead.lock.acquire()
    kind = leader._fenced(DatabaseScheduler, lead)
    scheduler = kind(app=Entry("beat", beat).app, lazy=True)
    # When the interpreter exits, the database is gone.
    scheduler._finalize.cancel()
    return scheduler


def test_a_task_that_was_deleted_a_moment_ago_is_not_sent(
    lead: leader.Lead, scheduler: Any, task: PeriodicTask
) -> None:
    """Celery logs the error, and beat goes on leading."""
    entry = scheduler.schedule["a"]
    scheduler._dirty.add("a")
    scheduler._save(entry)
    assert scheduler._dirty == set()
    del scheduler._dirty
    scheduler._save(entry)
    task.delete()
    scheduler._dirty = set()
    with pytest.raises(ObjectDoesNotExist):
        scheduler.apply_async(entry)
    assert lead.lock.is_held()


def test_saving_a_run_undoes_no_change(scheduler: Any, task: PeriodicTask) -> None:
    """Nobody can make one between beat's read of the row and its write."""
    changes = iter([{"enabled": False}])

    def change_first(execute: Callable[..., Any], sql: str, *rest: Any) -> Any:
        if sql.startswith("UPDATE"):
            for change in changes:
                PeriodicTask.objects.filter(pk=task.pk).update(**change)
        return execute(sql, *rest)

    entry = next(scheduler.schedule["a"])
    with connection.execute_wrapper(change_first):
        scheduler._save(entry)
    task.refresh_from_db()
    assert (task.enabled, task.total_run_count) == (False, 1)


# The service and the scheduler of a beat that leads


class Turns(Scheduler):  # type: ignore[misc] # as celery has no types
    """A scheduler that does what it is told, and says what it has done."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.done: list[str] = []
        self.answer: Any = 300
        super().__init__(*args, **kwargs)

    def tick(self) -> Any:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def sync(self) -> None:
        self.done.append("saved")

    def reserve(self, entry: Any) -> Any:
        self.done.append("reserved")
        return entry

    def apply_async(self, entry: Any, **kwargs: Any) -> Any:
        self.done.append(f"sent {kwargs}")


@pytest.fixture
def app(beat: dict[str, Any], tmp_path: Path) -> Any:
    app: Any = Entry("beat", beat).app
    app.conf.beat_schedule_filename = str(tmp_path / "schedule")
    return app


@pytest.fixture
def service(lead: leader.Lead, app: Any) -> Any:
    """The service of a beat that leads."""
    assert lead.lock.acquire()
    return leader._led(app.Beat.Service, lead)(app, scheduler_cls=Turns)


def test_the_service_starts_and_makes_its_scheduler_as_celerys_does(
    lead: leader.Lead, app: Any
) -> None:
    given: list[Any] = []

    class Service:
        scheduler_cls = Turns

        def start(self, embedded_process: bool) -> None:
            given.append(embedded_process)

        def get_scheduler(self, lazy: bool, extension_namespace: str) -> None:
            given.append((lazy, extension_namespace))

    lead.gain = lambda: None  # type: ignore[method-assign]
    service = leader._led(Service, lead)()
    service.start()
    service.get_scheduler()
    assert given == [False, (False, "celery.beat_schedulers")]


def test_a_schedulers_fence_is_made_once(service: Any) -> None:
    service.get_scheduler()
    kind = service.scheduler_cls
    assert (kind.__name__, kind.__module__) == ("Turns", __name__)
    assert kind.__doc__ == Turns.__doc__
    service.get_scheduler()
    assert service.scheduler_cls is kind


def test_each_scheduler_has_the_fence_that_it_needs(lead: leader.Lead) -> None:
    redbeat = pytest.importorskip("redbeat").RedBeatScheduler
    for kind, fence in (
        (PersistentScheduler, leader._FencedFile),
        (DatabaseScheduler, leader._FencedDatabase),
        (redbeat, leader._FencedRedBeat),
        (Turns, leader._Fenced),
    ):
        assert leader._fenced(kind, lead).__mro__[1] is fence


def test_a_successor_does_not_wait_for_redbeats_own_lock(
    lead: leader.Lead, app: Any
) -> None:
    kind = leader._fenced(pytest.importorskip("redbeat").RedBeatScheduler, lead)
    app.conf.redbeat_redis_url = "redis://nowhere"
    scheduler = kind(app=app, lazy=True)
    assert scheduler.app is app
    assert scheduler.lock_key is None


def test_a_beat_sleeps_for_a_pulse_at_most(
    service: Any, lead: leader.Lead, anew: list[tuple[str, float]]
) -> None:
    """Its session may be idle only for so long."""
    scheduler = service.scheduler
    for answer, interval in ((300, 5), (2, 2), (0, 0), (None, None)):
        scheduler.answer = answer
        assert scheduler.tick() == interval
    lead.lock.close()
    with pytest.raises(SystemExit):
        scheduler.tick()
    assert anew == [("the lock is lost: nothing is sent", 0)]


@pytest.mark.parametrize("error", [InterfaceError, OperationalError, ValueError])
def test_only_a_database_that_is_away_is_waited_for(
    service: Any,
    lead: leader.Lead,
    anew: list[tuple[str, float]],
    monkeypatch: pytest.MonkeyPatch,
    error: type[Exception],
) -> None:
    """While the schedule is read for the first time, and at each turn."""
    expected: Any = ValueError if error is ValueError else SystemExit
    service.scheduler.answer = error("gone")
    with pytest.raises(expected):
        service.scheduler.tick()
    gained: list[bool] = []
    monkeypatch.setattr(lead, "gain", lambda: gained.append(True))
    service.scheduler.answer = None
    del vars(service)["scheduler"]

    def get_scheduler() -> Any:
        raise error("gone")

    service.get_scheduler = get_scheduler
    with pytest.raises(expected):
        service.start()
    assert gained == [True]
    reason = "the database of the schedule is away: gone"
    assert anew == ([] if error is ValueError else [(reason, 1)] * 2)


def test_a_run_is_saved_before_it_is_sent(
    service: Any, lead: leader.Lead, anew: list[tuple[str, float]]
) -> None:
    scheduler = service.scheduler
    entry = scheduler.Entry("tidy", "shop.tidy", app=scheduler.app)
    scheduler.apply_async(entry, producer="one", more="two")
    sent = "sent {'producer': 'one', 'advance': False, 'more': 'two'}"
    assert scheduler.done == ["reserved", "saved", sent]
    scheduler.done.clear()
    # Redbeat reserves each entry before it hands it over.
    scheduler.apply_async(entry, advance=False)
    assert scheduler.done == ["saved", "sent {'producer': None, 'advance': False}"]
    scheduler.done.clear()
    scheduler.sync()
    assert scheduler.done == ["saved"]
    scheduler.done.clear()
    lead.lock.close()
    with pytest.raises(SystemExit):
        scheduler.apply_async(entry)
    scheduler.sync()
    assert scheduler.done == []
    assert anew == [("the lock is lost: nothing is sent", 0)]


def test_a_run_that_cannot_be_saved_is_not_sent(
    service: Any, anew: list[tuple[str, float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    scheduler = service.scheduler

    def full(entry: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(scheduler, "_write", full)
    with pytest.raises(SystemExit):
        scheduler.apply_async(scheduler.Entry("tidy", "shop.tidy", app=scheduler.app))
    reason = "the run of tidy cannot be saved, and is not sent: no space left"
    assert anew == [(reason, 1)]
    assert scheduler.done == ["reserved"]


def test_the_first_call_of_sync_only_ends_the_loop(
    service: Any, lead: leader.Lead
) -> None:
    """SIGTERM's handler makes it, perhaps in the middle of a query."""
    scheduler = service.scheduler
    scheduler.close = lambda: scheduler.done.append("closed")
    service.sync()
    assert service._is_shutdown.is_set()
    assert lead._is_ending
    assert scheduler.done == []
    service.sync()
    assert scheduler.done == ["closed"]
    assert not lead.lock.is_held()
    assert lock_of("default", "a").acquire()


def test_a_beat_that_does_not_lead_saves_nothing_at_its_end(
    service: Any, lead: leader.Lead
) -> None:
    lead.lock.close()
    service._is_shutdown.set()
    service.sync()
    assert "scheduler" not in vars(service)
    scheduler = service.scheduler
    scheduler.close = lambda: scheduler.done.append("closed")
    asked: list[bool] = []
    scheduler.sync = lambda: asked.append(True)
    service.sync()
    assert scheduler.done == []
    assert asked == [True], "Celery's own forgets what it would write"


def stored(scheduler: Any) -> Any:
    """Return the last run that is now in the file."""
    return pickle.loads(scheduler._store.dict[b"entries"])["tidy"].last_run_at


@pytest.mark.parametrize(("silence", "is_kept"), [(50, True), (70, False)])
def test_last_runs_in_a_file_are_old_if_another_may_have_led_since(
    lead: leader.Lead, app: Any, tmp_path: Path, silence: int, is_kept: bool
) -> None:
    assert lead.lock.acquire()
    tidy = {"task": "shop.tidy", "schedule": schedule(3600)}
    app.conf.beat_schedule = {"tidy": tidy}
    kind = leader._fenced(PersistentScheduler, lead)

    def opened() -> Any:
        return kind(app=app, schedule_filename=app.conf.beat_schedule_filename)

    first = opened()
    long_ago = first.app.now().replace(year=2000)
    first.schedule["tidy"].last_run_at = long_ago
    first.sync()
    assert stored(first) == long_ago
    first.close()
    mark = tmp_path / "schedule.leader"
    then = time.time() - silence
    os.utime(mark, (then, then))

    second = opened()
    assert (stored(second) == long_ago) is is_kept
    assert mark.stat().st_mtime > then
    os.utime(mark, (then, then))
    second.apply_entry = lambda *args, **kwargs: None
    assert second.tick() <= 5
    assert mark.stat().st_mtime > then
    # Without the lock it writes nothing, not even when it is closed.
    second.schedule["tidy"].last_run_at = long_ago.replace(year=1996)
    lead.lock.close()
    second.sync()
    second.close()
    assert lead.lock.acquire()
    third = opened()
    assert third.schedule["tidy"].last_run_at.year != 1996
    third.close()
