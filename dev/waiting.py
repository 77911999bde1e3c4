"""The polling loop that the tests and the demonstration share."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from prodserver_celery5.pytest_plugin.process import DEADLINE

__all__ = ("wait_until",)


def wait_until(condition: Callable[[], Any], timeout: float = DEADLINE) -> Any:
    """Wait until a condition is true, and return its value.

    Args:
        condition: called twenty times a second.
        timeout: in seconds.

    Raises:
        TimeoutError: it was not true in time.
    """
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"not true within {timeout} s")
        time.sleep(0.05)
    return value
