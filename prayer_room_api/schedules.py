"""Reads the schedules in the database, and what they say about beat.

beat answers no questions. All we know is which runs it has recorded, and which ones it
should have started by now.
"""

import re
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.conf import settings
from django.db.models import Model
from django_celery_beat.models import PeriodicTask

from .celery import app

# As the library writes it that puts a crontab into words.
_TWELVE_HOURS = re.compile(r"(?P<hour>\d+):(?P<minute>\d\d) (?P<half>[AP])M")

# beat can take 5 minutes to notice a changed schedule; until then nothing is wrong.
GRACE = timedelta(minutes=5)


@dataclass(frozen=True)
class Schedule:
    name: str
    when: str
    enabled: bool
    last_run: datetime | None
    next_run: datetime | None
    # Why there is no next run, or empty.
    note: str = ""

    def is_overdue(self, now: datetime) -> bool:
        return self.next_run is not None and now - self.next_run > GRACE


def all_schedules(now: datetime) -> list[Schedule]:
    """Return each schedule but Celery's own, in one query."""
    tasks = PeriodicTask.objects.exclude(task="celery.backend_cleanup").select_related(
        "interval", "crontab", "solar", "clocked"
    )
    return [_read(task, now) for task in tasks.order_by("-enabled", "name")]


def _read(task: PeriodicTask, now: datetime) -> Schedule:
    next_run, note = None, ""
    if not task.enabled:
        note = "switched off"
    elif task.expires and task.expires <= now:
        note = "expired"
    elif task.one_off and task.total_run_count:
        note = "one-off, done"
    else:
        try:
            next_run = _next_run(task, now)
        except Exception:
            # 31 February, a polar night, a solar schedule without its library: one
            # row that cannot be computed must not break the page.
            note = "cannot be computed"
    return Schedule(
        name=task.name,
        when=_in_words(_scheduler(task)),
        enabled=task.enabled,
        last_run=task.last_run_at,
        next_run=next_run,
        note=note,
    )


def _next_run(task: PeriodicTask, now: datetime) -> datetime:
    """Return when the schedule is due; in the past if that run is not recorded yet."""
    if task.start_time and now < task.start_time:
        # Older releases start every kind of schedule exactly then.
        due_from = getattr(task, "due_start_time", lambda zone: task.start_time)
        return due_from(app.timezone)
    if task.start_time and task.last_run_at is None:
        # After that, beat does not wait for the schedule's own time.
        return max(task.start_time, task.date_changed)
    schedule = task.schedule
    # As in beat's ModelEntry: what never ran counts from its last change.
    since = task.last_run_at or task.date_changed
    remaining = schedule.remaining_estimate(since.astimezone(schedule.tz))
    # The schedule asks the clock itself, some microseconds after us.
    return (now + remaining + timedelta(seconds=0.5)).replace(microsecond=0)


def _scheduler(task: PeriodicTask) -> Model | None:
    return task.interval or task.crontab or task.solar or task.clocked


def _in_words(scheduler: Model | None) -> str:
    if scheduler is None:
        return "no schedule"
    try:
        # Only crontabs have it, and only in newer releases.
        words = str(getattr(scheduler, "human_readable", scheduler))
    except Exception:
        # The library behind it does not know everything that Celery accepts.
        words = str(scheduler)
    words = _TWELVE_HOURS.sub(_of_24, words)
    return words.removesuffix(f" {settings.TIME_ZONE}")


def _of_24(twelve: re.Match[str]) -> str:
    hour = int(twelve["hour"]) % 12 + 12 * (twelve["half"] == "P")
    return f"{hour:02}:{twelve['minute']}"
