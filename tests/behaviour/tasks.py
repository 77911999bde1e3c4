"""Tasks for the behaviour tests; each notes what it did as lines in a file."""

import json
import os
import re
import signal
import sys
import time
from typing import Any

from celery import shared_task


def note(text: str) -> None:
    # One write to a file opened for appending: lines from many processes never mix.
    descriptor = os.open(os.environ["NOTES"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(descriptor, f"{text}\n".encode())
    finally:
        os.close(descriptor)


@shared_task
def write(text: str) -> None:
    note(text)


@shared_task
def nap(seconds: float, name: str = "") -> None:
    note(f"began {name}")
    time.sleep(seconds)
    note(f"ended {name}")


def _hold(name: str) -> None:
    note(f"began {name}")
    while not os.path.exists(os.environ["GATE"]):
        time.sleep(0.05)
    note(f"ended {name}")


@shared_task
def hold(name: str) -> None:
    """Run until the scenario opens the gate."""
    _hold(name)


@shared_task(acks_late=True)
def hold_late(name: str) -> None:
    """Hold, while the broker keeps the message until the task ends."""
    _hold(name)


@shared_task(acks_late=True, reject_on_worker_lost=True)
def hold_rejected(name: str) -> None:
    """Hold; if the child dies, the broker redelivers the message."""
    _hold(name)


@shared_task(acks_late=True)
def hold_forked(name: str) -> None:
    """Hold, and fork a child that outlives the worker with all it inherited."""
    if not os.fork():
        while not os.path.exists(os.environ["GATE"]):
            time.sleep(0.05)
        os._exit(0)
    _hold(name)


@shared_task(acks_late=True)
def nap_late(seconds: float, name: str) -> None:
    note(f"began {name}")
    time.sleep(seconds)
    note(f"ended {name}")


@shared_task(bind=True, acks_late=True)
def retry_late(self: Any, name: str) -> None:
    """Succeed at the third attempt."""
    if self.request.retries < 2:
        raise self.retry(countdown=1)
    note(f"ended {name}")


@shared_task(acks_late=True)
def block_late(name: str) -> None:
    """Hold, and block the whole green pool, its hub included."""
    note(f"began {name}")
    sleep = time.sleep
    if "gevent.monkey" in sys.modules:
        from gevent.monkey import get_original

        sleep = get_original("time", "sleep")
    elif "eventlet.patcher" in sys.modules:
        from eventlet.patcher import original

        sleep = original("time").sleep
    while not os.path.exists(os.environ["GATE"]):
        sleep(0.05)
    note(f"ended {name}")


@shared_task(acks_late=True)
def match_late(name: str) -> None:
    """Match for hours; meanwhile no other thread of the interpreter gets a turn."""
    note(f"began {name}")
    re.match("(a+)+b", "a" * 60)
    note(f"ended {name}")


@shared_task(acks_late=True, reject_on_worker_lost=True)
def work(name: str) -> None:
    """Do work that must be done, whatever is killed."""
    time.sleep(0.003)
    note(name)


@shared_task
def fall() -> None:
    """Kill the pool child, as the kernel does when memory runs out."""
    os.kill(os.getpid(), signal.SIGKILL)


@shared_task
def nap_with_orm(seconds: float) -> None:
    """Nap between two queries, and note whether the connection stayed the same."""
    from django.db import connection

    note("began ")
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
    mine = connection.connection
    time.sleep(seconds)
    with connection.cursor() as cursor:
        cursor.execute("SELECT 2")
    note(f"ended {id(mine) if connection.connection is mine else 'changed'}")


def interpreter() -> dict[str, Any]:
    """Return Python's flags and what is patched, in the process that runs a task."""
    import socket

    eventlet = sys.modules.get("eventlet.patcher")
    return {
        "patched": (
            "gevent"
            if "gevent" in socket.socket.__module__
            else "eventlet"
            if eventlet and eventlet.is_monkey_patched("socket")
            else ""
        ),
        "flags": {
            "optimize": sys.flags.optimize,
            "warnoptions": [w for w in sys.warnoptions if "Behaviour" in w],
            "xoptions": sorted(sys._xoptions),
        },
    }


@shared_task
def look() -> None:
    note(json.dumps(interpreter()))


@shared_task
def tell_setting(name: str) -> None:
    from django.conf import settings

    note(f"{name} = {getattr(settings, name, None)}")


@shared_task
def log(text: str) -> None:
    """Log to Celery's task logger and two of the project's, and print."""
    import logging

    from celery.utils.log import get_task_logger

    get_task_logger(__name__).warning("task logger: %s", text)
    logging.getLogger("prayer_room_api").error("project's logger: %s", text)
    logging.getLogger("django.own").error("logger of LOGGING: %s", text)
    print(f"printed: {text}")
