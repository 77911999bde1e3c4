"""The system checks, which report findings to Django."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from django.apps import AppConfig
from django.conf import settings
from django.core import checks

from . import rules
from .entry import Entry
from .findings import Finding
from .values import resolved, same

if TYPE_CHECKING:
    from .backends import CeleryBackend

__all__ = ("check_processes",)


def check_processes(
    app_configs: Sequence[AppConfig] | None = None, **kwargs: Any
) -> list[checks.CheckMessage]:
    """Check each entry whose backend is one of this package's, or derived from one.

    Takes the parameters of any Django check; entries belong to no app.
    """
    if Entry.running:
        return []
    found = [*rules.processes()]
    processes = {} if found else settings.PRODUCTION_PROCESSES
    ours: list[tuple[list[str], str, Any]] = []
    for name, config in processes.items():
        found += rules.process_name(name)
        # Processes that share an entry share its findings.
        names = [str(name) for name in processes if same(processes[name], config)]
        wrong = [*rules.shape(names, config)]
        found += wrong
        path = "" if wrong else resolved(config["BACKEND"])
        found += rules.upstreams(names, path)
        if rules.may_be_ours(path, config):
            ours.append((names, path, config))
    if ours:
        found += _look(ours)
    return list({str(finding): _message(finding) for finding in found}.values())


def _look(entries: Iterable[tuple[Sequence[str], str, Any]]) -> Iterator[Finding]:
    """Find what is wrong with entries, in a process that stays as it is.

    W012: it would not, with this Celery.

    Args:
        entries: for each its names, the path of its backend and itself.
    """
    from .backends import make
    from .options.errors import PrivateNameError
    from .process.picture import unchanged

    backends: list[CeleryBackend] = []
    try:
        with unchanged():
            for entry in entries:
                try:
                    if backend := make(*entry):
                        backends.append(backend)
                except Finding as finding:
                    yield finding
            for backend in backends:
                own = [*backend.findings()]
                yield from own
                if not any(finding.id.startswith("E") for finding in own):
                    yield from backend.findings_beside(backends)
    except PrivateNameError as exc:
        message = f"the entries are not checked: {exc}"
        yield Finding("W012", (), message, exc.hint, cause=exc)


def _message(finding: Finding) -> checks.CheckMessage:
    is_mistake = finding.id.startswith("E")
    return (checks.Error if is_mistake else checks.Warning)(
        finding.message,
        hint=finding.hint or None,
        obj=", ".join(f"PRODUCTION_PROCESSES[{name!r}]" for name in finding.names)
        or "PRODUCTION_PROCESSES",
        id=f"prodserver_celery5.{finding.id}",
    )
