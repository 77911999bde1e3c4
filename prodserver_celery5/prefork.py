"""The memory that the children of a prefork pool share with their parent.

A forked child shares the parent's memory, page by page, until one of them writes to it.
"""

from __future__ import annotations

import gc
from typing import Any

from celery import signals

__all__ = ("share_memory",)


def share_memory() -> None:
    """Let children write as little as possible into what is loaded before they fork.

    A collection writes into every object that it looks at, so what is loaded is frozen.
    None takes place until then either, as the documentation of `gc.freeze` advises:
    there is next to nothing to collect, and the children would fill the holes.
    """
    enabled = gc.isenabled()
    gc.disable()

    def before_fork(**kwargs: Any) -> None:
        gc.freeze()
        if enabled:
            gc.enable()

    signals.celeryd_after_setup.connect(before_fork, weak=False)
