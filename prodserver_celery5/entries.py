"""One entry of PRODUCTION_PROCESSES: what it says, and what is wrong with it.

The backends stop at the first `Finding`, the system checks report them all.
"""

from __future__ import annotations

import os
import pwd
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import celery
import click
from celery.app.utils import find_app
from celery.concurrency import ALIASES
from celery.platforms import parse_gid, parse_uid
from celery.utils.imports import load_extension_class_names, symbol_by_name
from celery.utils.nodenames import node_format
from django.apps import apps
from django.conf import settings
from django.utils.functional import Promise

from . import green, options

__all__ = ("Entry", "Finding")


class Finding(Exception):  # noqa: N818 - not all of them are errors
    """Something wrong with an entry, in one line.

    Args:
        id: of the system check, such as ``"E003"``. With a ``W`` it depends on the
            machine: an error for a process that starts, a warning before that.
        message: the process, the key, the value, and what would be accepted.
    """

    def __init__(self, id: str, message: str) -> None:
        super().__init__(message)
        self.id = id


@dataclass(frozen=True)
class Entry:
    """A process entry with one of this package's backends.

    Args:
        program: ``"worker"`` or ``"beat"``.
        config: the entry, as it stands in PRODUCTION_PROCESSES.
    """

    program: str
    config: Mapping[str, Any]

    @property
    def names(self) -> str:
        """The names of the processes whose entry this is: a backend never learns it."""
        processes = getattr(settings, "PRODUCTION_PROCESSES", {})
        # A backend derived from ours may have changed ARGS.
        for keys in (("BACKEND", "APP", "ARGS"), ("BACKEND", "APP")):
            names = [
                str(name)
                for name, entry in processes.items()
                if isinstance(entry, Mapping)
                and all(entry.get(key) == self.config.get(key) for key in keys)
            ]
            if names:
                return ", ".join(names)
        return self.program

    @property
    def args(self) -> Any:
        """ARGS, with the lazy strings of Django resolved."""
        return _resolved(self.config.get("ARGS"))

    def finding(self, id: str, message: str) -> Finding:
        """Make a `Finding` that names the process, in one line."""
        line = " ".join(f"{self.names}: {message}".split())
        return Finding(id, options.without_passwords(line))

    def app(self) -> celery.Celery:
        """Find the Celery app as ``celery -A`` does.

        Raises:
            Finding: E003 without APP, E004 if it cannot be imported, E005 if it is
                something else.
        """
        name = self.config.get("APP")
        if not name:
            raise self.finding(
                "E003",
                "the key APP is missing. It takes what `celery -A` takes,"
                ' such as "proj" or "proj.celery:app".',
            )
        if not isinstance(name, (str, Promise)):
            raise self.finding(
                "E004", f"APP = {name!r}: takes a string, such as 'proj.celery:app'."
            )
        try:
            app = find_app(str(name))
        except Exception as exc:
            cause: BaseException = exc
            # find_app() tries an attribute first and then a module of that name.
            while isinstance(cause.__context__, AttributeError):
                cause = cause.__context__
            raise self.finding(
                "E004",
                f"APP = {str(name)!r} cannot be imported:"
                f" {type(cause).__name__}: {cause}",
            ) from exc
        if not isinstance(app, celery.Celery):
            raise self.finding(
                "E005",
                f"APP = {str(name)!r} is a {type(app).__name__}, not a Celery app.",
            )
        return app

    def findings(self) -> Iterator[Finding]:
        """Find what is wrong with the entry, without starting or importing a pool."""
        for key in self.config:
            if key not in ("BACKEND", "APP", "ARGS"):
                yield self.finding(
                    "E010",
                    f"the key {key!r} is unknown; an entry has BACKEND, APP and ARGS.",
                )
        try:
            app = self.app()
        except Finding as finding:
            yield finding
            return
        wrong = False
        for error in options.mistakes(self.program, app, self.args):
            wrong = True
            unknown = isinstance(error, options.UnknownOptionError)
            id = "E006" if unknown else "E007"
            mistake = self.finding(id, f"{error.where}: {error}")
            mistake.__cause__ = error
            yield mistake
        if wrong:
            return
        context = self.parse(app)
        scheduler = None
        try:
            scheduler = self._scheduler(app, context.params)
        except Finding as finding:
            yield finding
        yield from self._pool(app, context.params)
        yield from self._user(context.params)
        yield from self._folders(context, scheduler)

    def parse(self, app: celery.Celery) -> click.Context:
        """Let Celery parse ARGS, without importing the pool.

        Args:
            app: what `app` returned.

        Raises:
            OptionError: ARGS have a mistake.
        """
        argv = options.argument_list(self.program, app, self.args)
        return options.parse(self.program, app, argv, import_pool=False)

    def _scheduler(self, app: celery.Celery, params: Mapping[str, Any]) -> Any:
        """Return the class of the scheduler, if one is to run."""
        if self.program == "worker" and not params.get("beat"):
            return None
        scheduler = params.get("scheduler") or app.conf.beat_scheduler
        path = scheduler
        try:
            # Celery 5.0 and 5.1 need setuptools below 81 for this, and so for beat.
            aliases = dict(load_extension_class_names("celery.beat_schedulers"))
            path = aliases.get(scheduler, scheduler)
            return symbol_by_name(path)
        except Exception as exc:
            package = str(path).partition(".")[0]
            if package == "django_celery_beat" and not apps.is_installed(package):
                raise self.finding(
                    "E009",
                    f"scheduler = {scheduler!r} needs {package!r} in INSTALLED_APPS.",
                ) from exc
            raise self.finding(
                "E008",
                f"scheduler = {scheduler!r} cannot be imported:"
                f" {type(exc).__name__}: {exc}",
            ) from exc

    def _pool(self, app: celery.Celery, params: Mapping[str, Any]) -> Iterator[Finding]:
        name = params.get("pool")
        if name == "prefork":
            # Celery takes its option's default for "what worker_pool says".
            name = app.conf.worker_pool
        path = str(ALIASES.get(name, name) or "")
        # As symbol_by_name() takes it: "module:Class", "module.Class", or a module.
        module, colon, _ = path.partition(":")
        module = module if colon else path.rpartition(".")[0] or path
        library = module.rpartition(".")[2]
        wanted = library if library in green.LIBRARIES else module
        if isinstance(name, str) and wanted and not _is_importable(wanted):
            yield self.finding(
                "W001",
                f"pool = {name!r} needs the module {wanted!r}, not installed here.",
            )

    def _user(self, params: Mapping[str, Any]) -> Iterator[Finding]:
        for key, find in (
            ("uid", lambda uid: pwd.getpwuid(parse_uid(uid))),
            ("gid", parse_gid),
        ):
            try:
                if params.get(key):
                    find(params[key])
            except KeyError:
                yield self.finding(
                    "W002",
                    f"{key} = {params[key]!r} is unknown here; takes a name or number"
                    " that the machine knows.",
                )

    def _folders(self, context: click.Context, scheduler: Any) -> Iterator[Finding]:
        params = dict(context.params)
        # celery.beat is not loaded for a worker that has no use for it.
        beat = sys.modules.get("celery.beat")
        if not (
            beat
            and isinstance(scheduler, type)
            and issubclass(scheduler, beat.PersistentScheduler)
        ):
            # No other scheduler opens the file.
            params.update(schedule=None, schedule_filename=None)
        workdir = context.obj.workdir or ""
        if workdir and not os.path.isdir(workdir):
            yield self.finding(
                "W003", f"workdir = {str(workdir)!r} is no folder that exists here."
            )
            return
        for key in ("pidfile", "logfile", "statedb", "schedule", "schedule_filename"):
            path = str(params.get(key) or "")
            where = f"{key.replace('_', '-')} = {path!r}:"
            try:
                # Celery expands %h and its like for workers alone.
                if self.program == "worker":
                    path = node_format(path, params["hostname"])
            except ValueError as exc:
                yield self.finding("E007", f"{where} {str(exc).splitlines()[0]}")
                continue
            folder = os.path.dirname(os.path.join(workdir, path))
            if path and folder and not os.path.isdir(folder):
                yield self.finding(
                    "W003", f"{where} the folder {folder!r} does not exist here."
                )


def _is_importable(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except Exception:  # of a package above it, which is imported
        return False


def _resolved(value: Any) -> Any:
    """Replace lazy strings, such as those of gettext_lazy, by strings."""
    if isinstance(value, Promise):
        return str(value)
    if isinstance(value, Mapping):
        return {_resolved(key): _resolved(element) for key, element in value.items()}
    if type(value) in (list, tuple, set, frozenset):
        return type(value)(_resolved(element) for element in value)
    return value
