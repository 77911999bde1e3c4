"""An APM agent sees of a worker's tasks what it sees under ``celery worker``."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from .agents import AGENTS, TASKS, TRANSPORT
from .sides import READY, SIDES, Site, both

pytestmark = pytest.mark.once

MakeSite = Callable[[str, str], Site]

# When they are started in each run of the tests; `nox -s compared` has the others.
QUICK = {
    "sentry_sdk": {"settings"},
    "opentelemetry.instrumentation.celery": {
        "settings",
        "celeryd_after_setup",
        "worker_process_init",
    },
}

# Sentry wraps what traces a task; once that is made it sees nothing, on both sides.
TOO_LATE = {("sentry_sdk", "worker_process_init")}

# When the agent is started, and the pool.
CASES = [
    ("settings", "prefork"),
    ("settings", "gevent"),
    ("celeryd_after_setup", "prefork"),
    ("worker_process_init", "prefork"),
]


def seen(site: Site, agent: str, when: str, pool: str) -> dict[str, Any]:
    """What the agent sends of three tasks, each in a child of its own."""
    (site.folder / "own_tasks.py").write_text(TASKS)
    (site.folder / "own_transport.py").write_text(TRANSPORT)
    started = "start_agent()\n"
    if when != "settings":
        started = (
            f"from celery.signals import {when}\n"
            f"{when}.connect(lambda **kwargs: start_agent(), weak=False)\n"
        )
    site.configure(
        "CELERY_IMPORTS = ('own_tasks',)\n"
        # An agent that a child starts may take its time on a busy machine.
        "CELERY_WORKER_PROC_ALIVE_TIMEOUT = 60\n"
        f"{AGENTS[agent]}\n{started}"
    )
    args = {"max_tasks_per_child": 1} if pool == "prefork" else {}
    args |= {"without_mingle": True, "without_gossip": True}
    worker = site.run("worker", pool=pool, concurrency=1, **args)
    worker.wait_for(READY)
    with site.app() as app:
        for task in ("outer", "fails", "outer"):
            app.send_task(task)
    site.wait_until(lambda: len(site.notes()) == 3)
    status = worker.stop(signal.SIGTERM)
    sent = site.notes_file.with_suffix(".sink")
    lines = sent.read_text().splitlines() if sent.exists() else []
    return {"sent": Counter(lines), "status": status}


def marks(agent: str, when: str) -> list[pytest.MarkDecorator]:
    return [] if when in QUICK.get(agent, ()) else [pytest.mark.long]


@pytest.mark.parametrize(
    ("agent", "when", "pool"),
    [
        pytest.param(agent, *case, marks=marks(agent, case[0]))
        for agent in AGENTS
        for case in CASES
    ],
)
def test_an_agent_sees_the_same(
    make_site: MakeSite, agent: str, when: str, pool: str
) -> None:
    pytest.importorskip(agent)
    sites = [make_site(side, "redis") for side in SIDES]
    command, ours = both(lambda site: seen(site, agent, when, pool), sites)
    assert ours["status"] == command["status"] == 0
    assert ours["sent"] == command["sent"]
    assert bool(ours["sent"]) is ((agent, when) not in TOO_LATE)
