"""Measures the package against Celery's own commands: ``nox -s bench``."""
