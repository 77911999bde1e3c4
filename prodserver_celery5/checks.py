"""What is wrong with the entries of PRODUCTION_PROCESSES, as Django system checks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from django.apps import AppConfig
from django.conf import settings
from django.core import checks
from django.utils.module_loading import import_string

if TYPE_CHECKING:
    from celery import Celery

    from .entries import Entry

__all__ = ("check_processes",)


def check_processes(
    app_configs: Sequence[AppConfig] | None = None, **kwargs: Any
) -> list[checks.CheckMessage]:
    """Check each entry that has a backend of this package, or one derived from it.

    Args:
        app_configs: as for every check of Django; entries belong to no app.
        **kwargs: as for every check of Django.
    """
    processes = getattr(settings, "PRODUCTION_PROCESSES", None)
    if not isinstance(processes, Mapping):
        return []
    messages: list[checks.CheckMessage] = []
    entries: list[Entry] = []
    for name, config in processes.items():
        if not isinstance(config, Mapping):
            messages.append(
                checks.Error(
                    f"{name}: the entry is {config!r}; it takes a dict with the keys"
                    " BACKEND, APP and ARGS.",
                    id="prodserver_celery5.E001",
                )
            )
            continue
        path = config.get("BACKEND")
        if not isinstance(path, str) or not _may_be_ours(path, config):
            continue
        try:
            backend = import_string(path)

            from .backends import CeleryBackend

            if isinstance(backend, type) and issubclass(backend, CeleryBackend):
                entries.append(backend(**config).entry)
        except Exception as exc:
            reason = " ".join(f"{type(exc).__name__}: {exc}".split())
            messages.append(
                checks.Error(
                    f"{name}: BACKEND = {path!r} cannot be used: {reason}",
                    id="prodserver_celery5.E002",
                )
            )
    for entry in entries:
        messages += _report(entry, entries)
    return messages


def _may_be_ours(path: str, config: Mapping[str, Any]) -> bool:
    # Other backends, and what they would import, are left alone.
    return path.startswith("prodserver_celery5.") or (
        "APP" in config and not path.startswith("django_prodserver.")
    )


def _report(entry: Entry, entries: Sequence[Entry]) -> list[checks.CheckMessage]:
    """Report what the start of the process would stop at, and what is doubtful."""
    found: list[checks.CheckMessage] = [
        (checks.Error if finding.id.startswith("E") else checks.Warning)(
            str(finding), id=f"prodserver_celery5.{finding.id}"
        )
        for finding in entry.findings()
    ]
    if any(isinstance(message, checks.Error) for message in found):
        return found
    app = entry.app()
    context = entry.parse(app)
    if not context.params.get("detach"):
        found += [
            checks.Warning(
                f"{entry.names}: {option} has no effect without detach.",
                id="prodserver_celery5.W004",
            )
            for option in ("umask", "executable")
            if context.params.get(option)
        ]
    if entry.program == "worker" and context.params.get("beat"):
        found += [
            checks.Warning(
                f"{entry.names}: beat = True starts a second beat of the app beside"
                f" the process {other.names}; each task of the schedule would be sent"
                " twice.",
                id="prodserver_celery5.W005",
            )
            for other in entries
            if other.program == "beat" and _is_of(app, other)
        ]
    return found


def _is_of(app: Celery, entry: Entry) -> bool:
    # APP has several spellings, of which a mistaken one has a report of its own.
    from .entries import Finding

    try:
        return entry.app() is app
    except Finding:
        return False
