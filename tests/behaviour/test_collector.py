"""The garbage collector: a project's own settings win, and its last run happens."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from .sides import SIDES, Site, both

MakeSite = Callable[[str, str], Site]

# A task module with a file that only the collector's last run flushes.
TASKS = """
import gc
import json
import os

from celery import shared_task
from tests.behaviour.tasks import note

{top}


class Keeper:
    def __init__(self):
        self.file = open(os.environ["NOTES"] + ".kept", "w")
        self.callback = self.file.write
        self.itself = self


keeper = Keeper()
keeper.callback("kept")


def state(where):
    sees = any(each is keeper for each in gc.get_objects())
    note(json.dumps([where, gc.isenabled(), gc.get_threshold(), sees]))


@shared_task(name="collector")
def collector():
    state("task")
"""

SETTINGS = """
CELERY_IMPORTS = ('tests.behaviour.tasks', 'own_tasks')
import gc
from celery import signals

def tell(where):
    import own_tasks
    own_tasks.state(where)

{connected}

@signals.worker_ready.connect
def ready(**kwargs):
    tell('ready')
"""

# The app's own Worker class, as some public projects have.
SILENT = """
from celery.apps.worker import Worker
from prayer_room_api import celery_app

class Silent(Worker):
    def on_start(self):
        self.install_platform_tweaks(self)

celery_app.Worker = celery_app.subclass_with_self(Silent)
"""


def receiver(name: str, body: str) -> str:
    return f"@signals.{name}.connect\ndef at_{name}(**kwargs):\n    {body}\n"


# The top of the task module, the receivers, and whose tasks see what was loaded.
CASES: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "task module, celeryd_init": (
        "gc.disable()",
        receiver("celeryd_init", "gc.set_threshold(601, 7, 8)"),
        ("celery",),
    ),
    "worker_init, celeryd_after_setup": (
        "gc.set_threshold(602, 7, 8)",
        receiver("worker_init", "gc.disable(); gc.freeze()")
        + receiver("celeryd_after_setup", "gc.enable(); gc.set_threshold(603)"),
        (),
    ),
    "worker_process_init": (
        "",
        receiver("worker_process_init", "gc.set_threshold(604); gc.unfreeze()"),
        ("celery", "prodserver"),
    ),
    "a class that sends no celeryd_after_setup": ("", SILENT, ("celery",)),
}


def collected(site: Site, case: str) -> dict[str, Any]:
    """Return what the parent, a first child and its replacement note."""
    top, connected, _ = CASES[case]
    (site.folder / "own_tasks.py").write_text(TASKS.format(top=top))
    site.configure(SETTINGS.format(connected=connected))
    worker = site.run("worker", concurrency=1, max_tasks_per_child=2)
    worker.wait_for("Connected to")
    with site.app() as app:
        # After the third, no child is about to be replaced: Celery 5.0 may hang then.
        for _ in range(3):
            app.send_task("collector")
    notes = [json.loads(note) for note in site.wait_for_notes(4)]
    status = site.end_idle(worker)["status"]
    kept = site.notes_file.with_suffix(".kept").read_text()
    return {
        "states": sorted(note[:3] for note in notes),
        "sees": [sees for where, *_, sees in notes if where == "task"],
        "status": status,
        "kept": kept,
    }


@pytest.mark.parametrize("case", CASES)
def test_the_collector_is_the_projects(make_site: MakeSite, case: str) -> None:
    sites = [make_site(side, "redis") for side in SIDES]
    command, ours = both(lambda site: collected(site, case), sites)
    # Our freeze hides what was loaded before it, unless the project undoes it.
    for side, outcome in zip(SIDES, (command, ours), strict=True):
        assert outcome.pop("sees") == [side in CASES[case][2]] * 3
    # What the project itself freezes, only our last collection visits.
    assert command.pop("kept") == ("" if "gc.freeze" in CASES[case][1] else "kept")
    assert ours.pop("kept") == "kept"
    assert ours == command


# Files in cycles that are old, and so seldom collected, when the project drops them.
DROPPED = """
import gc
from celery import signals

class Holder:
    def __init__(self, name):
        self.file = open(f"{folder}/dropped {{name}}", "w")
        self.itself = self

held = [Holder("first"), Holder("second")]
gc.collect()

@signals.worker_init.connect
def at_worker_init(**kwargs):
    held.pop()

@signals.celeryd_after_setup.connect
def at_celeryd_after_setup(**kwargs):
    held.pop()
"""


def open_files(site: Site) -> dict[str, Any]:
    """Return the files of the project that the parent and a child have open."""
    site.configure(DROPPED.format(folder=site.folder))
    worker = site.ready(concurrency=1)
    site.send("write", ("ran",))
    site.wait_for_notes(1)
    assert len(list(site.folder.glob("dropped *"))) == 2
    open_ = [
        link.readlink().name
        for pid in (worker.pid, *site.children(worker))
        for link in Path(f"/proc/{pid}/fd").iterdir()
        if link.is_symlink() and "dropped" in link.readlink().name
    ]
    return site.end_idle(worker) | {"open": open_}


def test_what_is_dropped_before_the_fork_is_freed(make_site: MakeSite) -> None:
    sites = [make_site(side, "redis") for side in SIDES]
    command, ours = both(open_files, sites)
    assert ours["open"] == command["open"] == []
    assert ours["status"] == command["status"] == 0
