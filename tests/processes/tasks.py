"""Tasks for the process tests. What they did stands in a file, a line each."""

import os
import time
from pathlib import Path

from celery import shared_task


def note(text: str) -> None:
    with Path(os.environ["NOTES"]).open("a") as notes:
        notes.write(f"{text}\n")


@shared_task
def write(text: str) -> None:
    note(text)


@shared_task
def nap(seconds: float) -> None:
    note("nap began")
    time.sleep(seconds)
    note("nap ended")


@shared_task
def collector() -> None:
    """Tell whether the collector leaves alone what was loaded before the fork."""
    import gc

    note(f"{gc.isenabled()} {gc.get_freeze_count() > 10_000} {os.getpid()}")


@shared_task
def modules() -> None:
    """Tell which modules of Celery's command line the worker has loaded."""
    import sys

    note(" ".join(sorted(m for m in sys.modules if m.startswith("celery.bin"))))
