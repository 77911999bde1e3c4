"""Celery 5 worker and beat backends for django-prodserver."""

__version__ = "1.0.0.dev0"
