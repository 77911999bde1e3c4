from __future__ import annotations

from typing import Any


def run_celery(app: Any, *args: str) -> None:
    """
    Run a ``celery`` command on an app, and exit with its status.

    ``app.start()`` runs the same command, but drops the status, and leaves a
    mistake in the arguments as a traceback.

    Args:
        app: The Celery app.
        *args: The subcommand and its arguments, such as ``"worker"``, ``"--beat"``.

    """
    from celery.bin.celery import celery

    celery.main(args=list(args), prog_name="celery", default_map={"app": app})
