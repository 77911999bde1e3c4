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
    "COMMON", "arguments", "embedded_scheduler", "files", "pool", "scheduler",
    "scheduler_of", "second_beat", "unused_options", "user",
)  # fmt: skip


def arguments(entry: Entry) -> Iterator[Finding]:
    """E006: there is no such option. E007: the option does not take the value."""
    try:
        entry.context  # noqa: B018 - made once, for whoever asks next
    except OptionError as whole:
        rewritten = _rewritten(entry)
        for error in mistakes(entry.command, entry.config.get("ARGS"), whole):
            id = "E006" if isinstance(error, UnknownOptionError) else "E007"
            hint = error.hint
            if id == "E007" and not hint:
                hint, rewritten = rewritten, ""
            yield Finding(
                id, entry.names, str(error), hint, where=error.where, cause=error
            )


def mistakes(command: Command, args: Any, whole: OptionError) -> Iterator[OptionError]:
    """Find each mistake in ARGS; Celery raised `whole` for all of them together."""
    variable = command.variable(whole.absent) if whole.absent else ""
    if value := os.environ.get(variable):
        whole.where = Where(variable, f"= {value!r}")
        yield whole
        return
    args, _ = told(args)
    # Celery stops at the first one, so each key is tried alone, and words without what
    # is known to be wrong.
    found = False
    for key, value in args.items() if isinstance(args, Mapping) else ():
        try:
            command.parse(spell(command, {key: value}))
        except OptionError as exc:
            if not exc.absent:
                found = True
                exc.where = where_is(key, value)
                yield exc
    if found:
        return
    yield whole
    words: list[str] = []
    if isinstance(args, (str, list, tuple)):
        with suppress(OptionError):  # which is the whole error
            words = spell(command, args)
    error = whole
    while words != (words := pasted.without(words, error.spellings)):
        try:
            command.parse(words)
        except OptionError as exc:
            if not exc.absent:
                error = exc
                yield exc


def _found(
    entry: Entry, id: str, option: str, message: str, hint: str = "", **more: Any
) -> Finding:
    """Make a finding about an option, wherever its value comes from."""
    where = entry.where(option)
    return Finding(id, entry.names, message, hint, where=where, **more)


def workdir(entry: Entry) -> Iterator[Finding]:
    """W003: the folder to work in is missing."""
    folder = entry.context.obj.workdir
    if folder and not os.path.isdir(folder):
        message = f"workdir = {str(folder)!r}: this folder does not exist here."
        yield _found(entry, "W003", "workdir", message, here=True)


def shell(entry: Entry) -> Iterator[Finding]:
    r"""W013: a shell would expand it. W014: it means %. W018: a shell drops a \."""
    for where, text in _texts(entry):
        if found := pasted.unexpanded(text):
            stays = "stay as they are" if found[1:] else "stays as it is"
            message = f"ARGS are not read by a shell, so {', '.join(found)} {stays}."
            hint = _rewritten(entry)
            yield Finding("W013", entry.names, message, hint, where=where)
        if escaped := pasted.literal_percent(text):
            read = escaped[1:]
            message = f"Celery reads {escaped} as the two characters {read}."
            hint = f"Write {read}: systemd and supervisor need two, settings one."
            yield Finding("W014", entry.names, message, hint, where=where)
        if isinstance(entry.args, str) and (lost := pasted.lost_backslashes(text)):
            message = f"{', '.join(lost)} loses its backslashes, as in a shell."
            hint = "Write / for \\, or give ARGS as a dict or a list of words."
            yield Finding("W018", entry.names, message, hint, where=where)


def lists(entry: Entry) -> Iterator[Finding]:
    """W016: an element of a list has a space at its end, or is empty."""
    for key, value in entry.context.params.items():
        for element in value if isinstance(value, list) else ():
            if isinstance(element, str) and (element.strip() or None) != element:
                message = f"{key} has {element!r}, which Celery takes as it is."
                hint = "Remove the space." if element.strip() else "Remove it."
                yield _found(entry, "W016", key, message, hint)


COMMON: tuple[Rule, ...] = (workdir, shell, lists)
"""What each program keeps."""


def scheduler_of(entry: Entry) -> tuple[Any, Any]:
    """Return the name of an entry's scheduler, and the scheduler, or raise anything.

    Both are ``None`` where only the app's configuration could tell, which a check does
    not read.
    """
    from celery.utils.imports import symbol_by_name

    name = entry.context.params.get("scheduler") or entry.setting("beat_scheduler")
    if not name and entry.checked and entry.command.app.namespace:
        name = "celery.beat:PersistentScheduler"  # Django's settings would say so
    if not name:
        return None, None
    extensions = private("celery.utils.imports", "load_extension_class_names")
    # Celery 5.0 and 5.1 need setuptools below 81 for this, and so for beat.
    path = dict(extensions("celery.beat_schedulers")).get(name, name)
    return name, symbol_by_name(path)


def scheduler(entry: Entry) -> Iterator[Finding]:
    """E008: it cannot be imported. E009: its app is not installed. W003: no folder."""
    from celery.beat import PersistentScheduler

    try:
        _, found = scheduler_of(entry)
    except PrivateNameError:
        raise
    except (Exception, SystemExit) as exc:
        name = entry.context.params.get("scheduler") or entry.setting("beat_scheduler")
        package = "django_celery_beat"
        is_its = str(name).partition(".")[0] in (package, "django")
        if is_its and not apps.is_installed(package):
            message = f"scheduler = {name!r} needs {package!r} in INSTALLED_APPS."
            yield _found(entry, "E009", "scheduler", message, cause=exc)
        else:
            message = f"scheduler = {name!r} cannot be imported: {reason(exc)}"
            yield _found(entry, "E008", "scheduler", message, cause=exc)
        return
    # No other scheduler opens the file.
    if isinstance(found, type) and issubclass(found, PersistentScheduler):
        yield from _schedule(entry)


def _schedule(entry: Entry) -> Iterator[Finding]:
    """W003: the schedule's folder is missing. W022: beat cannot write the file."""
    params = entry.context.params
    # A worker that runs a beat has another name for the option.
    option = "schedule" if "schedule" in params else "schedule_filename"
    if name := params.get(option):
        yield from _folder(entry, option, str(name))
    name = name or entry.setting("beat_schedule_filename")
    if not name and entry.command.app.namespace:
        name = "celerybeat-schedule"  # Django's settings would say so
    path = os.path.join(entry.context.obj.workdir or "", str(name))
    folder = os.path.dirname(path) or "."
    if not name or params.get("uid") or not os.path.isdir(folder):
        return
    # Which of them dbm makes depends on the machine.
    files = [*filter(os.path.exists, (path, f"{path}.db", f"{path}.dat"))]
    mode = os.R_OK | os.W_OK if files else os.W_OK | os.X_OK
    if not all(os.access(each, mode) for each in files or [folder]):
        message = f"schedule = {path!r}: beat cannot write this file here."
        hint = "Name one in a folder that it can write to."
        yield _found(entry, "W022", option, message, hint, here=True)


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
        yield _found(entry, "W001", "pool", message, here=True)
        return
    # As symbol_by_name() reads it: "module:Class", "module.Class", or a module.
    module, colon, _ = path.partition(":")
    module = module if colon else path.rpartition(".")[0] or path
    library = module.rpartition(".")[2]
    wanted = library if library in green.LIBRARIES else module
    if wanted and not _is_importable(wanted):
        message = f"pool = {name!r} needs the module {wanted!r}, not installed here."
        yield _found(entry, "W001", "pool", message, here=True)


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
            yield _found(entry, "W002", key, message, hint, here=True, cause=exc)


def files(entry: Entry) -> Iterator[Finding]:
    """W003: the folder of a file is missing. E007: Celery cannot expand its name."""
    params = entry.context.params
    for option in ("pidfile", "logfile", "statedb"):
        path = str(params.get(option) or "")
        if path and "statedb" in params:  # a worker's: %h and its like name its node
            expand = private("celery.utils.nodenames", "node_format")
            try:
                path = expand(path, params["hostname"])
            except ValueError as exc:
                message = f"{option} = {path!r}: {str(exc).splitlines()[0]}"
                yield _found(entry, "E007", option, message, cause=exc)
                continue
        if path:
            yield from _folder(entry, option, path)


def unused_options(entry: Entry) -> Iterator[Finding]:
    """W004: an option does nothing without detach."""
    params = entry.context.params
    for option in ("umask", "executable"):
        if params.get(option) and not params.get("detach"):
            message = f"{option} has no effect without detach."
            yield _found(entry, "W004", option, message)


def second_beat(entry: Entry, beats: Sequence[Entry]) -> Iterator[Finding]:
    """W005: a worker runs a beat of its own, and there is another one."""
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


def _texts(entry: Entry) -> Iterator[tuple[Where, str]]:
    """Yield where each text of ARGS is, and the text."""
    args = entry.args
    if isinstance(args, Mapping):
        for key, value in args.items():
            values = value if isinstance(value, (list, tuple, set)) else [value]
            if texts := [text for text in values if isinstance(text, str)]:
                yield where_is(key, value), " ".join(texts)
    elif isinstance(args, str):
        yield Where("ARGS", f"= {args!r}"), args
    elif isinstance(args, (list, tuple)):
        yield Where("ARGS", f"= {args!r}"), " ".join(map(str, args))


def _rewritten(entry: Entry) -> str:
    """Return a hint with the lines of ARGS that a shell would have expanded."""
    args = entry.args
    lines: list[str] = []
    if isinstance(args, Mapping):
        for key, value in args.items():
            values = value if isinstance(value, (list, tuple)) else [value]
            texts = [text for text in values if isinstance(text, str)]
            if any(map(pasted.unexpanded, texts)):
                python = ", ".join(map(pasted.expanded, texts))
                is_list = isinstance(value, (list, tuple))
                lines.append(f'"{key}": {f"[{python}]" if is_list else python}')
    else:
        with suppress(OptionError):
            words = spell(entry.command, args)
            if any(map(pasted.unexpanded, words)):
                lines = [pasted.spelled(words)]
    hint = f"Write {', '.join(lines)} in the settings." if lines else ""
    return f"{hint} Put the value itself for …." if "…" in hint else hint


def _folder(entry: Entry, option: str, path: str) -> Iterator[Finding]:
    """W003: the folder of a file is missing; without its workdir, so are all."""
    base = entry.context.obj.workdir or ""
    folder = os.path.dirname(os.path.join(base, path))
    if folder and not os.path.isdir(folder) and (not base or os.path.isdir(base)):
        given = str(entry.context.params[option])
        message = f"{option.replace('_', '-')} = {given!r}: the folder {folder!r}"
        hint = "Nothing expands ~: write Path.home()." if path[0] == "~" else ""
        message += " does not exist here."
        yield _found(entry, "W003", option, message, hint, here=True)


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
