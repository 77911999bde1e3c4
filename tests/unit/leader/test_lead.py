"""The lead: standing by, asking for the lock, starting again."""

from __future__ import annotations

import logging
import os
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest
from celery import signals
from celery.platforms import Pidfile
from django.db import OperationalError

from prodserver_celery5.leader import lead as leader
from prodserver_celery5.leader.locks import RefusedError, UnavailableError, lock_of


def test_it_stands_by_and_says_so_until_it_leads(
    lead: leader.Lead, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The log has each reason once; who asks for the state hears it all the time."""
    answers = iter([False, False, UnavailableError("no\nroute"), False, True])
    told: list[object] = []
    watches: list[tuple[str, bool]] = []
    is_watched = threading.Event()

    def acquire() -> bool:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def watch() -> None:
        thread = threading.current_thread()
        watches.append((thread.name, thread.daemon))
        is_watched.set()

    monkeypatch.setattr(lead._lock, "acquire", acquire)
    lead = leader.Lead(lead._lock, say=told.append)
    monkeypatch.setattr(lead, "_watch", watch)
    monkeypatch.setattr(time, "sleep", told.append)
    before = time.monotonic()
    caplog.set_level(logging.INFO)
    lead.gain()
    assert is_watched.wait(10)
    waits = ["standing by", "standing by", "connecting", "standing by"]
    assert told == [*(said for state in waits for said in (state, 0.25)), "starting"]
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("INFO", "beat: Standing by: another one leads."),
        ("INFO", "beat: Standing by: the database of the lock is away: no route."),
        ("INFO", "beat: Standing by: another one leads."),
        ("INFO", "beat: Leading."),
    ]
    assert watches == [("lead", True)]
    assert before <= lead._until - 300 <= time.monotonic()
    lead.end_tick()
    assert told[-1] == "leading"


def test_only_the_schedule_of_a_leader_asks_for_the_lock(
    lead: leader.Lead, anew: list[tuple[str, float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What other threads send is the project's own affair."""

    def publish() -> None:
        signals.before_task_publish.send(sender="shop.tidy")

    monkeypatch.setattr(lead, "_watch", lambda: None)
    publish()
    lead.gain()
    lead._held_at = 0
    publish()
    assert time.monotonic() - lead._held_at < 60
    lead._lock.close()
    other = threading.Thread(target=publish)
    other.start()
    other.join()
    assert anew == []
    with pytest.raises(SystemExit):
        publish()
    assert anew == [("the lock is lost: nothing is sent", 0)]


@pytest.mark.parametrize(
    ("pidfile", "pause"), [(None, {"pause": 2}), ("of another", {})]
)
def test_a_new_start_says_why_and_gives_the_lock_back_first(
    lead: leader.Lead,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    pidfile: str | None,
    pause: dict[str, float],
) -> None:
    done: list[object] = []
    monkeypatch.setattr(lead._lock, "close", lambda: done.append("given back"))
    monkeypatch.setattr(time, "sleep", done.append)
    monkeypatch.setattr(lead, "_pidfile", pidfile and Pidfile(pidfile))
    with pytest.raises(SystemExit):
        lead.start_anew("the\nlock is lost", **pause)
    assert done == ["given back", pause.get("pause", 0)]
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("WARNING", "beat: the lock is lost; starting again, to stand by.")
    ]


def test_a_table_that_is_missing_is_not_waited_for(
    lead: leader.Lead, anew: list[tuple[str, float]]
) -> None:
    """It ends beat, as it ends `celery beat`; a database that is down does not."""
    with pytest.raises(SystemExit):
        lead.wait_for_database(OperationalError("server closed the connection"))
    reason = "the database of the schedule is away: server closed the connection"
    assert anew == [(reason, 1)]
    missing = OperationalError("no such table: django_celery_beat_periodictask")
    with pytest.raises(OperationalError, match="no such table"):
        lead.wait_for_database(missing)
    assert len(anew) == 1


def test_a_database_that_turns_out_to_have_no_lock(
    lead: leader.Lead, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was down at the start, so nobody could tell."""

    def acquire() -> bool:
        raise RefusedError("a pooler stands before this server.", "Name another alias.")

    monkeypatch.setattr(lead._lock, "acquire", acquire)
    with pytest.raises(SystemExit) as ended:
        lead.gain()
    assert ended.value.code == (
        "beat cannot lead: a pooler stands before this server. Name another alias."
    )


def test_a_beat_that_is_ending_neither_leads_nor_starts_again(
    lead: leader.Lead,
) -> None:
    lead.is_ending = True
    acts = (lead.gain, lead.begin_tick, lambda: lead.start_anew("the lock is lost"))
    for act in acts:
        with pytest.raises(SystemExit) as ended:
            act()
        assert ended.value.code is None
    assert not lead._lock.is_held()
    assert lead._lock.acquire()
    with pytest.raises(SystemExit):
        lead.begin_tick()


@pytest.mark.parametrize(
    ("written", "is_left"),
    [
        pytest.param(f"{os.getpid()}\n", False, id="this process"),
        ("1\n", True),
        ("?", True),
    ],
)
def test_a_beat_that_cannot_start_again_gives_the_lock_back_and_says_why(
    lead: leader.Lead, tmp_path: Path, written: str, is_left: bool
) -> None:
    pidfile = tmp_path / "beat.pid"
    pidfile.write_text(written)
    assert lead._lock.acquire()
    with pytest.raises(SystemExit) as ended:
        lead.start_anew("the lock is lost")
    assert ended.value.code == (
        "beat cannot start again: this program cannot be started again"
    )
    assert lead.failure == ended.value.code
    assert pidfile.exists() is is_left
    assert lock_of("default", "a").acquire()


def test_a_beat_that_hangs_lets_another_one_lead(
    lead: leader.Lead, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0

    def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds

    reasons: list[str] = []
    monkeypatch.setattr(lead, "start_anew", reasons.append)
    monkeypatch.setattr(time, "monotonic", lambda: now)
    monkeypatch.setattr(time, "sleep", sleep)
    assert lead._lock.acquire()
    lead.begin_tick()
    lead._watch()
    assert reasons == ["no tick for 35 s"]
    assert now == 1035
    # Once it is ending, it may take its time.
    lead.hold()
    lead.is_ending = True
    lead._watch()
    assert (len(reasons), now) == (1, 1036)


def test_a_start_may_take_longer_than_a_tick(
    lead: leader.Lead, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The watch asks the server meanwhile, so that the session is never idle."""
    now = 1000.0
    asked: list[float] = []

    def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds

    reasons: list[str] = []
    monkeypatch.setattr(lead, "start_anew", reasons.append)
    monkeypatch.setattr(time, "monotonic", lambda: now)
    monkeypatch.setattr(time, "sleep", sleep)
    monkeypatch.setattr(lead._lock, "is_held", lambda: asked.append(now) or True)
    with monkeypatch.context() as patch:
        patch.setattr(lead, "_watch", lambda: None)
        lead.gain()
    # What a project sends before the first tick does not end the start.
    lead.hold()
    asked.clear()
    lead._watch()
    assert reasons == ["no first tick within 300 s"]
    assert now == 1300
    assert asked == [*range(1001, 1301)]
    # From the first tick on, beat speaks for itself.
    lead.begin_tick()
    asked.clear()
    lead._watch()
    assert (reasons[1:], asked) == (["no tick for 35 s"], [])


def test_two_threads_never_use_the_connection_at_once(
    lead: leader.Lead, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, answer = threading.Event(), threading.Event()
    done: list[str] = []

    def is_held() -> bool:
        asked.set()
        answer.wait(10)
        done.append("answered")
        return True

    monkeypatch.setattr(lead._lock, "is_held", is_held)
    monkeypatch.setattr(lead._lock, "close", lambda: done.append("closed"))
    other = threading.Thread(target=lead.is_held)
    other.start()
    assert asked.wait(10)
    threading.Timer(0.1, answer.set).start()
    lead.give_back()
    other.join()
    assert done == ["answered", "closed"]


def test_of_many_ticks_only_some_ask(
    lead: leader.Lead, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each run asks twice anyway; a tick that comes later asks again."""
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    asked: list[float] = []
    monkeypatch.setattr(lead._lock, "is_held", lambda: asked.append(now) or True)
    for now in (1000, 1000.5, 1001, 1001.5, 1003):  # noqa: B007 - the lambdas read it
        lead.begin_tick()
    assert asked == [1000, 1001.5, 1003]


def test_a_beat_that_hangs_and_cannot_start_again_ends(
    lead: leader.Lead, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    statuses: list[int] = []
    monkeypatch.setattr(os, "_exit", statuses.append)
    lead._until = -1000
    lead._watch()
    assert statuses == [1]
    assert (caplog.records[-1].levelname, caplog.records[-1].getMessage()) == (
        "CRITICAL",
        "beat: cannot start again: this program cannot be started again",
    )
    # But if it has begun to end meanwhile, it may do so in its own time.
    lead.is_ending = True
    lead._watch()
    assert statuses == [1]


def test_another_thread_starts_anew_without_touching_the_connection(
    lead: leader.Lead, caplog: pytest.LogCaptureFixture
) -> None:
    """The one that leads may be using it."""

    def start() -> None:
        with suppress(SystemExit):
            lead.start_anew("it hangs")

    assert lead._lock.acquire()
    other = threading.Thread(target=start)
    other.start()
    other.join()
    assert "it hangs; starting again" in caplog.text
    assert lead._lock.is_held()


def test_the_pidfile_is_written_with_the_lead(
    lead: leader.Lead, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pidfile = tmp_path / "beat.pid"
    monkeypatch.setattr(lead, "_watch", lambda: None)
    monkeypatch.setattr(time, "sleep", lambda seconds: pidfile.unlink())
    # Of a process that lives; then of one that has been killed, and of this one.
    other = os.getppid()
    for number, left in enumerate((f"{other}\n", f"{2**22 + 1}\n", f"{os.getpid()}\n")):
        pidfile.write_text(left)
        lead.gain()
        assert pidfile.read_text() == f"{os.getpid()}\n", number
        assert lead.is_held()
        lead.give_back()
        assert not pidfile.exists()
    # It may be a successor's by now.
    pidfile.write_text(f"{other}\n")
    lead.give_back()
    assert pidfile.read_text() == f"{other}\n"
