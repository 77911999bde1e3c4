"""The project's own schedulers."""

import os
import time
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any

from celery.beat import Scheduler
from django_celery_beat.models import PeriodicTasks
from django_celery_beat.schedulers import DatabaseScheduler, ModelEntry

# Names this start of the process: after a restart, the same pid is a new sender.
SENDER = uuid.uuid4().hex


class Notes(Scheduler):
    """A scheduler whose messages say which run they belong to."""

    def apply_async(self, entry: Any, *args: Any, **kwargs: Any) -> Any:
        entry.options["headers"] = {
            "name": f"{entry.name}{getattr(entry, 'tenant', '')}",
            "run": entry.total_run_count,
            "sender": SENDER,
            "noted": entry.last_run_at.timestamp(),
        }
        return super().apply_async(entry, *args, **kwargs)


class Noted(Notes, DatabaseScheduler):
    """That of django-celery-beat."""


class Changing(Noted):
    """One whose schedule changes while beat reads a change, if a file asks for it."""

    def all_as_schedule(self) -> Any:
        schedule = super().all_as_schedule()
        with suppress(FileNotFoundError):
            Path(os.environ["HOME"], "change it").unlink()
            time.sleep(1)  # so that the task is due in this very tick
            PeriodicTasks.update_changed()
        return schedule


class TenantEntry(ModelEntry):
    """An entry that is saved in a way of its own."""

    def save(self) -> None:
        fields = ("last_run_at", "total_run_count")
        told = {name: getattr(self.model, name) for name in fields}
        type(self.model).objects.filter(pk=self.model.pk).update(**told)


class Tenants(Noted):
    """A scheduler derived from that, whose tasks run once for each tenant."""

    Entry = TenantEntry

    def apply_entry(self, entry: Any, producer: Any = None) -> None:
        for tenant in (" of a", " of b"):
            entry.tenant = tenant
            super().apply_entry(entry, producer)


with suppress(ImportError):
    from redbeat import RedBeatScheduler

    class NotedRedBeat(Notes, RedBeatScheduler):
        """redbeat's."""


class Careless(Scheduler):
    """A scheduler that sends at every tick, bypassing `Scheduler.apply_async`."""

    def tick(self) -> float:
        folder = Path(os.environ["HOME"])
        loses = (folder / "lose it").exists()
        if loses:  # after the look at the lock with which each tick begins
            (lock,) = folder.glob("*.lock")
            lock.unlink()
        self.app.send_task("blow")
        if loses:
            print("sent without the lock", flush=True)
        return 0.1
