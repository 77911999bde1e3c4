"""The key GRACE_SECONDS of a worker."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from numbers import Real
from typing import TYPE_CHECKING

from ..findings import Finding, Where
from ..key import Key, Start
from ..values import resolved

if TYPE_CHECKING:
    from ..entry import Entry

__all__ = ("GraceSeconds",)


class GraceSeconds(Key):
    """The time from SIGTERM until a worker gives back what it has not done."""

    name = "GRACE_SECONDS"
    takes = "a number of seconds above 0, or a timedelta"
    id = "E015"

    def read(self, entry: Entry) -> float:
        """Return the time in seconds.

        Raises:
            ValueError: it is something else, or no time at all.
        """
        value = resolved(entry.config[self.name])
        if isinstance(value, timedelta):
            value = value.total_seconds()
        if isinstance(value, bool) or not isinstance(value, (Real, Decimal, str)):
            raise ValueError("it is not a number of seconds")
        try:
            seconds = float(value)
        except ValueError:  # a str, as it comes from the environment
            raise ValueError("it is not a number of seconds") from None
        if not 0 < seconds < math.inf:
            raise ValueError("it is not a time above 0")
        return seconds

    def rules(self, entry: Entry) -> Iterator[Finding]:
        """E015: beside detach. W010: SIGTERM leaves no time."""
        without = f"{self.name} has no effect with"
        if entry.context.params["detach"]:
            message = f"{without} detach, which starts Celery's own worker."
            yield Finding("E015", entry.names, message, "Remove one of the two.")
        if os.environ.get("REMAP_SIGTERM") == "SIGQUIT":
            message = (
                f"{without} REMAP_SIGTERM=SIGQUIT, which makes SIGTERM a cold shutdown."
            )
            hint = "Remove the variable, or set it to SIGTERM."
            yield Finding("W010", entry.names, message, hint)

    def prepare(self, start: Start) -> None:
        """Make the worker end in time.

        Raises:
            OptionError: this Celery reads its children's results in another way.
        """
        from ..options.errors import PrivateNameError, private
        from .shutdown import SECONDS_TO_END, apply

        if "celery.concurrency.asynpool" in sys.modules:  # a prefork pool
            try:
                private("celery.concurrency.asynpool", "ResultHandler._flush_outqueue")
            except PrivateNameError as exc:
                exc.where = Where(self.name)
                raise
        seconds = self.read(start.entry)
        if "celery.concurrency.thread" in sys.modules:  # a pool of threads
            from .outside import watch

            watch(seconds + SECONDS_TO_END)
        apply(seconds)
