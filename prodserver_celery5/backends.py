"""The backends: a process entry becomes a running program, and its exit status."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, ClassVar

from django.conf import settings
from django.core.management import CommandError
from django.db import DatabaseError
from django.utils.module_loading import import_string
from django_prodserver.backends.base import BaseServerBackend

from . import rules
from .entry import Entry, is_typed, names_of
from .findings import Finding, Rule
from .grace.key import GraceSeconds
from .heartbeat.key import BeatHeartbeat, WorkerHeartbeat
from .key import Key, Start
from .leader.key import LeaderLock
from .options import rules as of_options
from .process import green, restart
from .redaction import hidden

if TYPE_CHECKING:
    import click

try:
    from django_prodserver.backends.base import BaseWorkerBackend
except ImportError:

    class BaseWorkerBackend(BaseServerBackend):  # type: ignore[no-redef] # 3 has it
        """django-prodserver 2 has one kind of backend."""


__all__ = ("CeleryBackend", "CeleryBeat", "CeleryWorker", "make")


# `prodserver` and `server` of django-prodserver 3 take servers, `worker` workers.
class CeleryBackend(BaseWorkerBackend, BaseServerBackend):
    """A process entry that runs a program of Celery's.

    A program is a class with its name, and with whatever only that program has.

    Attributes:
        program: the subcommand of ``celery``.
        keys: the keys an entry may have beside BACKEND, APP and ARGS, in the order in
            which they prepare the process.
        rules: the rules an entry has to keep, beside those of every program.

    Args:
        server_config: the entry: ``APP``, what ``celery -A`` takes, and ``ARGS``,
            the options of the program.
    """

    program: ClassVar[str]
    keys: ClassVar[tuple[Key, ...]] = ()
    rules: ClassVar[tuple[Rule, ...]] = ()
    # Tells django-prodserver after 3.0 that it may hand on words of the command line.
    accepts_extra_args = True

    def __init__(self, **server_config: Any) -> None:
        super().__init__()
        names = names_of(server_config, self._is_path)
        self.entry = Entry(self.program, server_config, names)
        self._doubts: list[Finding] = []

    def findings(self) -> Iterator[Finding]:
        """Find what is wrong with the entry."""
        elsewhere = {
            key.name: other.program
            for other in (CeleryWorker, CeleryBeat)
            for key in other.keys
        }
        return rules.look(self.entry, self.keys, self.rules, elsewhere)

    def findings_beside(self, others: Sequence[CeleryBackend]) -> Iterator[Finding]:
        """Find what is wrong with the entry beside others, itself among them."""
        entries = [other.entry for other in others]
        for key in self.keys:
            if self.entry.gives(key.name):
                yield from key.rules_beside(self.entry, entries)

    def prep_server_args(self, extra_args: Iterable[str] = ()) -> list[str]:
        """Return ARGS as the words of Celery's command line.

        Args:
            extra_args: the words that follow them.

        Raises:
            CommandError: something is wrong with the entry, or with those words.
        """
        self.entry.extra = tuple(extra_args)
        found = [*self.findings()]
        if stopping := [finding for finding in found if finding.stops]:
            raise CommandError("\n".join(map(str, stopping))) from stopping[0]
        self._doubts = [
            finding
            for finding in found
            if f"prodserver_celery5.{finding.id}" not in settings.SILENCED_SYSTEM_CHECKS
        ]
        return self.entry.words

    def start_server(self, *args: str) -> None:
        """Run the program, and exit with its status.

        Args:
            args: what `prep_server_args` returned.

        Raises:
            CommandError: Celery cannot read the arguments.
            SystemExit: always, when the program ends.
        """
        for finding in rules.app(self.entry):
            raise CommandError(str(finding)) from finding
        from .options.command import command_line, run
        from .options.errors import OptionError

        try:
            context = self.entry.parsed(args)
            words = command_line(self.entry.app_name, context)
            self.prepare(context, words)
            self._announce(context, words)
            # Celery runs Django's system checks again, and discards what they find.
            Entry.running = True
            status = run(context)
        except OptionError as exc:
            finding = Finding(
                "E007", self.entry.names, str(exc), exc.hint, where=exc.where
            )
            raise CommandError(str(finding)) from exc
        except restart.RestartError as exc:
            raise CommandError(hidden(f"{self.entry}: {exc}")) from exc
        sys.exit(status)

    def prepare(self, context: click.Context, words: Sequence[str]) -> None:
        """Prepare this process for the program, which runs next.

        Args:
            context: what Celery made of the arguments; may be changed in place.
            words: the command line that does the same.

        Raises:
            OptionError: Celery cannot use an argument after all.
        """
        start = Start(self.entry, context)
        for key in self.keys:
            if key.is_wanted(self.entry):
                key.prepare(start)

    def _announce(self, context: click.Context, words: Sequence[str]) -> None:
        """Print what is doubtful, and the command line that does the same."""
        for doubt in self._doubts:
            with suppress(OSError):  # nobody can read it
                print(f"Warning: {doubt}", file=sys.stderr)
        if not context.obj.quiet:
            # Each by itself, too: what quotes a quote hides where a value begins.
            line = hidden(shlex.join(map(hidden, words)))
            # A character that the output cannot encode is no reason not to start.
            encoding = getattr(sys.stdout, "encoding", None) or "ascii"
            line = line.encode(encoding, "backslashreplace").decode(encoding)
            # Flushed, or each forked child would print it again.
            print(line, flush=True)

    @classmethod
    def _is_path(cls, path: str) -> bool:
        """Whether a dotted path is that of this class."""
        with suppress(Exception):
            return import_string(path) is cls
        return False


class CeleryWorker(CeleryBackend):
    """Runs ``celery worker``."""

    program = "worker"
    keys = (WorkerHeartbeat(), GraceSeconds())
    rules = (
        of_options.embedded_scheduler,
        of_options.pool,
        of_options.user,
        of_options.files,
        of_options.unused_options,
    )

    def findings_beside(self, others: Sequence[CeleryBackend]) -> Iterator[Finding]:
        """W005: a worker with a beat of its own, beside a beat."""
        yield from super().findings_beside(others)
        beats = [other.entry for other in others if isinstance(other, CeleryBeat)]
        yield from of_options.second_beat(self.entry, beats)

    def prep_server_args(self, extra_args: Iterable[str] = ()) -> list[str]:
        """Return ARGS as words, in a process that is patched for a green pool.

        To be patched, it starts once more: before APP and the rules, where a name is
        enough to tell the pool. All that is imported by then is imported twice.
        """
        extra = [*extra_args]
        with suppress(Exception):  # the rules tell what is wrong with ARGS
            if is_typed() and (library := green.named_in(self.entry.args, extra)):
                green.restart(library)
        return super().prep_server_args(extra)

    def prepare(self, context: click.Context, words: Sequence[str]) -> None:
        """Patch for a green pool, freeze for a prefork pool, or detach."""
        from .options.command import import_pool
        from .process import prefork

        import_pool(context)
        if library := green.needed_by(context.params["pool"]):
            green.restart(library)
        super().prepare(context, words)
        if context.params["detach"]:
            restart.as_python_m(words)
        else:
            restart.on_sighup(self.entry.app)
        prefork.share_memory(context.params["pool"])


class CeleryBeat(CeleryBackend):
    """Runs ``celery beat``."""

    program = "beat"
    keys = (LeaderLock(), BeatHeartbeat())
    rules = (
        of_options.scheduler,
        of_options.user,
        of_options.files,
        of_options.unused_options,
    )

    def start_server(self, *args: str) -> None:
        """Run beat, and exit with its status.

        Args:
            args: what `prep_server_args` returned.

        Raises:
            CommandError: Celery cannot read the arguments, or the scheduler's tables
                are missing.
            SystemExit: always else, when beat ends.
        """
        try:
            super().start_server(*args)
        except DatabaseError as exc:
            if "django_celery_beat" not in str(exc):
                raise
            message = f"{self.entry}: the tables of the schedule are missing: {exc}"
            hint = "Run: python manage.py migrate"
            raise CommandError(hidden(f"{' '.join(message.split())}. {hint}")) from exc


def make(
    names: Sequence[str], path: str, config: Mapping[str, Any]
) -> CeleryBackend | None:
    """Make the backend of an entry to check, if it is one of ours; raises `Finding`."""
    is_ours = path.partition(".")[0] == __package__
    try:
        backend = import_string(path)
        if isinstance(backend, type) and issubclass(backend, CeleryBackend):
            is_ours = True
            made = backend(**config)
            made.entry.names, made.entry.checked = tuple(names), True
            return made
        if is_ours:
            raise TypeError("it is not a backend.")
    except (Exception, SystemExit) as exc:  # a module can end the program
        raise rules.backend(names, path, exc, is_ours=is_ours) from exc
    return None
