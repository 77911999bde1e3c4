"""Tasks that the docker tests send and the containers run."""

import socket
import time

import celery
from celery import Task, shared_task


@shared_task
def version() -> str:
    """Return the version of the worker's Celery."""
    return celery.__version__


@shared_task
def add(a: int, b: int) -> int:
    return a + b


@shared_task
def total(numbers: list[int]) -> int:
    return sum(numbers)


@shared_task
def whereabouts(seconds: float) -> str:
    """Take some time, and return which container it ran in."""
    time.sleep(seconds)
    return socket.gethostname()


@shared_task
def nap(seconds: float) -> str:
    print("nap began", flush=True)
    time.sleep(seconds)
    return "rested"


@shared_task(bind=True, acks_late=True)
def late_nap(self: Task, seconds: float) -> bool:
    """Take some time, and return whether this was a redelivery."""
    print("nap began", flush=True)
    time.sleep(seconds)
    return bool(self.request.delivery_info["redelivered"])
