"""The lead: any number of beats run, and the one that has the lock sends.

The others stand by. Beat saves each run before it sends it, and checks the lock before
each save and each message. So a beat that has lost it (it was stopped, its connection
was cut) sends nothing and overwrites nothing of its successor's. It then restarts under
the same pid: whatever its scheduler has in memory is out of date, and closing the
scheduler would write it down.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

from celery import signals
from celery.beat import PersistentScheduler, Scheduler
from celery.utils.imports import symbol_by_name
from django.core.exceptions import ObjectDoesNotExist
from django.db import InterfaceError, OperationalError, router, transaction
from django.db.models import F

from ..findings import Where
from ..options.errors import OptionError, private
from ..process import restart
from ..redaction import hidden
from .locks import LEASE, Lock, RefusedError, UnavailableError

if TYPE_CHECKING:
    from ..key import Start

__all__ = ("Lead", "enter")

# How often a beat that stands by asks for the lock, in seconds.
_POLL = 0.25

# How long a leader sleeps at most, in seconds: a session may be idle for `LEASE`.
_PULSE = 5

# How long to wait before a new start when something other than the lock has failed, in
# seconds: a database that is away is not asked without pause.
_PAUSE = 1


class Lead:
    """What the service and the scheduler of a beat ask: may we send?

    Args:
        lock: the lock that the leader has.
        pidfile: the file that Celery has written the pid to, if any.
        say: a function to call with ``"standing by"``, again and again, and with
            ``"leading"``.
    """

    def __init__(
        self,
        lock: Lock,
        pidfile: str | None = None,
        say: Callable[[str], None] | None = None,
    ) -> None:
        self.lock = lock
        self._pidfile = pidfile
        self._say = say or (lambda state: None)
        self._thread = threading.get_ident()  # the one that leads
        self._held_at = 0.0
        self._is_ending = False
        self._starting = threading.Lock()  # more than one thread may restart

    def gain(self) -> None:
        """Stand by until the lock is ours.

        Raises:
            SystemExit: the database cannot keep the lock.
        """
        said = ""
        while not self._is_ending:
            try:
                if self.lock.acquire():
                    break
                state = reason = "another one leads"
            except UnavailableError as exc:
                state, reason = "away", f"the database of the lock is away: {exc}"
            except RefusedError as exc:
                raise SystemExit(f"beat cannot lead: {exc} {exc.hint}") from exc
            if state != said:
                _log(logging.INFO, f"Standing by: {reason}.")
                said = state
            self._say("standing by")
            time.sleep(_POLL)
        if self._is_ending:  # and something has swallowed the SystemExit
            raise SystemExit
        _log(logging.INFO, "Leading.")
        self._say("leading")
        self._held_at = time.monotonic()
        threading.Thread(target=self._watch, name="lead", daemon=True).start()
        # The last check before a message goes out, however a scheduler sends it.
        signals.before_task_publish.connect(self._before_publish, weak=False)

    def hold(self) -> None:
        """Return only if the lock is ours; else restart."""
        if not self.lock.is_held():
            self.start_anew("the lock is lost: nothing is sent")
        self._held_at = time.monotonic()

    def end(self) -> None:
        """Let beat end in its own time, and never start again."""
        self._is_ending = True

    def start_anew(self, reason: str, pause: float = 0) -> NoReturn:
        """Replace this process with a new one under the same pid, which stands by.

        Args:
            reason: the reason, for the log.
            pause: how long to wait first, without the lock, in seconds.

        Raises:
            SystemExit: beat is ending, or cannot be started again.
        """
        if self._is_ending:
            raise SystemExit
        with self._starting:
            _log(logging.WARNING, f"{reason}; starting again, to stand by.")
            # A driver may crash if one thread closes what another is using.
            if threading.get_ident() == self._thread:
                self.lock.close()
            time.sleep(pause)
            if self._pidfile:
                # Celery 5.0 to 5.4 would take our own pid in it for another process.
                path = Path(self._pidfile)
                with suppress(OSError, ValueError):
                    if int(path.read_text()) == os.getpid():
                        path.unlink()
            try:
                restart.again()
            except (OSError, restart.RestartError) as exc:
                reason = f": {exc}"
        # Not an Exception: whoever swallows those would go on to send.
        raise SystemExit(f"beat cannot start again{reason}")

    def wait_for_database(self, error: Exception) -> NoReturn:
        """Restart, because the database of the schedule is away.

        Args:
            error: what the database said.

        Raises:
            Exception: that error, if it says something else: for SQLite a missing
                table is operational, too.
        """
        if "no such table" in str(error):
            raise error
        reason = f"the database of the schedule is away: {error}"
        self.start_anew(reason, pause=_PAUSE)

    def _before_publish(self, **kwargs: Any) -> None:
        # What other threads of the project send is not part of the schedule.
        if threading.get_ident() == self._thread:
            self.hold()

    def _watch(self) -> None:
        """Restart if beat hangs for longer than a server keeps the lock for it.

        When the network falls silent, a driver without a timeout waits for its database
        or broker for ever.
        """
        while time.monotonic() < self._held_at + LEASE + _PULSE:
            time.sleep(1)
            if self._is_ending:
                return
        try:
            self.start_anew(f"it has not come round for {LEASE + _PULSE} s")
        except SystemExit as exc:  # would end only this thread, and say nothing
            if exc.code:
                _log(logging.CRITICAL, str(exc).removeprefix("beat "))
                os._exit(1)


def _log(level: int, line: str) -> None:
    # Not made earlier: applying LOGGING may disable the loggers that exist by then.
    logging.getLogger(__name__).log(level, "beat: %s", hidden(" ".join(line.split())))


def enter(start: Start, lock: Lock) -> None:
    """Let a beat stand by until it leads.

    Args:
        start: the process that is about to become the beat.
        lock: the lock of the one that leads.

    Raises:
        OptionError: the database cannot keep the lock.
    """
    try:
        lock.connect()
    except RefusedError as exc:
        where = Where("LEADER_LOCK", f"= {lock.alias!r}")
        raise OptionError(str(exc), exc.hint, where) from exc
    except UnavailableError:
        pass  # beat waits for it, and says so
    beat = start.context.obj.app.Beat
    # Looked up at each call: a heartbeat may come to listen after this.
    lead = Lead(lock, start.context.params.get("pidfile"), lambda said: start.say(said))
    beat.Service = _led(beat.Service, lead)


def _led(base: Any, lead: Lead) -> Any:
    """Derive from a service one that stands by until it leads."""

    class Service(base):  # type: ignore[misc] # as celery has no types
        """Beat, as long as it leads."""

        scheduler_cls: Any

        def start(self, embedded_process: bool = False) -> None:
            lead.gain()
            try:
                super().start(embedded_process)
            except (InterfaceError, OperationalError) as exc:
                # While the schedule was read for the first time.
                lead.wait_for_database(exc)

        def sync(self) -> None:
            lead.end()
            # The handler of SIGTERM calls it wherever beat is: before there is a
            # schedule, or in the middle of a query, on whose connection a second query
            # would hang. `start` calls it again on its way out: after this turn, if
            # something (a `__del__`) has swallowed the SystemExit.
            if not self._is_shutdown.is_set():
                self._is_shutdown.set()
                return
            if lead.lock.is_held():
                super().sync()
                # A successor need not wait for the interpreter to end.
                lead.lock.close()
            elif "scheduler" in vars(self):
                self.scheduler.sync()

        def get_scheduler(
            self,
            lazy: bool = False,
            extension_namespace: str = "celery.beat_schedulers",
        ) -> Any:
            extensions = private("celery.utils.imports", "load_extension_class_names")
            aliases = dict(extensions(extension_namespace))
            kind = symbol_by_name(self.scheduler_cls, aliases=aliases)
            if not issubclass(kind, _Fenced):
                self.scheduler_cls = _fenced(kind, lead)
            return super().get_scheduler(lazy, extension_namespace)

    return Service


class _Fenced(Scheduler):  # type: ignore[misc] # as celery has no types
    """A scheduler that saves before it sends, and does neither without the lock."""

    lead: ClassVar[Lead]

    def tick(self, *args: Any, **kwargs: Any) -> Any:
        self.lead.hold()
        try:
            interval = super().tick(*args, **kwargs)
        except (InterfaceError, OperationalError) as exc:
            self.lead.wait_for_database(exc)
        return min(interval, _PULSE) if interval else interval

    def apply_async(
        self, entry: Any, producer: Any = None, advance: bool = True, **kwargs: Any
    ) -> Any:
        # Again: beat may have waited a long time for the broker since the tick began.
        self.lead.hold()
        if advance:
            entry = self.reserve(entry)
        self._save(entry)
        return super().apply_async(entry, producer=producer, advance=False, **kwargs)

    def sync(self) -> None:
        if self.lead.lock.is_held():
            super().sync()

    def _save(self, entry: Any) -> None:
        """Save that an entry runs, or restart."""
        try:
            self._write(entry)
        except ObjectDoesNotExist:
            # It was deleted a moment ago: the caller logs that, and sends nothing.
            raise
        except Exception as exc:
            reason = f"the run of {entry.name} cannot be saved, and is not sent: {exc}"
            self.lead.start_anew(reason, pause=_PAUSE)

    def _write(self, entry: Any) -> None:
        super().sync()


class _FencedDatabase(_Fenced):
    """django-celery-beat's scheduler, whose `sync` swallows what the database says."""

    def _write(self, entry: Any) -> None:
        model = type(entry.model)
        row = model._default_manager.filter(pk=entry.model.pk)
        with transaction.atomic(using=router.db_for_write(model)):
            # A write locks the row. `save` reads it and then writes all of it: done for
            # each run, that would soon undo what somebody changes in between.
            row.update(enabled=F("enabled"))
            entry.save()
        # A private name; without it, `sync` merely saves the entry again.
        getattr(self, "_dirty", set()).discard(entry.name)


class _FencedRedBeat(_Fenced):
    """redbeat's scheduler, which saves as it reserves, and has a lock of its own.

    A successor would wait for that one until its time to live is over.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.lock_key = None


class _FencedFile(_Fenced):
    """Celery's own scheduler, whose file of last runs may be this machine's alone.

    A file with ``.leader`` after the same name keeps the time of the last tick. If that
    is old, another leader may have sent the runs since.
    """

    def setup_schedule(self) -> None:
        super().setup_schedule()
        if self._renew() > 2 * LEASE:
            for entry in self.schedule.values():
                entry.last_run_at = entry.default_now()
            super().sync()

    def tick(self, *args: Any, **kwargs: Any) -> Any:
        interval = super().tick(*args, **kwargs)
        self._renew()
        return interval

    def sync(self) -> None:
        super().sync()
        if not self.lead.lock.is_held():
            # The shelf would write it when closed or collected.
            self._store.cache.clear()

    def _renew(self) -> float:
        """Return how old the mark was, in seconds, by the file system's clock."""
        mark = Path(f"{self.schedule_filename}.leader")
        before = mark.stat().st_mtime if mark.exists() else 0.0
        mark.touch()
        return mark.stat().st_mtime - before


def _fenced(kind: type[Any], lead: Lead) -> type[Any]:
    """Derive from a scheduler one of the same name that asks `lead`."""
    modules = {base.__module__ for base in kind.__mro__}
    if issubclass(kind, PersistentScheduler):
        fence: type[_Fenced] = _FencedFile
    elif "django_celery_beat.schedulers" in modules:
        fence = _FencedDatabase
    elif "redbeat.schedulers" in modules:
        fence = _FencedRedBeat
    else:
        fence = _Fenced
    names = {"lead": lead, "__module__": kind.__module__, "__doc__": kind.__doc__}
    return type(kind.__name__, (fence, kind), names)
