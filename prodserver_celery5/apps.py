"""The Django app: it registers the system checks."""

from __future__ import annotations

from typing import Any

from django.apps import AppConfig
from django.core.checks import register

from .process import green


class ProdserverCelery5Config(AppConfig):
    """The Django app, for INSTALLED_APPS."""

    name = "prodserver_celery5"

    def __init__(self, app_name: str, app_module: Any) -> None:
        """Restart for a green pool: this is the earliest place, before any model."""
        green.restart_early()
        super().__init__(app_name, app_module)

    def ready(self) -> None:
        """Register the checks; they import Celery's commands only when they run."""
        from .checks import check_processes

        register(check_processes)
