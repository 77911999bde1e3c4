"""A beat's service and its scheduler, derived so that they ask the lead."""

from __future__ import annotations

from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from celery.beat import PersistentScheduler, Scheduler
from celery.utils.imports import symbol_by_name
from django.core.exceptions import ObjectDoesNotExist
from django.db import Error, InterfaceError, OperationalError, router, transaction
from django.db.models import F
from django.db.models.signals import post_save, pre_save
from django.utils import timezone

from ..findings import Where
from ..options.errors import OptionError, private
from .lead import PAUSE, PULSE, Lead
from .locks import LEASE, Lock, RefusedError, UnavailableError

if TYPE_CHECKING:
    from ..key import Start

__all__ = ("enter",)


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
    # Celery would write it at once, and end all beats but the first.
    pidfile = start.context.params.get("pidfile")
    start.context.params["pidfile"] = None
    beat = start.context.obj.app.Beat
    # Looked up at each call: a heartbeat may come to listen after this.
    lead = Lead(lock, pidfile, lambda said: start.say(said))
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
            finally:
                lead.is_ending = True
                if "scheduler" in vars(self):
                    if lead.is_held():
                        super().sync()
                    else:  # it forgets what it would write
                        self.scheduler.sync()
                # A successor need not wait for the interpreter to end.
                lead.give_back()
            if lead.failure:  # Celery has swallowed it
                raise SystemExit(lead.failure)

        def sync(self) -> None:
            # The handler of SIGTERM calls it wherever beat is: before there is a
            # schedule, or in the middle of a query, on whose connection a second query
            # would hang. So `start` closes the scheduler, on its way out.
            lead.is_ending = True

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
            scheduler = super().get_scheduler(lazy, extension_namespace)
            for name in scheduler.needs:
                if not hasattr(scheduler, name):
                    raise SystemExit(
                        f"beat cannot lead: {kind.__module__}.{kind.__qualname__} has"
                        f" no {name}, which LEADER_LOCK needs."
                    )
            return scheduler

    return Service


class _Fenced(Scheduler):  # type: ignore[misc] # as celery has no types
    """A scheduler that saves before it sends, and does neither without the lock."""

    lead: ClassVar[Lead]
    # Attributes that its author never promised.
    needs: ClassVar[tuple[str, ...]] = ()

    def tick(self, *args: Any, **kwargs: Any) -> Any:
        self.lead.begin_tick()
        try:
            interval = super().tick(*args, **kwargs)
        except (InterfaceError, OperationalError) as exc:
            self.lead.wait_for_database(exc)
        self.lead.end_tick()
        return min(interval, PULSE) if interval else interval

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
        if self.lead.is_held():
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
            self.lead.start_anew(reason, pause=PAUSE)

    def _write(self, entry: Any) -> None:
        super().sync()


class _FencedDatabase(_Fenced):
    """django-celery-beat's scheduler, whose `sync` swallows what the database says.

    Before it reads the schedule again, it still saves once more what has run: whoever
    has edited a task may have put back an old last run.
    """

    needs = ("_dirty", "_schedule")

    def sync(self) -> None:
        if self.lead.is_held():
            for name in tuple(self._dirty):
                # What fails stays for the scheduler's own `sync`, which says why.
                with suppress(Error, KeyError, ObjectDoesNotExist):
                    self._write(self._schedule[name])
                    self._dirty.discard(name)
        super().sync()

    def _write(self, entry: Any) -> None:
        model = type(entry.model)
        database = router.db_for_write(model)
        row = model._default_manager.using(database).filter(pk=entry.model.pk)
        own = type(entry).save, entry.save_fields, model.save
        if own == self._known() and self._note(entry.model, row):
            return
        with transaction.atomic(using=database):
            # A write locks the row. `save` reads it and then writes all of it: done for
            # each run, that would soon undo what somebody changes in between.
            row.update(enabled=F("enabled"))
            entry.save()

    def _known(self) -> tuple[Any, ...]:
        """Return what `_note` takes the place of; another one may do anything."""
        models = import_module("django_celery_beat.models")
        schedulers = import_module("django_celery_beat.schedulers")
        entry = schedulers.ModelEntry
        return entry.save, entry.save_fields, models.PeriodicTask.save

    def _note(self, task: Any, row: Any) -> bool:
        """Do what `save` does, in one statement in place of four, if that is all.

        Of many runs that are due at once, each has to be in the database before the
        next is. A task that was deleted or switched off meanwhile needs more.
        """
        values = {
            "last_run_at": task.last_run_at,
            "total_run_count": task.total_run_count,
            "date_changed": timezone.now(),
        }
        told = {"sender": type(task), "instance": task, "raw": False, "using": row.db}
        told["update_fields"] = frozenset(values)
        pre_save.send(**told)
        if not row.filter(enabled=True).update(**values):
            return False
        post_save.send(created=False, **told)
        return True


class _FencedRedBeat(_Fenced):
    """redbeat's scheduler, which saves as it reserves, and has a lock of its own.

    A successor would wait until that one expires: 25 minutes by redbeat's defaults.
    """

    needs = ("lock_key",)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.lock_key = None


class _FencedFile(_Fenced):
    """Celery's own scheduler, whose file of last runs may be this machine's alone.

    A file with ``.leader`` after the same name keeps the time of the last tick. If that
    is old, another leader may have sent the runs since.
    """

    needs = ("_store",)

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
        if not self.lead.is_held():
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
