"""The rules that an entry of PRODUCTION_PROCESSES has to keep.

Each rule takes the entry to look at, and yields a `Finding` for what is wrong with it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import Enum
from importlib.util import find_spec
from typing import TYPE_CHECKING

from django.apps import apps
from django.utils.functional import Promise

from . import green, pasted, redaction
from .entries import Entry

if TYPE_CHECKING:
    from .command import Command, OptionError

__all__ = (
    "Finding",
    "Rule",
    "Severity",
    "app",
    "backend",
    "embedded_scheduler",
    "files",
    "look",
    "may_be_ours",
    "mistakes",
    "node_files",
    "pool",
    "scheduler",
    "second_beat",
    "shape",
    "shell",
    "unused_options",
    "user",
    "workdir",
)


class Severity(Enum):
    """What a finding means for a start and for a check."""

    MISTAKE = "stops the start; an error of the checks"
    MACHINE = "depends on the machine: stops the start; a warning of the checks"
    DOUBT = "the start goes on; a warning of the checks"


class Finding(Exception):  # noqa: N818 - not all of them are errors
    """Something wrong with an entry.

    Args:
        id: of the system check, such as ``"E003"``.
        names: of the processes whose entry it is.
        message: the key, the value, and what is wrong.
        hint: what to do; ``""`` where the message says it.
        severity: what it means for a start and for a check.
        cause: the error that it was found by.
    """

    def __init__(
        self,
        id: str,
        names: Sequence[str],
        message: str,
        hint: str = "",
        *,
        severity: Severity = Severity.MISTAKE,
        cause: BaseException | None = None,
    ) -> None:
        self.id = id
        self.names = tuple(names)
        self.message, self.hint = (
            redaction.text(" ".join(text.split())) for text in (message, hint)
        )
        self.severity = severity
        self.__cause__ = cause
        # What Celery and Python say does not always end as a sentence does.
        stop = "." if hint and self.message[-1] not in ".?!" else ""
        super().__init__(
            f"{', '.join(names)}: {self.message}{stop} {self.hint}".rstrip()
        )


Rule = Callable[[Entry], Iterator[Finding]]
"""Finds something wrong with an entry."""


def look(entry: Entry, keys: Sequence[str], rules: Sequence[Rule]) -> Iterator[Finding]:
    """Find what is wrong with an entry, without starting anything or importing a pool.

    Args:
        entry: to look at.
        keys: that the entry may have.
        rules: those of its program; they see only entries whose APP and ARGS are right.
    """
    for key in entry.config:
        if key not in keys:
            known = f"{', '.join(keys[:-1])} and {keys[-1]}"
            yield Finding(
                "E010",
                entry.names,
                f"the key {key!r} is unknown.",
                f"An entry can have {known}.",
            )
    wrong = [*app(entry), *arguments(entry)]
    yield from wrong
    for rule in (workdir, shell, *rules) if not wrong else ():
        yield from _kept(rule, entry)


def _kept(rule: Rule, entry: Entry) -> Iterator[Finding]:
    """Apply a rule; W012: it needs what this Celery does not have."""
    from .command import PrivateNameError

    try:
        yield from rule(entry)
    except PrivateNameError as exc:
        message = f"a check is left out: {exc}"
        yield Finding("W012", entry.names, message, severity=Severity.DOUBT, cause=exc)


# An entry that has no backend yet


def shape(name: str, config: object) -> Iterator[Finding]:
    """E001: the entry is no dict.

    Args:
        name: of the process.
        config: what stands in PRODUCTION_PROCESSES.
    """
    if not isinstance(config, Mapping):
        yield Finding(
            "E001",
            [name],
            f"the entry is {config!r}.",
            "It must be a dict with the keys BACKEND, APP and ARGS.",
        )


def may_be_ours(config: object) -> bool:
    """Whether an entry's backend can be one of this package, or derived from it.

    Other backends, and what they would import, are left alone.

    Args:
        config: what stands in PRODUCTION_PROCESSES.
    """
    path = config.get("BACKEND") if isinstance(config, Mapping) else None
    if not isinstance(path, str) or not isinstance(config, Mapping):
        return False
    return path.startswith("prodserver_celery5.") or (
        "APP" in config and not path.startswith("django_prodserver.")
    )


def backend(name: str, path: str, error: Exception) -> Finding:
    """E002: the backend cannot be imported, or does not take the entry.

    Args:
        name: of the process.
        path: what stands under BACKEND.
        error: what the backend failed with.
    """
    message = f"BACKEND = {path!r} cannot be used: {_reason(error)}"
    return Finding("E002", [name], message, cause=error)


# Every program


def app(entry: Entry) -> Iterator[Finding]:
    """E003: no APP. E004: it cannot be imported. E005: it is something else."""
    from .command import PrivateNameError

    name = entry.config.get("APP")
    takes = 'It takes what `celery -A` takes, such as "proj" or "proj.celery:app".'
    if not name:
        yield Finding("E003", entry.names, "the key APP is missing.", takes)
        return
    if not isinstance(name, (str, Promise)):
        yield Finding("E004", entry.names, f"APP = {name!r} is no string.", takes)
        return
    try:
        found: object = entry.app
    except Exception as exc:
        cause: BaseException = exc
        # find_app() tries an attribute first and then a module of that name.
        while not isinstance(exc, PrivateNameError) and isinstance(
            cause.__context__, AttributeError
        ):
            cause = cause.__context__
        message = f"APP = {str(name)!r} cannot be imported: {_reason(cause)}"
        yield Finding("E004", entry.names, message, cause=exc)
        return
    from celery import Celery

    if not isinstance(found, Celery):
        yield Finding(
            "E005",
            entry.names,
            f"APP = {str(name)!r} is of type {type(found).__name__}, not a Celery app.",
            'Name the app itself, such as "proj.celery:app".',
        )


def arguments(entry: Entry) -> Iterator[Finding]:
    """E006: there is no such option. E007: the option does not take the value."""
    from .command import OptionError, UnknownOptionError

    try:
        entry.context  # noqa: B018 - made once, for whoever asks next
    except OptionError as whole:
        for error in mistakes(entry.command, entry.args, whole):
            found = pasted.unexpanded(f"{error.where}: {error}")
            yield Finding(
                "E006" if isinstance(error, UnknownOptionError) else "E007",
                entry.names,
                f"{error.where}: {error}",
                f"ARGS are not read by a shell: write {found[1]} in the settings."
                if found and not error.hint
                else error.hint,
                cause=error,
            )


def mistakes(
    command: Command, args: object, whole: OptionError
) -> Iterator[OptionError]:
    """Find each mistake in ARGS, and where it is.

    Args:
        command: the subcommand that is to read them.
        args: that have a mistake.
        whole: what Celery says of all of them together.
    """
    import click

    from .arguments import spell, where_is
    from .command import OptionError

    def attempt(part: object) -> OptionError | None:
        try:
            command.parse(spell(command, part))
        except OptionError as exc:
            return exc
        return None

    def is_missing(error: OptionError) -> bool:
        # Where the app has an option that has to be given, each part alone lacks it.
        return isinstance(error.__cause__, click.MissingParameter)

    environment = attempt(None)
    if environment and not is_missing(environment):
        # Which variable it is, Celery does not always say either.
        param = getattr(environment.__cause__, "param", None)
        known = f"CELERY_{command.name}_{getattr(param, 'name', '…')}".upper()
        variable = getattr(param, "envvar", None) or known
        value = os.environ.get(variable)
        shown = (
            "**" if redaction.name_is_secret(variable) else redaction.word(f"{value!r}")
        )
        environment.where = variable + (f" = {shown}" if value else "")
        yield environment
        return
    found = False
    # Celery does not always say which option it was: each is tried alone.
    for key, value in args.items() if isinstance(args, Mapping) else ():
        error = attempt({key: value})
        if error and not is_missing(error):
            found = True
            error.where = where_is(key, value)
            yield error
    if not found:
        yield whole


def workdir(entry: Entry) -> Iterator[Finding]:
    """W003: the folder to work in is missing."""
    folder = entry.context.obj.workdir
    if folder and not os.path.isdir(folder):
        yield _missing(entry, f"workdir = {str(folder)!r}: this folder")


def shell(entry: Entry) -> Iterator[Finding]:
    """W013: a shell would expand it. W014: another program reads %% as %."""
    for where, text, setting in _texts(entry.args):
        if found := pasted.unexpanded(text):
            shown, expression = found
            yield Finding(
                "W013",
                entry.names,
                f"{where}: ARGS are not read by a shell, so {shown} stays as it is.",
                f"Write {setting.format(expression)} in the settings.",
                severity=Severity.DOUBT,
            )
        if escaped := pasted.literal_percent(text):
            yield Finding(
                "W014",
                entry.names,
                f"{where}: Celery reads {escaped} as the two characters {escaped[1:]}.",
                f"Write {escaped[1:]}: systemd and supervisor need two, settings one.",
                severity=Severity.DOUBT,
            )


# Programs that have an option in common


def scheduler(entry: Entry) -> Iterator[Finding]:
    """E008: it cannot be imported. E009: its app is not installed. W003: no folder."""
    from celery.beat import PersistentScheduler
    from celery.utils.imports import symbol_by_name

    from .command import private

    params = entry.context.params
    name = path = params.get("scheduler") or entry.app.conf.beat_scheduler
    extensions = private("celery.utils.imports", "load_extension_class_names")
    try:
        # Celery 5.0 and 5.1 need setuptools below 81 for this, and so for beat.
        path = dict(extensions("celery.beat_schedulers")).get(name, name)
        found = symbol_by_name(path)
    except Exception as exc:
        package = str(path).partition(".")[0]
        if package == "django_celery_beat" and not apps.is_installed(package):
            message = f"scheduler = {name!r} needs {package!r} in INSTALLED_APPS."
            yield Finding("E009", entry.names, message, cause=exc)
        else:
            message = f"scheduler = {name!r} cannot be imported: {_reason(exc)}"
            yield Finding("E008", entry.names, message, cause=exc)
        return
    # No other scheduler opens the file.
    if isinstance(found, type) and issubclass(found, PersistentScheduler):
        yield from _folders(entry, "schedule", "schedule_filename")


def embedded_scheduler(entry: Entry) -> Iterator[Finding]:
    """What `scheduler` finds, where a worker runs a beat of its own."""
    if entry.context.params.get("beat"):
        yield from scheduler(entry)


def pool(entry: Entry) -> Iterator[Finding]:
    """W001: the library of the pool is missing."""
    from .command import private

    name = entry.context.params.get("pool")
    if name == "prefork":
        # Celery takes its option's default for "what worker_pool says".
        name = entry.app.conf.worker_pool
    path = str(private("celery.concurrency", "ALIASES").get(name, name) or "")
    # As symbol_by_name() takes it: "module:Class", "module.Class", or a module.
    module, colon, _ = path.partition(":")
    module = module if colon else path.rpartition(".")[0] or path
    library = module.rpartition(".")[2]
    wanted = library if library in green.LIBRARIES else module
    if isinstance(name, str) and wanted and not _is_importable(wanted):
        yield Finding(
            "W001",
            entry.names,
            f"pool = {name!r} needs the module {wanted!r}, not installed here.",
            severity=Severity.MACHINE,
        )


def user(entry: Entry) -> Iterator[Finding]:
    """W002: the user or group is unknown."""
    for key, find in (("uid", _find_user), ("gid", _find_group)):
        value = entry.context.params.get(key)
        try:
            if value:
                find(value)
        except (ImportError, KeyError) as exc:
            yield Finding(
                "W002",
                entry.names,
                f"{key} = {value!r} is unknown here.",
                "It takes a name or a number that this machine knows.",
                severity=Severity.MACHINE,
                cause=exc,
            )


def files(entry: Entry) -> Iterator[Finding]:
    """W003: the folder of a file is missing."""
    yield from _folders(entry, "pidfile", "logfile")


def node_files(entry: Entry) -> Iterator[Finding]:
    """W003: the folder of a file is missing; Celery expands %h and its like."""
    yield from _folders(entry, "pidfile", "logfile", "statedb", named=True)


def unused_options(entry: Entry) -> Iterator[Finding]:
    """W004: an option does nothing without detach."""
    params = entry.context.params
    for option in ("umask", "executable"):
        if params.get(option) and not params.get("detach"):
            message = f"{option} has no effect without detach."
            yield Finding("W004", entry.names, message, severity=Severity.DOUBT)


# Several entries


def second_beat(entry: Entry, beats: Sequence[Entry]) -> Iterator[Finding]:
    """W005: a worker runs a beat of its own, and there is another one.

    Args:
        entry: of a worker.
        beats: the entries that run beat.
    """
    if not entry.context.params.get("beat"):
        return
    for beat in beats:
        # APP has several spellings.
        if not [*app(beat)] and beat.app is entry.app:
            yield Finding(
                "W005",
                entry.names,
                "beat = True starts a second beat of this app, beside the process"
                f" {', '.join(beat.names)}: each scheduled task would be sent twice.",
                "Remove one of the two.",
                severity=Severity.DOUBT,
            )


def _texts(args: object) -> Iterator[tuple[str, str, str]]:
    """Each text in ARGS, where it is, and how its value is written in the settings."""
    from .arguments import where_is

    if isinstance(args, str):
        yield f"ARGS = {redaction.word(repr(args))}", args, "an f-string with {}"
    elif isinstance(args, Mapping):
        for key, value in args.items():
            for text in value if isinstance(value, (list, tuple, set)) else [value]:
                if isinstance(text, str):
                    yield where_is(key, value), text, f'"{key}": {{}}'
    elif isinstance(args, (list, tuple)):
        for word in map(str, args):
            yield f"ARGS word {redaction.word(repr(word))}", word, "{}"


def _folders(entry: Entry, *keys: str, named: bool = False) -> Iterator[Finding]:
    base = entry.context.obj.workdir or ""
    if base and not os.path.isdir(base):
        return
    for key in keys:
        path = str(entry.context.params.get(key) or "")
        shown = f"{key.replace('_', '-')} = {path!r}:"
        if path and named:
            from .command import private

            expand = private("celery.utils.nodenames", "node_format")
            try:
                path = expand(path, entry.context.params["hostname"])
            except ValueError as exc:
                message = f"{shown} {str(exc).splitlines()[0]}"
                yield Finding("E007", entry.names, message, cause=exc)
                continue
        folder = os.path.dirname(os.path.join(base, path))
        if path and folder and not os.path.isdir(folder):
            hint = "Nothing expands ~: write Path.home()." if path[0] == "~" else ""
            yield _missing(entry, f"{shown} the folder {folder!r}", hint)


def _missing(entry: Entry, folder: str, hint: str = "") -> Finding:
    message = f"{folder} does not exist here."
    return Finding("W003", entry.names, message, hint, severity=Severity.MACHINE)


def _find_user(value: str) -> None:
    import pwd  # which only POSIX has

    from .command import private

    pwd.getpwuid(private("celery.platforms", "parse_uid")(value))


def _find_group(value: str) -> None:
    from .command import private

    # A number may be that of a group without a name.
    private("celery.platforms", "parse_gid")(value)


def _is_importable(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except Exception:  # of a package above it, which is imported
        return False


def _reason(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
