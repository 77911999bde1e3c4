"""Starts a program anew with gevent or eventlet patched in before anything else.

`restart` replaces the process by ``python green.py LIBRARY PROGRAM …``, which
patches and then runs the program as before: same pid, same interpreter flags.
Celery's own entry point patches in the same place, from its ``-P`` option.
"""

from __future__ import annotations

import os
import re
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
    # The second condition is for a program that takes its patches back: once is enough.
    if is_patched(library) or __file__ in sys.orig_argv:
        return
    flags, program = _split(sys.orig_argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, *flags, __file__, library, *program])


def _split(argv: list[str]) -> tuple[list[str], list[str]]:
    """Split the arguments of Python into its own flags and the program."""
    flags: list[str] = []
    program = list(argv)
    while program and program[0].startswith("-"):
        word = program.pop(0)
        if word.startswith("--"):  # --check-hash-based-pycs
            flags += [word, program.pop(0)]
            continue
        # Letters may stand together, until one takes the rest or what comes next.
        before, *found = re.split("([cmWX])", word, maxsplit=1)
        if found:
            letter, value = found[0], found[1] or program.pop(0)
            if letter == "c":
                sys.exit("`python -c` cannot start anew with the patches of a pool.")
            if letter == "m":
                flags += [before] * (before != "-")
                return flags, ["-m", value, *program]
            word = before + letter + value
        flags.append(word)
    return flags, program


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
