"""The rules for ARGS, and for the options of Celery's that have one."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from importlib.util import find_spec
from typing import Any

from django.apps import apps

from ..entry import Entry
from ..findings import Finding, Rule, Where
from ..process import green
from ..values import reason, told
from . import pasted
from .command import Command
from .errors import OptionError, PrivateNameError, UnknownOptionError, private
from .spelling import spell, where_is

__all__ = (
    "COMMON", "arguments", "embedded_scheduler", "files", "node_files", "pool",
    "scheduler", "scheduler_of", "second_beat", "unused_options", "user",
)  # fmt: skip


def arguments(entry: Entry) -> Iterator[Finding]:
    """E006: there is no such option. E007: the option does not take the value."""
    try:
        entry.context  # noqa: B018 - made once, for whoever asks next
    except OptionError as whole:
        for error in mistakes(entry.command, entry.config.get("ARGS"), whole):
            id = "E006" if isinstance(error, UnknownOptionError) else "E007"
            hint = error.hint
            if not hint and (found := pasted.unexpanded(f"{error.where}: {error}")):
                hint = (
                    f"ARGS are not read by a shell: write {found[1]} in the settings."
                )
            yield Finding(
                id, entry.names, str(error), hint, where=error.where, cause=error
            )


def mistakes(command: Command, args: Any, whole: OptionError) -> Iterator[OptionError]:
    """Find each mistake in ARGS, and where it is.

    Args:
        command: the subcommand that is to read them.
        args: the ARGS with a mistake.
        whole: the error that Celery raised for all of them together.
    """
    variable = command.variable(whole.absent) if whole.absent else ""
    if value := os.environ.get(variable):
        whole.where = Where(variable, f"= {value!r}")
        yield whole
        return
    found = False
    args, _ = told(args)
    # Celery stops at the first one, so each is tried alone.
    for key, value in args.items() if isinstance(args, Mapping) else ():
        try:
            command.parse(spell(command, {key: value}))
        except OptionError as exc:
            if not exc.absent:
                found = True
                exc.where = where_is(key, value)
                yield exc
    if not found:
        yield whole


def workdir(entry: Entry) -> Iterator[Finding]:
    """W003: the folder to work in is missing."""
    folder = entry.context.obj.workdir
    if folder and not os.path.isdir(folder):
        message = f"workdir = {str(folder)!r}: this folder does not exist here."
        yield Finding(
            "W003", entry.names, message, where=entry.where("workdir"), here=True
        )


def shell(entry: Entry) -> Iterator[Finding]:
    """W013: a shell would expand it. W014: another program reads %% as %."""
    for where, text, setting in _texts(entry):
        if found := pasted.unexpanded(text):
            literal, expression = found
            message = f"ARGS are not read by a shell, so {literal} stays as it is."
            hint = f"Write {setting.format(expression)} in the settings."
            yield Finding("W013", entry.names, message, hint, where=where)
        if escaped := pasted.literal_percent(text):
            read = escaped[1:]
            message = f"Celery reads {escaped} as the two characters {read}."
            hint = f"Write {read}: systemd and supervisor need two, settings one."
            yield Finding("W014", entry.names, message, hint, where=where)


def lists(entry: Entry) -> Iterator[Finding]:
    """W016: an element of a list has a space at its end, or is empty."""
    for key, value in entry.context.params.items():
        for element in value if isinstance(value, list) else ():
            if isinstance(element, str) and (element.strip() or None) != element:
                message = f"{key} has {element!r}, which Celery takes as it is."
                hint = "Remove the space." if element.strip() else "Remove it."
                yield Finding(
                    "W016", entry.names, message, hint, where=entry.where(key)
                )


COMMON: tuple[Rule, ...] = (workdir, shell, lists)
"""What each program keeps."""


def scheduler_of(entry: Entry) -> tuple[Any, Any]:
    """Return the name of an entry's scheduler, and the scheduler.

    Both are ``None`` where only the app's settings could tell, which a check does not
    read.

    Raises:
        Exception: whatever its import raises.
    """
    from celery.utils.imports import symbol_by_name

    name = entry.context.params.get("scheduler") or entry.conf.beat_scheduler
    if not name:
        return None, None
    extensions = private("celery.utils.imports", "load_extension_class_names")
    # Celery 5.0 and 5.1 need setuptools below 81 for this, and so for beat.
    path = dict(extensions("celery.beat_schedulers")).get(name, name)
    return name, symbol_by_name(path)


def scheduler(entry: Entry) -> Iterator[Finding]:
    """E008: it cannot be imported. E009: its app is not installed. W003: no folder."""
    from celery.beat import PersistentScheduler

    where = entry.where("scheduler")
    try:
        _, found = scheduler_of(entry)
    except PrivateNameError:
        raise
    except (Exception, SystemExit) as exc:
        name = entry.context.params.get("scheduler") or entry.conf.beat_scheduler
        package = "django_celery_beat"
        if str(name).partition(".")[0] in (package, "django") and not apps.is_installed(
            package
        ):
            message = f"scheduler = {name!r} needs {package!r} in INSTALLED_APPS."
            yield Finding("E009", entry.names, message, where=where, cause=exc)
        else:
            message = f"scheduler = {name!r} cannot be imported: {reason(exc)}"
            yield Finding("E008", entry.names, message, where=where, cause=exc)
        return
    # No other scheduler opens the file.
    if isinstance(found, type) and issubclass(found, PersistentScheduler):
        yield from _folders(entry, "schedule", "schedule_filename")


def embedded_scheduler(entry: Entry) -> Iterator[Finding]:
    """What `scheduler` finds, for a worker that runs a beat of its own."""
    if entry.context.params.get("beat"):
        yield from scheduler(entry)


def pool(entry: Entry) -> Iterator[Finding]:
    """W001: the library of the pool is missing."""
    name = entry.context.params.get("pool")
    if name == "prefork":
        # The default of Celery's option, which then means "what worker_pool says".
        name = entry.conf.worker_pool
    if not isinstance(name, str):
        return  # a class, or a setting that a check does not read
    path = private("celery.concurrency", "ALIASES").get(name, name)
    if path is None:
        message = f"pool = {name!r} needs the variable CELERY_CUSTOM_WORKER_POOL."
        yield Finding(
            "W001", entry.names, message, where=entry.where("pool"), here=True
        )
        return
    # As symbol_by_name() reads it: "module:Class", "module.Class", or a module.
    module, colon, _ = path.partition(":")
    module = module if colon else path.rpartition(".")[0] or path
    library = module.rpartition(".")[2]
    wanted = library if library in green.LIBRARIES else module
    if wanted and not _is_importable(wanted):
        message = f"pool = {name!r} needs the module {wanted!r}, not installed here."
        yield Finding(
            "W001", entry.names, message, where=entry.where("pool"), here=True
        )


def user(entry: Entry) -> Iterator[Finding]:
    """W002: the user or group is unknown."""
    for key, find in (("uid", _find_user), ("gid", _find_group)):
        value = entry.context.params.get(key)
        try:
            if value:
                find(value)
        except (ImportError, KeyError) as exc:
            message = f"{key} = {value!r} is unknown here."
            hint = "It takes a name or a number that this machine knows."
            yield Finding(
                "W002", entry.names, message, hint,
                where=entry.where(key), here=True, cause=exc,
            )  # fmt: skip


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
            yield Finding("W004", entry.names, message, where=entry.where(option))


def second_beat(entry: Entry, beats: Sequence[Entry]) -> Iterator[Finding]:
    """W005: a worker runs a beat of its own, and there is another one.

    Args:
        entry: the entry of a worker.
        beats: the entries that run beat.
    """
    if not entry.context.params.get("beat"):
        return
    for beat in beats:
        # By the app itself: APP can spell the same one in several ways.
        is_same = False
        with suppress(Exception):  # which has a finding of its own
            is_same = beat.app is entry.app
        if is_same:
            message = (
                "beat = True starts a second beat of this app, beside the process"
                f" {beat}: each scheduled task would be sent twice."
            )
            yield Finding("W005", entry.names, message, "Remove one of the two.")


def _texts(entry: Entry) -> Iterator[tuple[Where, str, str]]:
    """Yield where each text of ARGS is, the text, and how settings spell its value."""
    args = entry.args
    if isinstance(args, str):
        yield Where("ARGS", f"= {args!r}"), args, "an f-string with {}"
    elif isinstance(args, Mapping):
        for key, value in args.items():
            for text in value if isinstance(value, (list, tuple, set)) else [value]:
                if isinstance(text, str):
                    yield where_is(key, value), text, f'"{key}": {{}}'
    elif isinstance(args, (list, tuple)):
        for word in map(str, args):
            yield Where("ARGS", f"word {word!r}"), word, "{}"


def _folders(entry: Entry, *keys: str, named: bool = False) -> Iterator[Finding]:
    base = entry.context.obj.workdir or ""
    if base and not os.path.isdir(base):
        return
    for key in keys:
        if not (value := entry.context.params.get(key)):
            continue
        path, where = str(value), entry.where(key)
        what = f"{key.replace('_', '-')} = {path!r}:"
        if named:
            expand = private("celery.utils.nodenames", "node_format")
            try:
                path = expand(path, entry.context.params["hostname"])
            except ValueError as exc:
                message = f"{what} {str(exc).splitlines()[0]}"
                yield Finding("E007", entry.names, message, where=where, cause=exc)
                continue
        folder = os.path.dirname(os.path.join(base, path))
        if folder and not os.path.isdir(folder):
            message = f"{what} the folder {folder!r} does not exist here."
            hint = "Nothing expands ~: write Path.home()." if path[0] == "~" else ""
            yield Finding("W003", entry.names, message, hint, where=where, here=True)


def _find_user(value: str) -> None:
    import pwd  # which only POSIX has

    pwd.getpwuid(private("celery.platforms", "parse_uid")(value))


def _find_group(value: str) -> None:
    # A group may have a number and no name.
    private("celery.platforms", "parse_gid")(value)


def _is_importable(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except (Exception, SystemExit):  # importing its parent package can raise anything
        return False
