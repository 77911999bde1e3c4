"""Tasks of the benchmark."""

import os
import time

from celery import shared_task


@shared_task(ignore_result=True)
def nothing() -> None:
    """Do nothing, and keep no result."""


@shared_task(ignore_result=False)
def answer() -> int:
    """Do nothing, and keep the result."""
    return 42


@shared_task(ignore_result=True)
def query() -> int:
    """Query the database, on a new connection: Celery closes them between tasks."""
    from prayer_room_api.models import PrayerRequest

    return PrayerRequest.objects.count()


@shared_task(ignore_result=True)
def nap() -> None:
    """Sleep, then append a byte to the file of naps."""
    time.sleep(0.2)
    descriptor = os.open(os.environ["NAPS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, b".")
    os.close(descriptor)
