"""Tells whether a worker is up, without asking one.

Every few seconds a worker records that it is connected to the broker. The web
process only reads that, so it never waits for a broker, and nobody can flood one by
opening a page. `control.ping()` would allow both: it takes more than half a second on
the file-system broker, and never returns if the broker is gone.
"""

import logging
import time
from datetime import datetime

from celery.signals import heartbeat_sent
from django.db import Error, connection
from django.utils import timezone

logger = logging.getLogger(__name__)

# Celery sends its own heartbeat every 2 seconds; not every one is worth a write.
WRITE_EVERY = 10  # seconds
# Three missed writes.
SILENT_AFTER = 3 * WRITE_EVERY


class Recorder:
    """Records some of the heartbeats of this process's worker."""

    def __init__(self) -> None:
        self._next = 0.0
        self._failing = False

    def __call__(self, **kwargs: object) -> None:
        if time.monotonic() < self._next:
            return
        try:
            record()
        except Error as error:
            # No reason to stop the worker, or to log it every few seconds.
            if not self._failing:
                logger.warning("The heartbeat was not recorded: %s", error)
            self._failing = True
        else:
            self._failing = False
        finally:
            # A worker's main process uses the database for nothing else.
            connection.close()
            self._next = time.monotonic() + WRITE_EVERY


def record() -> None:
    """Record that a worker is up now."""
    from .models import WorkerHeartbeat

    now = timezone.now()
    if not WorkerHeartbeat.objects.filter(pk=1).update(seen_at=now):
        WorkerHeartbeat.objects.get_or_create(pk=1, defaults={"seen_at": now})


def last_seen() -> datetime | None:
    """Return when a worker last reported."""
    from .models import WorkerHeartbeat

    return WorkerHeartbeat.objects.values_list("seen_at", flat=True).first()


def listen() -> None:
    """Let the worker call a recorder; other processes have no heartbeats."""
    heartbeat_sent.connect(
        Recorder(), weak=False, dispatch_uid="prayer_room_api.heartbeat"
    )
