"""The restart of this very program, however it was started.

Python keeps the words that it was started with; only this module reads them. It does
not keep the folder, which many a program leaves before Django runs. So this file is a
program, too: ``python restart.py FOLDER WORD…`` starts Python in the folder.
"""

from __future__ import annotations

import atexit
import os
import re
import signal
import site
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from celery import Celery

__all__ = (
    "PATH_GIVEN", "RestartError", "again", "as_python_m", "behind", "on_sighup",
    "started_with",
)  # fmt: skip

# The variable in which `behind` hands the launcher the original PYTHONPATH.
PATH_GIVEN = "PRODSERVER_CELERY5_PYTHONPATH"

_FILE = os.path.abspath(__file__)
_LAUNCHER = os.path.join(os.path.dirname(_FILE), "green.py")


class RestartError(Exception):
    """This process cannot be started again; the message says what to run instead."""


def on_sighup(app: Celery) -> None:
    """Let a worker start the program again on SIGHUP, when it has ended.

    Celery runs Python with `sys.argv` then, which lacks Python's flags and the folder,
    so it is changed just before: by `atexit`, which calls first what was registered
    last. If the program cannot be started again, a line says so, and the status is 1.
    """
    from celery import bootsteps

    try:
        flags, program, folder = _started()
        words = [_FILE, folder, *flags, *program]
    except RestartError as exc:
        program = []
        words = ["-c", "import sys; sys.exit(sys.argv[1])", str(exc)]

    def become() -> None:
        _keep_path(program)
        sys.argv = words

    def reload(
        celerys: Callable[..., None], number: int, frame: FrameType | None
    ) -> None:
        celerys(number, frame)
        atexit.register(become)

    class Step(bootsteps.StartStopStep):  # type: ignore[misc] # Celery has no types
        """Starts when Celery has just installed its handler."""

        def start(self, worker: Any) -> None:
            celerys = signal.getsignal(signal.SIGHUP)
            if callable(celerys):  # on a terminal it has none
                signal.signal(signal.SIGHUP, partial(reload, celerys))

    app.steps["worker"].add(Step)


def as_python_m(words: Sequence[str]) -> None:
    """Let Celery start a detached worker, as ``python -m celery`` with `sys.argv`."""
    _keep_path(["-m"])
    sys.argv = [*words]


def started_with(variable: str) -> bool:
    """Whether this process was started with a variable of the environment.

    Where the system does not tell, as on macOS, it is True.
    """
    try:
        given = Path("/proc/self/environ").read_bytes()
    except OSError:
        return True
    return f"\0{variable}=".encode() in b"\0" + given


def again() -> None:
    """Replace this process with the same program, under the same pid.

    Raises:
        RestartError: the program cannot be started again.
    """
    flags, program, folder = _started()
    _keep_path(program)
    _replace(folder, [*flags, *program])


def behind(launcher: str, *words: str) -> None:
    """Replace this process with the same program behind a launcher, under the same pid.

    Does nothing if the launcher has run already.

    Raises:
        RestartError: the program cannot be started again.
    """
    if launcher in sys.orig_argv:
        return
    flags, program, folder = _started()
    # The launcher runs before the program, which may have found its libraries by
    # itself: one in a zip has unpacked them. And an APM agent that came by PYTHONPATH
    # takes itself off it.
    if not started_with("DJANGO_SETTINGS_MODULE"):
        os.environ.pop("DJANGO_SETTINGS_MODULE", None)  # the program names it again
    os.environ[PATH_GIVEN] = os.environ.get("PYTHONPATH", "")
    _keep_path(["-m"])
    _replace(folder, [*flags, launcher, *words, *program])


def _replace(folder: str, words: Sequence[str]) -> None:
    for stream in (sys.stdout, sys.stderr):
        if stream:  # None if whoever started the process has closed it
            stream.flush()
    os.chdir(folder)
    os.execv(sys.executable, [sys.executable, *words])


def _started() -> tuple[list[str], list[str], str]:
    """Return Python's flags, the program with its words, and the folder it began in."""
    processes = sys.modules.get("multiprocessing.process")
    if processes and processes.parent_process():
        raise RestartError(
            "this process runs a function of another program, so it cannot be started"
            " again. Let that program run a command instead, such as:"
            f" watchfiles 'python manage.py {' '.join(sys.argv[1:])}'"
        )
    flags, program = _split(sys.orig_argv[1:])
    if program[:1] == [_LAUNCHER]:
        del program[:2]
    if program[:1] in ([], ["-"], ["-c"]):
        raise RestartError(
            "Python has not read this program from a file, so it cannot be started"
            " again. Start it from one, such as: python manage.py …"
        )
    here, script = os.getcwd(), program[0]
    if script == "-m" or os.path.isabs(script):
        return flags, program, here
    # Python makes the path of a script, a folder or a zip absolute before it runs it.
    main = getattr(sys.modules["__main__"], "__file__", None) or ""
    for end in (script, os.path.join(script, "__main__.py")):
        if main.endswith(os.sep + end):
            return flags, program, main.removesuffix(os.sep + end) or os.sep
    if os.path.exists(script):
        return flags, program, here
    raise RestartError(
        f"{script} is not in {here}, where the program has gone, so it cannot be"
        " started again. Start it by its full path."
    )


def _split(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split the arguments of Python into its own flags and the program.

    The program's first word is a path, ``-m``, ``-c`` or ``-``.
    """
    flags: list[str] = []
    program = list(argv)
    while program and program[0].startswith("-") and program[0] != "-":
        word = program.pop(0)
        # Letters may be joined, until one takes the rest, or the next word.
        before, *found = re.split("([cmWX])", word, maxsplit=1)
        if found:
            letter, value = found[0], found[1] or program.pop(0)
            if letter in "cm":
                flags += [before] * (before != "-")
                return flags, [f"-{letter}", value, *program]
            word = before + letter + value
        flags.append(word)
    return flags, program


def _keep_path(program: Sequence[str]) -> None:
    """Let another Python import from wherever this one does, by PYTHONPATH."""
    if program[:1] != ["-m"]:  # a script brings its folder along
        return
    library = os.path.dirname(os.__file__)
    # With what a package there has put on the path itself, as setuptools does.
    own = (library, *site.getsitepackages(), site.getusersitepackages())
    kept = [
        os.path.abspath(entry)
        for entry in sys.path
        # An entry may be no path but a name for the hook of an editable install.
        if os.path.exists(entry)
        and entry != os.getcwd()
        and not f"{entry}/".startswith(tuple(f"{folder}/" for folder in own))
    ]
    given = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
    if kept:
        os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys([*kept, *given]))


if __name__ == "__main__":
    _replace(sys.argv[1], sys.argv[2:])
