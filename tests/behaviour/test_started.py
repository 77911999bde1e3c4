"""However the program was started: SIGHUP, a green pool, `detach` as with celery."""

from __future__ import annotations

import json
import os
import signal
import sys
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from dev.procfile import ROOT
from prodserver_celery5.pytest_plugin.process import StartedProcess

from .sides import READY, Site, both

MakeSite = Callable[[str, str], Site]

# As many a manage.py begins.
MANAGE = """
import os
import sys

{before}

def main():
    from django.core.management import execute_from_command_line

    execute_from_command_line(sys.argv)


if __name__ == "__main__":
    main()
"""

CHDIR = "os.chdir(os.path.dirname(os.path.abspath(__file__)))"
APP = "sys.path.append(os.path.dirname(os.path.abspath(__file__)))"

FLAGS = ["-O", "-X", "behaviour", "-W", "ignore:Behaviour:UserWarning"]

# The words of Python, from a folder that has the project in `app`, and its manage.py.
WAYS: dict[str, tuple[list[str], str]] = {
    "script, chdir": (["app/manage.py"], CHDIR),
    "script, relative chdir, flags": (
        [*FLAGS, "./app/manage.py"],
        "os.chdir('app')",
    ),
    "symbolic link": (["bin/manage"], ""),
    "symbolic link, chdir": (["bin/manage"], "os.chdir('/')"),
    "isolated": (["-I", "app/manage.py"], APP),
    "folder": (["app"], CHDIR),
    "zip": (["app.zip"], "os.chdir('/')"),
    "module, chdir": (["-m", "app.manage"], f"{APP}\n{CHDIR}"),
    "package, chdir": (["-m", "app"], f"{APP}\nos.chdir('/')"),
    "code": (["-c", "import app.manage; app.manage.main()"], APP),
    "console script": ([str(Path(sys.executable).with_name("django-admin"))], ""),
}  # fmt: skip

# Those that differ most; all of them are in `nox -s started`.
CHOICE = ("script, chdir", "symbolic link", "zip", "package, chdir")


def project(site: Site, before: str) -> Path:
    """A folder with a project that can only be imported from where it is."""
    home = site.folder / "srv"
    (home / "app").mkdir(parents=True)
    (home / "bin").mkdir()
    (home / "app" / "manage.py").write_text(MANAGE.format(before=before))
    (home / "app" / "__main__.py").write_text(MANAGE.format(before=before))
    (home / "app" / "only_here.py").write_text("")
    (home / "bin" / "manage").symlink_to("../app/manage.py")
    with zipfile.ZipFile(home / "app.zip", "w") as packed:
        for file in (home / "app").glob("*.py"):
            packed.write(file, file.name)
    site.configure("import only_here\nTOLD = 'before'\n")
    return home


def start(site: Site, way: str, **args: Any) -> StartedProcess:
    """Start a worker of this side, ours in some way of Python's."""
    python, before = WAYS.get(way, ([], ""))
    home = project(site, before)
    folders = [ROOT, site.folder]
    if site.side == "celery" or way == "console script":
        folders.append(home / "app")
    site.env["PYTHONPATH"] = os.pathsep.join(map(str, folders))
    if "-I" in python:
        # Which hides PYTHONPATH from Python.
        (home / "app" / "manage.py").write_text(
            MANAGE.format(before=f"sys.path[:0] = {list(map(str, folders))}\n{before}")
        )
    words = site.words("worker", **args)
    if site.side == "prodserver":
        words = [*python, *words[1:]]
    return site.start_command([sys.executable, *words], cwd=home)


def looked(site: Site, count: int) -> dict[str, Any]:
    site.send("look", ())
    site.wait_until(lambda: len(site.done("{")) >= 1 and len(site.notes()) >= count)
    look: dict[str, Any] = json.loads(site.notes()[-1])
    return look


def hung_up(site: Site, way: str) -> dict[str, Any]:
    """A green worker is patched, and SIGHUP brings it back, patched as before."""
    worker = start(site, way, pool="gevent", concurrency=2)
    worker.wait_for(READY, timeout=60)
    first = looked(site, 1)
    site.configure("import only_here\nTOLD = 'after'\n")
    worker.send(signal.SIGHUP)
    worker.wait_for(READY, count=2, timeout=60)
    site.send("tell_setting", ("TOLD",))
    site.wait_until(lambda: "TOLD = after" in site.notes())
    second = looked(site, 3)
    assert first["flags"] == second["flags"] or site.side == "celery"
    return {
        "patched": [first["patched"], second["patched"]],
        "status": worker.stop(signal.SIGTERM),
    }


@pytest.mark.parametrize(
    "ways",
    [
        pytest.param(CHOICE, id="a choice"),
        pytest.param([w for w in WAYS if w not in CHOICE], marks=pytest.mark.long),
    ],
)
def test_sighup_and_a_green_pool(make_site: MakeSite, ways: Sequence[str]) -> None:
    sites = [
        make_site("celery", "redis"),
        *(make_site("prodserver", "redis") for _ in ways),
    ]
    order = dict(zip(sites, ["celery", *ways], strict=True))
    outcomes = both(lambda site: hung_up(site, order[site]), sites)
    for outcome in outcomes:
        assert outcome == {"patched": ["gevent", "gevent"], "status": 0}
