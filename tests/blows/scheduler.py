"""Schedulers of the project's own."""

import time
import uuid
from typing import Any

from celery.beat import Scheduler
from django_celery_beat.schedulers import DatabaseScheduler

# This start of the process: another one of the same pid is another sender.
SENDER = uuid.uuid4().hex


class Noted(DatabaseScheduler):
    """One whose messages say which run they are of."""

    def apply_async(self, entry: Any, *args: Any, **kwargs: Any) -> Any:
        entry.options["headers"] = {
            "run": entry.model.total_run_count,
            "sender": SENDER,
            "noted": entry.model.last_run_at.timestamp(),
        }
        return super().apply_async(entry, *args, **kwargs)


class Careless(Scheduler):
    """One that sends when it comes to it, and past all that Celery's has for it."""

    def tick(self) -> float:
        time.sleep(0.2)
        self.app.send_task("blow")
        if getattr(self, "lead", None) and not self.lead.lock.is_held():
            print("sent without the lock", flush=True)
        return 0.1
