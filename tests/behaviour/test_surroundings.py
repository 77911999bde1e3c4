"""What a task and a project find around them, beside ``celery``."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from typing import Any

import celery
import pytest

from .sides import READY, SIDES, Site, both

MakeSite = Callable[[str, str], Site]

KEYS = ("none", "HEARTBEAT_FILE", "NOTIFY_SOCKET", "GRACE_SECONDS")

since_5_3 = pytest.mark.skipif(
    celery.VERSION < (5, 3), reason="older Celery has no custom pool"
)


def configure(site: Site, key: str, code: str, pool: str) -> None:
    """Give our side's entry a key, and both sides a pool of the project's own."""
    (site.folder / "run").mkdir()
    values = {"HEARTBEAT_FILE": str(site.folder / "run" / "file"), "GRACE_SECONDS": 5}
    if key == "NOTIFY_SOCKET":
        site.env[key] = str(site.folder / "nobody listens")
    elif key in values:
        code += f"PRODUCTION_PROCESSES['worker'][{key!r}] = {values[key]!r}\n"
    site.env["CELERY_CUSTOM_WORKER_POOL"] = pool
    site.configure(code)


# Notes which modules are there when a project can patch Celery.
MODULES = """
import json, sys
from celery import signals

def tell(when):
    from tests.behaviour.tasks import note
    loaded = [m for m in sys.modules if m.split(".")[0] in ("celery", "kombu")]
    note(json.dumps({"when": when, "modules": loaded}))

@signals.worker_init.connect
def at_worker_init(**kwargs):
    tell("worker_init")
"""

POOL = """
from celery.concurrency.solo import TaskPool

class TaskPool(TaskPool):
    def __init__(self, *args, **kwargs):
        from django.conf import settings
        settings.TELL("pool")
        super().__init__(*args, **kwargs)
"""


def loaded(site: Site, key: str) -> dict[str, set[str]]:
    """Return the modules of Celery's that are loaded at each moment."""
    (site.folder / "own_pool.py").write_text(POOL)
    configure(site, key, f"{MODULES}\nTELL = tell\n", "own_pool:TaskPool")
    worker = site.ready(pool="custom")
    notes = [json.loads(note) for note in site.notes()]
    assert site.end_idle(worker)["status"] == 0
    return {note["when"]: {*note["modules"]} for note in notes}


@since_5_3
def test_nothing_of_celery_is_imported_earlier(make_site: MakeSite) -> None:
    sites = [make_site("celery", "redis")]
    sites += [make_site("prodserver", "redis") for _ in KEYS]
    order = dict(zip(sites, ["none", *KEYS], strict=True))
    command, *ours = both(lambda site: loaded(site, order[site]), sites)
    assert command.keys() == {"worker_init", "pool"}
    for key, mine in zip(KEYS, ours, strict=True):
        for when, modules in mine.items():
            assert modules - command[when] == set(), f"{key}, at {when}"


COROUTINES = """
from celery import shared_task
from tests.behaviour.tasks import note

@shared_task(name="coroutine")
async def coroutine():
    note("ran")
    return "done"
"""


def awaited(site: Site, key: str) -> dict[str, Any]:
    """Run a task that is a coroutine in celery-aio-pool."""
    (site.folder / "own_tasks.py").write_text(COROUTINES)
    code = "CELERY_IMPORTS = ('own_tasks',)\n"
    configure(site, key, code, "celery_aio_pool.pool:AsyncIOPool")
    worker = site.ready(pool="custom")
    with site.app() as app:
        app.send_task("coroutine")
    worker.wait_for(r"(succeeded|raised)")
    status = site.end_idle(worker)["status"]
    return {"notes": site.notes(), "status": status}


@since_5_3
def test_a_pool_that_patches_celery_comes_in_time(make_site: MakeSite) -> None:
    sites = [make_site("celery", "redis")]
    sites += [make_site("prodserver", "redis") for _ in KEYS]
    order = dict(zip(sites, ["none", *KEYS], strict=True))
    outcomes = both(lambda site: awaited(site, order[site]), sites)
    assert outcomes == [{"notes": ["ran"], "status": 0}] * len(sites)


# A task that looks at how its program was started, and starts others.
WORDS = """
import argparse, json, multiprocessing, runpy, sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from celery import shared_task
from tests.behaviour.tasks import note

TOOL = Path(__file__).with_name("tool.py")
TOOL.write_text("import sys; words = [*sys.argv]")


@shared_task(name="words")
def words():
    sums = []
    for method in ("spawn", "forkserver"):
        context = multiprocessing.get_context(method)
        with ProcessPoolExecutor(1, mp_context=context) as pool:
            sums.append(pool.submit(sum, (1, 2)).result(timeout=60))
    note(json.dumps({
        "type": type(sys.argv).__name__,
        "words": sys.argv,
        "prog": argparse.ArgumentParser().prog,
        "tool": Path(runpy.run_path(str(TOOL))["words"][0]).name,
        "sums": sums,
    }))
"""


def words(site: Site) -> dict[str, Any]:
    """Return what a task sees, and what one sees after SIGHUP.

    In threads: a child of the prefork pool must not have children of its own.
    """
    (site.folder / "own_tasks.py").write_text(WORDS)
    site.configure("CELERY_IMPORTS = ('own_tasks',)\n")
    worker = site.run("worker", python=["-Wignore"], pool="threads", concurrency=1)
    seen = []
    for count in (1, 2):
        worker.wait_for(READY, count=count)
        with site.app() as app:
            app.send_task("words")
        seen.append(json.loads(site.wait_for_notes(count, timeout=90)[-1]))
        if count == 1:
            worker.send(signal.SIGHUP)
    return {"seen": seen, "status": site.end_idle(worker)["status"]}


def test_sys_argv_is_what_the_program_was_started_with(make_site: MakeSite) -> None:
    sites = [make_site(side, "redis") for side in SIDES]
    command, ours = both(words, sites)
    assert ours["status"] == command["status"] == 0
    mine = ["manage.py", "prodserver", "worker"]
    for side, program, given in (
        (command, "celery", command["seen"][0]["words"]),
        (ours, "manage.py", mine),
    ):
        for seen in side["seen"]:
            assert seen == {
                "type": "list",
                "words": given,
                "prog": program,
                "tool": "tool.py",
                "sums": [3, 3],
            }


# A project that configures Celery's logger, and no other.
LOGGING = """
import logging.config
from celery import signals

@signals.setup_logging.connect
def configure(**kwargs):
    logging.config.dictConfig({
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"own": {"format": "own %(name)s: %(message)s"}},
        "handlers": {"own": {"class": "logging.StreamHandler", "formatter": "own"}},
        "loggers": {"celery": {"handlers": ["own"], "level": "INFO"}},
    })
"""


def test_our_lines_go_where_celerys_go(make_site: MakeSite) -> None:
    """The command has no counterpart of them."""
    site = make_site("prodserver", "redis")
    site.configure(
        f"{LOGGING}\n"
        "PRODUCTION_PROCESSES['beat']['LEADER_LOCK'] = 'default'\n"
        "PRODUCTION_PROCESSES['worker']['GRACE_SECONDS'] = 0.1\n"
    )
    beat = site.run("beat")
    beat.wait_for("own celery.beat: beat: Starting")
    beat.wait_for(r"own celery\.prodserver_celery5\.leader\S*: beat: Leading")
    worker = site.run("worker", concurrency=1)
    worker.wait_for("own celery.*ready")
    site.send("hold_late", ("a",))
    site.wait_until_under_way(worker, 1)
    worker.send(signal.SIGTERM)
    worker.wait_for(r"own celery\.prodserver_celery5\.grace\S*: Given back: ")
    assert worker.wait() == 0
    assert beat.stop() == 0
