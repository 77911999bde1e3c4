"""A takeover as the clock is set, or on a changed hour: which runs are sent."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from types import SimpleNamespace
from typing import Any
from zoneinfo import ZoneInfo

import celery
import pytest
from django_celery_beat.models import CrontabSchedule, IntervalSchedule, PeriodicTask
from django_celery_beat.schedulers import DatabaseScheduler, ModelEntry
from django_celery_beat.tzcrontab import TzAwareCrontab

from prodserver_celery5.entry import Entry
from prodserver_celery5.leader import lead as leader
from prodserver_celery5.leader import schedulers

# django-celery-beat 2.1, for Celery 5.0 and 5.1, reads the time in other places too, so
# the clock of these tests is not all of its.
pytestmark = pytest.mark.skipif(
    celery.VERSION < (5, 2), reason="django-celery-beat 2.1 has clocks of its own"
)

MINUTE = timedelta(minutes=1)


class Clock:
    """A clock that somebody can set, and what was sent at which time."""

    def __init__(self, now: datetime) -> None:
        self.now = now
        self.sent: list[datetime] = []


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock(datetime(2026, 6, 1, 12, tzinfo=timezone.utc))

    def now(self: Any) -> datetime:
        # A `ModelEntry` has an app, which has a time zone; a schedule may have one.
        zone = getattr(self, "tz", None) or self.app.timezone
        return clock.now.astimezone(zone)

    monkeypatch.setattr(ModelEntry, "_default_now", now)
    monkeypatch.setattr(TzAwareCrontab, "nowfunc", now)
    monkeypatch.setattr("django.utils.timezone.now", lambda: clock.now)
    return clock


@pytest.fixture
def take_over(
    clock: Clock, lead: leader.Lead, beat: dict[str, Any], db: None
) -> Callable[[], Callable[[timedelta], None]]:
    """Let a beat lead that has never led; return what lets it work for a time."""

    def take_over(kind: Any = None) -> Callable[[timedelta], None]:
        lead.give_back()
        assert lead._lock.acquire()
        app = Entry("beat", beat).app
        app.conf.timezone = "Europe/Berlin"
        kind = kind or schedulers._fenced(DatabaseScheduler, lead)
        scheduler: Any = kind(app=app, lazy=True)
        scheduler._finalize.cancel()  # when the interpreter exits, the database is gone
        scheduler.install_default_entries = lambda data: None
        scheduler.producer = None

        def send(*args: Any, **kwargs: Any) -> SimpleNamespace:
            clock.sent.append(clock.now)
            return SimpleNamespace(id="a")  # which Celery 5.0 logs

        scheduler.send_task = send

        def work(span: timedelta) -> None:
            end = clock.now + span
            while clock.now < end:
                for _ in range(3):
                    scheduler.tick()
                clock.now += timedelta(seconds=5)

        return work

    return take_over


def minutes(clock: Clock) -> list[str]:
    return [f"{sent:%H:%M}" for sent in clock.sent]


@pytest.mark.parametrize(
    "changed", [datetime(2026, 3, 29, 1), datetime(2026, 10, 25, 1)], ids=str
)
def test_at_the_hour_of_daylight_saving(
    clock: Clock, take_over: Any, changed: datetime
) -> None:
    """As by a `celery beat` that goes through it: Celery leaves the second hour out."""
    changed = changed.replace(tzinfo=timezone.utc)
    berlin = ZoneInfo("Europe/Berlin")
    each = CrontabSchedule.objects.create(minute="*", timezone=berlin)
    task = PeriodicTask(name="a", task="a", crontab=each)

    def sent(*leads: tuple[int, Any]) -> list[str]:
        clock.now, clock.sent = changed - 3 * MINUTE, []
        task.last_run_at = clock.now - MINUTE
        task.save()
        for span, kind in leads:
            take_over(kind)(span * MINUTE)
        return minutes(clock)

    ours = sent((3, None), (1, None), (2, None))
    assert ours[:3] == ["00:57", "00:58", "00:59"]
    assert ours == sent((6, DatabaseScheduler))
    assert len(ours) == (6 if changed.month == 3 else 3)


def test_a_clock_that_is_set(clock: Clock, take_over: Any) -> None:
    """Ahead, what has come due is sent once; back, nothing until it has caught up.

    So it is with `celery beat`, whose leader is always the same.
    """
    each = IntervalSchedule.objects.create(every=60, period="seconds")
    last = clock.now - MINUTE
    PeriodicTask.objects.create(name="a", task="a", interval=each, last_run_at=last)
    take_over()(2 * MINUTE)
    clock.now += 60 * MINUTE
    take_over()(2 * MINUTE)
    assert minutes(clock) == ["12:00", "12:01", "13:02", "13:03"]
    clock.now -= 30 * MINUTE
    take_over()(29 * MINUTE)
    assert len(clock.sent) == 4
    take_over()(3 * MINUTE)
    assert minutes(clock)[4:] == ["13:04", "13:05"]
