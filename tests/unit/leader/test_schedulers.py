"""The service and the scheduler of a beat that leads."""

from __future__ import annotations

import os
import pickle
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from celery import signals
from celery.beat import PersistentScheduler, Scheduler
from celery.schedules import schedule
from django.core.exceptions import ObjectDoesNotExist
from django.db import (
    InterfaceError,
    OperationalError,
    connection,
)
from django.db.models.signals import post_save, pre_save
from django.test.utils import CaptureQueriesContext
from django_celery_beat.models import IntervalSchedule, PeriodicTask
from django_celery_beat.schedulers import DatabaseScheduler, ModelEntry

from prodserver_celery5.entry import Entry
from prodserver_celery5.leader import lead as leader
from prodserver_celery5.leader import schedulers
from prodserver_celery5.leader.locks import lock_of

PATH = "prodserver_celery5.backends.CeleryBeat"
DATABASE = "django_celery_beat.schedulers:DatabaseScheduler"


@pytest.fixture
def task(db: None) -> PeriodicTask:
    every = IntervalSchedule.objects.create(every=1, period="seconds")
    return PeriodicTask.objects.create(name="a", task="a", interval=every)


@pytest.fixture
def scheduler(lead: leader.Lead, beat: dict[str, Any], task: PeriodicTask) -> Any:
    """The database's scheduler, of a beat that leads."""
    assert lead._lock.acquire()
    kind = schedulers._fenced(DatabaseScheduler, lead)
    scheduler = kind(app=Entry("beat", beat).app, lazy=True)
    # When the interpreter exits, the database is gone.
    scheduler._finalize.cancel()
    return scheduler


def test_a_task_that_was_deleted_a_moment_ago_is_not_sent(
    lead: leader.Lead, scheduler: Any, task: PeriodicTask
) -> None:
    """Celery logs the error, and beat goes on leading."""
    entry = scheduler.schedule["a"]
    scheduler._save(entry)
    task.delete()
    with pytest.raises(ObjectDoesNotExist):
        scheduler.apply_async(entry)
    assert lead._lock.is_held()


def own_save(scheduler: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the entries of a scheduler a `save` of their own that does the same."""
    kind: Any = type("Entry", (ModelEntry,), {"save": lambda e: ModelEntry.save(e)})
    monkeypatch.setattr(scheduler, "Entry", kind)


@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize("has_own", [False, True])
def test_saving_a_run_undoes_no_change(
    scheduler: Any,
    task: PeriodicTask,
    has_own: bool,
    again: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nobody can make one between beat's read of the row and its write."""
    changes = iter([{"enabled": False, "last_run_at": None, "args": "[1]"}])

    def change_first(execute: Callable[..., Any], sql: str, *rest: Any) -> Any:
        if sql.startswith("UPDATE"):
            for change in changes:
                PeriodicTask.objects.filter(pk=task.pk).update(**change)
        return execute(sql, *rest)

    if has_own:
        own_save(scheduler, monkeypatch)
    entry = scheduler.reserve(scheduler.schedule["a"])
    with connection.execute_wrapper(change_first):
        if again:
            scheduler.sync()
        else:
            scheduler._save(entry)
    before = task.date_changed
    task.refresh_from_db()
    assert (task.enabled, task.args, task.total_run_count) == (False, "[1]", 1)
    # As the model's own `save` leaves it.
    assert task.last_run_at is None
    assert task.date_changed > before


@pytest.mark.parametrize("has_own", [False, True])
def test_a_run_is_saved_as_celery_saves_it(
    scheduler: Any, task: PeriodicTask, has_own: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the same signals, for whoever keeps a history."""
    if has_own:
        own_save(scheduler, monkeypatch)
    told: list[tuple[Any, ...]] = []

    def hear(signal: Any, sender: Any, instance: Any, **given: Any) -> None:
        told.append((signal, sender, instance.pk, given.get("created"), given["raw"]))

    for signal in (pre_save, post_save):
        signal.connect(hear, sender=PeriodicTask)
    try:
        entry = next(scheduler.schedule["a"])
        with CaptureQueriesContext(connection) as asked:
            scheduler._save(entry)
    finally:
        for signal in (pre_save, post_save):
            signal.disconnect(hear, sender=PeriodicTask)
    assert has_own or [q["sql"].split()[0] for q in asked] == ["UPDATE"]
    assert told == [
        (pre_save, PeriodicTask, task.pk, None, False),
        (post_save, PeriodicTask, task.pk, False, False),
    ]
    task.refresh_from_db()
    assert (task.last_run_at, task.total_run_count) == (entry.last_run_at, 1)


def test_an_edit_that_puts_back_an_old_last_run(
    scheduler: Any, task: PeriodicTask
) -> None:
    """It was read before the run, and written after: there is no second run."""
    assert scheduler.schedule is scheduler.schedule  # which has looked for changes
    entry = scheduler.reserve(scheduler.schedule["a"])
    scheduler._save(entry)
    task.description = "edited"
    task.save()
    again = scheduler.schedule["a"]
    assert again.model.description == "edited"
    assert (again.last_run_at, again.total_run_count) == (entry.last_run_at, 1)


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
def service(lead: leader.Lead, app: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The service of a beat that leads."""
    # The example's heartbeat, and redbeat, which other tests may have imported.
    monkeypatch.setattr(signals.beat_init, "receivers", [])
    assert lead._lock.acquire()
    return schedulers._led(app.Beat.Service, lead)(app, scheduler_cls=Turns)


def test_the_service_starts_and_makes_its_scheduler_as_celerys_does(
    lead: leader.Lead, app: Any
) -> None:
    given: list[Any] = []

    class Service:
        scheduler_cls = Turns

        def start(self, embedded_process: bool) -> None:
            given.append(embedded_process)

        def get_scheduler(self, lazy: bool, extension_namespace: str) -> Any:
            given.append((lazy, extension_namespace))
            return self.scheduler_cls

    lead.gain = lambda: None  # type: ignore[method-assign]
    service = schedulers._led(Service, lead)()
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
        (PersistentScheduler, schedulers._FencedFile),
        (DatabaseScheduler, schedulers._FencedDatabase),
        (redbeat, schedulers._FencedRedBeat),
        (Turns, schedulers._Fenced),
    ):
        assert schedulers._fenced(kind, lead).__mro__[1] is fence


def test_a_successor_does_not_wait_for_redbeats_own_lock(
    lead: leader.Lead, app: Any
) -> None:
    kind = schedulers._fenced(pytest.importorskip("redbeat").RedBeatScheduler, lead)
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
    lead._held_at = 0
    lead._lock.close()
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
    lead._lock.close()
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


def ended(service: Any, during: Callable[[], None]) -> list[str]:
    """Return what a beat does at its end, which comes at its first tick."""
    done: list[str] = service.scheduler.done

    def tick() -> None:
        during()
        raise SystemExit

    service.scheduler.tick = tick
    service.scheduler.close = lambda: done.append("closed")
    service.scheduler.sync = lambda: done.append("synced")
    service.start()
    return done


def test_sync_only_ends_the_loop(
    service: Any, lead: leader.Lead, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGTERM's handler calls it, perhaps in the middle of a query."""
    monkeypatch.setattr(lead, "_watch", lambda: None)

    def handle() -> None:
        service.sync()
        assert lead.is_ending
        assert lead.is_held()

    assert ended(service, handle) == ["closed"]
    assert not lead.is_held()
    assert lock_of("default", "a").acquire()


def test_sync_makes_no_scheduler(service: Any, lead: leader.Lead) -> None:
    service.sync()
    with pytest.raises(SystemExit):
        service.start()
    assert "scheduler" not in vars(service)


def test_a_beat_that_does_not_lead_saves_nothing_at_its_end(
    service: Any, lead: leader.Lead, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Celery's own scheduler then forgets what it would write."""
    monkeypatch.setattr(lead, "_watch", lambda: None)
    assert ended(service, lead._lock.close) == ["synced"]


def test_a_beat_that_cannot_start_again_says_so(
    service: Any, lead: leader.Lead, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Celery's service swallows each SystemExit of its loop."""
    monkeypatch.setattr(lead, "_watch", lambda: None)

    def lose() -> None:
        lead._lock.close()
        lead.hold()

    with pytest.raises(SystemExit, match="beat cannot start again: this program"):
        ended(service, lose)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (DatabaseScheduler, "_dirty"),
        (DatabaseScheduler, "_schedule"),
        (PersistentScheduler, "_store"),
        ("redbeat:RedBeatScheduler", "lock_key"),
    ],
)
def test_an_attribute_that_nobody_promised(
    lead: leader.Lead, app: Any, kind: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its end is one line, and not a beat that saves what it must not."""
    if isinstance(kind, str):
        kind = getattr(pytest.importorskip("redbeat"), kind.partition(":")[2])
    needs = schedulers._fenced(kind, lead).needs
    assert name in needs

    class Without(kind):  # type: ignore[misc, valid-type]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            """Make none of them."""

        def __getattribute__(self, asked: str) -> Any:
            if asked == name:
                raise AttributeError(asked)
            return None if asked in needs else super().__getattribute__(asked)

    service = schedulers._led(app.Beat.Service, lead)(app, scheduler_cls=Without)
    with pytest.raises(SystemExit) as ended:
        service.get_scheduler()
    assert ended.value.code == (
        f"beat cannot lead: {__name__}.{Without.__qualname__} has no {name}, which"
        " LEADER_LOCK needs."
    )


def stored(scheduler: Any) -> Any:
    """Return the last run that is now in the file."""
    return pickle.loads(scheduler._store.dict[b"entries"])["tidy"].last_run_at


@pytest.mark.parametrize(("silence", "is_kept"), [(50, True), (70, False)])
def test_last_runs_in_a_file_are_old_if_another_may_have_led_since(
    lead: leader.Lead, app: Any, tmp_path: Path, silence: int, is_kept: bool
) -> None:
    assert lead._lock.acquire()
    tidy = {"task": "shop.tidy", "schedule": schedule(3600)}
    app.conf.beat_schedule = {"tidy": tidy}
    kind = schedulers._fenced(PersistentScheduler, lead)

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
    lead._lock.close()
    second.sync()
    second.close()
    assert lead._lock.acquire()
    third = opened()
    assert third.schedule["tidy"].last_run_at.year != 1996
    third.close()
