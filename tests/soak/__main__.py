"""Kill children and restart Redis for minutes, with each side; count what is left.

``python -m tests.soak --minutes 10 --seed 1``
"""

from __future__ import annotations

import argparse
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import psutil
import redis

from dev.servers import Redis
from prodserver_celery5.pytest_plugin.process import ProcessError
from tests.behaviour.sides import Site

# Each contender: the side of a site, and its settings.
KEYS = """
PRODUCTION_PROCESSES["worker"]["HEARTBEAT_FILE"] = DATA_DIR / "worker.heartbeat"
PRODUCTION_PROCESSES["worker"]["GRACE_SECONDS"] = 25
PRODUCTION_PROCESSES["beat"]["HEARTBEAT_FILE"] = DATA_DIR / "beat.heartbeat"
PRODUCTION_PROCESSES["beat"]["LEADER_LOCK"] = LEADER_LOCK
"""
CONTENDERS = {
    "celery": ("celery", ""),
    "ours": ("prodserver", ""),
    "ours, all keys": ("prodserver", KEYS),
}
SCHEDULE = """
CELERY_BEAT_SCHEDULE = {
    "each second": {"task": "tests.behaviour.tasks.write", "schedule": 1, "args": ["."]}
}
CELERY_BEAT_SCHEDULER = "celery.beat:PersistentScheduler"
"""
# By chance one side can have this much more than another: children die in the middle of
# tasks, and Redis in the middle of messages.
CHANCE = 1.25, 15


class KeptRedis(Redis):
    """A Redis that still has its data after a restart."""

    options = ("--appendonly", "yes", "--appendfsync", "always", "--save", "")


class Soak:
    """A worker of four children and a beat, with their own Redis.

    Args:
        name: of the contender.
        folder: for its data, its Redis and its logs.
        stack: ends them all.
        chance: says when and whom a blow strikes.
    """

    def __init__(
        self, name: str, folder: Path, stack: ExitStack, chance: random.Random
    ) -> None:
        side, settings = CONTENDERS[name]
        self.chance = chance
        self.redis = KeptRedis(folder, stack)
        self.site = Site(side, folder, stack, self.redis.url(), self.redis)
        migrated = self.site.manage("migrate", "--noinput")
        assert not migrated.returncode, migrated.stderr
        self.site.configure(SCHEDULE + settings)
        self.statuses: Counter[str] = Counter()
        self.memory: list[float] = []
        self.killed = self.sent = 0
        args: dict[str, dict[str, Any]] = {
            "worker": {"concurrency": 4},
            "beat": {"scheduler": "celery.beat:PersistentScheduler"},
        }
        self.args = args
        self.processes = {name: self.site.ready(name, **args[name]) for name in args}

    def run(self, minutes: float) -> dict[str, Any]:
        """Send tasks and strike for so long; return what can be counted afterwards."""
        began = time.monotonic()
        ends, restart, kill = began + 60 * minutes, began + 60, began + 5
        while (now := time.monotonic()) < ends:
            with suppress(Exception):  # Redis is away
                self._send()
            self._restart_what_has_ended()
            if now > kill:
                kill = now + self.chance.uniform(2, 8)
                self._kill_a_child()
            if now > restart:
                restart = now + 60
                self.redis.process.stop()
                time.sleep(self.chance.uniform(0.5, 5))
                self.redis.process = self.redis._start()
            time.sleep(0.2)
        return self._counts()

    def _send(self) -> None:
        for task in ("nap", "nap_late"):
            self.site.send(task, (self.chance.uniform(0, 0.5), str(self.sent)))
            self.sent += 1

    def _kill_a_child(self) -> None:
        worker = self.processes["worker"]
        with suppress(OSError, psutil.Error):  # it has ended meanwhile
            self.memory.append(psutil.Process(worker.pid).memory_info().rss / 2**20)
            children = sorted(self.site.children(worker))
            if children:
                psutil.Process(self.chance.choice(children)).kill()
                self.killed += 1

    def _restart_what_has_ended(self) -> None:
        """Do what a platform does, and note the status."""
        for program, process in self.processes.items():
            status = process.popen.poll()
            if status is not None:
                self.statuses[f"{program} {status}"] += 1
                if status == 1:
                    print(f"{program}:", process.output[-400:], flush=True)
                self.processes[program] = self.site.run(program, **self.args[program])

    def _counts(self) -> dict[str, Any]:
        self._end("beat")
        client = redis.Redis(port=self.redis.port, db=1)
        self._wait_until(lambda: not client.llen("celery"))
        self._wait_until(lambda: not self._is_noting())
        self._end("worker")
        begun = Counter(n for n in self.site.notes() if n.startswith("began "))
        ended = {n.replace("ended", "began") for n in self.site.done()}
        lists = [key for key in client.scan_iter() if client.type(key) == b"list"]
        return {
            "sent": self.sent,
            "children killed": self.killed,
            "begun and not ended": len(begun.keys() - ended),
            "begun twice": sum(count > 1 for count in begun.values()),
            "left in unacked": client.hlen("unacked"),
            "left in queues": sum(map(client.llen, lists)),
            "parent, MiB, at most": round(max(self.memory)),
            "ended by themselves": self.statuses.total() - 2,
            "statuses": dict(sorted(self.statuses.items())),
        }

    def _is_noting(self) -> bool:
        return time.time() - self.site.notes_file.stat().st_mtime < 5

    def _wait_until(self, condition: Callable[[], Any]) -> None:
        def is_so() -> Any:
            self._restart_what_has_ended()
            return condition()

        with suppress(TimeoutError):
            self.site.wait_until(is_so, 90)

    def _end(self, program: str) -> None:
        """End a process as a platform does."""
        process = self.processes.pop(program)
        process.send(signal.SIGTERM)
        try:
            status: int | str = process.wait(timeout=30)
        except ProcessError:
            process.kill()
            status = "killed after 30 s"
        self.statuses[f"{program} {status}, at the end"] += 1


def worse(counts: dict[str, dict[str, Any]]) -> list[str]:
    """Say where this package did worse than `celery`."""
    found = []
    factor, more = CHANCE
    for name in list(counts)[1:]:
        for what, theirs in counts["celery"].items():
            ours = counts[name][what]
            if what.startswith(("begun", "left", "parent", "ended")) and (
                ours > factor * theirs + more
            ):
                found.append(f"{name}: {what}: {ours}, with celery {theirs}")
    return found


def main() -> None:
    """Run all contenders at once; exit with 1 if this package did worse."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    # As an exception, so that the servers are stopped too.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:

        def soaked(name: str) -> dict[str, Any]:
            home = Path(folder, name.replace(", ", "-").replace(" ", "-"))
            home.mkdir()
            chance = random.Random(options.seed)
            return Soak(name, home, stack, chance).run(options.minutes)

        with ThreadPoolExecutor() as executor:
            found = executor.map(soaked, CONTENDERS)
            counts = dict(zip(CONTENDERS, found, strict=True))
    for what in counts["celery"]:
        values = " | ".join(str(each[what]) for each in counts.values())
        print(f"| {what} | {values} |")
    if faults := worse(counts):
        sys.exit("\n".join(faults))


if __name__ == "__main__":
    main()
