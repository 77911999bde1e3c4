"""The rules for what an entry's app has to have beside it: a broker, and our checks."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from importlib import metadata
from typing import Any

from django.apps import apps
from django.conf import settings

from .entry import Entry
from .findings import Finding

__all__ = ("checks_are_registered", "package", "setting")


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
