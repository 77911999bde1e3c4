"""The Procfile's web process, held up as anyone on the internet could.

On the loopback only, and bounded: 60 connections, each closed within seconds.
"""

from __future__ import annotations

import base64
import http.client
import json
import socket
import statistics
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from threading import Event, Thread

import pytest

from dev.procfile import free_port
from prodserver_celery5.pytest_plugin.process import DEADLINE, StartedProcess
from tests.deployment import Deployment

pytestmark = pytest.mark.once

IDLE, SLOW = 50, 10
HELD = 10  # seconds
# Less than the five for which a silent client can keep a gunicorn thread.
BOUND = 4  # seconds
WRONG = "Basic " + base64.b64encode(b"moderator:wrong").decode()
SLOW_STARTS = (
    b"POST /api/requests/ HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: ",
    b"POST /api/requests/ HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    b"Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n",
)


@pytest.fixture
def port(deployment: Deployment) -> int:
    port = free_port()
    deployment.env["PORT"] = str(port)
    return port


def start(deployment: Deployment) -> StartedProcess:
    web = deployment.start("web")
    workers = int(deployment.env.get("WEB_CONCURRENCY", "2"))
    web.wait_for("Booting worker", count=workers)
    return web


def status(port: int, path: str, body: bytes | None = None, **headers: str) -> int:
    """Send a request on a new connection, and return the status."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{path}",
        data=body,
        headers={"Content-Type": "application/json", **headers},
    )
    try:
        with urllib.request.urlopen(request, timeout=DEADLINE) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code


@contextmanager
def held_up(port: int) -> Iterator[None]:
    """Hold idle and slow connections open, and try a wrong password each second."""
    over = Event()
    with ExitStack() as stack:

        def connect() -> socket.socket:
            address = ("127.0.0.1", port)
            return stack.enter_context(
                socket.create_connection(address, timeout=DEADLINE)
            )

        def drip(slow: list[socket.socket]) -> None:
            while not over.wait(1):
                for each in slow:
                    with suppress(OSError):
                        each.send(b"x")

        def guess() -> None:
            while not over.wait(1):
                with suppress(OSError):
                    status(port, "/api/requests/", Authorization=WRONG)

        for _ in range(IDLE):
            connect()
        slow = [connect() for _ in range(SLOW)]
        for number, each in enumerate(slow):
            each.send(SLOW_STARTS[number % len(SLOW_STARTS)])
        threads = [Thread(target=drip, args=[slow]), Thread(target=guess)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            over.set()
            for thread in threads:
                thread.join()


def test_idle_and_slow_connections_stop_nobody_else(
    deployment: Deployment, port: int
) -> None:
    deployment.shell(
        "from django.contrib.auth import get_user_model as u\n"
        "u().objects.create_superuser('moderator', 'm@example.org', 'secret')\n"
    )
    web = start(deployment)
    times = []
    with held_up(port):
        until = time.monotonic() + HELD
        while time.monotonic() < until:
            for path in ("/healthz", "/api/requests/"):
                began = time.monotonic()
                assert status(port, path) == 200
                times.append(time.monotonic() - began)
            time.sleep(0.2)
    print(f"{max(times):.3f} s at the most, of {len(times)}")
    # On a busy machine some are slow; if clients held the threads, each would be.
    assert statistics.median(times) < BOUND
    assert "WORKER TIMEOUT" not in web.output
    assert web.stop() == 0


def test_all_web_processes_count_together(deployment: Deployment, port: int) -> None:
    deployment.env |= {"WEB_CONCURRENCY": "3", "THROTTLE_SUBMIT": "5/hour"}
    start(deployment)
    posted = [status(port, "/api/requests/", b'{"text": "x"}') for _ in range(30)]
    assert posted == [201] * 5 + [429] * 25


def test_a_body_that_is_too_large_is_answered(
    deployment: Deployment, port: int
) -> None:
    start(deployment)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE)
    body = b"[" * 3_000_000
    headers = {"Content-Type": "application/json"}
    connection.request("POST", "/api/requests/", body, headers)
    with connection.getresponse() as answer:
        assert answer.status == 413
        assert "too large" in json.load(answer)["detail"]
    connection.close()


def test_a_worker_that_is_replaced_leaves_no_gap(
    deployment: Deployment, port: int
) -> None:
    deployment.env["WEB_MAX_REQUESTS"] = "20"
    web = start(deployment)
    answers = [status(port, "/healthz") for _ in range(100)]
    assert answers == [200] * 100
    assert "Autorestarting worker" in web.output
