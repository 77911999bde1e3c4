"""The rules for what is around an entry's app: our checks, a broker, the settings."""

from __future__ import annotations

import ast
import inspect
import os
import re
import sys
from collections.abc import Iterator
from contextlib import suppress
from importlib import metadata
from typing import Any

from django.apps import apps
from django.conf import settings

from .entry import Entry
from .findings import Finding, Rule
from .process import restart

__all__ = ("COMMON",)

_SETTINGS = "DJANGO_SETTINGS_MODULE"


def checks_are_registered(entry: Entry) -> Iterator[Finding]:
    """W019: this package is not in INSTALLED_APPS."""
    # A check that runs is registered, or called by somebody who knows.
    if not entry.checked and not apps.is_installed("prodserver_celery5"):
        message = "no check looks at the entries: INSTALLED_APPS lacks this package."
        hint = 'Add "prodserver_celery5".'
        yield Finding("W019", entry.names, message, hint)


def package(entry: Entry) -> Iterator[Finding]:
    """W020: a package that the broker needs is missing."""
    from kombu.transport import TRANSPORT_ALIASES

    scheme = _url(entry).partition("://")[0]
    # kombu has an extra for each transport that needs one: "redis", "sqs", …
    path = TRANSPORT_ALIASES.get(scheme, "")
    extra = path.partition(":")[0].rpartition(".")[2].lower()
    if missing := [name for name in _wanted(extra) if not _is_installed(name)]:
        names = " and ".join(map(repr, missing))
        message = f"the broker {scheme}://… needs {names}, not installed here."
        hint = f'Run: pip install "celery[{extra}]"'
        yield Finding("W020", entry.names, message, hint)


def setting(entry: Entry) -> Iterator[Finding]:
    """W021: the app has no broker, though the settings have one."""
    if entry.checked or _url(entry):
        return  # what the app has taken is known once it is configured
    for name in sorted(set(dir(settings))):
        if name.endswith("BROKER_URL") and getattr(settings, name, None):
            message = f"the app has no broker: it did not take the setting {name}."
            namespace = name.removesuffix("BROKER_URL").rstrip("_")
            hint = (
                'Write app.config_from_object("django.conf:settings",'
                f' namespace="{namespace}") where the app is made.'
            )
            yield Finding("W021", entry.names, message, hint)


def settings_module(entry: Entry) -> Iterator[Finding]:
    """W017: the app's module and the program name different settings.

    The module may set the variable, which then differs for whatever starts from this
    process: the program after SIGHUP, or behind a green pool's patches. Or each has a
    default. Under `celery` the module's counts, here the program's, unless the
    command line or the environment names the settings, on both sides.
    """
    ours, now = settings.SETTINGS_MODULE, os.environ.get(_SETTINGS)
    hint = "Name the same settings in manage.py and in the module of APP."
    if not ours:  # settings.configure()
        return
    if now not in (None, ours):
        message = f"{_SETTINGS} is {now!r} since APP = {entry.app_name!r} was imported,"
        message += f" but this program has read {ours!r}."
        yield Finding("W017", entry.names, message, hint)
    if _default_settings("__main__") != ours or restart.started_with(_SETTINGS):
        return
    if any(word.partition("=")[0] == "--settings" for word in sys.argv):
        return
    module = entry.app_name.partition(":")[0]
    for name in (module, f"{module}.celery", module.rpartition(".")[0]):
        if (default := _default_settings(name)) not in (None, ours):
            message = f"the default settings of {name}, the module of APP, are"
            message += f" {default!r}, which `celery` reads; those of this program are"
            yield Finding("W017", entry.names, f"{message} {ours!r}.", hint)
            return


def _default_settings(name: str) -> str | None:
    """Return the settings that a module names where the environment names none.

    It is the second of two strings in a call, of which the first is the variable:
    ``os.environ.setdefault("DJANGO_SETTINGS_MODULE", "proj.settings")``.
    """
    try:
        source = inspect.getsource(sys.modules[name])
    except (KeyError, OSError, TypeError):  # not imported, or without a source
        return None
    for node in ast.walk(ast.parse(source)) if _SETTINGS in source else ():
        if isinstance(node, ast.Call):
            words = [getattr(word, "value", None) for word in node.args]
            if len(words) == 2 and words[0] == _SETTINGS and isinstance(words[1], str):
                return words[1]
    return None


def _url(entry: Entry) -> str:
    """Return the address of the broker, as far as it is known."""
    url: Any = os.environ.get("CELERY_BROKER_URL") or entry.setting("broker_url")
    first = url[0] if isinstance(url, (list, tuple)) and url else url
    return first if isinstance(first, str) else ""


def _wanted(extra: str) -> Iterator[str]:
    """Yield the packages that an extra of kombu's adds, on each system."""
    with suppress(metadata.PackageNotFoundError):
        for requirement in metadata.requires("kombu") or ():
            name, _, marker = requirement.partition(";")
            if re.fullmatch(rf"""\s*extra == ["']{re.escape(extra)}["']\s*""", marker):
                yield re.split(r"[^\w.-]", name.strip())[0]


def _is_installed(distribution: str) -> bool:
    try:
        return bool(metadata.version(distribution))
    except metadata.PackageNotFoundError:
        return False


COMMON: tuple[Rule, ...] = (checks_are_registered, package, setting, settings_module)
"""What each program keeps."""
