"""The rules that an entry of PRODUCTION_PROCESSES has to keep.

Each rule takes an entry and yields a `Finding` for each thing wrong with it.
"""

from __future__ import annotations

import difflib
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from enum import Enum
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from django.apps import apps
from django.conf import settings
from django.utils.functional import Promise, SimpleLazyObject

from . import green, pasted, redaction
from .entries import Entry
from .values import reason, resolved, shown, told

if TYPE_CHECKING:
    from .command import Command, OptionError

__all__ = (
    "Finding", "Rule", "Severity", "app", "backend", "embedded_scheduler", "files",
    "grace", "heartbeat_detached", "heartbeat_file", "leader_lock", "lists", "look",
    "may_be_ours", "mistakes", "node_files", "pool", "process_name", "processes",
    "same_heartbeat_file", "scheduler", "second_beat", "shape", "shell",
    "unused_options", "user", "workdir",
)  # fmt: skip


class Severity(Enum):
    """What a finding means for a start and for a check."""

    MISTAKE = "stops the start; an error of the checks"
    MACHINE = "depends on the machine: stops the start; a warning of the checks"
    DOUBT = "the start goes on; a warning of the checks"


# Of each id that is no mistake: docs/checks.md tells which stop a start all the same.
_SEVERITIES = {
    **dict.fromkeys(("W001", "W002", "W003", "W006", "W008"), Severity.MACHINE),
    **dict.fromkeys(("W004", "W005", "W007", "W009", "W010"), Severity.DOUBT),
    **dict.fromkeys(("W012", "W013", "W014", "W015", "W016"), Severity.DOUBT),
}


class Finding(Exception):  # noqa: N818 - not all of them are errors
    """Something wrong with an entry.

    Args:
        id: the system check's id, such as ``"E003"``.
        names: the processes that use the entry; empty for the setting as a whole.
        message: the key, the value, and what is wrong.
        hint: what to do; ``""`` where the message says it.
        cause: the error that revealed it.

    Attributes:
        severity: what it means for a start and for a check, by its id.
    """

    def __init__(
        self,
        id: str,
        names: Sequence[str],
        message: str,
        hint: str = "",
        *,
        cause: BaseException | None = None,
    ) -> None:
        self.id = id
        self.names = tuple(names)
        self.message, self.hint = (
            redaction.text(" ".join(text.split())) for text in (message, hint)
        )
        self.severity = _SEVERITIES.get(id, Severity.MISTAKE)
        self.__cause__ = cause
        # Messages of Celery and Python may lack a full stop.
        stop = "." if hint and self.message[-1] not in ".?!" else ""
        where = f"{', '.join(names)}: " if names else ""
        super().__init__(f"{where}{self.message}{stop} {self.hint}".rstrip())

    def of_the_command_line(self) -> Finding:
        """Return the same finding, about what the command line adds to ARGS."""
        message = re.sub("^ARGS:? (begin)?", r"\1", self.message)
        message = re.sub("^begin", "the arguments begin", message)
        hint = self.hint.replace("Leave ARGS out", "Leave them out")
        message = f"on the command line, {message}"
        return Finding(self.id, self.names, message, hint, cause=self.__cause__)


Rule = Callable[[Entry], Iterator[Finding]]
"""Finds something wrong with an entry."""


def look(entry: Entry, keys: Sequence[str], rules: Sequence[Rule]) -> Iterator[Finding]:
    """Find what is wrong with an entry; start nothing and import no pool.

    Args:
        entry: the entry to look at.
        keys: the keys the entry may have.
        rules: its program's rules; they see only entries whose APP and ARGS are right.
    """
    alone: set[str] | None = None
    for finding in _look(entry, keys, rules):
        if entry.extra and alone is None:
            without_extra = Entry(entry.program, entry.config)
            alone = {str(other) for other in _look(without_extra, keys, rules)}
        is_extra = alone is not None and str(finding) not in alone
        yield finding.of_the_command_line() if is_extra else finding


def _look(
    entry: Entry, keys: Sequence[str], rules: Sequence[Rule]
) -> Iterator[Finding]:
    """E010: a key is unknown. W012: a rule needs what this Celery does not have."""
    for key in entry.config:
        if key not in keys:
            message = f"the key {shown(key)} is unknown."
            hint = f"An entry can have {', '.join(keys[:-1])} and {keys[-1]}."
            yield Finding("E010", entry.names, message, hint)
    wrong = [*app(entry), *arguments(entry)]
    yield from wrong
    from .command import PrivateNameError

    for rule in () if wrong else (workdir, shell, lists, *rules):
        try:
            yield from rule(entry)
        except PrivateNameError as exc:
            message = f"a check is left out: {exc}"
            yield Finding("W012", entry.names, message, cause=exc)


# What has no backend yet


def processes() -> Iterator[Finding]:
    """E016: PRODUCTION_PROCESSES is missing, or no dict."""
    setting = "PRODUCTION_PROCESSES"
    takes = "It must be a dict of names of processes and their entries."
    if setting in dir(settings):
        # Django itself evaluates a lazy value to hand it out.
        value, what = told(SimpleLazyObject(lambda: getattr(settings, setting)))
        if not isinstance(value, Mapping):
            yield Finding("E016", (), f"{setting} {what}", takes)
        return
    # Django takes only names in capitals; the module may have others.
    module = sys.modules.get(settings.SETTINGS_MODULE)
    near = _nearest(setting, {*dir(settings), *vars(module or settings)} - {setting})
    yield Finding("E016", (), f"the setting {setting} is missing.", near or takes)


def process_name(name: Any) -> Iterator[Finding]:
    """E017: no command line can name the process.

    Args:
        name: a key of PRODUCTION_PROCESSES.
    """
    if not isinstance(name, (str, Promise)) or not name:
        message = f"no command can start a process with the name {shown(name)}."
        hint = 'A name must be a string, such as "worker".'
        yield Finding("E017", (), message, hint)


def shape(names: Sequence[str], config: Any) -> Iterator[Finding]:
    """E001: the entry is no dict. E002: its BACKEND is missing, or no path.

    Args:
        names: the processes that use the entry.
        config: the entry, whatever PRODUCTION_PROCESSES has there.
    """
    config, what = told(config)
    if not isinstance(config, Mapping):
        hint = "It must be a dict with the keys BACKEND, APP and ARGS."
        yield Finding("E001", names, f"the entry {what}", hint)
        return
    takes = 'It takes a path, such as "prodserver_celery5.backends.CeleryWorker".'
    given = config.get("BACKEND")
    path, what = told(given)
    if "BACKEND" not in config:
        hint = _nearest("BACKEND", config) or takes
        yield Finding("E002", names, "the key BACKEND is missing.", hint)
    elif not isinstance(path, str):
        yield Finding("E002", names, f"BACKEND {what}", takes)
    elif not isinstance(given, (str, Promise)):
        # django-prodserver imports it as it is: a Path, say, or a member of an Enum.
        message = f"BACKEND is of type {type(given).__name__}."
        yield Finding("E002", names, message, takes)
    elif not path:
        yield Finding("E002", names, "BACKEND is empty.", takes)


def may_be_ours(path: str, config: Mapping[str, Any]) -> bool:
    """Whether a backend may be one of this package's, or derived from one.

    Other backends are not imported, nor what they would import.

    Args:
        path: the backend's dotted path; ``""`` where there is none.
        config: the entry.
    """
    package = path.partition(".")[0]
    return package == __package__ or (
        path != "" and package != "django_prodserver" and "APP" in config
    )


def backend(
    names: Sequence[str], path: str, error: BaseException, *, is_ours: bool
) -> Finding:
    """E002: the backend cannot be used. W015: nor is it known to be one of ours.

    Args:
        names: the processes that use the entry.
        path: the backend's dotted path.
        error: what its import or its construction raised.
        is_ours: whether it is one of this package's, or derived from one.
    """
    message = f"BACKEND = {path!r} cannot be used: {reason(error)}"
    if is_ours:
        return Finding("E002", names, message, cause=error)
    hint = "Nothing else of the entry was checked."
    return Finding("W015", names, message, hint, cause=error)


# Every program


def app(entry: Entry) -> Iterator[Finding]:
    """E003: no APP. E004: it cannot be imported. E005: it is something else."""
    takes = 'It takes what `celery -A` takes, such as "proj" or "proj.celery:app".'
    name, what = told(entry.config.get("APP"))
    if name is None or name == "":
        yield Finding("E003", entry.names, "the key APP is missing.", takes)
        return
    if not isinstance(name, str):
        yield Finding("E004", entry.names, f"APP {what}", takes)
        return
    try:
        found: object = entry.app
    except Exception as exc:
        message = f"APP = {name!r} cannot be imported: {reason(exc)}"
        yield Finding("E004", entry.names, message, cause=exc)
        return
    from celery import Celery

    if not isinstance(found, Celery):
        message = f"APP = {name!r} is of type {type(found).__name__}, not a Celery app."
        hint = 'Name the app itself, such as "proj.celery:app".'
        yield Finding("E005", entry.names, message, hint)


def arguments(entry: Entry) -> Iterator[Finding]:
    """E006: there is no such option. E007: the option does not take the value."""
    from .command import OptionError, UnknownOptionError

    try:
        entry.context  # noqa: B018 - made once, for whoever asks next
    except OptionError as whole:
        for error in mistakes(entry.command, entry.config.get("ARGS"), whole):
            id = "E006" if isinstance(error, UnknownOptionError) else "E007"
            message, hint = f"{error.where}: {error}", error.hint
            if not hint and (found := pasted.unexpanded(message)):
                hint = (
                    f"ARGS are not read by a shell: write {found[1]} in the settings."
                )
            yield Finding(id, entry.names, message, hint, cause=error)


def mistakes(command: Command, args: Any, whole: OptionError) -> Iterator[OptionError]:
    """Find each mistake in ARGS, and where it is.

    Args:
        command: the subcommand that is to read them.
        args: the ARGS with a mistake.
        whole: the error that Celery raised for all of them together.
    """
    from .arguments import spell, where_is
    from .command import OptionError

    variable = command.variable(whole.absent) if whole.absent else ""
    if value := os.environ.get(variable):
        text = redaction.word(repr(value))
        text = "**" if redaction.name_is_secret(variable) else text
        whole.where = f"{variable} = {text}"
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
        yield Finding("W003", entry.names, message)


def shell(entry: Entry) -> Iterator[Finding]:
    """W013: a shell would expand it. W014: another program reads %% as %."""
    for where, text, setting in _texts(entry.args):
        if found := pasted.unexpanded(text):
            literal, expression = found
            message = f"ARGS are not read by a shell, so {literal} stays as it is."
            hint = f"Write {setting.format(expression)} in the settings."
            yield Finding("W013", entry.names, f"{where}: {message}", hint)
        if escaped := pasted.literal_percent(text):
            read = escaped[1:]
            message = f"{where}: Celery reads {escaped} as the two characters {read}."
            hint = f"Write {read}: systemd and supervisor need two, settings one."
            yield Finding("W014", entry.names, message, hint)


def lists(entry: Entry) -> Iterator[Finding]:
    """W016: an element of a list has a space at its end, or is empty."""
    for key, value in entry.context.params.items():
        for element in value if isinstance(value, list) else ():
            if isinstance(element, str) and (element.strip() or None) != element:
                message = f"{key} has {element!r}, which Celery takes as it is."
                hint = "Remove the space." if element.strip() else "Remove it."
                yield Finding("W016", entry.names, message, hint)


# Programs that have an option in common


def scheduler(entry: Entry) -> Iterator[Finding]:
    """E008: it cannot be imported. E009: its app is not installed. W003: no folder."""
    from celery.beat import PersistentScheduler
    from celery.utils.imports import symbol_by_name

    from .command import private

    params = entry.context.params
    name = path = params.get("scheduler") or entry.conf.beat_scheduler
    if not name:
        return
    extensions = private("celery.utils.imports", "load_extension_class_names")
    try:
        # Celery 5.0 and 5.1 need setuptools below 81 for this, and so for beat.
        path = dict(extensions("celery.beat_schedulers")).get(name, name)
        found = symbol_by_name(path)
    except (Exception, SystemExit) as exc:
        package = str(path).partition(".")[0]
        if package == "django_celery_beat" and not apps.is_installed(package):
            message = f"scheduler = {name!r} needs {package!r} in INSTALLED_APPS."
            yield Finding("E009", entry.names, message, cause=exc)
        else:
            message = f"scheduler = {name!r} cannot be imported: {reason(exc)}"
            yield Finding("E008", entry.names, message, cause=exc)
        return
    # No other scheduler opens the file.
    if isinstance(found, type) and issubclass(found, PersistentScheduler):
        yield from _folders(entry, "schedule", "schedule_filename")
        if "LEADER_LOCK" in entry.config:
            message = (
                f"scheduler = {name!r} keeps its last runs in a file: what comes due"
                " while no beat leads is left out, unless all beats share the file."
            )
            hint = "Share it, or use a scheduler that keeps them in a database."
            yield Finding("W009", entry.names, message, hint)


def embedded_scheduler(entry: Entry) -> Iterator[Finding]:
    """What `scheduler` finds, for a worker that runs a beat of its own."""
    if entry.context.params.get("beat"):
        yield from scheduler(entry)


def pool(entry: Entry) -> Iterator[Finding]:
    """W001: the library of the pool is missing."""
    from .command import private

    name = entry.context.params.get("pool")
    if name == "prefork":
        # The default of Celery's option, which then means "what worker_pool says".
        name = entry.conf.worker_pool
    if not isinstance(name, str):
        return  # a class, or a setting that a check does not read
    path = private("celery.concurrency", "ALIASES").get(name, name)
    if path is None:
        message = f"pool = {name!r} needs the variable CELERY_CUSTOM_WORKER_POOL."
        yield Finding("W001", entry.names, message)
        return
    # As symbol_by_name() reads it: "module:Class", "module.Class", or a module.
    module, colon, _ = path.partition(":")
    module = module if colon else path.rpartition(".")[0] or path
    library = module.rpartition(".")[2]
    wanted = library if library in green.LIBRARIES else module
    if wanted and not _is_importable(wanted):
        message = f"pool = {name!r} needs the module {wanted!r}, not installed here."
        yield Finding("W001", entry.names, message)


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
            yield Finding("W002", entry.names, message, hint, cause=exc)


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
            yield Finding("W004", entry.names, message)


def heartbeat_file(entry: Entry) -> Iterator[Finding]:
    """E011: it is no path. E012: no POSIX. W006: it cannot be made here."""
    if "HEARTBEAT_FILE" not in entry.config:
        return
    from .command import PrivateNameError

    what = f"HEARTBEAT_FILE = {shown(entry.config['HEARTBEAT_FILE'])}:"
    try:
        path = entry.heartbeat_file
    except PrivateNameError:
        raise
    except Exception as exc:  # a lazy value can raise anything
        line = (str(exc).splitlines() or [type(exc).__name__])[0].rstrip(".")
        hint = 'It takes the path of a file, such as "/run/proj/%n".'
        yield Finding("E011", entry.names, f"{what} {line}.", hint, cause=exc)
        return
    if os.name != "posix":
        yield Finding("E012", entry.names, f"{what} only POSIX has what it needs.")
        return
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
        yield Finding("W006", entry.names, f"{what} {wrong}", hint)


def heartbeat_detached(entry: Entry) -> Iterator[Finding]:
    """E012: Celery starts a detached worker itself, without this package."""
    if "HEARTBEAT_FILE" in entry.config and entry.context.params.get("detach"):
        message = "is not written with detach: the worker is Celery's own then."
        hint = "Remove one of the two."
        yield Finding("E012", entry.names, f"HEARTBEAT_FILE {message}", hint)


def grace(entry: Entry) -> Iterator[Finding]:
    """E015: it is no time, or beside detach. W010: SIGTERM leaves no time."""
    if "GRACE_SECONDS" not in entry.config:
        return
    from .grace import seconds_of

    value = entry.config["GRACE_SECONDS"]
    try:
        seconds_of(value)
    except Exception as exc:  # a lazy value can raise anything
        message = f"GRACE_SECONDS = {shown(value)}: {exc}."
        hint = "It takes a number of seconds above 0, or a timedelta."
        yield Finding("E015", entry.names, message, hint, cause=exc)
    without = "GRACE_SECONDS has no effect with"
    if entry.context.params.get("detach"):
        message = f"{without} detach: the worker is Celery's own then."
        yield Finding("E015", entry.names, message, "Remove one of the two.")
    if os.environ.get("REMAP_SIGTERM") == "SIGQUIT":
        message = f"{without} REMAP_SIGTERM=SIGQUIT: SIGTERM is a cold shutdown then."
        hint = "Remove the variable, or set it to SIGTERM."
        yield Finding("W010", entry.names, message, hint)


# A beat that leads


def leader_lock(entry: Entry) -> Iterator[Finding]:
    """E013: no database for the lock. E014: an option that does not go with it.

    W008: the driver of the database is missing here, it is in memory, or no POSIX.
    """
    if "LEADER_LOCK" not in entry.config:
        return
    from .locks import NotHereError, RefusedError, lock_of

    what = f"LEADER_LOCK = {shown(entry.config['LEADER_LOCK'])}"
    try:
        lock_of(resolved(entry.config["LEADER_LOCK"]), "")
    except NotHereError as exc:
        yield Finding("W008", entry.names, f"{what}: {exc}", exc.hint, cause=exc)
    except RefusedError as exc:
        yield Finding("E013", entry.names, f"{what}: {exc}", exc.hint, cause=exc)
    except Exception as exc:  # a lazy value can raise anything
        message = f"{what}: it cannot be evaluated: {reason(exc)}"
        yield Finding("E013", entry.names, message, cause=exc)
    for option in ("detach", "uid", "gid"):
        # A new start would fork again, and a process changes its user only once.
        if entry.context.params.get(option):
            message = (
                f"{option} does not go with LEADER_LOCK, whose beat starts again under"
                " the same pid when it has lost the lead."
            )
            hint = "Leave it to what starts the process."
            yield Finding("E014", entry.names, message, hint)


# Several entries


def same_heartbeat_file(entry: Entry, others: Sequence[Entry]) -> Iterator[Finding]:
    """W007: another process would write to the same file.

    Args:
        entry: the entry to look at.
        others: the entries of all processes, including this one.
    """
    if "HEARTBEAT_FILE" not in entry.config:
        return
    hint = "Give each a file of its own."
    if len(entry.names) > 1:
        message = (
            f"HEARTBEAT_FILE = {shown(entry.config['HEARTBEAT_FILE'])} is that of each"
            f" process with this entry ({entry}): on one machine only one would start."
        )
        yield Finding("W007", entry.names, message, hint)
    for other in others:
        if other.names == entry.names or "HEARTBEAT_FILE" not in other.config:
            continue
        with suppress(Exception):  # which has a finding of its own
            if other.heartbeat_file == entry.heartbeat_file:
                message = (
                    f"HEARTBEAT_FILE = {shown(entry.config['HEARTBEAT_FILE'])} is also"
                    f" that of the process {other}: on one machine only one of the two"
                    " would start."
                )
                yield Finding("W007", entry.names, message, hint)


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
        if not [*app(beat)] and beat.app is entry.app:
            message = (
                "beat = True starts a second beat of this app, beside the process"
                f" {beat}: each scheduled task would be sent twice."
            )
            yield Finding("W005", entry.names, message, "Remove one of the two.")


def _texts(args: object) -> Iterator[tuple[str, str, str]]:
    """Yield where each text of ARGS is, the text, and how settings spell its value."""
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
        if not (value := entry.context.params.get(key)):
            continue
        path = str(value)
        what = f"{key.replace('_', '-')} = {path!r}:"
        if named:
            from .command import private

            expand = private("celery.utils.nodenames", "node_format")
            try:
                path = expand(path, entry.context.params["hostname"])
            except ValueError as exc:
                message = f"{what} {str(exc).splitlines()[0]}"
                yield Finding("E007", entry.names, message, cause=exc)
                continue
        folder = os.path.dirname(os.path.join(base, path))
        if folder and not os.path.isdir(folder):
            message = f"{what} the folder {folder!r} does not exist here."
            hint = "Nothing expands ~: write Path.home()." if path[0] == "~" else ""
            yield Finding("W003", entry.names, message, hint)


def _find_user(value: str) -> None:
    import pwd  # which only POSIX has

    from .command import private

    pwd.getpwuid(private("celery.platforms", "parse_uid")(value))


def _find_group(value: str) -> None:
    from .command import private

    # A group may have a number and no name.
    private("celery.platforms", "parse_gid")(value)


def _is_importable(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except (Exception, SystemExit):  # importing its parent package can raise anything
        return False


def _nearest(name: str, names: Iterable[Any]) -> str:
    """Return a hint where one of the names is nearly the wanted one."""
    known = {str(given).upper(): given for given in names}
    near = difflib.get_close_matches(name, known, n=1)
    return f"Is it misspelt as {known[near[0]]!r}?" if near else ""
