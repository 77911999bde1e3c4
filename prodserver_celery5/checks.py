"""The system checks, which report findings to Django."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from django.apps import AppConfig
from django.conf import settings
from django.core import checks

from . import findings
from .entries import Entry
from .findings import Finding, Severity

if TYPE_CHECKING:
    from .backends import CeleryBackend

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
    if Entry.running or not isinstance(processes, Mapping):
        return []
    found: list[Finding] = []
    backends: list[CeleryBackend] = []
    for name, config in processes.items():
        found += findings.shape(name, config)
        if not findings.may_be_ours(config):
            continue
        from .backends import make

        try:
            if backend := make(name, config["BACKEND"], config):
                backends.append(backend)
        except Finding as finding:
            found.append(finding)
    for backend in backends:
        own = [*backend.findings()]
        found += own
        if all(finding.severity is not Severity.MISTAKE for finding in own):
            found += backend.findings_beside(backends)
    # Processes that share an entry share its findings.
    return list({str(finding): _message(finding) for finding in found}.values())


def _message(finding: Finding) -> checks.CheckMessage:
    is_mistake = finding.severity is Severity.MISTAKE
    return (checks.Error if is_mistake else checks.Warning)(
        finding.message,
        hint=finding.hint or None,
        obj=", ".join(f"PRODUCTION_PROCESSES[{name!r}]" for name in finding.names),
        id=f"prodserver_celery5.{finding.id}",
    )
