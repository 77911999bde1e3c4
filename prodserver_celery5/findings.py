"""A finding: one thing that is wrong with an entry."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from .redaction import hidden

if TYPE_CHECKING:
    from .entry import Entry

__all__ = ("COMMAND_LINE", "Finding", "Rule", "Where")

COMMAND_LINE = "the command line"


class Where(NamedTuple):
    """Where a thing stands.

    Attributes:
        place: ``"ARGS"``, `COMMAND_LINE` (behind those of ARGS), or a variable's name.
        what: the thing there, such as ``"word '-x'"``, ``"['pool'] = 'solo'"``, or a
            variable's ``"= '4'"``; ``""`` for the place as a whole.
    """

    place: str = "ARGS"
    what: str = ""

    def __str__(self) -> str:
        if self.place == COMMAND_LINE:
            return f"on {self.place}{', ' * bool(self.what)}{self.what}"
        joint = "" if not self.what or self.what.startswith("[") else " "
        return f"{self.place}{joint}{self.what}"


class Finding(Exception):  # noqa: N818 - not all of them are errors
    """Something wrong with an entry.

    A mistake (``"E…"``) stops the start, and is an error of the checks. With a doubt
    (``"W…"``) the start goes on; it is a warning of both.

    Args:
        id: the system check's id, such as ``"E003"``.
        names: the processes that use the entry; empty for the setting as a whole.
        message: the key, the value, and what is wrong.
        hint: what to do; ``""`` where the message says it.
        where: where it stands, if the message does not say so.
        here: whether it is a mistake on this machine, and may be none on another: it
            stops the start, and is a warning of the checks.
        cause: the error that revealed it.

    Attributes:
        stops: whether it stops the start.
    """

    def __init__(
        self,
        id: str,
        names: Sequence[str],
        message: str,
        hint: str = "",
        *,
        where: Where | None = None,
        here: bool = False,
        cause: BaseException | None = None,
    ) -> None:
        self.id = id
        self.names = tuple(names)
        self.where = where
        if where:
            joint = ", " if where == (COMMAND_LINE, "") else ": "
            message = f"{_shortened(_line(str(where)))}{joint}{message}"
        self.message, self.hint = _line(message), _line(hint)
        self.stops = here or id.startswith("E")
        self.__cause__ = cause
        # Messages of Celery and Python may lack a full stop.
        stop = "." if hint and self.message[-1] not in ".?!" else ""
        what = f"{', '.join(names)}: " if names else ""
        super().__init__(f"{what}{self.message}{stop} {self.hint}".rstrip())


Rule = Callable[["Entry"], Iterator[Finding]]
"""Finds something wrong with an entry."""


def _line(text: str) -> str:
    return hidden(" ".join(text.split()))


def _shortened(text: str) -> str:
    # Only now: the half of a password would not be known as one.
    return text if len(text) <= 120 else f"{text[:119]}…"
