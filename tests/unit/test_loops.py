"""What a worker and a beat report from their loops; tests/processes runs real ones."""

from __future__ import annotations

import gc
import signal
import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from celery import Celery, beat, bootsteps, signals
from celery.concurrency import base, solo
from celery.worker import state
from celery.worker.consumer import Consumer, consumer, tasks

from prodserver_celery5.heartbeat import loops
from prodserver_celery5.heartbeat.report import (
    CONNECTING,
    READY,
    STARTING,
    STOPPING,
    TURN,
    WAIT,
    WORK,
    Heartbeat,
)

from .test_heartbeat import Listener


@pytest.fixture
def app() -> Celery:
    return Celery("shop", set_as_current=False, broker="memory://")


@pytest.fixture
def listener() -> Listener:
    return Listener()


@pytest.fixture
def heartbeat(listener: Listener) -> Iterator[Heartbeat]:
    heartbeat = Heartbeat([listener])
    yield heartbeat
    heartbeat.end()


@pytest.fixture
def worker(
    app: Celery, heartbeat: Heartbeat, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Any]:
    """Starts the step of an attached worker, and records what it calls of Celery's."""
    called: list[tuple[str, str]] = []

    def record(name: str) -> Callable[..., None]:
        return lambda *args: called.append((name, heartbeat.state))

    def make(pool: Any = None, hub: Any = None) -> Any:
        controller = SimpleNamespace(use_eventloop=False, state=state)
        return Consumer(print, app=app, pool=pool, hub=hub, controller=controller)

    def start(pool: Any = None, hub: Any = None) -> tuple[Any, Any]:
        made = make(pool, hub)
        (step,) = (one for one in made.steps if type(one).__module__ == loops.__name__)
        step.start(made)
        return made, step

    monkeypatch.setattr(state, "should_stop", None)
    monkeypatch.setattr(state, "maybe_shutdown", record("turn"))
    monkeypatch.setattr(consumer, "maybe_shutdown", record("wait"))
    for sent in (signals.task_prerun, signals.worker_shutting_down):
        monkeypatch.setattr(sent, "receivers", [])
    heartbeat.begin()
    loops.attach_to_worker(app, heartbeat)
    before = signal.signal(signal.SIGHUP, record("reload"))
    yield SimpleNamespace(called=called, make=make, start=start)
    signal.signal(signal.SIGHUP, before)


def test_a_loop_without_a_hook(worker: Any, listener: Listener) -> None:
    _, step = worker.start()
    assert tasks.Tasks in step.requires  # ready once it takes them
    state.maybe_shutdown()
    assert worker.called == [("turn", READY)]
    assert listener.said[1:] == [(READY, TURN, False)]


def test_a_loop_with_a_hook(worker: Any, listener: Listener) -> None:
    hub = SimpleNamespace(on_tick=set())
    made, _ = worker.start(hub=hub)
    made.register_with_event_loop(hub)
    state.maybe_shutdown()
    assert worker.called == [("turn", STARTING)]
    (tick,) = hub.on_tick
    tick()
    assert listener.said[1:] == [(READY, TURN, False)]


def test_a_worker_that_connects(worker: Any, listener: Listener) -> None:
    worker.make()
    consumer.maybe_shutdown()
    assert worker.called == [("wait", CONNECTING)]
    assert listener.said[1:] == [(CONNECTING, WAIT, False)]


def test_what_connects_beside_the_loop(
    worker: Any, heartbeat: Heartbeat, listener: Listener
) -> None:
    """A loop that connects may have to wait until that has, and be silent meanwhile."""

    def connect_beside() -> None:
        beside = threading.Thread(target=consumer.maybe_shutdown)
        beside.start()
        beside.join()

    worker.make()
    heartbeat.beat()
    connect_beside()
    assert worker.called == [("wait", READY)]
    consumer.maybe_shutdown()
    heartbeat._next = 0  # its report is a second old
    connect_beside()
    assert [state for state, *_ in listener.said[1:]] == [READY, CONNECTING, CONNECTING]


@pytest.mark.parametrize(
    ("pool", "silence"), [(solo.TaskPool, WORK), (base.BasePool, TURN)]
)
def test_only_a_solo_pools_task_keeps_the_loop(
    worker: Any, heartbeat: Heartbeat, listener: Listener, pool: Any, silence: float
) -> None:
    worker.start(pool())
    heartbeat.beat()
    signals.task_prerun.send(sender=None)
    assert listener.said[-1] == (READY, silence, False)


def test_a_lost_connection_is_no_end(worker: Any, listener: Listener) -> None:
    made, step = worker.start()
    for phase in (bootsteps.RUN, bootsteps.CLOSE):
        made.blueprint.state = phase
        step.stop(made)
    assert listener.said[1:] == [(CONNECTING, WAIT, False), (STOPPING, WORK, False)]


def test_signals_are_heard_even_without_the_step(
    worker: Any, app: Celery, listener: Listener
) -> None:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # a handler would keep the step
    worker.start(solo.TaskPool())
    app.steps.clear()
    gc.collect()
    signals.task_prerun.send(sender=None)
    signals.worker_shutting_down.send(sender=None)
    assert listener.said[1:] == [(STARTING, WORK, False), (STOPPING, WORK, False)]


def test_a_reload_is_said_where_celery_can(worker: Any, listener: Listener) -> None:
    made, step = worker.start()
    wrapped = signal.getsignal(signal.SIGHUP)
    step.start(made)  # again, after a lost connection
    assert signal.getsignal(signal.SIGHUP) is wrapped
    signal.raise_signal(signal.SIGHUP)
    assert worker.called == [("reload", STARTING)]
    assert not listener.said[1:]
    state.should_stop = 0
    signal.raise_signal(signal.SIGHUP)
    assert worker.called[1:] == [("reload", STARTING)]
    assert listener.said[1:] == [(STOPPING, WORK, True)]


def test_on_a_terminal_there_is_no_reload(worker: Any) -> None:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    worker.start()
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_DFL


class Scheduler(beat.Scheduler):
    """Sleeps as long as a test says, and does in a tick what a test gives it."""

    connection: Any = None
    interval: float | None = 7.0

    def tick(self, work: Callable[[], object] = lambda: None) -> float | None:
        work()
        return self.interval


@pytest.fixture
def service(app: Celery, heartbeat: Heartbeat) -> Any:
    loops.attach_to_beat(app, heartbeat)
    return app.Beat.Service(app, scheduler_cls=Scheduler)


def test_beat_begins_with_its_service(
    app: Celery, heartbeat: Heartbeat, listener: Listener
) -> None:
    class Own(beat.Service):
        """A project's own."""

    app.Beat.Service = Own
    loops.attach_to_beat(app, heartbeat)
    assert not listener.events
    service = app.Beat.Service(app, max_interval=5)
    assert isinstance(service, Own)
    assert service.max_interval == 5
    assert listener.said == [(STARTING, WAIT, False)]


@pytest.mark.parametrize(
    ("before", "interval", "said"),
    [
        (STARTING, 7.5, (READY, 7.5 + TURN, False)),
        (CONNECTING, 0, (READY, TURN, False)),
        ("leading", None, ("leading", TURN, False)),
        (READY, -1, (READY, TURN, False)),
    ],
)
def test_a_tick_takes_its_time_and_then_beat_sleeps(
    service: Any,
    heartbeat: Heartbeat,
    listener: Listener,
    before: str,
    interval: float | None,
    said: tuple[str, float, bool],
) -> None:
    heartbeat.say(before, TURN)
    service.scheduler.interval = interval
    meanwhile: list[tuple[str, float, bool]] = []
    slept = service.scheduler.tick(lambda: meanwhile.append(listener.said[-1]))
    assert slept == interval
    assert meanwhile == [(before, WAIT, False)]
    assert listener.said[-1] == said


def test_an_attempt_to_connect_is_said(service: Any, listener: Listener) -> None:
    scheduler = service.scheduler
    for _ in range(2):  # a connection that is lost may be replaced
        connection = SimpleNamespace(ensure_connection=lambda callback: callback())
        scheduler.connection = connection
        scheduler.tick(lambda: scheduler.connection.ensure_connection())
        assert listener.said[-2:] == [
            (CONNECTING, WAIT, False),
            (READY, 7 + TURN, False),
        ]
    wrapped = connection.ensure_connection
    scheduler.tick()
    assert connection.ensure_connection is wrapped
    scheduler.connection = object()  # of another kind
    assert scheduler.tick() == 7


def test_the_banners_scheduler_says_nothing(service: Any, listener: Listener) -> None:
    assert service.get_scheduler(lazy=True).tick() == 7
    assert listener.said == [(STARTING, WAIT, False)]


def test_a_beat_that_saves_is_stopping(service: Any, listener: Listener) -> None:
    closed: list[tuple[str, float, bool]] = []
    service.scheduler.close = lambda: closed.append(listener.said[-1])
    service.sync()
    assert closed == [(STOPPING, WAIT, False)]
