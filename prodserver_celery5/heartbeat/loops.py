"""The hooks into the loops of a worker and a beat."""

from __future__ import annotations

import signal
from collections.abc import Callable
from functools import partial
from threading import get_ident
from types import FrameType
from typing import TYPE_CHECKING, Any

from ..findings import Where
from ..options.errors import PrivateNameError, private
from .report import CONNECTING, READY, STARTING, STOPPING, TURN, WAIT, WORK, Heartbeat

if TYPE_CHECKING:
    from celery import Celery

__all__ = ("attach_to_beat", "attach_to_worker")


def attach_to_worker(app: Celery, heartbeat: Heartbeat) -> None:
    """Let a worker call the heartbeat from its loop, and before and after it.

    kombu's loop, on Redis, RabbitMQ and SQS, has a hook. The other loop has none, nor
    has the time in which a worker connects: there only `maybe_shutdown`, which is
    private, is called.

    Args:
        app: the app whose worker this process becomes.
        heartbeat: the heartbeat to call.

    Raises:
        OptionError: this Celery has no `maybe_shutdown`. For the one of the consumer,
            which takes by name what a pool may replace before it is imported, the
            worker raises that when it is made.
    """
    from celery import bootsteps, signals
    from celery.worker import state

    turn = private("celery.worker.state", "maybe_shutdown")
    loop = get_ident()

    def beat_and_turn() -> None:
        heartbeat.beat()
        turn()

    def say_and_wait(wait: Callable[[], None]) -> None:
        # A green pool's remote control connects beside the loop, for itself. But a loop
        # that is connecting may have to wait for it.
        if get_ident() == loop or heartbeat.state == CONNECTING:
            heartbeat.say(CONNECTING, WAIT)
        wait()

    def begin_task(**kwargs: Any) -> None:
        heartbeat.say(heartbeat.state, WORK)

    def stop(**kwargs: Any) -> None:
        heartbeat.say(STOPPING, WORK)

    class Step(bootsteps.StartStopStep):  # type: ignore[misc] # Celery has no types
        """Stops when the connection is lost or the worker stops."""

        requires = ("celery.worker.consumer.tasks:Tasks",)
        reload: Callable[..., None] | None = None

        def __init__(self, consumer: Any, **kwargs: Any) -> None:
            super().__init__(consumer, **kwargs)
            try:
                wait = private("celery.worker.consumer.consumer", "maybe_shutdown")
            except PrivateNameError as exc:
                exc.where = Where("the heartbeat")
                raise
            from celery.worker.consumer import consumer as connecting

            connecting.maybe_shutdown = partial(say_and_wait, wait)

        def start(self, consumer: Any) -> None:
            from celery.concurrency import solo

            if consumer.hub is None:
                state.maybe_shutdown = beat_and_turn
            if isinstance(consumer.pool, solo.TaskPool):
                signals.task_prerun.connect(begin_task, weak=False)
            reload = signal.getsignal(signal.SIGHUP)
            # Neither on a terminal, nor again after a lost connection.
            if callable(reload) and reload is not self.reload:
                self.reload = partial(self._reload, reload)
                signal.signal(signal.SIGHUP, self.reload)

        def register_with_event_loop(self, consumer: Any, hub: Any) -> None:
            hub.on_tick.add(heartbeat.beat)

        def stop(self, consumer: Any) -> None:
            if consumer.blueprint.state == bootsteps.RUN:
                heartbeat.say(CONNECTING, WAIT)
            else:
                stop()

        def _reload(
            self, celerys: Callable[..., None], number: int, frame: FrameType | None
        ) -> None:
            celerys(number, frame)
            # Not if it only said that this platform cannot reload.
            if getattr(state, "should_stop", None) is not None:
                heartbeat.say(STOPPING, WORK, again=True)

    signals.worker_shutting_down.connect(stop, weak=False)
    app.steps["consumer"].add(Step)


def attach_to_beat(app: Celery, heartbeat: Heartbeat) -> None:
    """Let a beat call the heartbeat at each tick, and while it waits for the broker.

    Args:
        app: the app whose beat this process becomes; another subclass of its service
            stays.
        heartbeat: the heartbeat to call.
    """
    base: Any = app.Beat.Service

    class Service(base):  # type: ignore[misc] # Celery has no types
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            # Here at the latest: a detached beat is another process by now.
            heartbeat.begin()
            super().__init__(*args, **kwargs)

        def get_scheduler(self, lazy: bool = False, *args: Any, **kwargs: Any) -> Any:
            scheduler = super().get_scheduler(lazy, *args, **kwargs)
            if not lazy:
                scheduler.tick = _beating(scheduler, heartbeat)
            return scheduler

        def sync(self) -> None:
            heartbeat.say(STOPPING, WAIT)
            super().sync()

    app.Beat.Service = Service


def _beating(scheduler: Any, heartbeat: Heartbeat) -> Callable[..., float]:
    """Wrap a scheduler's tick, which returns how long beat is going to sleep."""
    tick: Callable[..., float] = scheduler.tick
    wait = partial(heartbeat.say, CONNECTING, WAIT)
    known: Any = None

    def beating(*args: Any, **kwargs: Any) -> float:
        nonlocal known
        heartbeat.say(heartbeat.state, WAIT)
        # A beat's first message waits for its broker, for up to a hundred attempts.
        connection: Any = getattr(scheduler, "connection", None)
        if hasattr(connection, "ensure_connection") and connection is not known:
            ensure = partial(connection.ensure_connection, callback=wait)
            known, connection.ensure_connection = connection, ensure
        interval = tick(*args, **kwargs)
        state = heartbeat.state
        state = READY if state in (STARTING, CONNECTING) else state
        heartbeat.say(state, max(interval or 0, 0) + TURN)
        return interval

    return beating
