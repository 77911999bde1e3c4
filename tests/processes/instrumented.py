"""A tracer around Celery's, as the agents of monitoring services put it there."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from celery.app import trace

from .tasks import note

build = trace.build_tracer


@wraps(build)
def build_tracer(name: str, *args: Any, **options: Any) -> Callable[..., Any]:
    tracer = build(name, *args, **options)

    @wraps(tracer)
    def traced(*call: Any, **words: Any) -> Any:
        note(f"{name.rpartition('.')[2]} began")
        return tracer(*call, **words)

    return traced


trace.build_tracer = build_tracer
