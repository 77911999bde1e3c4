"""The launcher that lets gevent or eventlet patch before anything else runs.

`restart` replaces the process with ``python green.py LIBRARY PROGRAM …``, which
patches and then runs the program as Python would: same pid, same interpreter flags.
The program is a path, or a module with Python's flag in front.
Celery's own entry point patches in the same place, from its ``-P`` option.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib.util import find_spec
from traceback import walk_stack
from typing import Any

__all__ = (
    "LIBRARIES", "is_patched", "named_in", "needed_by", "restart", "restart_early",
)  # fmt: skip

LIBRARIES = ("eventlet", "gevent")


def restart_early() -> None:
    """Restart at once if Django is about to run a worker whose pool is named as green.

    That spares it a second import of the models, and of all apps that follow. Whatever
    is not that plain goes on, and the backend restarts later.
    """
    with suppress(Exception):
        command, name, *words = _typed()
        if not _starts_process(command) or {"--help", "-h", "--list"} & {*words}:
            return
        from django.conf import settings

        entry = settings.PRODUCTION_PROCESSES[name]
        # A backend of one's own may do anything, and would have to be imported.
        is_ours = entry["BACKEND"] == "prodserver_celery5.backends.CeleryWorker"
        if is_ours and (library := named_in(entry.get("ARGS"), words)):
            restart(library)


def _typed() -> list[str]:
    """Return the words of the command that Django runs in this process, if any.

    `sys.argv` may look like one in any program that sets up Django.
    """
    management = sys.modules["django.core.management"]
    execute = management.ManagementUtility.execute.__code__
    for frame, _ in walk_stack(None):
        if frame.f_code is execute:
            return [*frame.f_locals["self"].argv[1:]]
    return []


def _starts_process(command: str) -> bool:
    """Whether a command is one of django-prodserver's that start processes.

    Of two apps that have a command, the first counts. Django makes them in that order;
    these are the ones that it has made by now.
    """
    from django.apps import apps
    from django.core.management import find_commands

    names = (
        app.name
        for app in apps.app_configs.values()
        if command in find_commands(os.path.join(app.path, "management"))
    )
    is_known = command in ("prodserver", "server", "worker")
    return is_known and next(names, "") == "django_prodserver"


def named_in(args: object, extra: Sequence[str]) -> str | None:
    """Name the library that has to patch, where the name of the pool is enough to tell.

    Args:
        args: ARGS, with lazy values resolved; or anything else.
        extra: the words that follow them.
    """
    words: list[object] = []
    if isinstance(args, Mapping):
        pools = [args[key] for key in args if str(key) in ("pool", "P")]
        words = [f"--pool={pool}" for pool in pools]
    elif isinstance(args, str):
        with suppress(ValueError):  # the rules say what a shell could not split
            words = [*shlex.split(args)]
    elif isinstance(args, (list, tuple)):
        words = [*args]
    pool = os.environ.get("CELERY_WORKER_POOL")
    texts = [str(word) for word in (*words, *extra)]
    for number, word in enumerate(texts):
        if word in ("-P", "--pool"):
            pool = "".join(texts[number + 1 : number + 2])
        elif word.startswith(("-P", "--pool=")):
            pool = word.removeprefix("-P").removeprefix("--pool=")
    return pool if pool in LIBRARIES and find_spec(pool) else None


def needed_by(pool: object) -> str | None:
    """Name the library that has to patch before a pool can work.

    Args:
        pool: the pool's class, as Celery makes it from ``--pool``.
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
    """Replace this process with the same program, patched before its first import.

    Does nothing if the process is patched already.

    Args:
        library: ``"gevent"`` or ``"eventlet"``.
    """
    # If the program undoes the patches, `behind` does not start it a third time.
    if not is_patched(library):
        from .restart import behind

        behind(__file__, library)


def _main(library: str, program: list[str]) -> None:
    """Patch, and run a program as Python itself would."""
    # `restart` changed it for what is imported before the program.
    os.environ["PYTHONPATH"] = os.environ.pop("PRODSERVER_CELERY5_PYTHONPATH", "")
    if not os.environ["PYTHONPATH"]:
        del os.environ["PYTHONPATH"]

    from celery import maybe_patch_concurrency

    maybe_patch_concurrency(["celery", "-P", library])

    import runpy
    from pkgutil import get_importer
    from types import ModuleType

    # Its globals are the program's, as if this file had never run.
    main = sys.modules["__main__"] = ModuleType("__main__")
    is_module = program[0] == "-m"
    sys.argv[:] = program[is_module:]
    path = os.path.join(os.getcwd(), program[0])
    # Python has put this file's own folder where the program's has to be.
    has_home = not (getattr(sys.flags, "safe_path", False) or sys.flags.isolated)
    if has_home:
        home = os.path.dirname(os.path.realpath(path))
        sys.path[0] = os.getcwd() if is_module else home
    # What Python itself calls. Its public relatives leave another `__main__`.
    run_module = runpy._run_module_as_main  # type: ignore[attr-defined] # private
    if is_module:
        run_module(program[1])
    elif get_importer(path):  # a folder or a zip
        sys.path[:has_home] = [path]
        run_module("__main__", alter_argv=False)
    else:
        main.__file__ = path
        with open(path, "rb") as file:
            code: Any = compile(file.read(), path, "exec")
        exec(code, vars(main))  # noqa: S102 - it is the program


if __name__ == "__main__":
    _main(sys.argv[1], sys.argv[2:])
