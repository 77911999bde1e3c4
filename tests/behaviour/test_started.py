"""SIGHUP, green pools and `detach` work however the program was started."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import zipfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from dev.procfile import ROOT
from prodserver_celery5.pytest_plugin.process import StartedProcess

from .sides import READY, SIDES, Site, both

MakeSite = Callable[[str, str], Site]

# A typical manage.py.
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

# As debuggers and profilers run a program.
WRAPPER = """
import runpy
import sys

sys.argv.pop(0)
sys.path.insert(0, "app")
runpy.run_path(sys.argv[0], run_name="__main__")
"""

CHDIR = "os.chdir(os.path.dirname(os.path.abspath(__file__)))"
APP = "sys.path.append(os.path.dirname(os.path.abspath(__file__)))"

FLAGS = ["-O", "-X", "behaviour", "-W", "ignore:Behaviour:UserWarning"]

# Arguments for Python in a folder with the project in `app`; code for its manage.py.
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
    "wrapper": (["app/wrapper.py", "app/manage.py"], ""),
    "zip": (["app.zip"], "os.chdir('/')"),
    "module, chdir": (["-m", "app.manage"], f"{APP}\n{CHDIR}"),
    "package, chdir": (["-m", "app"], f"{APP}\nos.chdir('/')"),
    "console script": ([str(Path(sys.executable).with_name("django-admin"))], ""),
}  # fmt: skip

# Those that differ most; `nox -s compared` runs the others.
CHOICE = ("script, chdir", "symbolic link", "zip", "package, chdir")


def project(site: Site, before: str) -> Path:
    """Make a folder with a project that can be imported only from there."""
    home = site.folder / "srv"
    (home / "app").mkdir(parents=True)
    (home / "bin").mkdir()
    (home / "app" / "manage.py").write_text(MANAGE.format(before=before))
    (home / "app" / "__main__.py").write_text(MANAGE.format(before=before))
    (home / "app" / "wrapper.py").write_text(WRAPPER)
    (home / "app" / "only_here.py").write_text("")
    (home / "bin" / "manage").symlink_to("../app/manage.py")
    with zipfile.ZipFile(home / "app.zip", "w") as packed:
        for file in (home / "app").glob("*.py"):
            packed.write(file, file.name)
    site.configure("import only_here\nTOLD = 'before'\n")
    return home


def start(site: Site, way: str, **args: Any) -> StartedProcess:
    """Start this side's worker; ours in one of the WAYS."""
    python, before = WAYS.get(way, ([], ""))
    home = project(site, before)
    folders = [ROOT, site.folder]
    if site.side == "celery" or way == "console script":
        folders.append(home / "app")
    site.env["PYTHONPATH"] = os.pathsep.join(map(str, folders))
    if "-I" in python:
        # -I hides PYTHONPATH from Python.
        (home / "app" / "manage.py").write_text(
            MANAGE.format(before=f"sys.path[:0] = {list(map(str, folders))}\n{before}")
        )
    words = site.words("worker", **args)
    if site.side == "prodserver":
        words = [*python, *words[1:]]
    return site.start_command([sys.executable, *words], cwd=home)


def looked(site: Site) -> dict[str, Any]:
    def looks() -> list[str]:
        return [note for note in site.notes() if note.startswith("{")]

    before = len(looks())
    site.send("look", ())
    site.wait_until(lambda: len(looks()) > before)
    look: dict[str, Any] = json.loads(looks()[-1])
    return look


def hung_up(site: Site, way: str) -> dict[str, Any]:
    """Reload a green worker with SIGHUP; return what was patched before and after."""
    worker = start(site, way, pool="gevent", concurrency=2)
    worker.wait_for(READY)
    first = looked(site)
    site.configure("import only_here\nTOLD = 'after'\n")
    worker.send(signal.SIGHUP)
    worker.wait_for(READY, count=2)
    site.send("tell_setting", ("TOLD",))
    site.wait_until(lambda: "TOLD = after" in site.notes())
    second = looked(site)
    assert first["flags"] == second["flags"] or site.side == "celery"
    return {
        "patched": [first["patched"], second["patched"]],
        "status": site.end_idle(worker)["status"],
    }


# It depends on Python; what Celery has to do with it is in test_green.py.
@pytest.mark.once
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


def detached(site: Site) -> dict[str, Any]:
    """Detach a worker; return the first process's status and what a task noted."""
    extra = site.folder / "extra"
    extra.mkdir()
    (extra / "only_here.py").write_text("")
    site.configure("import only_here\n")
    log, pidfile = site.folder / "detached.log", site.folder / "it.pid"
    words = site.words("worker", detach=True, logfile=log, pidfile=pidfile)
    if site.side == "celery":
        site.env["PYTHONPATH"] += f"{os.pathsep}{extra}"
    else:
        words += ["--pythonpath", str(extra)]
    first = site.start_command([sys.executable, *words], name="first")
    outcome: dict[str, Any] = {"status": first.wait()}
    site.wait_until(lambda: log.exists() and re.search(READY, log.read_text()))
    site.send("write", ("ran",))
    outcome["notes"] = site.wait_for_notes(1)
    # Other tests see how it ends; in the middle of work Celery 5.0 may hang.
    os.killpg(os.getpgid(int(pidfile.read_text())), signal.SIGKILL)
    return outcome


def test_a_detached_worker_finds_its_modules(make_site: MakeSite) -> None:
    sites = [make_site(side, "redis") for side in SIDES]
    command, ours = both(detached, sites)
    assert ours == command == {"status": 0, "notes": ["ran"]}


# watchfiles runs a function like this: in a multiprocessing process.
FUNCTION = """
import multiprocessing
import sys

import manage

if __name__ == "__main__":
    sys.argv = ["manage.main", "prodserver", "worker"]
    process = multiprocessing.get_context("spawn").Process(target=manage.main)
    process.start()
    process.join()
    sys.exit(process.exitcode)
"""

ADVICE = "watchfiles 'python manage.py prodserver worker'"


@pytest.mark.parametrize("pool", ["gevent", "prefork"])
def test_a_function_says_what_to_run_instead(make_site: MakeSite, pool: str) -> None:
    """The command has no counterpart: `celery` is always a program of its own."""
    site = make_site("prodserver", "redis")
    (site.folder / "manage.py").write_text(MANAGE.format(before=""))
    (site.folder / "function.py").write_text(FUNCTION)
    site.env["PYTHONPATH"] += f"{os.pathsep}{ROOT}"
    site.words("worker", pool=pool, concurrency=1)
    function = str(site.folder / "function.py")
    runner = site.start_command([sys.executable, function], cwd=site.folder)
    if pool == "prefork":
        runner.wait_for(READY)
        children = Path(f"/proc/{runner.pid}/task/{runner.pid}/children").read_text()
        for pid in map(int, children.split()):
            with suppress(ProcessLookupError):  # it may have ended
                os.kill(pid, signal.SIGHUP)
    assert runner.wait() == 1
    assert "Traceback" not in runner.output
    (line,) = (line for line in runner.output.splitlines() if ADVICE in line)
    assert "a function of another program" in line
