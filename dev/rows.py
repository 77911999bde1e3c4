"""The task that the demonstration gives to two workers, to compare their memory."""

from __future__ import annotations

from celery import shared_task

ROWS = 100_000


@shared_task(ignore_result=True)
def export() -> None:
    """Hold a table's rows for a moment, so that Python's collector looks at them."""
    [{"row": number} for number in range(ROWS)]
