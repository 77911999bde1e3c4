"""GRACE_SECONDS: a worker gives back what it cannot finish in time; it exits with 0."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import product
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest
import redis

from dev.servers import SecureRedis, Sentinel
from prodserver_celery5.pytest_plugin.process import StartedProcess
from tests.blows.relay import Relay
from tests.deployment import is_alive, wait_until_asleep

from .scenarios import POOL_STOPS
from .sides import Site

MakeSite = Callable[[str, str], Site]

# Celery 5.2 and older read their entry points in ways that warn.
pytestmark = [
    pytest.mark.filterwarnings("ignore:SelectableGroups:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:pkg_resources:UserWarning"),
]

GREEN = ("gevent", "eventlet")
POOLS = ("prefork", "threads", *GREEN)


def each(pools: tuple[str, ...], *always: str) -> pytest.MarkDecorator:
    """Pair all pools and brokers; all but `always` run only in `nox -s deploys`."""
    return pytest.mark.parametrize(
        ("server", "pool"),
        [
            pytest.param(
                *case, marks=() if "-".join(case) in always else pytest.mark.deploys
            )
            for case in product(("redis", "rabbitmq"), pools)
        ],
    )


def graceful(site: Site, seconds: float, **args: Any) -> StartedProcess:
    """Start a worker with GRACE_SECONDS."""
    site.configure(f"PRODUCTION_PROCESSES['worker']['GRACE_SECONDS'] = {seconds}\n")
    return site.ready(**args)


def expect_queued(site: Site, count: int) -> None:
    """Expect so many messages in the queue; none may wait for a visibility timeout."""
    if site.broker.startswith("redis:"):
        with site.app() as app, app.connection_for_write() as connection:
            client = connection.default_channel.client
            assert client.hlen("unacked") == 0
    else:
        # RabbitMQ takes a moment to see that the connection is closed.
        with suppress(TimeoutError):
            site.wait_until(lambda: site.waiting() == count, 20)
    assert site.waiting() == count


def given_back(worker: StartedProcess) -> set[str]:
    """Return the ids of the running tasks that the worker says it gave back."""
    return set(re.findall(r"Given back: \S+\[(\S+)\]", worker.output))


def finish(site: Site, count: int, **args: Any) -> None:
    """Let another worker do what is queued."""
    site.gate.touch()
    worker = site.ready(**args)
    site.wait_until(lambda: len(site.done()) == count)
    assert site.end(worker, signal.SIGTERM)["status"] == 0


@each((*POOLS, "solo"), "redis-prefork", "redis-solo", "rabbitmq-gevent")
def test_what_is_not_done_in_time_goes_back(
    make_site: MakeSite, server: str, pool: str
) -> None:
    site = make_site("prodserver", server)
    at_once = 1 if pool == "solo" else 2
    pidfile = site.folder / "worker.pid"
    worker = graceful(
        site, 1.5, pool=pool, concurrency=at_once, pidfile=pidfile, loglevel="DEBUG"
    )
    children = psutil.Process(worker.pid).children(recursive=True)
    # More than it prefetches, so that a green pool's loop waits for a free slot.
    sent = 15
    ids = site.send("hold_late", *((f"{n}",) for n in range(sent)))
    site.wait_until(lambda: len(site.done("began ")) == at_once)
    # A child begins before its worker hears of it.
    worker.wait_for("Task accepted", count=at_once)
    outcome = site.end(worker, signal.SIGTERM)
    assert outcome["status"] == 0
    assert outcome["seconds"] > 1.5
    expect_queued(site, sent)
    assert len(given_back(worker)) == at_once
    assert given_back(worker) < set(ids)
    assert re.search(
        rf"gave back {at_once} running and \d+ unstarted tasks; lost 0\.", worker.output
    )
    assert not pidfile.exists()
    site.wait_until(lambda: not any(is_alive(child) for child in children))
    finish(site, sent, pool=pool, concurrency=2)


@each(GREEN, "redis-gevent", "redis-eventlet")
def test_a_task_that_blocks_the_hub_stops_nothing(
    make_site: MakeSite, server: str, pool: str
) -> None:
    site = make_site("prodserver", server)
    worker = graceful(site, 1.5, pool=pool, concurrency=2)
    site.send("block_late", ("a",))
    site.wait_until(lambda: site.done("began "))
    # Redis hands one of them to a worker that cannot read it.
    site.send("hold_late", ("b",), ("c",))
    assert site.end(worker, signal.SIGTERM)["status"] == 0
    expect_queued(site, 3)
    assert len(given_back(worker)) == 1
    finish(site, 3, pool="threads", concurrency=2)


@each(POOLS, "redis-prefork", "redis-eventlet", "rabbitmq-threads")
def test_what_has_ended_in_time_is_acknowledged(
    make_site: MakeSite, server: str, pool: str
) -> None:
    site = make_site("prodserver", server)
    worker = graceful(
        site, 8, pool=pool, concurrency=2, prefetch_multiplier=1, loglevel="DEBUG"
    )
    (held,) = site.send("hold_late", ("a",))
    site.send("nap_late", (1.5, "b"))
    worker.wait_for("Task accepted", count=2)
    assert site.end(worker, signal.SIGTERM)["status"] == 0
    assert site.done() == {"ended b"}
    expect_queued(site, 1)
    assert given_back(worker) == {held}


@each(("prefork",), "redis-prefork")
def test_each_of_many_children_is_heard_in_time(
    make_site: MakeSite, server: str, pool: str
) -> None:
    """Celery alone hears of the last one after half a second for each child."""
    site = make_site("prodserver", server)
    worker = graceful(
        site, 7, pool=pool, concurrency=20, prefetch_multiplier=1, loglevel="DEBUG"
    )
    held = []
    for n in range(5):
        held += site.send("hold_late", *((f"{n}",) for _ in range(3)))
        site.send("nap_late", (4, f"{n}"))
    worker.wait_for("Task accepted", count=20)
    assert site.end(worker, signal.SIGTERM)["status"] == 0
    assert len(site.done()) == 5
    assert given_back(worker) == set(held)
    expect_queued(site, 15)


@each(POOLS, "redis-prefork")
def test_a_signal_in_the_midst_of_messages_loses_none(
    make_site: MakeSite, server: str, pool: str
) -> None:
    """Celery alone, up to 5.2, lost one in every second run, on Redis with prefork."""
    site = make_site("prodserver", server)
    worker = graceful(site, 2, pool=pool, concurrency=2, prefetch_multiplier=20)
    site.send("hold_late", *((f"{n}",) for n in range(50)))
    site.wait_until(lambda: site.done("began "))
    assert site.end(worker, signal.SIGTERM)["status"] == 0
    expect_queued(site, 50)


@pytest.mark.parametrize("server", ["rabbitmq"])
def test_an_early_acknowledged_task_is_named_as_lost(
    make_site: MakeSite, server: str
) -> None:
    site = make_site("prodserver", server)
    worker = graceful(site, 1, pool="prefork", concurrency=2)
    (early,) = site.send("hold", ("early",))
    (late,) = site.send("hold_late", ("late",))
    site.wait_until(lambda: len(site.done("began ")) == 2)
    site.send("hold", ("waiting",))
    with site.app() as app:
        app.send_task("tests.behaviour.tasks.hold", ("at five",), countdown=3600)
    worker.wait_for(r"Received task|\] received", count=4)
    wait_until_asleep(worker)  # it logs a task before it has it
    assert site.end(worker, signal.SIGTERM)["status"] == 0
    assert f"Lost, not acks_late: tests.behaviour.tasks.hold[{early}]" in worker.output
    assert given_back(worker) == {late}
    assert (
        "1 s after SIGTERM: gave back 1 running and 2 unstarted tasks; lost 1."
        in worker.output
    )
    expect_queued(site, 3)


@pytest.mark.parametrize("server", ["rabbitmq"])
def test_a_process_that_has_inherited_the_connection_does_not_keep_it(
    make_site: MakeSite, server: str
) -> None:
    site = make_site("prodserver", server)
    worker = graceful(site, 1, concurrency=1, max_tasks_per_child=1)
    (first,) = site.children(worker)
    site.send("write", ("first",))
    site.wait_until(lambda: site.children(worker) not in ({first}, set()))
    site.send("hold_forked", ("a",))
    site.wait_until(lambda: site.done("began "))
    assert site.end(worker, signal.SIGTERM)["status"] == 0
    expect_queued(site, 1)
    site.gate.touch()


def test_a_message_that_comes_as_the_worker_stops_is_not_lost(
    make_site: MakeSite,
) -> None:
    """Redis sends it in reply to a request that nobody waits for any more."""
    site = make_site("prodserver", "redis")
    worker = graceful(site, 4, concurrency=1, loglevel="DEBUG")
    site.send("hold_late", ("a",))
    site.wait_until(lambda: site.done("began "))
    worker.send(signal.SIGTERM)
    worker.wait_for(POOL_STOPS)
    site.send("hold_late", ("b",))
    assert worker.wait() == 0
    expect_queued(site, 2)
    finish(site, 2)


@each(POOLS, "redis-prefork")
def test_without_tasks_it_ends_at_once(
    make_site: MakeSite, server: str, pool: str
) -> None:
    site = make_site("prodserver", server)
    worker = graceful(site, 3600, pool=pool, concurrency=2)
    assert site.end(worker, signal.SIGTERM)["status"] == 0
    assert "after SIGTERM" not in worker.output


@each(POOLS, "redis-gevent")
def test_with_the_last_task_it_ends(
    make_site: MakeSite, server: str, pool: str
) -> None:
    site = make_site("prodserver", server)
    worker = graceful(site, 3600, pool=pool, concurrency=2)
    site.send("hold_late", ("a",))
    site.wait_until(lambda: site.done("began "))
    worker.send(signal.SIGTERM)
    site.gate.touch()
    assert worker.wait() == 0
    assert site.done() == {"ended a"}
    assert "after SIGTERM" not in worker.output


@pytest.mark.parametrize(
    "how",
    [
        "SIGINT",
        *(
            pytest.param(how, marks=pytest.mark.deploys)
            for how in ("SIGHUP", "shutdown")
        ),
    ],
)
def test_an_end_that_is_no_platforms_has_no_limit(
    make_site: MakeSite, how: str
) -> None:
    site = make_site("prodserver", "redis")
    worker = graceful(site, 0.5, concurrency=1, loglevel="DEBUG")
    site.send("hold_late", ("a",))
    worker.wait_for("Task accepted")
    wait_until_asleep(worker)
    if how == "shutdown":
        with site.app() as app:
            app.control.shutdown()
    else:
        worker.send(signal.Signals[how])
    worker.wait_for(POOL_STOPS)
    time.sleep(1)
    assert worker.popen.poll() is None
    site.gate.touch()
    if how == "SIGHUP":
        worker.wait_for(r"\S+ ready\.", count=2)
        worker.send(signal.SIGTERM)
    assert worker.wait() == (how == "SIGINT")
    assert site.done() == {"ended a"}


def test_the_first_sigterm_counts(make_site: MakeSite) -> None:
    site = make_site("prodserver", "redis")
    worker = graceful(site, 8, concurrency=1, loglevel="DEBUG")
    site.send("hold_late", ("a",), ("b",))
    worker.wait_for("Task accepted")
    worker.wait_for(r"Received task|\] received", count=2)
    wait_until_asleep(worker)
    began = time.monotonic()
    worker.send(signal.SIGTERM)
    worker.wait_for("Warm shutdown")
    time.sleep(1)
    worker.send(signal.SIGTERM)
    worker.wait_for("Warm shutdown", count=2)
    assert worker.wait() == 0
    assert time.monotonic() - began > 8
    assert worker.output.count("after SIGTERM") == 1
    assert "gave back 1 running and 1 unstarted tasks; lost 0." in worker.output
    expect_queued(site, 2)


def test_what_has_been_revoked_is_not_forgotten(make_site: MakeSite) -> None:
    site = make_site("prodserver", "redis")
    database = {"statedb": site.folder / "state"}
    worker = graceful(site, 1, concurrency=1, **database)
    _, revoked = site.send("hold_late", ("a",), ("b",))
    site.wait_until(lambda: site.done("began "))
    with site.app() as app:
        app.control.revoke(revoked)
    worker.wait_for("Tasks flagged as revoked")
    assert site.end(worker, signal.SIGTERM)["status"] == 0
    site.gate.touch()
    worker = site.ready(concurrency=1, **database)
    site.wait_until(lambda: site.done() and not site.waiting())
    assert site.end(worker, signal.SIGTERM)["status"] == 0
    assert site.done() == {"ended a"}


# At the deadline the broker refuses connections, is silent, or has not noticed that the
# worker's connection is closed (half open).
BROKERS = ("redis", "rediss", "sentinel", "rabbitmq", "amqps")
ALWAYS = (
    "redis-refused", "rediss-silent", "sentinel-refused", "rabbitmq-silent",
    "rabbitmq-half open", "amqps-refused", "amqps-half open",
)  # fmt: skip


@contextmanager
def relayed(
    kind: str, folder: Path, broker: Callable[[str, Path, ExitStack], Any]
) -> Iterator[tuple[Site, Relay]]:
    """Make a site whose workers, and nobody else, reach its broker through a relay."""
    with ExitStack() as stack:
        if kind in ("rediss", "sentinel"):
            server = (SecureRedis if kind == "rediss" else Sentinel)(folder, stack)
        else:
            server = broker("redis" if kind == "redis" else "rabbitmq", folder, stack)
        url = urlsplit(server.url())
        is_secure = kind in ("rediss", "amqps")
        relay = stack.enter_context(
            Relay(server.secure_port if is_secure else server.port)
        )
        user = f"{url.username}:{url.password}@" if url.username else ""
        direct = url._replace(
            scheme="amqp" if user else "redis",
            netloc=f"{user}127.0.0.1:{server.port}",
        )
        site = Site("prodserver", folder, stack, direct.geturl(), server)
        code = ""
        if kind == "sentinel":
            site.env["REDIS_URL"] = url.geturl()
            with redis.Redis(port=server.sentinel_port) as client:
                client.sentinel_remove("main")
                client.sentinel_monitor("main", "127.0.0.1", relay.port, 1)
                client.sentinel_set("main", "down-after-milliseconds", 1000)
            code = f"CELERY_BROKER_TRANSPORT_OPTIONS = {server.transport_options!r}\n"
        else:
            netloc = f"{user}127.0.0.1:{relay.port}"
            scheme = "amqps" if kind == "amqps" else url.scheme
            site.env["REDIS_URL"] = direct._replace(
                scheme=scheme, netloc=netloc
            ).geturl()
        if is_secure:
            name = "ssl_cert_reqs" if kind == "rediss" else "cert_reqs"
            code = f"import ssl\nCELERY_BROKER_USE_SSL = {{{name!r}: ssl.CERT_NONE}}\n"
        # Celery's loop may sleep for two seconds before it sees SIGTERM.
        site.configure(f"{code}PRODUCTION_PROCESSES['worker']['GRACE_SECONDS'] = 4\n")
        yield site, relay


@pytest.mark.parametrize(
    ("kind", "state"),
    [
        pytest.param(
            *case, marks=() if "-".join(case) in ALWAYS else pytest.mark.deploys
        )
        for case in product(BROKERS, ("refused", "silent", "half open"))
    ],
)
def test_what_could_not_go_back_is_named(
    tmp_path: Path,
    migrated: Path,
    broker: Callable[[str, Path, ExitStack], Any],
    kind: str,
    state: str,
) -> None:
    shutil.copy(migrated, tmp_path / "db.sqlite3")
    with relayed(kind, tmp_path, broker) as (site, relay):
        worker = site.ready(concurrency=2, prefetch_multiplier=2, loglevel="DEBUG")
        running = site.send("hold_late", ("a",), ("b",))
        worker.wait_for("Task accepted", count=2)
        fetched = site.send("hold_late", ("c",))
        worker.wait_for(r"Received task|\] received", count=3)
        wait_until_asleep(worker)
        if state == "refused":
            relay.leave()
            # By then it has forgotten what it had only fetched.
            worker.wait_for("Cannot connect to")
        if state == "silent":
            relay.silence()
        worker.send(signal.SIGTERM)
        if state == "half open":
            worker.wait_for(POOL_STOPS)
            relay.forget()
        assert worker.wait() == 0
        (total,) = re.findall("gave back .*", worker.output)
        stuck = set(re.findall(r"Not given back: \S+\[(\S+)\]", worker.output))
        if site.broker.startswith("redis:"):
            if state == "half open":
                assert given_back(worker) == set(running)
                assert total == "gave back 2 running and 1 unstarted tasks; lost 0."
                expect_queued(site, 3)
                return
            assert stuck == {*running, *fetched}
            assert "3 could not be given back" in worker.output
            assert "Redis hands each out again 3600 s after" in worker.output
            with site.app() as app, app.connection_for_write() as connection:
                assert connection.default_channel.client.hlen("unacked") == 3
        else:
            # What it had only fetched, RabbitMQ has back with the lost connection.
            assert stuck == {*running, *(fetched if state != "refused" else ())}
            assert "RabbitMQ hands them out as soon as it sees" in worker.output
            if state != "refused":
                assert site.waiting() == 0
            relay.leave()
            expect_queued(site, 3)
        assert given_back(worker) == set()
        assert total == "gave back 0 running and 0 unstarted tasks; lost 0."


def test_what_a_connection_fetched_before_it_was_lost_goes_back(
    make_site: MakeSite,
) -> None:
    """On Redis it would wait for the visibility timeout."""
    site = make_site("prodserver", "redis")
    host = urlsplit(site.broker)
    with Relay(host.port) as relay:
        site.env["REDIS_URL"] = site.broker.replace(str(host.port), str(relay.port))
        worker = graceful(site, 2, concurrency=1, prefetch_multiplier=2)
        running, _ = site.send("hold_late", ("a",), ("b",))
        worker.wait_for(r"Received task|\] received", count=2)
        site.wait_until(lambda: site.done("began "))
        relay.leave()
        # Only now has kombu failed to restore them itself.
        worker.wait_for("Cannot connect to redis")
        relay.come_back()
        worker.wait_for("Connected to redis", count=2)
        wait_until_asleep(worker)
        assert site.end(worker, signal.SIGTERM)["status"] == 0
    assert given_back(worker) == {running}
    assert "gave back 1 running and 1 unstarted tasks; lost 0." in worker.output
    expect_queued(site, 2)


@pytest.mark.parametrize(
    ("pool", "status"), [("solo", 1), ("threads", -signal.SIGALRM)]
)
def test_c_code_that_keeps_the_interpreter_ends_too(
    make_site: MakeSite, pool: str, status: int
) -> None:
    """No thread of Python's gets a turn; the line that hangs is named."""
    site = make_site("prodserver", "redis")
    worker = graceful(site, 1, pool=pool)
    site.send("match_late", ("a",))
    site.wait_until(lambda: site.done("began "))
    guards = psutil.Process(worker.pid).children()
    assert len(guards) == (pool == "threads")
    assert site.end(worker, signal.SIGTERM)["status"] == status
    site.wait_until(lambda: not any(map(is_alive, guards)))
    assert re.search(r'File ".*tasks.py", line \d+ in match_late', worker.output)
    assert "after SIGTERM" not in worker.output


def test_without_the_key_nothing_of_it_is_loaded(make_site: MakeSite) -> None:
    site = make_site("prodserver", "redis")
    program = site.folder / "loaded.py"
    program.write_text(
        "import sys\n"
        "from celery import signals\n"
        "@signals.worker_init.connect(weak=False)\n"
        "def tell(**_):\n"
        "    is_loaded = 'prodserver_celery5.grace.shutdown' in sys.modules\n"
        "    print('loaded:', is_loaded, flush=True)\n"
    )
    site.configure("import loaded\n")
    worker = site.ready()
    assert "loaded: False" in worker.output
    assert site.end_idle(worker)["status"] == 0
    site.configure(
        "import loaded\nPRODUCTION_PROCESSES['worker']['GRACE_SECONDS'] = 9\n"
    )
    worker = site.ready()
    assert "loaded: True" in worker.output
    assert worker.stop() == 0


# The main thread leaves while another one gives back, through greenlets of its own.
LEAVING = """
import atexit, sys, time
{patch}
from types import SimpleNamespace as Fake
from kombu.asynchronous.timer import Timer
from prodserver_celery5.grace import shutdown
from prodserver_celery5.grace.brokers import unpatched

# On a busy machine, too.
shutdown.SECONDS_TO_GIVE_BACK = shutdown.SECONDS_TO_END = 60

def close():
    gives_back.release()
    leaves.acquire()
    for _ in range(100):
        time.sleep(0.005)
    print("gave back", flush=True)

gives_back, leaves = (unpatched("_thread", "allocate_lock")() for _ in range(2))
gives_back.acquire(), leaves.acquire()
connection = Fake(transport=Fake(driver_type="other"), close=close)
grace = shutdown.Grace(
    Fake(
        state=Fake(active_requests=set(), reserved_requests=set()),
        consumer=Fake(connection=connection, timer=Timer()),
        pool=Fake(is_green=True, spawn_n=print),
        hub=None, pidlock=None, statedb=None,
    ),
    0.1,
)
atexit.register(leaves.release)
grace.begin("SIGTERM")
gives_back.acquire()
sys.exit(7)
"""


@pytest.mark.parametrize(
    "patch",
    [
        "from gevent import monkey; monkey.patch_all()",
        "import eventlet; eventlet.monkey_patch()",
    ],
    ids=GREEN,
)
def test_no_worker_leaves_while_messages_go_back(patch: str) -> None:
    """Up to 3.13 Python unwinds the stack, and crashes where greenlets switched."""
    done = subprocess.run(
        [sys.executable, "-c", LEAVING.format(patch=patch)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "gave back" in done.stdout, done.stderr
    assert done.returncode == 0
