# ruff: noqa: S603 - it starts programs
"""One run of a worker or beat, and what is measured on it."""

from __future__ import annotations

import json
import os
import re
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from redis import Redis

from dev.procfile import ROOT
from prodserver_celery5.pytest_plugin.process import StartedProcess

from .projects import Project

__all__ = ("CONTENDERS", "QUESTIONS", "Run", "available")

# "own" is django-prodserver 3's own backend.
CONTENDERS = ("celery", "own", "ours")

# How a platform can ask whether a worker is alive, next to a Python that does nothing.
QUESTIONS = {
    "pass": ["-c", "pass"],
    "probe": ["-m", "prodserver_celery5.probe"],
    "ping": ["-m", "celery", "--app=prayer_room_api", "inspect", "ping"],
}

TICK = os.sysconf("SC_CLK_TCK")


def available() -> list[str]:
    """Return the contenders that the installed packages provide."""
    from importlib.util import find_spec

    own = find_spec("django_prodserver.backends.workers")
    return [name for name in CONTENDERS if name != "own" or own]


class Run:
    """A contender's worker or beat, from start to end.

    Args:
        contender: one of `CONTENDERS`.
        program: ``"worker"`` or ``"beat"``.
        project: what it runs.
        args: long options and their values.
        database: the number of a Redis database for this run alone.
        results: whether it keeps results, in the same database.
        keys: the entry's keys besides BACKEND, APP and ARGS.
    """

    def __init__(
        self,
        contender: str,
        program: str,
        project: Project,
        args: dict[str, Any],
        database: int,
        *,
        results: bool = False,
        keys: dict[str, Any] | None = None,
    ) -> None:
        self.project = project
        self.database = database
        self.url = re.sub(r"/\d+$", f"/{database}", project.env["REDIS_URL"])
        self.redis = Redis.from_url(self.url)
        self.redis.flushdb()
        args = {"loglevel": "INFO", **args}
        env = {**project.env, "REDIS_URL": self.url}
        if results:
            env["BENCH_RESULTS"] = self.url
        if contender == "celery":
            script = str(Path(sys.executable).with_name("celery"))
            spelled = [f"--{key}={value}" for key, value in args.items()]
            words = [script, "--app=prayer_room_api", program, *spelled]
        elif contender == "own":
            env["BENCH_ARGS"] = json.dumps({k: str(v) for k, v in args.items()})
            words = ["manage.py", "worker", f"own-{program}"]
        else:
            env["BENCH_ARGS"] = json.dumps(args)
            env["BENCH_KEYS"] = json.dumps(keys or {})
            words = ["manage.py", "prodserver", program]
        self.log = project.folder / f"{contender}-{program}-{database}.log"
        self.log.unlink(missing_ok=True)
        self.began = time.perf_counter()
        self.process = StartedProcess(
            [sys.executable, *words], log=self.log, cwd=ROOT, env=env
        )

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *error: object) -> None:
        self.process.kill()
        self.redis.flushdb()
        self.redis.close()

    def ready(self) -> dict[str, float]:
        """Wait for "ready.", and return the time and CPU time it took."""
        self._until(lambda: re.search(rb"\S+ ready\.", self.log.read_bytes()))
        return {"ready": time.perf_counter() - self.began, "cpu": self._cpu()}

    def first_message(self) -> float:
        """Wait for beat's first message, and return how long it took."""
        self._until(lambda: self.redis.llen("celery"))
        return time.perf_counter() - self.began

    def burst(self, count: int) -> float:
        """Wait for so many messages; return the seconds from the first to the last."""
        self._until(lambda: self.redis.llen("celery"), 0.001)
        began = time.perf_counter()
        self._until(lambda: int(self.redis.llen("celery")) >= count, 0.001)
        return time.perf_counter() - began

    def lateness(self, seconds: float) -> list[float]:
        """Return how late each message comes: one is due a second after the last."""
        late: list[float] = []
        before = None
        end = time.perf_counter() + seconds
        self.redis.delete("celery")
        while time.perf_counter() < end:
            if self.redis.brpop(["celery"], timeout=2) is None:
                continue
            now = time.perf_counter()
            if before is not None:
                late.append(now - before - 1)
            before = now
        return late

    def ask(self, question: str, *words: str) -> dict[str, float]:
        """Run one of `QUESTIONS`, and return the seconds it takes."""
        began = time.perf_counter()
        asking = subprocess.Popen(
            [sys.executable, *QUESTIONS[question], *words],
            stdout=subprocess.DEVNULL,
            cwd=ROOT,
            env={**self.project.env, "REDIS_URL": self.url},
        )
        _, asking.returncode, used = os.wait4(asking.pid, 0)
        found = {"wall": time.perf_counter() - began}
        if asking.returncode:
            raise RuntimeError(f"the {question} says the worker is not alive")
        return found | {"cpu": used.ru_utime + used.ru_stime}

    def work(self, task: str, count: int) -> float:
        """Queue messages all at once, and return the seconds until all are done."""
        began = self._send(task, count)
        self._until(self._idle, 0.002)
        return time.perf_counter() - began

    def cpu(self, task: str, count: int) -> float:
        """Return the CPU seconds of the worker and its children for that work."""
        before = self._cpu()
        self.work(task, count)
        return self._cpu() - before

    def naps(self, count: int) -> float:
        """Let tasks sleep, and return the seconds until the last wakes up."""
        self.project.naps.write_bytes(b"")
        began = self._send("nap", count)
        self._until(lambda: self.project.naps.stat().st_size >= count, 0.002)
        return time.perf_counter() - began

    def _send(self, task: str, count: int) -> float:
        self.project.prepare(task, count)
        began = time.perf_counter()
        with Redis.from_url(self.project.env["REDIS_URL"]) as prepared:
            prepared.copy(f"{task} {count}", "celery", destination_db=self.database)
        return began

    def memory(self) -> dict[str, float]:
        """Return the memory of the parent and children, in MiB."""
        found: dict[str, float] = {}

        def read() -> bool:
            # Read again if a child is replaced meanwhile.
            with suppress(FileNotFoundError, ProcessLookupError):
                found.update(self._memory())
            return bool(found)

        self._until(read)
        return found

    def _memory(self) -> dict[str, float]:
        children = self._children()
        private = [
            _kib(pid, "smaps_rollup", "Private_Clean")
            + _kib(pid, "smaps_rollup", "Private_Dirty")
            for pid in children
        ]
        pids = [self.process.pid, *children]
        pss = sum(_kib(pid, "smaps_rollup", "Pss") for pid in pids)
        return {
            "parent": _kib(self.process.pid, "status", "VmRSS") / 1024,
            "peak": _kib(self.process.pid, "status", "VmHWM") / 1024,
            "pss": pss / 1024,
            "private": statistics.median(private) / 1024 if private else 0.0,
        }

    def end(self) -> float:
        """Send SIGTERM, and return the seconds until it ends."""
        began = time.perf_counter()
        self.process.send(signal.SIGTERM)
        self.process.wait(timeout=60)
        return time.perf_counter() - began

    def _idle(self) -> bool:
        pipe = self.redis.pipeline()
        pipe.llen("celery")
        pipe.hlen("unacked")
        waiting, unacked = pipe.execute()
        return not waiting and not unacked

    def _until(self, condition: Callable[[], Any], pause: float = 0.005) -> None:
        deadline = time.perf_counter() + 120
        while not condition():
            if self.process.popen.poll() is not None or time.perf_counter() > deadline:
                raise RuntimeError(self.process.output[-3000:])
            time.sleep(pause)

    def _children(self) -> list[int]:
        pid = self.process.pid
        return [
            int(child)
            for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        ]

    def _cpu(self) -> float:
        ticks = 0
        for pid in [self.process.pid, *self._children()]:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            # utime and stime, its own and those of its ended children.
            ticks += sum(map(int, fields[11:15]))
        return ticks / TICK


def _kib(pid: int, file: str, key: str) -> int:
    text = Path(f"/proc/{pid}/{file}").read_text()
    return int(re.findall(rf"^{key}:\s+(\d+)", text, re.MULTILINE)[0])
