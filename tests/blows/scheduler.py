"""The project's own schedulers."""

import time
import uuid
from typing import Any

from celery.beat import Scheduler
from django_celery_beat.schedulers import DatabaseScheduler

# Names this start of the process: after a restart, the same pid is a new sender.
SENDER = uuid.uuid4().hex


class Noted(DatabaseScheduler):
    """A scheduler whose messages say which run they belong to."""

    def apply_async(self, entry: Any, *args: Any, **kwargs: Any) -> Any:
        entry.options["headers"] = {
            "run": entry.model.total_run_count,
            "sender": SENDER,
            "noted": entry.model.last_run_at.timestamp(),
        }
        return super().apply_async(entry, *args, **kwargs)


class Careless(Scheduler):
    """A scheduler that sends at every tick, bypassing `Scheduler.apply_async`."""

    lead: Any  # of the class that is derived from this one

    def tick(self) -> float:
        time.sleep(0.2)
        is_held = self.lead.lock.is_held()
        self.app.send_task("blow")
        if not is_held:
            print("sent without the lock", flush=True)
        return 0.1
