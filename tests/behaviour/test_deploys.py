"""Deploys under load, on a platform that sends SIGTERM and soon after SIGKILL."""

from __future__ import annotations

import random
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import VERSION, Celery, chain, chord
from kombu import Queue
from kombu.common import Broadcast

from dev.servers import Redis, SecureRedis, Sentinel
from prodserver_celery5.pytest_plugin.process import ProcessError, StartedProcess
from tests.deployment import wait_until_asleep

from .outcomes import Outcomes
from .sides import SIDES, Site

MakeSite = Callable[[str, str], Site]

# Celery 5.2 and older read their entry points in ways that warn.
pytestmark = [
    pytest.mark.filterwarnings("ignore:SelectableGroups:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:pkg_resources:UserWarning"),
]

needs_quorum_queues = pytest.mark.skipif(
    VERSION < (5, 5), reason="Celery has no quorum queues; what else it offers is older"
)

GRACE = 3
AT_ONCE = 50
AFTER = 60


def deployed(
    site: Site, pool: str, *, sent: int, deploys: int, between: float
) -> dict[str, Any]:
    """Deploy under load; count what is lost or runs twice, up to a minute later.

    Args:
        site: of the `celery` command, which is killed, or ours, which ends in time.
        pool: of the workers.
        sent: how many tasks.
        deploys: how often.
        between: seconds before each.
    """
    lengths = random.Random(20261125)
    site.configure(f"PRODUCTION_PROCESSES['worker']['GRACE_SECONDS'] = {GRACE}\n")
    site.send("nap_late", *((lengths.uniform(0, 4), n) for n in range(sent)))

    def ready() -> StartedProcess:
        return site.ready(pool=pool, concurrency=AT_ONCE)

    worker, slowest = ready(), 0.0
    for _ in range(deploys):
        time.sleep(between)
        began = time.monotonic()
        worker.send(signal.SIGTERM)
        try:
            status = worker.wait(timeout=GRACE if site.side == "celery" else 30)
        except ProcessError:
            assert site.side == "celery"
            worker.kill()
        else:
            assert status == 0
        slowest = max(slowest, time.monotonic() - began)
        worker = ready()
    last = time.monotonic()
    # What is redelivered is queued by now, or waits out the visibility timeout.
    while time.monotonic() < last + AFTER and (
        len(site.done()) < sent or site.waiting()
    ):
        time.sleep(0.5)
    took = time.monotonic() - last
    began_often = Counter(note for note in site.notes() if note.startswith("began "))
    worker.kill()
    return {
        "lost": sent - len(site.done()),
        "ran": len(site.done()),
        "begun twice or more": sum(count > 1 for count in began_often.values()),
        "seconds": took,
        "slowest end": slowest,
    }


def test_a_deploy(make_site: MakeSite) -> None:
    site = make_site("prodserver", "redis")
    outcome = deployed(site, "gevent", sent=150, deploys=1, between=3)
    assert outcome["lost"] == 0


@pytest.mark.deploys
@pytest.mark.parametrize("pool", ["prefork", "threads", "gevent", "eventlet"])
@pytest.mark.parametrize("server", ["redis", "rabbitmq"])
def test_six_deploys_and_a_thousand_tasks(
    make_site: MakeSite, outcomes: Outcomes, server: str, pool: str
) -> None:
    sites = [make_site(side, server) for side in SIDES]
    with ThreadPoolExecutor() as executor:
        command, ours = executor.map(
            lambda site: deployed(site, pool, sent=1000, deploys=6, between=10), sites
        )
    outcomes.add(f"1,000 tasks, six deploys, {pool}, {server}", command, ours)
    assert ours["lost"] == 0


# Features, each through one deploy in the midst of its tasks

FEATURES = """
from kombu import Queue
from kombu.common import Broadcast
CELERY_TASK_IGNORE_RESULT = False
CELERY_RESULT_BACKEND = CELERY_BROKER_URL
CELERY_TASK_QUEUES = [Queue("celery"), Broadcast("all")]
CELERY_BROKER_TRANSPORT_OPTIONS = {
    "global_keyprefix": "shop:",
    "priority_steps": [0, 5, 9],
    "queue_order_strategy": "priority",
    "visibility_timeout": 4,
}
PRODUCTION_PROCESSES["worker"]["GRACE_SECONDS"] = 1
"""


@needs_quorum_queues
def test_what_celery_offers_on_redis_survives_a_deploy(make_site: MakeSite) -> None:
    """With children that come and go, and an ETA behind the visibility timeout."""
    site = make_site("prodserver", "redis of its own")
    site.configure(FEATURES)
    args = {"autoscale": "3,1", "max_tasks_per_child": 2}
    worker = site.ready(**args)
    options = {"global_keyprefix": "shop:", "priority_steps": [0, 5, 9]}
    queues = [Queue("celery"), Broadcast("all")]
    # Celery does not declare it, and kombu would send to it as to a direct exchange.
    to_all = {"queue": "all", "declare": [queues[1].exchange]}
    with client(site, broker_transport_options=options, task_queues=queues) as app:

        def nap(name: str, seconds: float = 0.7) -> Any:
            task = "tests.behaviour.tasks.nap_late"
            return app.signature(task, (seconds, name), immutable=True)

        for priority in (0, 5, 9):
            nap(f"priority {priority}").apply_async(priority=priority)
        app.send_task("tests.behaviour.tasks.retry_late", ("retry",))
        chain(*(nap(f"link {n}") for n in range(3)), app=app).apply_async()
        chord((nap(f"member {n}", 2) for n in range(3)), nap("body"), app=app).delay()
        nap("eta").apply_async(countdown=6)
        site.wait_until(lambda: site.done("began "))
        app.send_task("tests.behaviour.tasks.write", ("heard once",), **to_all)
        site.wait_until(lambda: "heard once" in site.notes())
        assert site.end(worker, signal.SIGTERM)["status"] == 0
        worker = site.ready(**args)
        names = [*(f"priority {n}" for n in (0, 5, 9)), "retry", "body", "eta"]
        names += [f"{what} {n}" for what in ("link", "member") for n in range(3)]
        site.wait_until(lambda: site.done() >= {f"ended {name}" for name in names})
        app.send_task("tests.behaviour.tasks.write", ("heard twice",), **to_all)
        site.wait_until(lambda: "heard twice" in site.notes())
    end_with_nothing_left(site, worker, site.server.port)


@needs_quorum_queues
@pytest.mark.parametrize("kind", [SecureRedis, Sentinel])
def test_another_way_to_redis_survives_a_deploy(
    tmp_path: Path, migrated: Path, kind: type[Redis]
) -> None:
    with ExitStack() as stack:
        server = kind(tmp_path, stack)
        shutil.copy(migrated, tmp_path / "db.sqlite3")
        site = Site("prodserver", tmp_path, stack, server.url(), server)
        site.configure(
            f"CELERY_BROKER_TRANSPORT_OPTIONS = {server.transport_options!r}\n"
            f"CELERY_BROKER_USE_SSL = {server.use_ssl!r}\n"
            "PRODUCTION_PROCESSES['worker']['GRACE_SECONDS'] = 1\n"
        )
        with client(
            site,
            broker_transport_options=server.transport_options,
            broker_use_ssl=server.use_ssl,
        ) as app:
            worker = deployed_once(site, app)
        end_with_nothing_left(site, worker, server.port)


@pytest.mark.parametrize("server", ["rabbitmq"])
@needs_quorum_queues
def test_quorum_queues_survive_a_deploy(make_site: MakeSite, server: str) -> None:
    site = make_site("prodserver", server)
    site.configure(
        'CELERY_TASK_DEFAULT_QUEUE_TYPE = "quorum"\n'
        "PRODUCTION_PROCESSES['worker']['GRACE_SECONDS'] = 1\n"
    )
    with client(site, task_default_queue_type="quorum") as app:
        worker = deployed_once(site, app)
        assert site.end(worker, signal.SIGTERM)["status"] == 0
        with app.connection_for_write() as connection:
            queue = connection.default_channel.queue_declare("celery", passive=True)
            assert queue.message_count == 0


@contextmanager
def client(site: Site, **conf: Any) -> Iterator[Celery]:
    """Make a client that knows the site's settings, and results on Redis."""
    backend = site.broker if site.broker.startswith("redis:") else None
    with Celery(
        "client", broker=site.broker, backend=backend, set_as_current=False
    ) as app:
        app.conf.update(conf)
        yield app


def deployed_once(site: Site, app: Celery) -> StartedProcess:
    """Deploy in the midst of eight tasks, and wait until they are done."""
    worker = site.ready(concurrency=2)
    for n in range(8):
        app.send_task("tests.behaviour.tasks.nap_late", (n / 2, f"{n}"))
    site.wait_until(lambda: len(site.done()) >= 2)
    assert site.end(worker, signal.SIGTERM)["status"] == 0
    worker = site.ready(concurrency=2)
    site.wait_until(lambda: len(site.done()) == 8)
    return worker


def end_with_nothing_left(site: Site, worker: StartedProcess, port: int) -> None:
    """End the worker, and expect no message anywhere in Redis."""
    wait_until_asleep(worker)
    assert site.end(worker, signal.SIGTERM)["status"] == 0
    with redis.Redis(port=port, db=1) as client:
        left = {
            key: client.lrange(key, 0, -1) if kind == b"list" else client.hkeys(key)
            for key in client.scan_iter()
            if (kind := client.type(key)) == b"list" or key.endswith(b"unacked")
        }
    assert not left
