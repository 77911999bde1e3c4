"""The key HEARTBEAT_FILE, and systemd's variable NOTIFY_SOCKET, which needs no key."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from django.core.management import CommandError

from ..findings import Finding, Where
from ..key import Key, Start
from ..values import resolved

if TYPE_CHECKING:
    from ..entry import Entry
    from .report import Heartbeat, Sink

__all__ = ("BeatHeartbeat", "WorkerHeartbeat")


class _HeartbeatFile(Key):
    """The file in which a process says from its loop that it is alive."""

    name = "HEARTBEAT_FILE"
    takes = 'the path of a file, such as "/run/proj/%n"'
    id = "E011"

    def read(self, entry: Entry) -> str:
        """Return the path, absolute.

        %n, %h and their like mean what they do in a worker's pidfile.

        Raises:
            TypeError, ValueError: it is not the path of a file.
        """
        from ..options.errors import private

        value = resolved(entry.config[self.name])
        if not isinstance(value, str):
            raise TypeError("it is not a path")
        if not value or "\0" in value:
            raise ValueError("it is not the path of a file")
        node = entry.context.params.get("hostname") or ""
        if "@" not in node:  # as Celery 5.7 names a beat; older ones have no name
            node = f"celery{entry.program}@{node}"
        host_format = private("celery.utils.nodenames", "host_format")
        node_format = private("celery.utils.nodenames", "node_format")
        path: str = node_format(value, host_format(node))
        return os.path.abspath(path)

    def rules(self, entry: Entry) -> Iterator[Finding]:
        """E012: no POSIX. W006: the file cannot be made here."""
        what = f"{self.name} = {self.shown(entry)}:"
        if os.name != "posix":
            yield Finding("E012", entry.names, f"{what} it needs a POSIX system.")
            return
        path = self.read(entry)
        folder = os.path.dirname(path)
        wrong = ""
        if not os.path.isdir(folder):
            wrong = f"the folder {folder!r} does not exist here."
        elif os.path.lexists(path):
            if os.path.islink(path) or not os.path.isfile(path):
                wrong = "this is not a regular file here."
        elif not os.access(folder, os.W_OK | os.X_OK):
            wrong = f"no file can be made in the folder {folder!r} here."
        if wrong:
            hint = "Nothing expands ~: write Path.home()." if "/~" in folder else ""
            yield Finding("W006", entry.names, f"{what} {wrong}", hint, here=True)

    def rules_beside(self, entry: Entry, others: Sequence[Entry]) -> Iterator[Finding]:
        """W007: another process would write to the same file."""
        what = f"{self.name} = {self.shown(entry)} is"
        hint = "Give each a file of its own."
        if len(entry.names) > 1:
            message = (
                f"{what} that of each process with this entry ({entry}): on one machine"
                " only one would start."
            )
            yield Finding("W007", entry.names, message, hint)
        for other in others:
            if other.names == entry.names or not other.gives(self.name):
                continue
            with suppress(Exception):  # which has a finding of its own
                if self.read(other) == self.read(entry):
                    message = (
                        f"{what} also that of the process {other}: on one machine only"
                        " one of the two would start."
                    )
                    yield Finding("W007", entry.names, message, hint)

    def is_wanted(self, entry: Entry) -> bool:
        """Also where systemd listens."""
        return super().is_wanted(entry) or bool(os.environ.get("NOTIFY_SOCKET"))

    def prepare(self, start: Start) -> None:
        """Start the heartbeat, and let the loop of the program call it.

        Raises:
            CommandError: the file cannot be used.
            OptionError: this Celery has no place for it.
        """
        from ..options.errors import PrivateNameError

        heartbeat = self._heartbeat(start.entry)
        start.say = heartbeat.say
        try:
            self.attach(start, heartbeat)
        except PrivateNameError as exc:
            is_given = start.entry.gives(self.name)
            exc.where = Where(self.name if is_given else "NOTIFY_SOCKET")
            raise

    @abstractmethod
    def attach(self, start: Start, heartbeat: Heartbeat) -> None:
        """Let the loop of the program call the heartbeat."""

    def _heartbeat(self, entry: Entry) -> Heartbeat:
        sinks: list[Sink] = []
        if entry.gives(self.name):
            from .record import Record

            sinks.append(Record(self.read(entry)))
        if os.environ.get("NOTIFY_SOCKET"):
            from .notify import Notify

            sinks.append(Notify.from_environment())
        from .report import Heartbeat

        heartbeat = Heartbeat(sinks)
        try:
            heartbeat.begin()
        except OSError as exc:
            raise CommandError(f"{entry}: {exc}.") from exc
        return heartbeat


class WorkerHeartbeat(_HeartbeatFile):
    """A worker's; Celery itself starts a detached one, without this package."""

    def rules(self, entry: Entry) -> Iterator[Finding]:
        """E012: a detached worker. And what holds for each program."""
        if entry.context.params["detach"]:
            message = "is not written with detach, which starts Celery's own worker."
            hint = "Remove one of the two."
            yield Finding("E012", entry.names, f"{self.name} {message}", hint)
        yield from super().rules(entry)

    def prepare(self, start: Start) -> None:
        """Start the heartbeat where the worker runs in this process."""
        if not start.context.params["detach"]:
            super().prepare(start)

    def attach(self, start: Start, heartbeat: Heartbeat) -> None:
        """Let the worker's loop call the heartbeat."""
        from .loops import attach_to_worker

        attach_to_worker(start.entry.app, heartbeat)


class BeatHeartbeat(_HeartbeatFile):
    """A beat's."""

    def attach(self, start: Start, heartbeat: Heartbeat) -> None:
        """Let beat call the heartbeat at each tick."""
        from .loops import attach_to_beat

        attach_to_beat(start.entry.app, heartbeat)
        if start.context.params["detach"]:
            # That it can begin is known now; the process in the background does.
            heartbeat.end()
