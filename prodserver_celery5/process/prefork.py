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

    A collection writes into every object that it visits, so what is loaded is frozen
    just before the first fork, and collected before that: what is frozen is never
    freed. Whether, when and how often Python collects is still up to the project.
    """
    bases = getattr(pool, "__mro__", ())
    if not any(base.__module__ == "celery.concurrency.prefork" for base in bases):
        return
    frozen = False

    def before_fork(**kwargs: Any) -> None:
        # Once: what the parent makes later has to stay collectable.
        nonlocal frozen
        if not frozen:
            frozen = True
            gc.collect()
            gc.freeze()
            # So the interpreter's last collection visits everything, as ever: that is
            # what flushes a file in a reference cycle.
            atexit.register(gc.unfreeze)

    os.register_at_fork(before=before_fork)
    # Celery 5.3 and newer send this before they collect: one collection is enough.
    if before_create := getattr(signals, "worker_before_create_process", None):
        before_create.connect(before_fork, weak=False)
