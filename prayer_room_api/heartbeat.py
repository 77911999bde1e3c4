"""Tells whether a worker and a beat are up, without asking one.

Every few seconds each records that it works: a worker while it is connected to the
broker, a beat at its ticks. The web process only reads that, so it never waits for a
broker, and nobody can flood one by opening a page. `control.ping()` would allow both:
it takes more than half a second on the file-system broker, and never returns if the
broker is gone.
"""

import logging
import time
from typing import Any

from celery.signals import beat_init, heartbeat_sent
from django.db import Error, connection

from .models import BeatHeartbeat, Heartbeat, WorkerHeartbeat

logger = logging.getLogger(__name__)

# Celery sends a worker's heartbeat every 2 seconds, and beat ticks every 5 at the
# latest; not every one is worth a write.
WRITE_EVERY = 10  # seconds
# Three missed writes.
SILENT_AFTER = 3 * WRITE_EVERY


class Recorder:
    """Records some of the heartbeats of this process.

    Args:
        heartbeat: the program's.
    """

    def __init__(self, heartbeat: type[Heartbeat]) -> None:
        self._heartbeat = heartbeat
        self._next = 0.0
        self._failing = False

    def __call__(self, **kwargs: object) -> None:
        if time.monotonic() < self._next:
            return
        try:
            self._heartbeat.record()
        except Error as error:
            # No reason to stop the process, or to log it every few seconds.
            if not self._failing:
                logger.warning("The heartbeat was not recorded: %s", error)
            self._failing = True
        else:
            self._failing = False
        finally:
            # A worker's main process uses the database for nothing else; beat's
            # scheduler connects again by itself.
            connection.close()
            self._next = time.monotonic() + WRITE_EVERY


def record_ticks(sender: Any, **kwargs: object) -> None:
    """Let a beat that starts to send call a recorder at each tick.

    A thread or a timer would go on recording while beat's loop hangs.
    """
    record = Recorder(BeatHeartbeat)
    tick = sender.scheduler.tick

    def recorded(*args: Any, **kwargs: Any) -> float:
        record()
        return tick(*args, **kwargs)

    sender.scheduler.tick = recorded


def listen() -> None:
    """Let a worker and a beat record; other processes have no heartbeats."""
    heartbeat_sent.connect(
        Recorder(WorkerHeartbeat), weak=False, dispatch_uid="prayer_room_api.heartbeat"
    )
    beat_init.connect(record_ticks, dispatch_uid="prayer_room_api.heartbeat")
