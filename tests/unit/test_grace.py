"""The parts of GRACE_SECONDS that the tests with real brokers do not reach."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from celery import bootsteps
from kombu import Connection

from prodserver_celery5.grace import Grace, give_back


def test_another_broker_has_back_what_kombu_keeps(tmp_path: Path) -> None:
    names = ("data_folder_in", "data_folder_out", "control_folder")
    options = dict.fromkeys(names, str(tmp_path))
    with Connection("filesystem://", transport_options=options) as connection:
        queue = connection.SimpleQueue("grace")
        queue.put("a message")
        queue.get(timeout=1)
        give_back(connection, time.sleep)
    with Connection("filesystem://", transport_options=options) as connection:
        assert connection.SimpleQueue("grace").get(timeout=1).payload == "a message"


def test_what_fails_at_the_deadline_does_not_stop_the_rest(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    done: list[str] = []
    worker: Any = SimpleNamespace(
        # A consumer that has lost its connection has nothing to give back.
        consumer=SimpleNamespace(
            blueprint=SimpleNamespace(state=bootsteps.CLOSE),
            connection=None,
            perform_pending_operations=lambda: done.append("acknowledged"),
        ),
        hub=SimpleNamespace(close=lambda: 1 / 0),
        pool=SimpleNamespace(is_green=False),
        state=SimpleNamespace(active_requests=set()),
    )
    grace = Grace(worker, 0.01)
    monkeypatch.setattr(grace, "_end", lambda: done.append("ended"))
    # A thread of its own, which it renames.
    waiting = threading.Thread(target=grace._wait, args=(time.monotonic() + 1,))
    waiting.start()
    waiting.join(20)
    assert {*done[:-1]} == {"acknowledged"}
    assert done[-1] == "ended"
    assert "Ending without having done all of _acknowledge_by_the_loop" in caplog.text
    assert "gave back 0 running and 0 unstarted tasks; lost 0." in caplog.text
