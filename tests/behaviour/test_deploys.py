"""Deploys under load, on a platform that sends SIGTERM and soon after SIGKILL."""

from __future__ import annotations

import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from prodserver_celery5.pytest_plugin.process import ProcessError, StartedProcess

from .outcomes import Outcomes
from .sides import SIDES, Site

MakeSite = Callable[[str, str], Site]

# Celery 5.2 and older read their entry points in ways that warn.
pytestmark = [
    pytest.mark.filterwarnings("ignore:SelectableGroups:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:pkg_resources:UserWarning"),
]

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
    for site in sites:
        site.env.pop("COVERAGE_PROCESS_CONFIG", None)
    with ThreadPoolExecutor() as executor:
        command, ours = executor.map(
            lambda site: deployed(site, pool, sent=1000, deploys=6, between=10), sites
        )
    outcomes.add(f"1,000 tasks, six deploys, {pool}, {server}", command, ours)
    assert ours["lost"] == 0
