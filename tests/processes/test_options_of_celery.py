"""What Celery's commands themselves do with options, seen from outside."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import celery
import psutil
import pytest

from dev.procfile import ROOT
from prodserver_celery5.pytest_plugin.process import DEADLINE
from tests.deployment import Deployment, wait_until

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can change its user")


def set_args(deployment: Deployment, process: str, **args: Any) -> None:
    deployment.configure(f"PRODUCTION_PROCESSES[{process!r}]['ARGS'].update({args!r})")


def status(pid: int) -> dict[str, list[str]]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: text.split() for name, _, text in (li.partition(":") for li in lines)}


def processes_in(folder: Path) -> list[psutil.Process]:
    """Return all processes whose working directory is the folder."""

    def theirs() -> Iterator[psutil.Process]:
        for process in psutil.process_iter():
            try:
                if process.cwd() == str(folder):
                    yield process
            except psutil.Error:
                continue

    return list(theirs())


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[Path]:
    """A folder in which the test may leave no process running."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    yield folder
    left = processes_in(folder)
    for process in left:
        process.kill()
    assert not left


@pytest.mark.parametrize("program", ["worker", "beat"])
def test_detach_from_another_folder(
    deployment: Deployment, program: str, elsewhere: Path
) -> None:
    if program == "worker" and celery.VERSION < (5, 0, 1):
        pytest.skip("Celery 5.0.0 detaches a worker without the app")
    folder = deployment.folder
    # A Python that records its pid.
    python = folder / "our-python"
    python.write_text(
        f'#!/bin/sh\necho $$ > {folder}/ours\nexec {sys.executable} "$@"\n'
    )
    python.chmod(0o755)
    set_args(
        deployment, program, detach=True, pidfile="it.pid",
        logfile=str(folder / "it.log"), umask="027", executable=str(python),
        **({"hostname": "far@%h"} if program == "worker" else {}),
    )  # fmt: skip
    done = subprocess.run(
        [sys.executable, str(ROOT / "manage.py"), "prodserver", program],
        cwd=elsewhere,
        env=deployment.env,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert f"celery --app=prayer_room_api {program} " in done.stdout

    log = folder / "it.log"
    ready = "far@" if program == "worker" else "Waking up in"
    wait_until(lambda: log.exists() and ready in log.read_text(), 30)
    if program == "worker":
        wait_until(lambda: " ready." in log.read_text(), 30)
    pidfile = elsewhere / "it.pid"
    pid = int(pidfile.read_text())
    process = psutil.Process(pid)
    assert status(pid)["Umask"] == ["0027"]
    assert process.cwd() == str(elsewhere)
    assert process.terminal() is None
    # Not a session leader, so it can acquire no terminal again.
    assert os.getsid(pid) != pid
    if program == "worker":  # beat forks, and needs no executable
        assert int((folder / "ours").read_text()) == pid
        assert "--detach" not in " ".join(process.cmdline())

    assert process in processes_in(elsewhere)
    process.send_signal(signal.SIGTERM)
    wait_until(lambda: not processes_in(elsewhere), 30)
    assert not pidfile.exists()
    assert "Traceback" not in log.read_text()


def test_node_names_in_files(deployment: Deployment) -> None:
    folder = deployment.folder
    set_args(
        deployment, "worker", hostname="near@shop", pidfile=str(folder / "%n.pid"),
        statedb=str(folder / "%h.state"), logfile=str(folder / "%n-%i.log"),
    )  # fmt: skip
    worker = deployment.start("worker")
    parent = folder / "near-0.log"
    wait_until(lambda: parent.exists() and "near@shop ready." in parent.read_text())
    assert int((folder / "near.pid").read_text()) == worker.pid
    # Its first child has a log of its own.
    deployment.shell("from tests.processes.tasks import write; write.delay('hi')")
    child = folder / "near-1.log"
    wait_until(lambda: child.exists() and "succeeded" in child.read_text())
    assert worker.stop() == 0
    assert not (folder / "near.pid").exists()
    assert list(folder.glob("shop.state*"))


@as_root
def test_the_group_is_left_before_the_pool_exists(deployment: Deployment) -> None:
    """The user stays root, to be able to read the interpreter's files anywhere."""
    set_args(deployment, "worker", gid=65534)
    worker = deployment.start("worker")
    worker.wait_until_ready()
    children = psutil.Process(worker.pid).children()
    assert children
    for pid in (worker.pid, *(child.pid for child in children)):
        assert status(pid)["Gid"] == ["65534"] * 4
    assert worker.stop() == 0


@as_root
@pytest.mark.parametrize("program", ["worker", "beat"])
@pytest.mark.parametrize(
    ("args", "uids", "gids"),
    [
        ({"uid": "65534"}, "65534", "65534"),
        ({"uid": 65534, "gid": 65533}, "65534", "65533"),
    ],
)
def test_the_user_is_left_before_there_is_a_worker_or_beat(
    deployment: Deployment, program: str, args: dict[str, Any], uids: str, gids: str
) -> None:
    shown = deployment.shell(
        "import re\n"
        "from types import SimpleNamespace\n"
        "from prayer_room_api.celery import app\n"
        "from prodserver_celery5.options.command import run\n"
        "from tests.parsing import parse\n"
        "def made(**kwargs):\n"
        "    status = open('/proc/self/status').read()\n"
        "    print(*re.findall(r'[UG]id:.*', status), sep='\\n')\n"
        "    return SimpleNamespace(start=int, run=int, exitcode=0)\n"
        "app.Worker = app.Beat = made\n"
        f"run(parse({program!r}, app, {args!r}))\n"
    )
    assert shown.split() == ["Uid:", *[uids] * 4, "Gid:", *[gids] * 4]


@pytest.mark.parametrize("program", ["worker", "beat"])
def test_workdir(deployment: Deployment, program: str) -> None:
    (deployment.folder / "work").mkdir()
    set_args(
        deployment, program, workdir=str(deployment.folder / "work"), pidfile="it.pid"
    )
    process = deployment.start(program)
    process.wait_until_ready()
    assert psutil.Process(process.pid).cwd() == str(deployment.folder / "work")
    assert (deployment.folder / "work" / "it.pid").exists()
    assert process.stop() == 0


def test_the_celery_command_is_never_imported(deployment: Deployment) -> None:
    worker = deployment.start("worker")
    deployment.shell("from tests.processes.tasks import modules; modules.delay()")
    worker.wait_for("succeeded")
    loaded = deployment.notes()[0].split()
    assert "celery.bin.worker" in loaded
    assert "celery.bin.celery" not in loaded


def test_the_equivalent_command_is_shown(deployment: Deployment) -> None:
    worker = deployment.start("worker")
    worker.wait_until_ready()
    line = "celery --app=prayer_room_api worker --loglevel=INFO --concurrency=1\n"
    assert worker.output.count(line) == 1


def test_a_program_run_as_a_module_starts_again(deployment: Deployment) -> None:
    command = [sys.executable, "-m", "django", "prodserver", "worker"]
    worker = deployment.start("worker", command=command)
    worker.wait_until_ready()
    worker.send(signal.SIGHUP)
    worker.wait_until_ready(count=2)
    assert worker.stop() == 0


def test_another_program_of_celery_is_a_class_of_two_lines(
    deployment: Deployment,
) -> None:
    (deployment.folder / "third.py").write_text(
        "from prodserver_celery5.backends import CeleryBackend\n"
        "class CeleryEvents(CeleryBackend):\n    program = 'events'\n"
    )
    deployment.configure(
        "PRODUCTION_PROCESSES['events'] = {'BACKEND': 'third.CeleryEvents',"
        " 'APP': 'prayer_room_api', 'ARGS': {'dump': True}}\n"
    )
    command = [sys.executable, "manage.py", "prodserver", "events"]
    events = deployment.start("events", command=command)
    events.wait_for("evdump: starting capture")


@pytest.mark.parametrize("program", ["worker", "beat"])
def test_quiet_leaves_out_the_line_and_the_banner(
    deployment: Deployment, program: str
) -> None:
    banner, since = {
        "worker": ("[config]", (5, 1)),
        "beat": ("Configuration ->", (5, 3)),
    }[program]
    loud = deployment.start(program)
    loud.wait_until_ready()
    assert f"celery --app=prayer_room_api {program}" in loud.output
    assert banner in loud.output
    assert loud.stop() == 0

    set_args(deployment, program, quiet=True)
    quiet = deployment.start(program)
    quiet.wait_until_ready()
    assert "celery --app=" not in quiet.output
    # Before `since`, Celery did not pass --quiet on to the program.
    assert (banner in quiet.output) is (since > celery.VERSION)
    assert quiet.stop() == 0


@pytest.mark.parametrize("by", ["ARGS", "NO_COLOR"])
def test_no_color(deployment: Deployment, by: str) -> None:
    if by == "ARGS":
        set_args(deployment, "worker", **{"no-color": True})
    else:
        deployment.env["NO_COLOR"] = "1"
    told = deployment.shell(
        "from django.conf import settings\n"
        "from prayer_room_api.celery import app\n"
        "from prodserver_celery5.options.command import run\n"
        "from tests.parsing import parse\n"
        "args = settings.PRODUCTION_PROCESSES['worker']['ARGS']\n"
        "app.Worker = lambda no_color, **kwargs: print('no_color', no_color) or X\n"
        "class X:\n"
        "    exitcode = 0\n"
        "    start = int\n"
        "run(parse('worker', app, args))\n"
    )
    assert told == "no_color True"


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"APP": None}, "worker: the key APP is missing."),
        ({"APP": "nowhere"}, "worker: APP = 'nowhere' cannot be imported:"),
        (
            {"APP": "prayer_room_api.urls:router"},
            "is of type SimpleRouter, not a Celery app",
        ),
        ({"ARGS": {"concurency": 2}}, "Did you mean 'concurrency'?"),
        ({"ARGS": {"time-limit": "long"}}, "is not a valid float"),
    ],
)
def test_a_mistake_is_one_line(
    deployment: Deployment, entry: dict[str, object], message: str
) -> None:
    deployment.configure(f"PRODUCTION_PROCESSES['worker'].update({entry!r})\n")
    done = deployment.manage("prodserver", "worker")
    assert done.returncode == 1
    lines = [line for line in done.stderr.splitlines() if "Deprecation" not in line]
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("CommandError: worker: ")
    assert message in lines[0]


def test_a_schedule_before_migrate_ends_with_the_command_to_run(
    deployment: Deployment,
) -> None:
    (deployment.folder / "db.sqlite3").unlink()
    # Debugging, the scheduler has a last word of its own when the program exits.
    database = "django_celery_beat.schedulers:DatabaseScheduler"
    set_args(deployment, "beat", scheduler=database, loglevel="INFO")
    done = deployment.manage("prodserver", "beat")
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("CommandError: beat: the tables of the schedule are missing")
    assert last.endswith(". Run: python manage.py migrate")


def test_a_deploy_is_stopped_by_the_checks(deployment: Deployment) -> None:
    set_args(deployment, "worker", concurency=2)
    found = (
        "PRODUCTION_PROCESSES['worker']: (prodserver_celery5.E006) ARGS['concurency']"
    )
    for command in (["check"], ["migrate", "--noinput"]):
        done = deployment.manage(*command)
        assert done.returncode == 1
        assert f"{found} = 2: Celery" in done.stderr
        assert "HINT: Did you mean 'concurrency'?" in done.stderr


def test_traceback_shows_the_chain(deployment: Deployment) -> None:
    set_args(deployment, "worker", **{"time-limit": "long"})
    done = deployment.manage("prodserver", "worker", "--traceback")
    assert done.returncode == 1
    for error in (
        "click.exceptions.BadParameter",
        "prodserver_celery5.options.errors.OptionError",
        "prodserver_celery5.findings.Finding",
        "django.core.management.base.CommandError: worker: ARGS['time-limit'] = 'long'",
    ):  # fmt: skip
        assert error in done.stderr
