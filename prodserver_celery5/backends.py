"""The backends: a process entry becomes a running program, and its exit status."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, ClassVar

from django.conf import settings
from django.core.management import CommandError
from django.utils.module_loading import import_string
from django_prodserver.backends.base import BaseServerBackend

from . import findings, redaction, restart
from .entries import Entry
from .findings import Finding, Rule, Severity

if TYPE_CHECKING:
    import click

    from .heartbeat import Heartbeat, Sink

try:
    from django_prodserver.backends.base import BaseWorkerBackend
except ImportError:

    class BaseWorkerBackend(BaseServerBackend):  # type: ignore[no-redef] # 3's name
        """django-prodserver 2 has one kind of backend."""


__all__ = ("CeleryBackend", "CeleryBeat", "CeleryWorker", "make")


# `prodserver` and `server` of django-prodserver 3 take servers, `worker` workers.
class CeleryBackend(BaseWorkerBackend, BaseServerBackend):
    """A process entry that runs a program of Celery's.

    A program is a class with its name, and with whatever only that program has.

    Attributes:
        program: the subcommand of ``celery``.
        keys: the keys an entry may have.
        rules: the rules an entry has to keep, beside those of every program.

    Args:
        server_config: the entry: ``APP``, what ``celery -A`` takes, and ``ARGS``,
            the options of the program.
    """

    program: ClassVar[str]
    keys: ClassVar[tuple[str, ...]] = ("BACKEND", "APP", "ARGS")
    rules: ClassVar[tuple[Rule, ...]] = ()
    # Tells django-prodserver after 3.0 that it may hand on words of the command line.
    accepts_extra_args = True

    def __init__(self, **server_config: Any) -> None:
        super().__init__()
        self.entry = Entry(self.program, server_config)
        self._doubts: list[Finding] = []

    def findings(self) -> Iterator[Finding]:
        """Find what is wrong with the entry."""
        return findings.look(self.entry, self.keys, self.rules)

    def findings_beside(self, others: Sequence[CeleryBackend]) -> Iterator[Finding]:
        """Find what is wrong with the entry beside others.

        Args:
            others: the backends of all entries, including this one.
        """
        return findings.same_heartbeat_file(
            self.entry, [other.entry for other in others]
        )

    def prep_server_args(self, extra_args: Iterable[str] = ()) -> list[str]:
        """Return ARGS as the words of Celery's command line.

        Args:
            extra_args: the words that follow them.

        Raises:
            CommandError: something is wrong with the entry, or with those words.
        """
        self.entry.extra = tuple(extra_args)
        for finding in self.findings():
            if finding.severity is not Severity.DOUBT:
                raise CommandError(str(finding)) from finding
            check = f"prodserver_celery5.{finding.id}"
            if check not in settings.SILENCED_SYSTEM_CHECKS:
                self._doubts.append(finding)
        return self.entry.words

    def start_server(self, *args: str) -> None:
        """Run the program, and exit with its status.

        Args:
            args: what `prep_server_args` returned.

        Raises:
            CommandError: Celery cannot read the arguments.
            SystemExit: always, when the program ends.
        """
        for finding in findings.app(self.entry):
            raise CommandError(str(finding)) from finding
        from .command import OptionError, command_line, run

        try:
            context = self.entry.parsed(args)
            words = command_line(self.entry.app_name, context)
            self.prepare(context, words)
        except OptionError as exc:
            message = f"{self.entry}: {exc.where}: {exc} {exc.hint}".rstrip()
            raise CommandError(message) from exc
        except restart.RestartError as exc:
            raise CommandError(f"{self.entry}: {exc}") from exc
        for doubt in self._doubts:
            with suppress(OSError):  # nobody can read it
                print(f"Warning: {doubt}", file=sys.stderr)
        if not context.obj.quiet:
            line = redaction.line(words)
            # A character that the output cannot encode is no reason not to start.
            encoding = getattr(sys.stdout, "encoding", None) or "ascii"
            line = line.encode(encoding, "backslashreplace").decode(encoding)
            # Flushed, or each forked child would print it again.
            print(line, flush=True)
        # Celery runs Django's system checks again, and discards what they find.
        Entry.running = True
        sys.exit(run(context))

    def prepare(self, context: click.Context, words: Sequence[str]) -> None:
        """Prepare this process for the program, which runs next.

        Args:
            context: what Celery made of the arguments; may be changed in place.
            words: the command line that does the same.

        Raises:
            OptionError: Celery cannot use an argument after all.
        """
        restart.prepare(moves=bool(context.obj.workdir))

    def heartbeat(self) -> Heartbeat | None:
        """Start the heartbeat, if anything listens for it.

        Raises:
            CommandError: the file cannot be used.
        """
        sinks: list[Sink] = []
        if "HEARTBEAT_FILE" in self.entry.config:
            from .record import Record

            sinks.append(Record(self.entry.heartbeat_file))
        if os.environ.get("NOTIFY_SOCKET"):
            from .notify import Notify

            sinks.append(Notify.from_environment())
        if not sinks:
            return None
        from .heartbeat import Heartbeat

        heartbeat = Heartbeat(sinks)
        try:
            heartbeat.begin()
        except OSError as exc:
            raise CommandError(f"{self.entry}: {exc}.") from exc
        return heartbeat


class CeleryWorker(CeleryBackend):
    """Runs ``celery worker``."""

    program = "worker"
    keys = (*CeleryBackend.keys, "GRACE_SECONDS", "HEARTBEAT_FILE")
    rules = (
        findings.embedded_scheduler,
        findings.pool,
        findings.user,
        findings.node_files,
        findings.heartbeat_file,
        findings.heartbeat_detached,
        findings.unused_options,
        findings.grace,
    )

    def findings_beside(self, others: Sequence[CeleryBackend]) -> Iterator[Finding]:
        """W005: a worker with a beat of its own, beside a beat."""
        yield from super().findings_beside(others)
        beats = [other.entry for other in others if isinstance(other, CeleryBeat)]
        yield from findings.second_beat(self.entry, beats)

    def prepare(self, context: click.Context, words: Sequence[str]) -> None:
        """Patch for a green pool, freeze for a prefork pool, detach, end in time."""
        from . import green, prefork
        from .command import OptionError, import_pool

        import_pool(context)
        if library := green.needed_by(context.params["pool"]):
            green.restart(library)
        super().prepare(context, words)
        if context.params["detach"]:
            restart.as_python_m(words)
        elif heartbeat := self.heartbeat():
            from .loops import attach_to_worker

            try:
                attach_to_worker(self.entry.app, heartbeat)
            except OptionError as exc:
                has_key = "HEARTBEAT_FILE" in self.entry.config
                exc.where = "HEARTBEAT_FILE" if has_key else "NOTIFY_SOCKET"
                raise
        prefork.share_memory(context.params["pool"])
        if "GRACE_SECONDS" in self.entry.config:
            from . import grace

            grace.apply(grace.seconds_of(self.entry.config["GRACE_SECONDS"]))


class CeleryBeat(CeleryBackend):
    """Runs ``celery beat``."""

    program = "beat"
    keys = (*CeleryBackend.keys, "HEARTBEAT_FILE", "LEADER_LOCK")
    rules = (
        findings.scheduler,
        findings.user,
        findings.files,
        findings.heartbeat_file,
        findings.unused_options,
        findings.leader_lock,
    )

    def prepare(self, context: click.Context, words: Sequence[str]) -> None:
        """Let beat stand by until it leads, if it has a lock, and say it is alive."""
        super().prepare(context, words)
        heartbeat = self.heartbeat()
        if "LEADER_LOCK" in self.entry.config:
            from . import leader

            say = heartbeat.say if heartbeat else None
            leader.enter(self.entry, context, say)
        if heartbeat:
            from .loops import attach_to_beat

            attach_to_beat(self.entry.app, heartbeat)
            if context.params["detach"]:
                # That it can begin is known now; the process in the background does.
                heartbeat.end()


def make(
    names: Sequence[str], path: str, config: Mapping[str, Any]
) -> CeleryBackend | None:
    """Make the backend of an entry to check, if it is one of ours.

    Args:
        names: the processes that use the entry.
        path: the backend's dotted path.
        config: the entry.

    Raises:
        Finding: the backend cannot be imported, or does not take the entry.
    """
    is_ours = path.partition(".")[0] == __package__
    try:
        backend = import_string(path)
        if isinstance(backend, type) and issubclass(backend, CeleryBackend):
            is_ours = True
            made = backend(**config)
            made.entry.checked = True
            return made
        if is_ours:
            raise TypeError("it is no backend.")
    except (Exception, SystemExit) as exc:  # a module can end the program
        raise findings.backend(names, path, exc, is_ours=is_ours) from exc
    return None
