"""The rules that an entry has to keep whatever it runs: its shape, BACKEND and APP."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from django.conf import settings
from django.utils.functional import Promise, SimpleLazyObject

from .entry import Entry
from .findings import Finding, Rule
from .key import Key
from .values import reason, shown, told

__all__ = (
    "app", "backend", "look", "may_be_ours", "process_name", "processes",
    "shape", "upstreams",
)  # fmt: skip

# What each entry has, of django-prodserver and of its Celery backends.
UPSTREAM = ("BACKEND", "APP", "ARGS")

BACKENDS = [f"{__package__}.backends.{name}" for name in ("CeleryWorker", "CeleryBeat")]

# Where django-prodserver 2 and 3 have theirs.
_UPSTREAMS = [f"django_prodserver.backends.{name}celery" for name in ("", "workers.")]

_PATH = f'It takes a path, such as "{BACKENDS[0]}".'

ITSELF = 'Name the app itself, such as "proj.celery:app".'


def look(
    entry: Entry,
    keys: Sequence[Key],
    rules: Sequence[Rule],
    elsewhere: Mapping[str, str] = {},
) -> Iterator[Finding]:
    """Find what is wrong with an entry; start nothing and import no pool.

    W012: a rule needs what this Celery does not have.

    Args:
        entry: the entry to look at.
        keys: the keys it may have, beside those of upstream.
        rules: its program's rules; they see only entries whose APP and ARGS are right.
        elsewhere: keys that only entries of other programs may have, with the program.
    """
    from . import surroundings
    from .options import rules as of_options
    from .options.errors import PrivateNameError

    yield from _unknown(entry, keys, elsewhere)
    wrong = [*app(entry), *of_options.arguments(entry)]
    yield from wrong
    if wrong:
        return
    common = (*surroundings.COMMON, *of_options.COMMON)
    for rule in (*common, *rules, *(key.look for key in keys)):
        try:
            yield from rule(entry)
        except PrivateNameError as exc:
            message = f"a check is left out: {exc}"
            yield Finding("W012", entry.names, message, exc.hint, cause=exc)


def _unknown(
    entry: Entry, keys: Sequence[Key], elsewhere: Mapping[str, str]
) -> Iterator[Finding]:
    """E010: a key is unknown."""
    known = [*UPSTREAM, *sorted(key.name for key in keys)]
    for key in entry.config:
        if key in known:
            continue
        what = f"is for a {elsewhere[key]}" if key in elsewhere else "is unknown"
        near = difflib.get_close_matches(str(key).upper(), known, n=1)
        hint = f"A {entry.program} can have {', '.join(known[:-1])} and {known[-1]}."
        if isinstance(key, str) and key.replace("_", "-") in entry.command.keys:
            hint = "It is an option: put it into ARGS."
        elif near and key not in elsewhere:
            hint = f"Did you mean {near[0]!r}?"
        yield Finding("E010", entry.names, f"the key {shown(key)} {what}.", hint)


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
    """E017: no command line can name the process."""
    if not isinstance(name, (str, Promise)) or not name:
        message = f"no command can start a process with the name {shown(name)}."
        hint = 'A name must be a string, such as "worker".'
        yield Finding("E017", (), message, hint)


def shape(names: Sequence[str], config: Any) -> Iterator[Finding]:
    """E001: the entry is no dict. E002: its BACKEND is missing, or no path."""
    config, what = told(config)
    if not isinstance(config, Mapping):
        hint = "It must be a dict with the keys BACKEND, APP and ARGS."
        yield Finding("E001", names, f"the entry {what}", hint)
        return
    given = config.get("BACKEND")
    path, what = told(given)
    if "BACKEND" not in config:
        hint = _nearest("BACKEND", config) or _PATH
        yield Finding("E002", names, "the key BACKEND is missing.", hint)
    elif not isinstance(path, str):
        yield Finding("E002", names, f"BACKEND {what}", _PATH)
    elif not isinstance(given, (str, Promise)):
        # django-prodserver imports it as it is: a Path, say, or a member of an Enum.
        message = f"BACKEND is of type {type(given).__name__}."
        yield Finding("E002", names, message, _PATH)
    elif not path:
        yield Finding("E002", names, "BACKEND is empty.", _PATH)


def upstreams(names: Sequence[str], path: str) -> Iterator[Finding]:
    """W023: the entry runs Celery with a backend of django-prodserver's own."""
    package, _, name = path.rpartition(".")
    ours = f"{__package__}.backends.{name}"
    if ours in BACKENDS and package in _UPSTREAMS:
        message = f"BACKEND = {path!r} is django-prodserver's own."
        yield Finding("W023", names, message, f'Write "{ours}".')


def may_be_ours(path: str, config: Mapping[str, Any]) -> bool:
    """Whether a backend may be one of this package's, or derived from one.

    Other backends are not imported, nor what they would import.
    """
    package = path.partition(".")[0]
    return package == __package__ or (
        path != "" and package != "django_prodserver" and "APP" in config
    )


def backend(
    names: Sequence[str], path: str, error: BaseException, *, is_ours: bool
) -> Finding:
    """E002: the backend cannot be used. W015: nor is it known to be one of ours."""
    message = f"BACKEND = {path!r} cannot be used: {reason(error)}"
    near = difflib.get_close_matches(path, BACKENDS, n=1, cutoff=0.8)
    hint = f"Did you mean {near[0]!r}?" if near else ""
    if not near and path.partition(".")[0] == __package__:
        hint = _PATH
    if is_ours:
        return Finding("E002", names, message, hint, cause=error)
    hint = f"{hint} Nothing else of the entry was checked."
    return Finding("W015", names, message, hint, cause=error)


def app(entry: Entry) -> Iterator[Finding]:
    """E003: no APP. E004: it cannot be imported. E005: it is something else."""
    from .options.errors import PrivateNameError

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
        lacking = getattr(getattr(exc, "obj", None), "__name__", None)
        if isinstance(exc, AttributeError) and lacking in (name, f"{name}.celery"):
            message = f"APP = {name!r} holds no Celery app."
            yield Finding("E005", entry.names, message, ITSELF, cause=exc)
            return
        message = f"APP = {name!r} cannot be imported: {reason(exc)}"
        hint = exc.hint if isinstance(exc, PrivateNameError) else ""
        yield Finding("E004", entry.names, message, hint, cause=exc)
        return
    from celery import Celery

    if not isinstance(found, Celery):
        message = f"APP = {name!r} is of type {type(found).__name__}, not a Celery app."
        yield Finding("E005", entry.names, message, ITSELF)


def _nearest(name: str, names: Iterable[Any]) -> str:
    """Return a hint where one of the names is nearly the wanted one."""
    known = {str(given).upper(): given for given in names}
    near = difflib.get_close_matches(name, known, n=1)
    return f"Is it misspelt as {known[near[0]]!r}?" if near else ""
