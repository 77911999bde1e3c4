"""What the children of a prefork pool share with their parent.

A forked child shares the parent's memory, page by page, until one of them writes to it.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
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
        _defer_tracers()

    signals.celeryd_after_setup.connect(before_fork, weak=False)


def _defer_tracers() -> None:
    """Let a child build the tracer of a task when it first runs the task.

    Celery's `process_initializer` builds those of all tasks in each child, which takes
    a few KiB for each and writes to every task; a child runs few of hundreds.
    """
    from celery.app import trace  # which beat does without

    build: Callable[..., Callable[..., Any]] = trace.build_tracer

    def defer(name: str, task: Any, *args: Any, **options: Any) -> Callable[..., Any]:
        if options.get("eager"):  # `Task.apply` runs it at once, and does not keep it
            return build(name, task, *args, **options)

        def build_and_trace(*call: Any, **words: Any) -> Any:
            task.__trace__ = build(name, task, *args, **options)
            return task.__trace__(*call, **words)

        return build_and_trace

    trace.build_tracer = defer
