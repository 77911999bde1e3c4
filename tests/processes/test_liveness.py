"""What the probe and `celery inspect ping` say about a worker in trouble.

`nox -s liveness` runs it, and prints the table.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dev.procfile import ROOT
from dev.waiting import wait_until
from prodserver_celery5.heartbeat.report import TURN, WAIT
from prodserver_celery5.probe import SIZE, checksum, judge
from prodserver_celery5.pytest_plugin.process import DEADLINE, StartedProcess
from tests.deployment import Deployment
from tests.services import Services

from .test_heartbeat import SCHEDULE, Heart

pytestmark = [
    pytest.mark.long,
    pytest.mark.parametrize("services", ["redis-sqlite"]),
]

# The worker's loop hangs when it receives a task of this name.
WEDGE = """
import time
from celery.signals import task_received

@task_received.connect(weak=False)
def wedge(request, **kwargs):
    if request.name.endswith(".write"):
        time.sleep(600)
"""

# Beat hangs in its third tick.
STUCK = """
import itertools, time
from django_celery_beat.schedulers import DatabaseScheduler

class Stuck(DatabaseScheduler):
    ticks = itertools.count(1)

    def tick(self, *args, **kwargs):
        if next(self.ticks) == 3:
            time.sleep(3600)
        super().tick(*args, **kwargs)
        return 1.0
"""

POOLS = ("prefork", "threads", "gevent", "eventlet", "solo")


@pytest.fixture
def heart(deployment: Deployment) -> Heart:
    return Heart(deployment)


def ping(heart: Heart) -> str:
    """Return what `celery inspect ping` says."""
    words = ["-A", "prayer_room_api", "inspect", "ping", "--timeout=5"]
    done = subprocess.run(
        [sys.executable, "-m", "celery", *words],
        cwd=ROOT,
        env=heart.deployment.env,
        capture_output=True,
        timeout=DEADLINE,
        check=False,
    )
    return "yes" if done.returncode == 0 else f"no ({done.returncode})"


def row(heart: Heart, what: str, *, alive: bool, ready: bool) -> None:
    """Ask both, print what they say, and check the probe."""
    found = tuple(judge(str(heart.file), ready=asked)[0] for asked in (False, True))
    said = ["yes" if answer else "no" for answer in found]
    print(
        f"\n{what:36} alive: {said[0]:4} ready: {said[1]:4} ping: {ping(heart)}", end=""
    )
    assert found == (alive, ready), heart.said()


def start(heart: Heart, pool: str, code: str = "") -> StartedProcess:
    worker = heart.start("worker", code=code, pool=pool)
    worker.wait_until_ready()
    return worker


@pytest.mark.parametrize("pool", POOLS)
def test_a_worker_in_trouble(heart: Heart, pool: str, all_services: Services) -> None:
    worker = start(heart, pool)
    row(heart, f"{pool}: idle", alive=True, ready=True)
    heart.send("nap.delay(80)")
    heart.deployment.wait_for_notes(1)
    time.sleep(60)
    row(heart, f"{pool}: busy for a minute", alive=True, ready=True)
    heart.deployment.wait_for_notes(2)
    # A solo pool allows itself an hour of silence for the task.
    wait_until(lambda: heart.record()["silence"] == f"{TURN:.0f}")
    worker.send(signal.SIGSTOP)
    time.sleep(TURN + 5)
    row(heart, f"{pool}: stopped by SIGSTOP", alive=False, ready=False)
    worker.send(signal.SIGCONT)
    wait_until(lambda: judge(str(heart.file), ready=True)[0])
    row(heart, f"{pool}: continued", alive=True, ready=True)
    all_services.server("redis").pause(
        lambda: heart.wait_for("alive, but not ready", ready=True)
    )
    worker.wait_until_ready(count=2)
    row(heart, f"{pool}: its broker was away", alive=True, ready=True)
    worker.kill()
    row(heart, f"{pool}: killed, the file left", alive=False, ready=False)


@pytest.mark.parametrize("pool", POOLS)
def test_a_worker_whose_loop_is_wedged(heart: Heart, pool: str) -> None:
    start(heart, pool, WEDGE)
    heart.send("write.delay('x')")
    # Longer than a turn may take, and than the slowest loop sleeps.
    time.sleep(TURN + 15)
    row(heart, f"{pool}: its loop is wedged", alive=False, ready=False)


def test_a_beat_that_hangs_in_its_scheduler(heart: Heart) -> None:
    (heart.deployment.folder / "stuck.py").write_text(STUCK)
    beat = heart.start("beat", scheduler="stuck:Stuck")
    beat.wait_until_ready()
    row(heart, "beat: ticking", alive=True, ready=True)
    time.sleep(WAIT + 10)
    row(heart, f"beat: hung for {WAIT:.0f} s", alive=False, ready=False)


def test_a_beat_with_an_interval_of_ten_minutes(heart: Heart) -> None:
    code = "import os; DATA_DIR = os.environ['DATA_DIR']\n" + SCHEDULE % 600
    beat = heart.start("beat", code=code, max_interval=600)
    beat.wait_until_ready()
    time.sleep(TURN + 5)
    row(heart, "beat: next task in ten minutes", alive=True, ready=True)


def test_a_file_that_is_not_its_own(heart: Heart) -> None:
    worker = start(heart, "prefork")
    other = heart.deployment.start("worker")
    assert other.wait() == 1
    row(heart, "prefork: another one with its file", alive=True, ready=True)
    left = heart.file.read_text()
    os.kill(worker.pid, signal.SIGKILL)
    worker.wait()
    # The pid of this process, which started at another time.
    line = left.replace(f"pid={worker.pid}", f"pid={os.getpid()}")
    head, _, rest = line.rstrip().partition(" sum=")
    state = rest.partition(" ")[2]
    line = f"{head} sum={checksum(f'{head} {state}')} {state}"
    heart.file.write_text(f"{line.ljust(SIZE - 1)}\n")
    assert "another process has its number now" in heart.said()
    row(heart, "prefork: its pid is another's", alive=False, ready=False)
    heart.file.rename(heart.file.with_name("elsewhere"))
    heart.file.symlink_to("elsewhere")
    refused = heart.deployment.start("worker")
    assert refused.wait() == 1
    row(heart, "prefork: a symbolic link in the way", alive=False, ready=False)


@pytest.fixture
def disk(heart: Heart) -> Iterator[Callable[[str], Path]]:
    """Mount a file system of two pages for the heartbeat, with given options."""
    folder = heart.deployment.folder / "disk"
    folder.mkdir()

    def mount(options: str) -> Path:
        words = ["mount", "-t", "tmpfs", "-o", f"size=8k,{options}", "tmpfs"]
        if os.geteuid() or subprocess.run([*words, folder], check=False).returncode:
            pytest.skip("no file system can be mounted here")
        heart.file = folder / "beating"
        return folder

    yield mount
    subprocess.run(["umount", "--lazy", folder], check=False)


def test_a_disk_that_is_full(heart: Heart, disk: Callable[[str], Path]) -> None:
    filler = disk("rw") / "filler"
    with pytest.raises(OSError, match="No space left"):
        filler.write_bytes(b"x" * 2**16)
    worker = start(heart, "prefork")
    heart.send("nap.delay(1)")
    heart.deployment.wait_for_notes(2)
    assert worker.output.count("No space left on device. The work goes on.") == 1
    row(heart, "prefork: the disk is full", alive=False, ready=False)
    filler.unlink()
    wait_until(lambda: judge(str(heart.file), ready=True)[0])
    row(heart, "prefork: there is room again", alive=True, ready=True)
    assert worker.stop() == 0


def test_a_disk_that_cannot_be_written_to(
    heart: Heart, disk: Callable[[str], Path]
) -> None:
    disk("ro")
    worker = heart.start("worker")
    assert worker.wait() == 1
    assert "HEARTBEAT_FILE" in worker.output.splitlines()[-1]
    print(f"\n{'on a read-only disk':36} {worker.output.splitlines()[-1]}", end="")
