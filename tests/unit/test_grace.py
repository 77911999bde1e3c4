"""How a worker ends in time, step by step; tests/behaviour has real workers."""

from __future__ import annotations

import _thread
import atexit
import faulthandler
import fcntl
import os
import resource
import select
import signal
import socket
import struct
import sys
import threading
import time
from contextlib import nullcontext
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace as Fake
from typing import Any

import pytest
from celery import bootsteps, signals
from celery.worker.request import Request
from django.utils.functional import SimpleLazyObject
from kombu import Connection
from kombu.asynchronous.timer import Timer

from prodserver_celery5.entry import Entry
from prodserver_celery5.grace import brokers, outside, results
from prodserver_celery5.grace import shutdown as module
from prodserver_celery5.grace.brokers import Broker, broker_of
from prodserver_celery5.grace.key import GraceSeconds
from prodserver_celery5.grace.results import Results
from prodserver_celery5.grace.shutdown import Grace, apply

ENDED = ["alone 60", "exit 0"]


class Clock:
    """Stands in for `time`: no sleep takes time, and a wait without an end fails."""

    def __init__(self) -> None:
        self.now, self.turns = 1000.0, 0
        self.slept: list[float] = []
        self.did: list[Any] = []  # whatever else is done, in this order

    def monotonic(self) -> float:
        self.turns += 1
        assert self.turns < 5000, "it never ends"
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now = self.monotonic() + seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    for each in (module, brokers, results):
        monkeypatch.setattr(each, "time", clock)
    return clock


@pytest.fixture
def grace(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Any:
    """One that starts no thread and ends no process; its worker has had the signal."""
    do = clock.did.append
    consumer = Fake(blueprint=Fake(state=bootsteps.CLOSE), connection=None)
    consumer.timer = Timer()
    consumer.perform_pending_operations = lambda: do("acknowledge")
    state = Fake(active_requests=set(), reserved_requests=set())
    worker = Fake(consumer=consumer, state=state, statedb=None, pidlock=None)
    worker.pool = Fake(is_green=False, spawn_n=do)
    consumer.app = Fake(connection_for_read=lambda: other(lambda: None))
    worker.hub = Fake(close=lambda: do("close"))
    monkeypatch.setattr(atexit, "register", lambda *_: None)
    grace: Any = Grace(worker, 2.5)
    grace._start_thread = lambda *thread: do(thread)
    grace._sleep = clock.sleep
    monkeypatch.setattr(sys, "setswitchinterval", lambda s: do(f"alone {s}"))
    monkeypatch.setattr(os, "_exit", lambda status: do(f"exit {status}"))
    monkeypatch.setattr(module, "active_children", list)
    monkeypatch.setattr(
        faulthandler, "dump_traceback_later", lambda s, **how: do((s, how))
    )
    return grace


def wait(grace: Any, seconds: float) -> None:
    """Wait in a thread of its own, which it renames."""
    ends = module.time.monotonic() + seconds
    thread = threading.Thread(target=grace._wait, args=(ends,))
    thread.start()
    thread.join(20)


def request(id: str, late: bool = True, **more: Any) -> Request:
    """Make one of Celery's requests without its message."""
    made = object.__new__(Request)
    made.name, made.id, made._task = "mail", id, Fake(acks_late=late)
    made._message = Fake(delivery_tag=id, acknowledged=False)
    vars(made).update(more)
    return made


def test_the_seconds_of_a_time() -> None:
    lazy = SimpleLazyObject(lambda: 25)
    values = 1, Decimal("2.5"), timedelta(minutes=1), lazy, "25", "2.5"
    entries = [Entry("worker", {"GRACE_SECONDS": value}) for value in values]
    assert [GraceSeconds().read(entry) for entry in entries] == [
        1, 2.5, 60, 25, 25, 2.5
    ]  # fmt: skip


def test_it_hears_of_the_worker_by_its_signals(monkeypatch: pytest.MonkeyPatch) -> None:
    def begin(grace: Any, sig: str, **_: Any) -> None:
        heard.append((grace._worker, grace._seconds, sig))

    heard: list[Any] = []
    monkeypatch.setattr(Grace, "begin", begin)
    for kind in (signals.worker_init, signals.worker_shutting_down):
        monkeypatch.setattr(kind, "receivers", [])
    apply(9.5)
    signals.worker_init.send(sender="the worker")
    signals.worker_shutting_down.send(sender="its name", sig="SIGTERM", exitcode=0)
    assert heard == [("the worker", 9.5, "SIGTERM")]


def test_the_first_sigterm_begins_the_count(grace: Any, clock: Clock) -> None:
    def sleep(seconds: float) -> None:
        clock.sleep(seconds)
        grace._counts = len(clock.slept) == 3

    grace._sleep = sleep
    grace.begin("SIGINT", how="Warm")
    assert not clock.did
    for _ in range(2):
        grace.begin("SIGTERM", how="Warm")
    waits, guards = (grace._wait, 1002.5), (grace._guard, 1004.5)
    last = (5.5, {"exit": True, "file": 2})
    assert clock.did == [(module._traced, waits), (module._traced, guards), last]
    # Celery's handler goes on once the thread counts.
    assert clock.slept == [0.001] * 3


def test_a_thread_that_does_not_start_holds_up_nothing(
    grace: Any, clock: Clock
) -> None:
    grace.begin("SIGTERM")
    assert clock.now == pytest.approx(1001, abs=0.01)


def test_what_has_been_received(grace: Any) -> None:
    reserved, scheduled = request("reserved"), request("scheduled")
    grace._worker.state.reserved_requests.add(reserved)
    for args in ((scheduled, 1), ("no request",), ()):
        grace._worker.consumer.timer.call_after(60, print, args)
    grace.begin("SIGTERM")
    assert grace._received == {reserved, scheduled}


def test_what_is_revoked_is_saved(grace: Any, clock: Clock) -> None:
    grace._worker.statedb = "state"
    grace._worker._persistence = Fake(sync=lambda: clock.did.append("saved"))
    grace.begin("SIGTERM")
    assert clock.did[3:] == ["saved"]


def test_it_waits_and_gives_back_and_tells_and_ends(grace: Any, clock: Clock) -> None:
    def acknowledge() -> None:
        clock.did.append((threading.current_thread().name, grace._counts))

    consumer = grace._worker.consumer
    consumer.perform_pending_operations = acknowledge
    consumer.connection = other(lambda: clock.did.append("give back"))
    grace._tell = lambda: clock.did.append("tell")
    grace._results = Fake(take=lambda *args: clock.did.append(args))
    wait(grace, 0.25)
    last = [(1.0, grace._sleep), "close", ("grace", True), "give back", "tell", *ENDED]
    assert clock.did == [("grace", True)] * 3 + last
    assert clock.slept == pytest.approx([0.1, 0.1, 0.05])


def test_a_green_pool_acknowledges_in_its_hub(grace: Any, clock: Clock) -> None:
    grace._worker.pool.is_green = True
    grace.begin("SIGTERM")
    wait(grace, 0.25)
    assert clock.did[3:] == [grace._acknowledge_in_the_hub, "close", *ENDED]


def test_what_fails_at_the_deadline_does_not_stop_the_rest(
    grace: Any, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    grace._worker.hub.close = lambda: 1 / 0
    wait(grace, 0)
    failed, told = caplog.records
    step = "_acknowledge_by_the_loop"
    assert failed.message == f"Ending, though {step.strip('_')} failed"
    assert failed.levelname == "CRITICAL"
    assert failed.exc_info
    assert told.message.endswith("gave back 0 running and 0 unstarted tasks; lost 0.")
    assert clock.did == ["acknowledge", *ENDED]


@pytest.mark.parametrize(("left", "slept"), [(4, 4), (-1, 0)])
def test_a_broker_that_does_not_answer_holds_up_nothing(
    grace: Any, clock: Clock, left: int, slept: int
) -> None:
    grace._tell = lambda: clock.did.append("tell")
    grace._guard(clock.now + left)
    assert clock.slept == [slept]
    assert clock.did == ["tell", *ENDED]


def test_only_one_thread_tells_and_ends(grace: Any, clock: Clock) -> None:
    """The other one would cut its lines short."""
    grace._telling.acquire()
    other = threading.Thread(target=grace._guard, args=(clock.now,), daemon=True)
    other.start()
    other.join(0.2)
    assert other.is_alive()
    assert not clock.did


def test_it_ends_without_a_line_that_cannot_be_written(
    grace: Any, clock: Clock
) -> None:
    grace._tell = lambda: 1 / 0
    with pytest.raises(ZeroDivisionError):
        grace._tell_and_end()
    assert clock.did == ENDED


def test_a_worker_that_leaves_is_left_alone(grace: Any, clock: Clock) -> None:
    grace._leave()
    wait(grace, 0)
    assert not clock.did


def test_a_worker_that_leaves_waits_for_what_is_given_back(
    grace: Any, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not forever: the guard has a turn by then, and the process must end."""
    monkeypatch.setattr(module, "SECONDS_TO_END", 0.01)
    wait(grace, 0)
    began = time.perf_counter()
    grace._leave()
    assert time.perf_counter() - began >= 0.01


def test_celery_acknowledges_until_its_loop_ends(grace: Any, clock: Clock) -> None:
    grace._worker.consumer.blueprint.state = bootsteps.RUN
    grace._acknowledge()
    grace._acknowledge_by_the_loop()
    assert not clock.did
    grace._worker.consumer.blueprint.state = bootsteps.CLOSE
    grace._acknowledge()
    grace._acknowledge_by_the_loop()
    assert clock.did == ["acknowledge", "close"]


def test_a_pool_without_an_event_loop(grace: Any) -> None:
    grace._worker.hub = None
    grace._acknowledge_by_the_loop()
    grace._read()


@pytest.mark.parametrize(("turns", "slept"), [(3, 3), (999, 200)])
def test_what_has_ended_by_the_deadline_is_acknowledged_first(
    grace: Any, clock: Clock, turns: int, slept: int
) -> None:
    """Its hub may have a hundred to acknowledge, or be blocked."""

    def sleep(seconds: float) -> None:
        clock.sleep(seconds)
        ended.message.acknowledged = len(clock.slept) == turns

    grace._worker.pool.is_green = True
    grace._sleep = sleep
    ended = request("ended", acknowledged=True)
    grace._received = {ended, request("running")}
    grace._settle()
    assert len(clock.slept) == pytest.approx(slept, abs=1)
    assert not clock.did


def test_what_ends_while_it_goes_back_is_named(
    grace: Any, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """If its message had been acknowledged by then, it has not gone back."""
    ended, done = request("ended"), request("gone")
    grace._worker.state.active_requests = {ended, done}
    grace._worker.consumer.connection = redis(clock, channel("ended", "gone"))
    grace._give_back()
    grace._worker.state.active_requests = set()
    vars(ended)["acknowledged"] = vars(done)["acknowledged"] = True
    grace._tell()
    assert [record.message for record in caplog.records] == [
        "Given back: mail[ended]",
        "2.5 s after SIGTERM: gave back 1 running and 0 unstarted tasks; lost 0.",
    ]


def test_what_was_acknowledged_before_the_connection_closed_is_not_back() -> None:
    broker = Broker(Fake(close=lambda: None), time.sleep)
    broker.give_back([])
    ended, running = request("ended"), request("running")
    ended.message.acknowledged = True
    assert (broker.has(ended), broker.has(running)) == (False, True)


def test_in_a_hub_it_does_so_again_and_again(grace: Any, clock: Clock) -> None:
    turns = iter((None, None))
    grace._worker.consumer.perform_pending_operations = turns.__next__
    with pytest.raises(StopIteration):
        grace._acknowledge_in_the_hub()
    assert clock.slept == [0.1, 0.1]


def test_what_a_lost_connection_had_is_remembered(grace: Any, clock: Clock) -> None:
    """Celery forgets it; Redis keeps it, and RabbitMQ has it back."""
    running, reserved, scheduled = map(request, ("running", "reserved", "scheduled"))
    consumer, state = grace._worker.consumer, grace._worker.state
    consumer.on_close = lambda: clock.did.append("Celery's own")
    state.active_requests.add(running)
    state.reserved_requests |= {running, reserved}
    consumer.timer.call_after(60, print, (scheduled, 1))
    grace.watch(consumer)
    consumer.on_close()
    assert clock.did == ["Celery's own"]
    grace._broker = Fake(keeps_lost=True)
    assert set(grace._unstarted()) == {reserved, scheduled}
    grace._broker = Fake(keeps_lost=False)
    assert grace._unstarted() == []


def test_it_tells_what_went_back_and_what_is_lost(
    grace: Any,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    do = clock.did.append
    monkeypatch.setattr(sys, "stdout", Fake(flush=lambda: do("stdout")))
    monkeypatch.setattr(sys, "stderr", Fake(flush=lambda: do("stderr")))
    grace._worker.state.active_requests = {
        request("late"),
        request("early", late=False, acknowledged=True),
        request("just begun", late=False),
        request("ended", acknowledged=True),
    }
    grace._broker = Broker(Fake(close=lambda: None), clock.sleep)
    grace._broker.give_back([])
    grace._received = {
        request("waiting"),
        request("scheduled"),
        request("running", time_start=1.0),
        request("revoked", acknowledged=True),
    }
    grace._tell()
    total = "2.5 s after SIGTERM: gave back 2 running and 2 unstarted tasks; lost 1."
    *each, last = [(record.levelname, record.message) for record in caplog.records]
    assert sorted(each) == [
        ("ERROR", "Lost, not acks_late: mail[early]"),
        ("WARNING", "Given back: mail[just begun]"),
        ("WARNING", "Given back: mail[late]"),
    ]
    assert last == ("WARNING", total)
    assert clock.did == ["stdout", "stderr"]


HOUR = "Redis hands each out again 3600 s after it was fetched."


@pytest.mark.parametrize(
    ("broker", "why"),
    [
        ("", "(it does not answer). The broker keeps them."),
        ("amqp", "(the connection is lost). RabbitMQ hands them out as soon as"),
        ("redis", f"(ZeroDivisionError: division by zero). {HOUR}"),
    ],
)
def test_it_tells_what_did_not_go_back(
    grace: Any, clock: Clock, caplog: pytest.LogCaptureFixture, broker: str, why: str
) -> None:
    grace._worker.state.active_requests = {request("running")}
    grace._received = {request("waiting")}
    if broker:
        connection = redis(clock) if broker == "redis" else amqp(None)
        connection.clone, connection.connected = (lambda: 1 / 0), False
        grace._worker.consumer.connection = connection
        grace._give_back()
    grace._tell()
    *each, total, last = [record.message for record in caplog.records]
    names = "running", "waiting"
    assert sorted(each) == [f"Not given back: mail[{name}]" for name in names]
    assert total.endswith("gave back 0 running and 0 unstarted tasks; lost 0.")
    assert last.startswith(f"2 could not be given back {why}")


def test_redis_may_have_handed_it_out_or_lost_it(
    grace: Any, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """A message whose visibility timeout has passed, say, does not go back."""
    grace._worker.state.active_requests = {request("running"), request("gone")}
    grace._dropped = {request("fetched")}
    grace._worker.consumer.connection = redis(clock, channel("running", "gone"))
    grace._give_back()
    grace._tell()
    assert clock.did == ["connect", "running", "fetched"]
    assert [record.message for record in caplog.records] == [
        "Given back: mail[running]",
        "No longer in the broker: mail[gone]",
        "2.5 s after SIGTERM: gave back 1 running and 1 unstarted tasks; lost 0.",
    ]


def test_it_ends_with_its_pidfile_and_its_children(
    grace: Any, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even if the file cannot be removed, and the children are gone."""

    def release() -> None:
        clock.did.append("release")
        raise PermissionError

    def kill(*child: int) -> None:
        clock.did.append(child)
        raise ProcessLookupError

    grace._worker.pidlock = Fake(release=release)
    monkeypatch.setattr(module, "active_children", lambda: [Fake(pid=7), Fake(pid=8)])
    monkeypatch.setattr(os, "kill", kill)
    grace._end()
    killed = [(7, signal.SIGKILL), (8, signal.SIGKILL)]
    assert clock.did == ["release", ENDED[0], *killed, ENDED[1]]


def test_its_threads_are_traced(monkeypatch: pytest.MonkeyPatch) -> None:
    did: list[Any] = []
    monkeypatch.setattr(threading, "gettrace", lambda: "a tracer")
    monkeypatch.setattr(sys, "settrace", did.append)
    module._traced(did.append, 5.0)
    assert did == ["a tracer", 5.0]


# The brokers


@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
@pytest.mark.parametrize(
    "steps", ["reads answers waits closes", "reads" + 7 * " waits", "closes"]
)
def test_rabbitmq_is_waited_for_until_it_has_read_everything(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, steps: str
) -> None:
    """Or for a second, or until the connection is gone with something unread."""
    mine, peer = socket.socketpair()
    peer.setblocking(False)
    acts = {
        # The second fails unless the worker has ended its side.
        "reads": lambda: [peer.recv(9), peer.recv(9)],
        "answers": lambda: peer.send(b"unread"),
        "waits": lambda: None,
        "closes": peer.close,
    }
    coming, ready = iter(steps.split()), select.poll()
    left: list[float] = []

    def turn(milliseconds: float) -> Any:
        if not milliseconds:  # before the worker ends its side
            return ready.poll(0)
        left.append(milliseconds)
        clock.now += 0.125
        acts[next(coming)]()
        return ready.poll(0)

    poll = Fake(register=ready.register, poll=turn)
    monkeypatch.setattr(select, "poll", lambda: poll)
    with mine, peer:
        mine.send(b"ack")
        broker = give_back(amqp(mine), clock)
    assert broker.has(request("a")) == ("closes" in steps)
    assert left == [1000 - 125 * n for n in range(len(steps.split()))]


def amqp(sock: socket.socket | None) -> Any:
    transport = Fake(driver_type="amqp")
    return Fake(transport=transport, connected=True, connection=Fake(sock=sock))


def end_as_rabbitmq(peer: socket.socket) -> None:
    """Close one side when the other has ended."""
    assert peer.recv(1) == b""
    peer.shutdown(socket.SHUT_WR)


def other(close: Any) -> Any:
    return Fake(transport=Fake(driver_type="other"), close=close)


def give_back(connection: Any, clock: Clock, *requests: Any) -> Broker:
    broker = broker_of(Fake(connection=connection), clock.sleep)
    broker.give_back(requests)
    return broker


@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
def test_rabbitmq_may_be_gone_before_anybody_has_noticed(clock: Clock) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        mine = socket.create_connection(server.getsockname())
        peer, _ = server.accept()
        # To close it now resets the connection.
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        peer.close()
        with mine:
            open_one = give_back(amqp(mine), clock)
        for broker in (open_one, give_back(amqp(mine), clock)):
            assert not broker.has(request("a"))
            assert broker.error == "the connection is lost"


@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
def test_something_else_may_have_closed_the_connection(clock: Clock) -> None:
    """Then RabbitMQ keeps everything until it notices."""
    mine, peer = socket.socketpair()
    with mine, peer:
        peer.send(b"unread")
        peer.shutdown(socket.SHUT_WR)
        broker = give_back(amqp(mine), clock)
    assert not broker.has(request("a"))
    assert broker.error == "the connection is lost"


@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
def test_the_connection_may_be_one_of_thousands(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A green pool's files have numbers that select() does not take."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 1200), hard))
    monkeypatch.setattr(os, "dup", lambda fd: fcntl.fcntl(fd, fcntl.F_DUPFD, 1100))
    mine, peer = socket.socketpair()
    try:
        with mine, peer:
            peer.send(b"unread")
            answer = threading.Thread(target=end_as_rabbitmq, args=[peer])
            answer.start()
            assert give_back(amqp(mine), clock).has(request("a"))
            answer.join()
            assert mine.recv(1) == b"", "it has read to the end"
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def redis(clock: Clock, *channels: Any) -> Any:
    """Make a connection with channels; what its clone does is noted."""
    client = Fake(rpush=lambda *pushed: clock.did.append(pushed))
    client.hget = lambda key, tag: None if (key, tag) == ("unacked", "gone") else tag
    qos = Fake(restore_by_tag=clock.did.append)
    mine = Fake(client=client, qos=qos, unacked_key="unacked")
    fresh = Fake(connect=lambda: clock.did.append("connect"), channel=lambda: mine)
    kind = Fake(visibility_timeout=3600)
    made = Fake(transport=Fake(driver_type="redis", channels=channels, Channel=kind))
    made.transport_options, made.clone = {}, lambda: nullcontext(fresh)
    return made


def channel(*tags: str, silent: int | None = None, **more: Any) -> Any:
    """Make a channel of Redis, in a poll if it is silent for so many turns."""
    turns = iter([*[False] * (silent or 0), True])
    line = Fake(can_read=lambda timeout: timeout == 0 and next(turns))
    client = Fake(connection=line)
    client.parse_response = lambda of, command: (command.encode(), of is line)
    qos = Fake(_delivered=dict.fromkeys(tags))
    return Fake(_in_poll=silent is not None, client=client, qos=qos, **more)


def test_redis_has_back_the_oldest_last(grace: Any, clock: Clock) -> None:
    channels = channel("1", "2", "3"), channel("4", "5", silent=3)
    grace._worker.consumer.connection = redis(clock, *channels)
    grace._give_back()
    assert clock.did == ["connect", "3", "2", "1", ("BRPOP", True), "5", "4"]
    assert clock.slept == [0.02] * 3


def test_what_cannot_be_read_keeps_nothing_back(clock: Clock) -> None:
    broken = channel("1", "2", silent=0)
    del broken.client.parse_response
    with pytest.raises(AttributeError):
        give_back(redis(clock, broken), clock)
    assert clock.did == ["connect", "2", "1"]


@pytest.mark.parametrize(("more", "limit"), [({}, 1.5), ({"brpop_timeout": 5}, 5.5)])
def test_an_answer_that_another_thread_has_read(
    clock: Clock, more: dict[str, float], limit: float
) -> None:
    give_back(redis(clock, channel("1", silent=999, **more)), clock)
    assert clock.did == ["connect", "1"]
    assert clock.now - 1000 == pytest.approx(limit, abs=0.03)


def test_another_broker_has_back_what_kombu_keeps(tmp_path: Path) -> None:
    names = ("data_folder_in", "data_folder_out", "control_folder")
    options = dict.fromkeys(names, str(tmp_path))
    with Connection("filesystem://", transport_options=options) as connection:
        queue = connection.SimpleQueue("grace")
        queue.put("a message")
        queue.get(timeout=1)
        give_back(connection, Clock())
    with Connection("filesystem://", transport_options=options) as connection:
        assert connection.SimpleQueue("grace").get(timeout=1).payload == "a message"


# The results of children


def test_a_result_is_read_as_it_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Celery would sleep for half a second at the child that has none."""
    monkeypatch.setattr(results, "PAUSE", 20_000)
    (silent, _silent), (speaks, says) = os.pipe(), os.pipe()
    handler = Fake(fileno_to_outq={silent: "a child", speaks: "another"})
    read: list[Any] = []
    handler._flush_outqueue = lambda *args: read.append(args)
    try:
        Results(handler)
        os.write(says, b"a result")
        for fd in (silent, speaks):
            handler._flush_outqueue(fd, "remove", handler.fileno_to_outq, "heard")
        assert read == [(speaks, "remove", handler.fileno_to_outq, "heard")]
        # Celery's own forgets a child that is gone.
        handler._flush_outqueue(99, "remove", handler.fileno_to_outq, "heard")
        assert read[1][0] == 99
    finally:
        for fd in (silent, _silent, speaks, says):
            os.close(fd)


def test_what_has_come_is_read_and_nothing_later(clock: Clock) -> None:
    out, into = os.pipe()
    handler = Fake(fileno_to_outq={out: "a child"}, _flush_outqueue=os.read)
    taken = Results(handler)
    os.write(into, b"a result")
    try:
        taken.take(0.02, clock.sleep)
        assert sum(clock.slept) == pytest.approx(0.02), "Celery does not read it"
        assert taken._reading.locked()
        taken._reading.release()

        def read(seconds: float) -> None:
            assert os.read(out, 99)

        taken.take(1, read)
        assert taken._reading.locked()
    finally:
        os.close(out)
        os.close(into)


# The guard of a pool of threads


@pytest.mark.parametrize(
    ("numbers", "outlives"),
    [((), False), ((signal.SIGHUP,), False), ((signal.SIGTERM,) * 2, True)],
)
def test_the_guard_waits_for_sigterm_and_for_the_end(
    numbers: tuple[int, ...], outlives: bool
) -> None:
    out, into = os.pipe()
    os.write(into, bytes(numbers))
    if not outlives:
        os.close(into)
    assert outside._outlives(out, 0.01) == outlives
    os.close(out)
    if outlives:
        os.close(into)


def test_the_guard_leaves_with_a_worker_that_ends_in_time() -> None:
    out, into = os.pipe()
    os.write(into, bytes([signal.SIGTERM]))
    os.close(into)
    assert not outside._outlives(out, 60)
    os.close(out)


# The patches of green pools


@pytest.mark.parametrize(
    ("library", "threads"),
    [("gevent.monkey", []), ("eventlet.patcher", [("grace", True)])],
)
def test_its_thread_and_its_sleep_are_not_green(
    monkeypatch: pytest.MonkeyPatch, library: str, threads: list[tuple[str, bool]]
) -> None:
    """Celery counts the thread that eventlet lets start only now."""
    started: list[threading.Thread] = []
    monkeypatch.setattr(threading.Thread, "start", lambda self: started.append(self))
    grace: Any = Grace(None, 1)
    assert grace._start_thread is _thread.start_new_thread
    assert grace._sleep is time.sleep
    assert not started
    kept = Fake(start_new_thread="the thread before", sleep="the sleep before")
    kept.allocate_lock = _thread.allocate_lock
    patched = Fake(is_module_patched=bool, is_monkey_patched=bool)
    patched.get_original = lambda _, name: getattr(kept, name)
    patched.original = lambda _: kept
    monkeypatch.setitem(sys.modules, library, patched)
    grace = Grace(None, 1)
    assert grace._start_thread == kept.start_new_thread
    assert grace._sleep == kept.sleep
    assert [(thread.name, thread.daemon) for thread in started] == threads
