"""The heartbeat of real processes, as the probe sees it."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import celery
import psutil
import pytest

from dev.procfile import ROOT
from prodserver_celery5.probe import judge
from prodserver_celery5.pytest_plugin import ProdserverFixture
from prodserver_celery5.pytest_plugin.process import DEADLINE, StartedProcess
from tests.deployment import Deployment, stop_asleep, wait_until
from tests.services import Services

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


class Heart:
    """A deployment with a heartbeat."""

    def __init__(self, deployment: Deployment) -> None:
        self.deployment = deployment
        self.file = deployment.folder / "beating"

    def start(
        self,
        program: str,
        *,
        code: str = "",
        key: object = None,
        command: list[str] | None = None,
        **args: Any,
    ) -> StartedProcess:
        entry = f"PRODUCTION_PROCESSES[{program!r}]"
        self.deployment.configure(
            f"{entry}['HEARTBEAT_FILE'] = {str(key or self.file)!r}\n"
            f"{entry}['ARGS'].update({args!r})\n{code}"
        )
        return self.deployment.start(program, command=command)

    def wait_for(
        self, what: str, *, ready: bool = False, timeout: float = DEADLINE
    ) -> str:
        """Wait until the probe says something, and return its whole line."""
        return str(
            wait_until(
                lambda: what in (said := self.said(ready=ready)) and said, timeout
            )
        )

    def said(self, **options: Any) -> str:
        return judge(str(self.file), **options)[1]

    def record(self) -> dict[str, str]:
        pairs = self.file.read_text().rstrip().split(" ", 7)[1:]
        return dict(pair.split("=", 1) for pair in pairs)

    def probe(self, *words: str) -> int:
        """Run the probe as a platform does."""
        return subprocess.run(
            [sys.executable, "-m", "prodserver_celery5.probe", str(self.file), *words],
            cwd=ROOT,
            check=False,
        ).returncode

    def send(self, task: str) -> None:
        self.deployment.shell(f"from tests.processes import tasks\ntasks.{task}")


@pytest.fixture
def heart(deployment: Deployment) -> Heart:
    return Heart(deployment)


@pytest.mark.once
def test_a_file_that_a_cleaner_removes(heart: Heart) -> None:
    worker = heart.start("worker", pool="solo")
    heart.wait_for("ready", ready=True)
    heart.file.unlink()
    assert "No such file" in heart.said()
    heart.wait_for(f"alive: process {worker.pid}, ready", ready=True)
    assert worker.stop() == 0
    assert not heart.file.exists()


# Celery has two loops: Redis uses kombu's, the file system the other.
@pytest.mark.parametrize(
    ("pool", "services"),
    [
        ("prefork", "filesystem-sqlite"),
        ("solo", "filesystem-sqlite"),
        *(
            (pool, "redis-sqlite")
            for pool in ("prefork", "solo", "threads", "gevent", "eventlet")
        ),
    ],
)
def test_a_worker_from_its_start_to_its_end(
    heart: Heart, pool: str, services: str
) -> None:
    if pool in ("gevent", "eventlet"):
        pytest.importorskip(pool)
    worker = heart.start("worker", pool=pool)
    heart.wait_for(f"alive: process {worker.pid}, ready", ready=True)
    assert heart.probe("--ready") == 0
    assert "READY=1" in worker.notified
    assert heart.record()["silence"] == "30"
    assert heart.file.stat().st_mode & 0o777 == 0o644

    heart.send("hold.delay('a')")
    heart.deployment.wait_for_notes(1)
    # A solo pool's loop does not come round while a task runs.
    silence = "3600" if pool == "solo" else "30"
    wait_until(lambda: heart.record()["silence"] == silence)
    assert heart.probe("--ready") == 0
    if pool == "solo" and celery.VERSION < (5, 3):
        return  # it ends in the middle of the task, as with the command
    worker.send(signal.SIGTERM)
    heart.wait_for("alive, but not ready: process", ready=True)
    assert heart.record()["state"] == "stopping"
    assert heart.probe() == 0
    assert heart.probe("--ready") == 1
    assert "STOPPING=1" in worker.notified
    heart.deployment.gate.touch()
    assert worker.wait() == 0
    assert heart.deployment.notes() == ["began a", "ended a"]
    assert not heart.file.exists()
    assert heart.probe() == 1


SCHEDULE = """
PRODUCTION_PROCESSES["beat"]["ARGS"]["scheduler"] = "celery.beat:PersistentScheduler"
PRODUCTION_PROCESSES["beat"]["ARGS"]["schedule"] = DATA_DIR + "/schedule"
CELERY_BEAT_SCHEDULE = {"write": {
    "task": "tests.behaviour.tasks.write", "args": ["hi"], "schedule": %s,
}}
CELERY_RESULT_EXPIRES = None
"""


@pytest.mark.parametrize("interval", [2, 600])
def test_a_beat_from_its_start_to_its_end(heart: Heart, interval: int) -> None:
    code = "import os; DATA_DIR = os.environ['DATA_DIR']\n" + SCHEDULE % interval
    beat = heart.start("beat", code=code, max_interval=600)
    heart.wait_for(f"alive: process {beat.pid}, ready", ready=True)
    assert heart.probe("--ready") == 0
    # Beat may sleep until its next tick is due, however long that is.
    beat.wait_for("Waking up")
    wait_until(lambda: interval < float(heart.record()["silence"]) <= interval + 31)
    if interval == 2:
        beat.wait_for("Sending due task write")
        first = heart.record()["at"]
        wait_until(lambda: float(heart.record()["at"]) > float(first) + 1)
        assert stop_asleep(beat) == 0
    else:
        assert beat.stop() == 0
    assert beat.notified[-2:] == ["STATUS=stopping", "STOPPING=1"]
    assert not heart.file.exists()


@pytest.mark.parametrize("services", ["redis-sqlite"])
@pytest.mark.parametrize(
    "pool", [pytest.param("prefork", marks=pytest.mark.smoke), "gevent"]
)
def test_a_worker_whose_broker_goes_away_and_comes_back(
    heart: Heart, pool: str, all_services: Services
) -> None:
    if pool == "gevent":
        pytest.importorskip(pool)
    worker = heart.start("worker", pool=pool)
    worker.wait_until_ready()

    def away() -> None:
        heart.wait_for("alive, but not ready: process", ready=True)
        assert heart.record()["state"] == "connecting"
        assert heart.record()["silence"] == "300"
        assert heart.probe() == 0
        assert heart.probe("--ready") == 1

    all_services.server("redis").pause(away)
    worker.wait_until_ready(count=2)
    assert heart.probe("--ready") == 0
    assert worker.stop() == 0
    assert "STOPPING=1" in worker.notified
    assert not heart.file.exists()


BESIDE = """
from celery.signals import worker_ready

@worker_ready.connect
def connect_beside_the_loop(sender, **kwargs):
    elsewhere = sender.app.connection_for_read("redis://127.0.0.1:1")
    sender.pool.spawn_n(sender.ensure_connected, elsewhere)
"""


@pytest.mark.parametrize("services", ["redis-sqlite"])
@pytest.mark.parametrize("pool", ["gevent", "eventlet"])
def test_what_connects_beside_the_loop_is_not_the_worker(
    heart: Heart, pool: str
) -> None:
    """As a green pool's remote control does, which may wait when the loop does not."""
    pytest.importorskip(pool)
    worker = heart.start("worker", code=BESIDE, pool=pool)
    worker.wait_for("Cannot connect to .*@127.0.0.1:1//", count=2)
    assert heart.probe("--ready") == 0
    assert worker.notified.count("READY=1") == 1
    assert worker.notified[-1] == "READY=1"
    assert worker.stop() == 0


@pytest.mark.parametrize("services", ["redis-sqlite"])
def test_a_beat_that_waits_for_its_broker(heart: Heart, all_services: Services) -> None:
    code = "import os; DATA_DIR = os.environ['DATA_DIR']\n" + SCHEDULE % 1
    beats = []

    def away() -> None:
        beats.append(heart.start("beat", code=code))
        heart.wait_for("connecting")
        assert heart.probe() == 0
        assert heart.probe("--ready") == 1
        # Meanwhile it reports every second.
        first = heart.record()["at"]
        wait_until(lambda: float(heart.record()["at"]) > float(first) + 1)

    all_services.server("redis").pause(away)
    (beat,) = beats
    beat.wait_until_ready()
    beat.wait_for("Sending due task write", count=3)
    assert heart.probe("--ready") == 0
    assert stop_asleep(beat) == 0


@pytest.mark.once
def test_a_worker_with_a_deadline_is_alive_until_then(heart: Heart) -> None:
    code = "PRODUCTION_PROCESSES['worker']['GRACE_SECONDS'] = 3\n"
    worker = heart.start("worker", code=code)
    worker.wait_until_ready()
    heart.send("nap.delay(60)")
    heart.deployment.wait_for_notes(1)
    worker.send(signal.SIGTERM)
    heart.wait_for("alive, but not ready: process", ready=True)
    assert heart.said().startswith(f"alive: process {worker.pid}, stopping")
    assert worker.wait() == 0
    assert heart.probe() == 1


def test_a_beat_of_the_database(heart: Heart) -> None:
    beat = heart.start("beat")
    beat.wait_until_ready()
    assert heart.probe("--ready") == 0
    assert beat.stop() == 0
    assert not heart.file.exists()


def test_a_reload_keeps_the_pid_and_the_file(heart: Heart) -> None:
    worker = heart.start("worker")
    worker.wait_until_ready()
    began = heart.record()
    worker.send(signal.SIGHUP)
    worker.wait_until_ready(count=2)
    assert "RELOADING=1" in worker.notified
    assert "STOPPING=1" not in worker.notified
    assert heart.probe("--ready") == 0
    again = heart.record()
    assert (again["pid"], again["start"]) == (began["pid"], began["start"])
    assert worker.stop() == 0
    assert not heart.file.exists()


def test_a_reload_of_a_green_pool(heart: Heart) -> None:
    pytest.importorskip("gevent")
    worker = heart.start("worker", pool="gevent")
    worker.wait_until_ready()
    worker.send(signal.SIGHUP)
    worker.wait_until_ready(count=2)
    assert heart.probe("--ready") == 0
    assert heart.record()["pid"] == str(worker.pid)
    assert worker.stop() == 0


def test_a_worker_that_is_told_to_stop_by_remote_control(heart: Heart) -> None:
    worker = heart.start("worker")
    worker.wait_until_ready()
    heart.send("hold.delay('a')")
    heart.deployment.wait_for_notes(1)
    heart.deployment.shell(
        "from prayer_room_api.celery import app; app.control.shutdown()"
    )
    heart.wait_for("stopping")
    heart.deployment.gate.touch()
    assert worker.wait() == 0
    assert not heart.file.exists()


@pytest.mark.once
@pytest.mark.parametrize("program", ["worker", "beat"])
def test_a_killed_process_leaves_a_file_that_says_so(
    heart: Heart, program: str
) -> None:
    process = heart.start(program)
    process.wait_until_ready()
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert "there is no such process" in heart.said()
    assert heart.probe() == 1
    process.kill()
    again = heart.start(program)
    again.wait_until_ready()
    assert heart.record()["pid"] == str(again.pid)
    assert heart.probe("--ready") == 0
    assert again.stop() == 0
    assert not heart.file.exists()


@pytest.mark.once
def test_two_processes_with_one_file(heart: Heart) -> None:
    worker = heart.start("worker")
    worker.wait_until_ready()
    other = heart.deployment.start("worker")
    assert other.wait() == 1
    assert other.output.splitlines()[-1] == (
        f"CommandError: worker: HEARTBEAT_FILE {heart.file}: process {worker.pid}"
        " writes to it: each needs a file of its own."
    )
    assert heart.probe("--ready") == 0
    assert worker.stop() == 0


@pytest.mark.once
def test_a_link_in_the_way(heart: Heart) -> None:
    precious = heart.deployment.folder / "precious"
    precious.write_text("precious")
    heart.file.symlink_to(precious)
    worker = heart.start("worker")
    assert worker.wait() == 1
    assert worker.output.splitlines()[-1] == (
        f"CommandError: worker: HEARTBEAT_FILE = '{heart.file}': this is not a regular"
        " file here."
    )
    assert precious.read_text() == "precious"


@pytest.mark.parametrize("program", ["worker", "beat"])
def test_names_in_the_path(heart: Heart, program: str) -> None:
    key = heart.deployment.folder / "%n"
    process = heart.start(program, key=key)
    process.wait_until_ready()
    node = "celery" if program == "worker" else "celerybeat"
    heart.file = heart.deployment.folder / node
    assert heart.probe("--ready") == 0
    assert process.stop() == 0


@pytest.mark.once
def test_a_relative_path_is_where_the_process_starts(heart: Heart) -> None:
    elsewhere = heart.deployment.folder / "elsewhere"
    elsewhere.mkdir()
    key = os.path.relpath(heart.file, ROOT)
    worker = heart.start("worker", key=key, workdir=str(elsewhere))
    worker.wait_until_ready()
    assert heart.probe("--ready") == 0
    worker.send(signal.SIGHUP)
    worker.wait_until_ready(count=2)
    assert heart.probe("--ready") == 0
    assert worker.stop() == 0


def test_a_fork_in_a_task_says_nothing(heart: Heart) -> None:
    worker = heart.start("worker", pool="solo")
    worker.wait_until_ready()
    heart.send("fork.delay()")
    assert heart.deployment.wait_for_notes(1) == ["child ended with 0"]
    heart.wait_for(", ready: silent", ready=True)
    assert heart.record()["pid"] == str(worker.pid)
    assert worker.stop() == 0


def test_a_beat_in_the_background(heart: Heart) -> None:
    pidfile = heart.deployment.folder / "beat.pid"
    log = heart.deployment.folder / "beat.log"
    beat = heart.start("beat", detach=True, pidfile=str(pidfile), logfile=str(log))
    assert beat.wait() == 0
    try:
        heart.wait_for(", ready: silent", ready=True)
        pid = int(pidfile.read_text())
        assert pid != beat.pid
        assert heart.record()["pid"] == str(pid)
    finally:
        # It has left the process group that the fixture kills.
        psutil.Process(int(pidfile.read_text())).terminate()
    wait_until(lambda: not heart.file.exists())


def test_one_beat_leads_and_another_stands_by(heart: Heart) -> None:
    code = "PRODUCTION_PROCESSES['beat']['LEADER_LOCK'] = 'default'\n"
    leader = heart.start("beat", code=code)
    heart.wait_for(", leading: silent", ready=True)
    leader.wait_until_ready()
    first, heart.file = heart.file, heart.file.with_name("second")
    other = heart.start("beat", code=code)
    heart.wait_for(", standing by: silent", ready=True)
    assert heart.probe("--ready") == 0
    assert leader.stop() == 0
    assert not first.exists()
    heart.wait_for(", leading: silent", ready=True)
    # How long it may sleep, plus 30 s.
    wait_until(lambda: 30 < float(heart.record()["silence"]) < 40)
    assert other.stop() == 0
    assert other.notified[-1] == "STOPPING=1"
    assert not heart.file.exists()


def readable_by_others(folder: Path) -> list[str]:
    """Return a command that runs Python where other users can read its files."""
    lines = ["set -e", "mount --make-rprivate /"]
    needed = {sys.base_prefix, sys.prefix, str(ROOT)}
    private = {
        parent
        for path in needed
        for parent in Path(path).parents
        if not parent.stat().st_mode & 0o001
    }
    for number, parent in enumerate(sorted(private)):
        aside = folder / f"aside{number}"
        lines += [f"mkdir -p {aside}", f"mount --rbind {parent} {aside}"]
        lines += [f"mount -t tmpfs -o mode=755 tmpfs {parent}"]
        for path in sorted(needed):
            if Path(path).is_relative_to(parent):
                inside = aside / Path(path).relative_to(parent)
                lines += [f"mkdir -p {path}", f"mount --rbind {inside} {path}"]
    launcher = folder / "launcher.py"
    script = "; ".join([*lines, 'exec "$@"'])
    words = ["unshare", "--mount", "sh", "-c", script, "sh", sys.executable]
    launcher.write_text(
        f"import os, sys\nos.execvp('unshare', {words!r} + sys.argv[1:])\n"
    )
    return [sys.executable, str(launcher)]


@pytest.fixture
def open_to_others(
    deployment: Deployment, migrated: Path, prodserver: ProdserverFixture
) -> Iterator[Deployment]:
    """A deployment in a folder that, unlike pytest's, other users can enter."""
    with tempfile.TemporaryDirectory() as name:
        opened = Deployment(Path(name), prodserver, api=False)
        opened.folder.chmod(0o755)
        # The unprivileged user writes here.
        data = opened.folder / "data"
        data.mkdir()
        shutil.copy(migrated, data / "db.sqlite3")
        for path in (data, data / "db.sqlite3"):
            os.chown(path, 65534, -1)
        opened.env["DATA_DIR"] = str(data)
        opened.env["REDIS_URL"] = deployment.env["REDIS_URL"]
        yield opened


@pytest.mark.once
@as_root
@pytest.mark.parametrize("services", ["redis-sqlite"])
@pytest.mark.parametrize("program", ["worker", "beat"])
def test_where_privileges_are_dropped_it_says_stopped(
    open_to_others: Deployment, program: str
) -> None:
    heart = Heart(open_to_others)
    launcher = readable_by_others(open_to_others.folder)
    command = [*launcher, "manage.py", "prodserver", program]
    process = heart.start(program, command=command, uid=65534)
    process.wait_until_ready()
    assert heart.probe("--ready") == 0
    assert process.stop() == 0
    assert heart.record()["state"] == "stopped"
    assert heart.probe() == 1
    again = heart.start(program, command=command, uid=65534)
    again.wait_until_ready()
    assert heart.probe("--ready") == 0
    assert again.stop() == 0


def test_without_the_key_nothing_of_it_is_loaded(deployment: Deployment) -> None:
    deployment.configure(
        "import os; os.environ.pop('NOTIFY_SOCKET', None)\n"
        "PRODUCTION_PROCESSES['worker']['ARGS']['pool'] = 'solo'\n"
    )
    worker = deployment.start("worker")
    worker.wait_for(r"\S+ ready\.")
    deployment.shell("from tests.processes.tasks import rooms; rooms.delay()")
    (rooms,) = deployment.wait_for_notes(1)
    assert "backends" in rooms.split()
    assert "probe" not in rooms.split()
    keys = re.findall(r"\b(?:grace|heartbeat|leader)\.\w+", rooms)
    assert keys == ["grace.key", "heartbeat.key", "leader.key"]
    assert worker.stop() == 0
