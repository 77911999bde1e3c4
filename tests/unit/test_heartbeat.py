"""What a process says about itself, and to whom."""

from __future__ import annotations

import errno
import logging
import os
import signal
import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from prodserver_celery5.heartbeat import report as module
from prodserver_celery5.heartbeat.notify import Notify
from prodserver_celery5.heartbeat.report import (
    CONNECTING,
    READY,
    STARTING,
    STOPPING,
    TURN,
    WAIT,
    WORK,
    Heartbeat,
    Sink,
)


class Listener:
    """A sink that records what it is told."""

    def __init__(self) -> None:
        self.said: list[tuple[str, float, bool]] = []
        self.events: list[str] = []
        self.error: OSError | None = None

    def __str__(self) -> str:
        return "the listener"

    def open(self) -> None:
        self.events.append("open")
        if self.error:
            raise self.error

    def say(self, state: str, silence: float, again: bool) -> None:
        if self.error:
            raise self.error
        self.said.append((state, silence, again))

    def close(self) -> None:
        self.events.append("close")
        if self.error:
            raise self.error


@pytest.fixture
def listener() -> Listener:
    return Listener()


@pytest.fixture
def heartbeat(listener: Listener) -> Iterator[Heartbeat]:
    yield from begin(listener)


def test_the_first_beat_makes_it_ready(
    heartbeat: Heartbeat, listener: Listener
) -> None:
    heartbeat.say(CONNECTING, WAIT)
    heartbeat.beat()
    heartbeat.say("leading")
    heartbeat.beat()
    assert [(state, silence) for state, silence, _ in listener.said] == [
        (STARTING, WAIT),
        (CONNECTING, WAIT),
        (READY, TURN),
        ("leading", WAIT),
        ("leading", TURN),
    ]


def test_what_stays_is_said_once_a_second(
    heartbeat: Heartbeat, listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    heartbeat.say(STARTING, WAIT)
    heartbeat.beat()
    for _ in range(100):
        heartbeat.beat()
        now += 0.021
    assert listener.said.count((STARTING, WAIT, False)) == 2
    assert listener.said.count((READY, TURN, False)) == 3


def test_once_stopping_always_stopping(
    heartbeat: Heartbeat, listener: Listener
) -> None:
    heartbeat.say(STOPPING, WORK)
    heartbeat.beat()
    heartbeat.say(CONNECTING, WAIT)
    heartbeat.say(STOPPING, WAIT, again=True)
    assert listener.said[1:] == [(STOPPING, WORK, False)]


def test_a_signal_while_something_else_is_said(
    heartbeat: Heartbeat, listener: Listener
) -> None:
    say = listener.say

    def interrupted(state: str, silence: float, again: bool) -> None:
        if state == READY:
            heartbeat.say(STOPPING, WORK)
        say(state, silence, again)

    listener.say = interrupted  # type: ignore[method-assign]
    heartbeat.beat()
    assert [state for state, _, _ in listener.said][-2:] == [READY, STOPPING]
    assert listener.said[-1][1] == WORK


# pytest-xdist's processes have a thread, and some have imported eventlet.
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:Using fork:DeprecationWarning")
def test_a_child_says_nothing(heartbeat: Heartbeat, listener: Listener) -> None:
    pid = os.fork()
    if not pid:
        heartbeat.beat()
        heartbeat.say(STOPPING, WORK)
        heartbeat.end()
        os._exit(0 if listener.said == [(STARTING, WAIT, False)] else 1)
    assert os.waitpid(pid, 0)[1] == 0
    assert listener.events == ["open"]


def test_before_it_begins_it_says_nothing(listener: Listener) -> None:
    heartbeat = Heartbeat([listener])
    heartbeat.beat()
    heartbeat.end()
    assert not listener.said
    assert not listener.events


def test_it_begins_once(heartbeat: Heartbeat, listener: Listener) -> None:
    heartbeat.begin()
    assert listener.events == ["open"]
    heartbeat.end()
    heartbeat.end()
    heartbeat.beat()
    assert listener.events == ["open", "close"]
    assert len(listener.said) == 1
    # A beat that detaches begins again in the child.
    heartbeat.begin()
    assert listener.events == ["open", "close", "open"]


@pytest.mark.parametrize("number", [(errno.EROFS,), ()])
def test_what_cannot_be_said_is_told_once(
    heartbeat: Heartbeat,
    listener: Listener,
    caplog: pytest.LogCaptureFixture,
    number: tuple[int, ...],
) -> None:
    listener.error = OSError(*number, "Read-only file system")
    heartbeat.beat()
    heartbeat.say(STOPPING, WORK)
    heartbeat.end()
    assert caplog.messages == ["the listener: Read-only file system. The work goes on."]
    assert caplog.records[0].levelno == logging.WARNING


def test_a_full_disk_does_not_keep_it_from_beginning(
    listener: Listener, caplog: pytest.LogCaptureFixture
) -> None:
    listener.error = OSError(errno.ENOSPC, "No space left on device")
    heartbeat = Heartbeat([listener])
    heartbeat.begin()
    listener.error = None
    heartbeat.beat()
    assert listener.said == [(READY, TURN, False)]
    assert len(caplog.messages) == 1
    listener.error = OSError(errno.EACCES, "Permission denied")
    with pytest.raises(OSError, match=r"^the listener: Permission denied$"):
        Heartbeat([listener]).begin()


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder whose name is short enough for a socket, wherever TMPDIR is."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        yield Path(folder)


@pytest.fixture
def received(short: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(short / "socket"))
        receiver.setblocking(False)
        yield receiver


def begin(sink: Sink) -> Iterator[Heartbeat]:
    heartbeat = Heartbeat([sink])
    heartbeat.begin()
    yield heartbeat
    heartbeat.end()


@pytest.fixture
def notifying(received: socket.socket) -> Iterator[Heartbeat]:
    yield from begin(Notify(received.getsockname()))


@pytest.fixture
def watched(
    received: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Heartbeat]:
    monkeypatch.setattr(module, "_EVERY", 0.0)
    yield from begin(Notify(received.getsockname(), 60))


def read(receiver: socket.socket) -> list[list[str]]:
    messages = []
    try:
        while True:
            messages.append(receiver.recv(4096).decode().splitlines())
    except BlockingIOError:
        return messages


def test_systemd_hears_the_same(received: socket.socket, notifying: Heartbeat) -> None:
    notifying.say(CONNECTING)
    notifying.beat()
    notifying.say(READY, 630)
    notifying.say(STOPPING, WORK)
    assert read(received) == [
        ["STATUS=starting"],
        ["STATUS=connecting"],
        ["STATUS=ready", "READY=1"],
        ["STATUS=stopping", "STOPPING=1"],
    ]


def test_a_reload_is_no_end(received: socket.socket, notifying: Heartbeat) -> None:
    notifying.say(STOPPING, WORK, again=True)
    before, (status, reloading, usec) = read(received)
    assert before == ["STATUS=starting"]
    assert (status, reloading) == ("STATUS=stopping", "RELOADING=1")
    name, _, value = usec.partition("=")
    assert name == "MONOTONIC_USEC"
    assert 0 <= time.monotonic() - int(value) / 1e6 < 60


def test_the_watchdog_is_as_patient_as_the_probe(
    received: socket.socket, watched: Heartbeat
) -> None:
    for silence in (TURN, TURN, 630):
        watched.say(READY, silence)
    assert read(received) == [
        ["STATUS=starting", "WATCHDOG_USEC=300000000", "WATCHDOG=1"],
        ["STATUS=ready", "READY=1", "WATCHDOG_USEC=60000000", "WATCHDOG=1"],
        ["STATUS=ready", "READY=1", "WATCHDOG_USEC=60000000", "WATCHDOG=1"],
        ["STATUS=ready", "READY=1", "WATCHDOG_USEC=630000000", "WATCHDOG=1"],
    ]


@pytest.mark.parametrize(
    ("usec", "pid", "watched"),
    [
        ("60000000", None, True),
        pytest.param("60000000", os.getpid(), True, id="this process"),
        ("60000000", 1, False),
        (None, None, False),
        ("", None, False),
    ],
)
def test_what_systemd_sets(
    usec: str | None,
    pid: int | None,
    watched: bool,
    received: socket.socket,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", received.getsockname())
    for name, value in (("WATCHDOG_USEC", usec), ("WATCHDOG_PID", pid)):
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, str(value))
    for _ in begin(Notify.from_environment()):
        ((_, *watchdog),) = read(received)
        assert ("WATCHDOG=1" in watchdog) is watched


@pytest.mark.skipif(not hasattr(socket, "SO_PASSCRED"), reason="only Linux has them")
def test_an_abstract_socket() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        name = f"prodserver-celery5-{os.getpid()}"
        receiver.bind(f"\0{name}")
        receiver.setblocking(False)
        for _ in begin(Notify(f"@{name}")):
            assert read(receiver) == [["STATUS=starting"]]


def test_a_message_that_did_not_arrive_is_sent_again(
    short: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_EVERY", 0.0)
    address = str(short / "later")
    for heartbeat in begin(Notify(address)):
        heartbeat.beat()
        assert len(caplog.messages) == 1
        assert caplog.messages[0].startswith("NOTIFY_SOCKET: ")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
            receiver.bind(address)
            receiver.setblocking(False)
            heartbeat.beat()
            heartbeat.beat()
            assert read(receiver) == [["STATUS=ready", "READY=1"]]


def test_who_does_not_read_does_not_hold_up_the_work(
    received: socket.socket, watched: Heartbeat
) -> None:
    def hangs(*_: object) -> None:
        pytest.fail("it waits for its reader")

    before = signal.signal(signal.SIGALRM, hangs)
    signal.alarm(20)
    try:
        for _ in range(5000):  # more than a socket buffers
            watched.beat()
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
