"""A key of an entry beside BACKEND, APP and ARGS: one feature, all in its own room."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from .findings import Finding
from .values import reason, shown

if TYPE_CHECKING:
    import click

    from .entry import Entry

__all__ = ("Key", "Start")


class Start:
    """A process that is about to become the program of an entry.

    Args:
        entry: the entry.
        context: what Celery made of its arguments; may be changed in place.
    """

    def __init__(self, entry: Entry, context: click.Context) -> None:
        self.entry = entry
        self.context = context
        # Takes what the process says of itself; a key that listens replaces it, so look
        # it up when there is something to say.
        self.say: Callable[[str], None] = lambda state: None


class Key(ABC):
    """A key that an entry of some programs can have; None in an entry is "not given".

    A program's class lists it. Its module is imported whether an entry has the key or
    not, so what the feature needs is imported where it is used.

    Attributes:
        name: the key, as it stands in an entry.
        takes: the values it takes, as they follow "It takes".
        id: the id of a finding about any other value.
    """

    name: ClassVar[str]
    takes: ClassVar[str]
    id: ClassVar[str]

    @abstractmethod
    def read(self, entry: Entry) -> Any:
        """Return the value that an entry gives, ready for use.

        Raises:
            Exception: it is something else; the first line of the text says what.
        """

    def rules(self, entry: Entry) -> Iterator[Finding]:
        """Find what is wrong in an entry with a right value of this key."""
        yield from ()

    def rules_beside(self, entry: Entry, others: Sequence[Entry]) -> Iterator[Finding]:
        """Find what is wrong with an entry with this key beside others.

        Args:
            entry: the entry to look at.
            others: the entries of all processes, including this one.
        """
        yield from ()

    def is_wanted(self, entry: Entry) -> bool:
        """Whether a process with this entry has to be prepared."""
        return entry.gives(self.name)

    @abstractmethod
    def prepare(self, start: Start) -> None:
        """Prepare this process for the program, which runs next.

        Raises:
            OptionError: Celery cannot do it after all.
        """

    def look(self, entry: Entry) -> Iterator[Finding]:
        """Find what is wrong with this key of an entry."""
        if not entry.gives(self.name):
            return
        from .options.errors import PrivateNameError

        try:
            self.read(entry)
        except PrivateNameError:
            raise
        except Exception as exc:  # a lazy value can raise anything
            yield self.wrong(entry, exc)
        else:
            yield from self.rules(entry)

    def wrong(self, entry: Entry, error: Exception) -> Finding:
        """Make the finding about a value that cannot be read.

        Args:
            entry: the entry that gives it.
            error: what `read` raised.
        """
        line = (str(error).splitlines() or [reason(error)])[0].rstrip(".")
        message = f"{self.name} = {self.shown(entry)}: {line}."
        return Finding(
            self.id, entry.names, message, f"It takes {self.takes}.", cause=error
        )

    def shown(self, entry: Entry) -> str:
        """Return what a message shows of the value that an entry gives."""
        return shown(entry.config.get(self.name))
