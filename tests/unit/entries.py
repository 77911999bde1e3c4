"""Entries to check, and what their checks find."""

from __future__ import annotations

from typing import Any

from celery.utils.nodenames import gethostname
from django.core import checks

from prodserver_celery5.backends import CeleryWorker
from prodserver_celery5.checks import check_processes

WORKER = {"BACKEND": "prodserver_celery5.backends.CeleryWorker", "APP": "shop:app"}


BEAT = {"BACKEND": "prodserver_celery5.backends.CeleryBeat", "APP": "shop:app"}


PERSISTENT = "celery.beat:PersistentScheduler"


LED: dict[str, Any] = {
    **BEAT, "LEADER_LOCK": "default", "ARGS": {"scheduler": "celery.beat:Scheduler"}
}  # fmt: skip


HOST = gethostname()


DATABASE = "django_celery_beat.schedulers:DatabaseScheduler"


class OurWorker(CeleryWorker):
    """A project's own backend."""


class MailWorker(CeleryWorker):
    """A backend that changes ARGS."""

    def __init__(self, **entry: Any) -> None:
        super().__init__(**{**entry, "ARGS": {"queues": ["mail"], **entry["ARGS"]}})


def found(settings: Any, **processes: Any) -> list[checks.CheckMessage]:
    settings.PRODUCTION_PROCESSES = processes
    return check_processes()


APP_TAKES = 'It takes what `celery -A` takes, such as "proj" or "proj.celery:app".'


def failing() -> Any:
    raise RuntimeError("not today")


def failing_in_silence() -> Any:
    raise KeyError
