"""The restart of this very program, however it was started.

Python keeps the words that it was started with; only this module reads them. It does
not keep the folder, which many a program leaves before Django runs. So this file is a
program, too: ``python restart.py FOLDER WORD…`` starts Python in the folder.
"""

from __future__ import annotations

import os
import re
import site
import sys
from collections.abc import Sequence
from typing import Any

__all__ = ("PATH_GIVEN", "RestartError", "again", "as_python_m", "behind", "prepare")

# The variable in which `behind` hands the launcher the original PYTHONPATH.
PATH_GIVEN = "PRODSERVER_CELERY5_PYTHONPATH"

_FILE = os.path.abspath(__file__)
_LAUNCHER = os.path.join(os.path.dirname(_FILE), "green.py")


class _Words(list[str]):
    """What `sys.argv` stays until Celery reads it, at the interpreter's end.

    `runpy` in a program that runs this one would put the first word back before.
    """

    def __setitem__(self, index: Any, word: Any) -> None:
        pass


class RestartError(Exception):
    """This process cannot be started again; the message says what to run instead."""


def prepare(*, moves: bool = False) -> None:
    """Let `sys.argv` start the program again: Celery runs that on SIGHUP.

    If that is impossible, SIGHUP ends with a line that says so, and status 1.

    Args:
        moves: whether the process is about to leave its folder.
    """
    try:
        flags, program, folder = _started()
    except RestartError as exc:
        words = ["-c", "import sys; sys.exit(sys.argv[1])", str(exc)]
        sys.argv = _Words(words)
        return
    _keep_path(program)
    if moves or folder != os.getcwd():
        flags[:0] = [_FILE, folder]
    elif not program[0].startswith("-"):
        program[0] = os.path.join(folder, program[0])
    sys.argv = _Words([*flags, *program])


def as_python_m(words: Sequence[str]) -> None:
    """Let Celery start a detached worker: it runs ``python -m celery`` with `sys.argv`.

    Args:
        words: the command line of the worker.
    """
    _keep_path()
    sys.argv = _Words(words)


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

    Args:
        launcher: the file of the launcher, which puts PYTHONPATH back.
        *words: the launcher's words; the program's follow.

    Raises:
        RestartError: the program cannot be started again.
    """
    if launcher in sys.orig_argv:
        return
    flags, program, folder = _started()
    if any(re.match("-[^-WX]*x", flag) for flag in flags):
        raise RestartError(
            "Python's -x would skip the first line of this package's launcher, which"
            " patches for the pool. Start the program without -x."
        )
    # The launcher runs before the program, which may have found its libraries by
    # itself: one in a zip has unpacked them. And an APM agent that came by PYTHONPATH
    # takes itself off it.
    os.environ[PATH_GIVEN] = os.environ.get("PYTHONPATH", "")
    _keep_path()
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
    if program[:1] in ([], ["-"]):
        raise RestartError(
            "Python reads a program from its standard input once, so it cannot be"
            " started again. Start it from a file, such as: python manage.py …"
        )
    if not sys.executable:
        raise RestartError(
            "Python does not know its own path, so it cannot be started again. Start"
            " it by its path, without `exec -a`."
        )
    here = os.getcwd()
    script = program[0]
    if script == "-m" and _has_lost_its_folder(here):
        raise RestartError(
            f"Python's -E hides the folder that it was started in, which it has left"
            f" for {here}, so it cannot be started again. Start it by its path, such"
            " as: python -E …/manage.py"
        )
    if script.startswith("-"):
        return flags, program, here
    if os.path.exists(script) and not (os.path.isfile(script) or os.path.isdir(script)):
        raise RestartError(
            f"Python reads a program from {script} once, so it cannot be started again."
            " Start it from a file, such as: python manage.py …"
        )
    if os.path.isabs(script):
        return flags, program, here
    # Python makes the path of a script, a folder or a zip absolute before it runs it.
    main = getattr(sys.modules["__main__"], "__file__", None) or ""
    inside = os.path.join(script, "__main__.py")
    for end in (script, inside, os.path.normpath(inside)):
        if main.endswith(os.sep + end):
            return flags, program, main.removesuffix(os.sep + end) or os.sep
    if os.path.exists(script):
        return flags, program, here
    raise RestartError(
        f"{script} is not in {here}, where the program has gone, so it cannot be"
        " started again. Start it by its full path."
    )


def _has_lost_its_folder(here: str) -> bool:
    """Whether ``python -m`` has left its folder, and PYTHONPATH cannot name it."""
    flags = sys.flags
    searches_it = not (flags.isolated or getattr(flags, "safe_path", False))
    return bool(flags.ignore_environment and searches_it and here not in sys.path)


def _split(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split the arguments of Python into its own flags and the program.

    The program's first word is a path, ``-m``, ``-c`` or ``-``.
    """
    flags: list[str] = []
    program = list(argv)
    while program and program[0].startswith("-") and program[0] != "-":
        word = program.pop(0)
        if word == "--":
            break
        if word.startswith("--"):  # --check-hash-based-pycs
            flags += [word, program.pop(0)]
            continue
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


def _keep_path(program: Sequence[str] = ("-m",)) -> None:
    """Let another Python import from wherever this one does, by PYTHONPATH.

    Nothing changes if it would do so anyway: tasks see the environment, too.

    Args:
        program: the program for Python to run; a script brings its folder along.
    """
    given = list(filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep)))
    if not program[0].startswith("-") and all(map(os.path.isabs, given)):
        return
    library = os.path.dirname(os.__file__)
    own = {os.getcwd(), library, os.path.join(library, "lib-dynload"), *given}
    sites = [] if sys.flags.no_site else site.getsitepackages()
    if sites:
        own.update([*sites, site.getusersitepackages()])
    # What a package there has put on the path itself, as setuptools does.
    below = tuple(os.path.join(folder, "") for folder in sites)
    zipped = "python{}{}.zip".format(*sys.version_info)
    kept = [
        os.path.abspath(entry)
        for entry in sys.path
        # An entry may be no path but a name for the hook of an editable install.
        if entry not in own
        and not entry.startswith(below)
        and os.path.basename(entry) != zipped
        and (os.path.isabs(entry) or os.path.exists(entry))
    ]
    if kept:
        os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys([*kept, *given]))


if __name__ == "__main__":
    _replace(sys.argv[1], sys.argv[2:])
