"""The registration of the system checks."""

from __future__ import annotations

from django.apps import AppConfig
from django.core.checks import register


class ProdserverCelery5Config(AppConfig):
    """The Django app, for INSTALLED_APPS."""

    name = "prodserver_celery5"

    def ready(self) -> None:
        """Register the checks; they import Celery's commands only when they run."""
        from .checks import check_processes

        register(check_processes)
