# ruff: noqa: S607, T201 - it starts programs and prints
"""Runs the benchmark and writes its tables and plots: ``python -m bench``."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import date
from pathlib import Path
from typing import Any

from dev.procfile import ROOT
from dev.servers import PostgreSQL, Redis

from . import report
from .measure import QUESTIONS, Run, available
from .projects import PROJECTS, Project

RESULTS = ROOT / "docs" / "benchmarks.json"

PACKAGES = (
    "celery",
    "kombu",
    "redis",
    "Django",
    "django-prodserver",
    "django-celery-beat",
    "gevent",
)

# Our backend, with and without a key of its entry.
PAIR = ["with", "without"]

# How many runs are due at once.
BURST = 300

Values = dict[str, dict[str, list[float]]]


class Benchmark:
    """Measures the contenders side by side, in turns.

    Args:
        redis: the server; each run gets its own database.
        projects: the projects to run.
        rounds: how many turns each contender gets; some parts take more.
        quick: whether to skip sizes and repeats.
        postgresql: the URL of a database, if there is a server.
    """

    def __init__(
        self,
        redis: Redis,
        projects: list[Project],
        rounds: int,
        quick: bool,
        postgresql: str = "",
    ) -> None:
        self.rounds = rounds
        self.redis = redis
        self.postgresql = postgresql
        self.projects = projects
        self.quick = quick
        # By measurement, then contender: one value per turn; equal indexes are pairs.
        self.values: Values = {}
        self._turn = 0

    def run(self, parts: list[str]) -> None:
        """Run the given parts on each project."""
        for part in parts:
            for project in self.projects:
                getattr(self, part)(project)

    def prefork(self, project: Project) -> None:
        """Measure start, memory after tasks, and stop, by number of children."""
        for children in (2, 8, 16) if self.quick else (1, 2, 4, 8, 16):
            for contender in self._turns(self.rounds):
                key = f"{project.name} prefork {children}"
                args = {"concurrency": children}
                with self._start(contender, "worker", project, args) as run:
                    found = run.ready()
                    run.work("nothing", 2000)
                    found |= run.memory()
                    run.work("query", 500)
                    after = run.memory()
                    found |= {f"{k} with queries": after[k] for k in ("pss", "private")}
                    found["end"] = run.end()
                for name, value in found.items():
                    self._keep(f"{key} {name}", contender, value)

    def replaced(self, project: Project) -> None:
        """Measure memory before and after a hundred children are replaced."""
        args = {"concurrency": 8, "max-tasks-per-child": 20}
        for contender in self._turns(self.rounds):
            with self._start(contender, "worker", project, args) as run:
                run.ready()
                for count in (200, 2000):
                    run.work("nothing", count)
                    found = run.memory()
                    for name in ("parent", "private", "pss"):
                        key = f"{project.name} replaced {count} {name}"
                        self._keep(key, contender, found[name])

    def turnover(self, project: Project) -> None:
        """Measure tasks per second on four children that are replaced often."""
        for limit, count in ((1, 100), (10, 500)):
            args = {
                "concurrency": 4,
                "max-tasks-per-child": limit,
                "loglevel": "WARNING",
            }
            for contender in self._turns(self.rounds):
                with self._start(contender, "worker", project, args) as run:
                    run.work("nothing", count)
                    seconds = run.work("nothing", count)
                key = f"{project.name} turnover {limit}"
                self._keep(key, contender, count / seconds)

    def throughput(self, project: Project) -> None:
        """Measure tasks per second on two children; the running workers take turns."""
        args = {"concurrency": 2, "loglevel": "WARNING"}
        for task in ("nothing", "answer"):
            for _ in range(1 if self.quick else 3):
                with ExitStack() as stack:
                    runs = {
                        contender: stack.enter_context(
                            self._start(
                                contender, "worker", project, args, task == "answer"
                            )
                        )
                        for contender in available()
                    }
                    for run in runs.values():
                        run.work(task, 2000)
                    for contender in self._turns(2 * self.rounds):
                        seconds = runs[contender].work(task, 2000)
                        key = f"{project.name} throughput {task}"
                        self._keep(key, contender, 2000 / seconds)

    def gevent(self, project: Project) -> None:
        """Measure a hundred naps of 0.2 s on a hundred greenlets."""
        args = {"pool": "gevent", "concurrency": 100}
        for contender in self._turns(self.rounds):
            if contender == "own":  # it patches too late, and finishes no task
                continue
            with self._start(contender, "worker", project, args) as run:
                self._keep(
                    f"{project.name} gevent ready", contender, run.ready()["ready"]
                )
                naps = statistics.median(run.naps(100) for _ in range(3))
                self._keep(f"{project.name} gevent naps", contender, naps)
                self._keep(f"{project.name} gevent end", contender, run.end())

    def beat(self, project: Project) -> None:
        """Measure first message, memory and lateness, by number of periodic tasks."""
        if project.name != "small":
            return
        args = {"scheduler": "django_celery_beat.schedulers:DatabaseScheduler"}
        for count in (10, 1000) if self.quick else (10, 1000, 10_000):
            project.schedule(count)
            for contender in self._turns(self.rounds):
                with self._start(contender, "beat", project, args) as run:
                    found = {"first": run.first_message()}
                    late = run.lateness(5 if self.quick else 10)
                    found |= {"late": statistics.median(late), "latest": max(late)}
                    found |= run.memory()
                for name, value in found.items():
                    self._keep(f"{project.name} beat {count} {name}", contender, value)

    def keys(self, project: Project) -> None:
        """Measure a worker and a beat with and without each key of the entry."""
        if project.name != "small":
            return
        heartbeat = {"HEARTBEAT_FILE": str(project.folder / "heartbeat")}
        for keys in (heartbeat, {"GRACE_SECONDS": 25}):
            args = {"concurrency": 2}
            name = f"key {next(iter(keys))}"
            for contender in self._turns(5 * self.rounds, PAIR):
                with self._start(contender, "worker", project, args, keys=keys) as run:
                    self._keep(f"{name} ready", contender, run.ready()["ready"])
            args["loglevel"] = "WARNING"
            with ExitStack() as stack:
                runs = {
                    contender: stack.enter_context(
                        self._start(contender, "worker", project, args, keys=keys)
                    )
                    for contender in PAIR
                }
                for run in runs.values():
                    run.work("nothing", 2000)
                for contender in self._turns(5 * self.rounds, PAIR):
                    seconds = runs[contender].work("nothing", 2000)
                    self._keep(f"{name} throughput", contender, 2000 / seconds)
        project.schedule(10)
        args = {"scheduler": "django_celery_beat.schedulers:DatabaseScheduler"}
        for keys in (heartbeat, {"LEADER_LOCK": "default"}):
            name = f"key {next(iter(keys))}"
            for contender in self._turns(5 * self.rounds, PAIR):
                with self._start(contender, "beat", project, args, keys=keys) as run:
                    self._keep(f"{name} first", contender, run.first_message())

    def burst(self, project: Project) -> None:
        """Measure how long beat takes for many runs that are due at once."""
        if project.name != "small":
            return
        args = {"scheduler": "django_celery_beat.schedulers:DatabaseScheduler"}
        keys = {"LEADER_LOCK": "default"}
        for database in ("SQLite", "PostgreSQL"):
            if database == "PostgreSQL":
                if not self.postgresql:
                    continue
                project.env["DATABASE_URL"] = self.postgresql
                project.manage("migrate", "--noinput")
            for contender in self._turns(3 * self.rounds, PAIR):
                project.schedule(BURST, at_once=True)
                with self._start(contender, "beat", project, args, keys=keys) as run:
                    self._keep(f"burst {database}", contender, run.burst(BURST))
            project.env.pop("DATABASE_URL", None)

    def cost(self, project: Project) -> None:
        """Measure the CPU that tasks take, with all keys of a worker and with none."""
        if project.name != "small":
            return
        keys = {
            "HEARTBEAT_FILE": str(project.folder / "heartbeat"),
            "GRACE_SECONDS": 25,
        }
        args = {"concurrency": 2, "loglevel": "WARNING"}
        contenders = ["celery", *PAIR]
        with ExitStack() as stack:
            runs = {
                contender: stack.enter_context(
                    self._start(contender, "worker", project, args, keys=keys)
                )
                for contender in contenders
            }
            for run in runs.values():
                run.work("nothing", 2500)
            for contender in self._turns(5 * self.rounds, contenders):
                cpu = runs[contender].cpu("nothing", 2500)
                self._keep("key all cpu", contender, cpu)

    def probe(self, project: Project) -> None:
        """Measure what it costs to ask a worker whether it is alive."""
        if project.name != "small":
            return
        file = str(project.folder / "heartbeat")
        keys = {"HEARTBEAT_FILE": file}
        with self._start("with", "worker", project, {}, keys=keys) as run:
            run.ready()
            for question in self._turns(5 * self.rounds, list(QUESTIONS)):
                words = [file] if question == "probe" else []
                for name, value in run.ask(question, *words).items():
                    self._keep(f"probe {name}", question, value)

    def _turns(self, rounds: int, contenders: list[str] | None = None) -> Iterator[str]:
        """Yield each contender once per round; the order rotates."""
        contenders = contenders or available()
        for _ in range(rounds):
            self._turn += 1
            cut = self._turn % len(contenders)
            yield from contenders[cut:] + contenders[:cut]

    def _start(
        self,
        contender: str,
        program: str,
        project: Project,
        args: dict[str, Any],
        results: bool = False,
        keys: dict[str, Any] | None = None,
    ) -> Run:
        database = int(self.redis.url().rpartition("/")[2])
        print(".", end="", flush=True)
        if contender == "without":
            keys = None
        return Run(
            contender, program, project, args, database, results=results, keys=keys
        )

    def _keep(self, name: str, contender: str, value: float) -> None:
        self.values.setdefault(name, {}).setdefault(contender, []).append(
            round(value, 5)
        )


def machine() -> dict[str, str]:
    """Describe this machine, without its name."""
    with open("/proc/meminfo") as meminfo:
        memory = int(meminfo.readline().split()[1]) / 2**20
    found = {
        "date": date.today().isoformat(),
        "Python": platform.python_version(),
        "Redis": redis_version(),
        "cores": str(os.cpu_count()),
        "memory": f"{memory:.0f} GiB",
        "kernel": f"Linux {platform.release().partition('-')[0]}",
    }
    for package in PACKAGES:
        found[package] = importlib.metadata.version(package)
    return found


def redis_version() -> str:
    """Return the server's version; it prints "Redis server v=7.0.15 sha=…"."""
    said = subprocess.run(
        ["redis-server", "--version"], capture_output=True, text=True, check=True
    )
    return said.stdout.partition("v=")[2].partition(" ")[0]


def main() -> None:
    """Measure, print the tables, and after a whole run update the documentation."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parts = ("prefork", "replaced", "turnover", "throughput", "gevent", "beat")
    parts += ("keys", "burst", "cost", "probe")
    parser.add_argument("--quick", action="store_true", help="fewer runs")
    parser.add_argument("--rounds", type=int, help="turns of each (3; 2 if quick)")
    parser.add_argument("--part", action="append", choices=parts)
    parser.add_argument("--project", action="append", choices=PROJECTS)
    parser.add_argument(
        "--render",
        action="store_true",
        help="rewrite the documents without measuring",
    )
    options = parser.parse_args()
    rounds = options.rounds or (2 if options.quick else 3)
    # As an exception, so that the server and the processes are stopped too.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    # All figures in the documents come from one run on one machine.
    whole = not (options.quick or options.part or options.project)
    if options.render:
        known: dict[str, Any] = json.loads(RESULTS.read_text())
    else:
        if not Redis.program:
            sys.exit("The benchmark needs redis-server.")
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            redis = Redis(folder, stack)
            projects = []
            for name in options.project or PROJECTS:
                (folder / name).mkdir()
                projects.append(Project(name, folder / name, redis.url()))
            postgresql = ""
            if PostgreSQL.program:
                # With its defaults: a commit waits for the disk.
                server = PostgreSQL(folder, stack, "-c", "fsync=on")
                postgresql = server.url(lambda url: None)
            benchmark = Benchmark(redis, projects, rounds, options.quick, postgresql)
            benchmark.run(options.part or list(parts))
        print()
        known = {"machine": machine(), "values": benchmark.values}
    tables = report.tables(known)
    for title, table in tables.items():
        print(f"\n{title}\n\n{table}")
    if whole or options.render:
        RESULTS.write_text(json.dumps(known, indent=1) + "\n")
        report.write(known, tables, ROOT / "docs")


if __name__ == "__main__":
    main()
