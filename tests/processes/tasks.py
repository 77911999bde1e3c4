"""Tasks for the process tests. What they did stands in a file, a line each."""

import os

from celery import shared_task

from tests.behaviour.tasks import nap, note, write

__all__ = ("nap", "write")


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


@shared_task
def rooms() -> None:
    """Tell which modules of the package the worker has loaded."""
    import sys

    names = (name.partition("prodserver_celery5.")[2] for name in sys.modules)
    note(" ".join(sorted(filter(None, names))))


@shared_task
def fork() -> None:
    """Let a child end as a program does, with all that it has registered for that."""
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
