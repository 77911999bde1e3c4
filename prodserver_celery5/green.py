"""The launcher that patches gevent or eventlet in before anything else.

`restart` replaces the process by ``python green.py LIBRARY PROGRAM …``, which
patches and then runs the program as before: same pid, same interpreter flags.
Celery's own entry point patches in the same place, from its ``-P`` option.
"""

from __future__ import annotations

import os
import sys

__all__ = ("LIBRARIES", "is_patched", "needed_by", "restart")

LIBRARIES = ("eventlet", "gevent")


def needed_by(pool: object) -> str | None:
    """Name the library that has to be patched in before a pool can work.

    Args:
        pool: the pool's class, as Celery makes it of ``--pool``.
    """
    for base in getattr(pool, "__mro__", ()):
        package, _, library = base.__module__.rpartition(".")
        if package == "celery.concurrency" and library in LIBRARIES:
            return str(library)
    return None


def is_patched(library: str) -> bool:
    """Whether this process runs with the library's monkey patches.

    Args:
        library: ``"gevent"`` or ``"eventlet"``.
    """
    if library == "gevent":
        gevent = sys.modules.get("gevent.monkey")
        return bool(gevent and gevent.is_module_patched("socket"))
    eventlet = sys.modules.get("eventlet.patcher")
    return bool(eventlet and eventlet.is_monkey_patched("socket"))


def restart(library: str) -> None:
    """Replace this process by the same program, patched before its first import.

    Does nothing where the process is patched already.

    Args:
        library: ``"gevent"`` or ``"eventlet"``.
    """
    # A program that takes its patches back is not started a third time.
    if not is_patched(library):
        from .restart import behind

        behind(__file__, library)


def _main(library: str, program: list[str]) -> None:
    module = program[0] == "-m"
    # Python has put this file's own folder where the program's has to be.
    if sys.path[0] == os.path.dirname(__file__):
        home = os.getcwd() if module else os.path.dirname(os.path.abspath(program[0]))
        sys.path[0] = home
    sys.argv[:] = program[module:]

    from celery import maybe_patch_concurrency

    maybe_patch_concurrency(["celery", "-P", library])

    import runpy

    if module:
        runpy.run_module(program[1], run_name="__main__", alter_sys=True)
    else:
        runpy.run_path(program[0], run_name="__main__")


if __name__ == "__main__":
    _main(sys.argv[1], sys.argv[2:])
