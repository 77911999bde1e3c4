"""Tasks for the process tests; each notes what it did as a line in a file."""

import os

from celery import shared_task

from tests.behaviour.tasks import hold, nap, note, write

__all__ = ("hold", "nap", "write")


@shared_task
def collector() -> None:
    """Note whether the collector skips what was loaded before the fork."""
    import gc

    note(f"{gc.isenabled()} {gc.get_freeze_count() > 10_000} {os.getpid()}")


@shared_task
def modules() -> None:
    """Note which modules of Celery's command line the worker has loaded."""
    import sys

    note(" ".join(sorted(m for m in sys.modules if m.startswith("celery.bin"))))


@shared_task
def rooms() -> None:
    """Note which modules of this package the worker has loaded."""
    import sys

    names = (name.partition("prodserver_celery5.")[2] for name in sys.modules)
    note(" ".join(sorted(filter(None, names))))


@shared_task
def fork() -> None:
    """Fork a child that exits as a program does, `atexit` handlers included."""
    import sys

    pid = os.fork()
    if not pid:
        try:
            sys.exit()
        finally:
            import atexit

            atexit._run_exitfuncs()
            os._exit(0)
    note(f"child ended with {os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])}")
