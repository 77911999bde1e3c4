"""The memory that the children of a prefork pool share with their parent.

A forked child shares the parent's memory, page by page, until one of them writes to it.
"""

from __future__ import annotations

import atexit
import gc
import os
from typing import Any

from celery import signals

__all__ = ("share_memory",)


def share_memory(pool: object) -> None:
    """Let children write as little as possible into what is loaded before they fork.

    A collection writes into every object that it looks at, so what is loaded is frozen
    just before the first fork. Whether, when and how often there are collections stays
    the project's own affair.

    Args:
        pool: the pool's class; nothing is done for one that does not fork.
    """
    bases = getattr(pool, "__mro__", ())
    if not any(base.__module__ == "celery.concurrency.prefork" for base in bases):
        return
    frozen = False

    def before_fork(**kwargs: Any) -> None:
        # Once: what the parent makes later has to be collected there.
        nonlocal frozen
        if not frozen:
            frozen = True
            gc.freeze()
            # The interpreter's last collection looks at everything once more, as ever:
            # a file in a reference cycle is written to its end by it.
            atexit.register(gc.unfreeze)

    os.register_at_fork(before=before_fork)
    # Celery 5.3 and newer send it before they collect, which then takes no time.
    if before_create := getattr(signals, "worker_before_create_process", None):
        before_create.connect(before_fork, weak=False)
