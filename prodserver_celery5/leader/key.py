"""The key LEADER_LOCK of a beat."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ..findings import Finding
from ..key import Key, Start
from ..values import reason, resolved

if TYPE_CHECKING:
    from ..entry import Entry
    from .locks import Lock

__all__ = ("LeaderLock",)


class LeaderLock(Key):
    """The alias of the database that keeps the lock of the beat that leads."""

    name = "LEADER_LOCK"
    takes = "an alias of DATABASES"
    id = "E013"

    def read(self, entry: Entry) -> Lock:
        """Return the lock of the app and the process in the database.

        Raises:
            RefusedError: it cannot keep one.
        """
        from .locks import lock_of

        alias = resolved(entry.config[self.name])
        # The name has nothing of ARGS, which change from deploy to deploy.
        return lock_of(alias, "\0".join((str(entry.app_name), *sorted(entry.names))))

    def wrong(self, entry: Entry, error: Exception) -> Finding:
        """E013: no database for the lock.

        W008: its driver is missing here, it is in memory, or no POSIX.
        """
        from .locks import NotHereError, RefusedError

        what = f"{self.name} = {self.shown(entry)}"
        if not isinstance(error, RefusedError):
            message = f"{what}: it cannot be evaluated: {reason(error)}"
            return Finding(self.id, entry.names, message, cause=error)
        here = isinstance(error, NotHereError)
        id = "W008" if here else self.id
        message = f"{what}: {error}"
        return Finding(id, entry.names, message, error.hint, here=here, cause=error)

    def rules(self, entry: Entry) -> Iterator[Finding]:
        """E014: an option that does not go with it. W009: last runs in a file."""
        from celery.beat import PersistentScheduler

        from ..options.rules import scheduler_of

        for option in ("detach", "uid", "gid"):
            # A new start would fork again, and a process changes its user only once.
            if entry.context.params.get(option):
                message = (
                    f"{option} does not go with {self.name}, whose beat starts again"
                    " under the same pid when it has lost the lead."
                )
                hint = "Leave it to what starts the process, such as systemd or Docker."
                yield Finding("E014", entry.names, message, hint)
        name, scheduler = scheduler_of(entry)
        if isinstance(scheduler, type) and issubclass(scheduler, PersistentScheduler):
            message = (
                f"scheduler = {name!r} keeps its last runs in a file: what comes due"
                " while no beat leads is never sent, unless all beats share the file."
            )
            hint = "Use one with a database, or share the file and silence this check."
            yield Finding("W009", entry.names, message, hint)

    def prepare(self, start: Start) -> None:
        """Let beat stand by until it leads.

        Raises:
            OptionError: the database cannot keep the lock.
        """
        from .schedulers import enter

        enter(start, self.read(start.entry))
