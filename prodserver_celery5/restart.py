"""The restart of this very program, however it was started."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence

__all__ = ("again", "as_python_m", "behind", "make_possible")


def make_possible() -> None:
    """Let `sys.argv` start the program again from any folder: Celery does on SIGHUP."""
    spec = sys.modules["__main__"].__spec__
    if spec is None:
        sys.argv[0] = os.path.abspath(sys.argv[0])
    else:
        # `python -m`: the file of the module alone would not find what it imports.
        sys.argv[:1] = ["-m", spec.name.removesuffix(".__main__")]


def as_python_m(words: Sequence[str]) -> None:
    """Let Celery start a detached worker: it runs ``python -m celery`` with `sys.argv`.

    Args:
        words: the command line of the worker.
    """
    # The folder that the program's own modules are found in.
    home = os.getcwd() if sys.argv[0] == "-m" else os.path.dirname(sys.argv[0])
    path = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (home, path)))
    sys.argv[:] = words


def again() -> None:
    """Replace this process by the same program, under the same pid."""
    flags, program = _split(sys.orig_argv[1:])
    _replace([*flags, *program])


def behind(launcher: str, *words: str) -> None:
    """Replace this process by the same program behind a launcher, under the same pid.

    Does nothing where the launcher has run already.

    Args:
        launcher: the file of the launcher.
        *words: for the launcher; those of the program follow.
    """
    if launcher in sys.orig_argv:
        return
    flags, program = _split(sys.orig_argv[1:])
    _replace([*flags, launcher, *words, *program])


def _replace(words: Sequence[str]) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, *words])


def _split(argv: Sequence[str]) -> tuple[list[str], list[str]]:
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
