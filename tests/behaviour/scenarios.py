"""The scenarios: what happens to a worker or beat, each as a function of a site."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import celery

from dev.procfile import ROOT, free_port
from prodserver_celery5.pytest_plugin.process import ProcessError
from tests.deployment import wait_until_asleep

from .sides import READY, Site, title

__all__ = ("SCENARIOS", "Scenario")

Outcome = dict[str, Any]

SCENARIOS: list[Scenario] = []

# A worker logs this at DEBUG when its warm shutdown begins to wait for tasks: some time
# after the signal, because Celery's loop looks for it only between polls.
POOL_STOPS = "Worker: Stopping Pool"


@dataclass(frozen=True)
class Scenario:
    """Something that happens to a process, on both sides.

    Args:
        name: what happens.
        act: makes it happen at a site, and returns the outcome.
        broker: the name of the site's broker.
        since: the first Celery that supports it, always with the same outcome.
        expected: what our outcome must contain; the status is that of Celery 5.3+.
        known: arguments for `act`.
        once: whether no version changes it, so that one run of it is enough.
    """

    name: str
    act: Callable[..., Outcome]
    broker: str = "redis"
    since: tuple[int, int] = (5, 0)
    expected: Mapping[str, Any] = field(default_factory=dict)
    known: Mapping[str, Any] = field(default_factory=dict)
    once: bool = False

    def __call__(self, site: Site) -> Outcome:
        """Make it happen at a site."""
        return self.act(site, **self.known)

    @property
    def runs(self) -> bool:
        """Whether the installed Celery is new enough for it."""
        return celery.VERSION[:2] >= self.since


def scenario(
    name: str,
    *known: Mapping[str, Any],
    broker: str = "redis",
    since: tuple[int, int] = (5, 0),
    once: bool = False,
    **expected: Any,
) -> Callable[[Callable[..., Outcome]], Callable[..., Outcome]]:
    """Add a scenario to the list, or one for each set of arguments."""

    def add(act: Callable[..., Outcome]) -> Callable[..., Outcome]:
        for arguments in known or ({},):
            given = dict(arguments)
            SCENARIOS.append(
                Scenario(
                    name=name.format(**given),
                    act=act,
                    broker=given.pop("broker", broker),
                    since=given.pop("since", since),
                    expected={**expected, **given.pop("expected", {})},
                    known=given,
                    once=once,
                )
            )
        return act

    return add


# Exit statuses


@scenario(
    "pidfile in use, {program}", {"program": "worker"}, {"program": "beat"}, status=73
)
def pidfile_in_use(site: Site, program: str) -> Outcome:
    pidfile = site.folder / "pid"
    pidfile.write_text(f"{os.getpid()}\n")
    return site.fails(program, pidfile=pidfile)


@scenario("RabbitMQ refuses the queue", broker="rabbitmq", status=1)
def broker_refuses(site: Site) -> Outcome:
    with site.app() as app, app.connection_for_write() as connection:
        # The worker's is durable: "PRECONDITION_FAILED - inequivalent arg 'durable'".
        channel = connection.default_channel
        channel.queue_declare("celery", durable=False, auto_delete=False)
    return site.fails("worker")


@scenario(
    "broker unreachable, {what}, {program}",
    {
        "what": "no retry on startup",
        "program": "worker",
        "since": (5, 3),
        "code": "CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = False\n",
    },
    {
        "what": "retries used up",
        "program": "worker",
        "code": "CELERY_BROKER_CONNECTION_MAX_RETRIES = 1\n",
    },
    {
        "what": "retries used up",
        "program": "beat",
        "code": "CELERY_BROKER_CONNECTION_MAX_RETRIES = 1\n"
        "CELERY_BEAT_SCHEDULE = {'every second':"
        " {'task': 'tests.behaviour.tasks.write', 'schedule': 1, 'args': ['beat']}}\n",
    },
    status=1,
)
def broker_unreachable(site: Site, what: str, program: str, code: str) -> Outcome:
    site.env["REDIS_URL"] = f"redis://127.0.0.1:{free_port()}/0"
    site.configure(code)
    return site.fails(program)


@scenario("state database not writable", status=1)
def state_database(site: Site) -> Outcome:
    # In a missing folder: the tests may run as root, whom no permission stops.
    return site.fails("worker", statedb=site.folder / "missing" / "state")


@scenario(
    "task module fails to import, {program}",
    {"program": "worker"},
    {"program": "beat"},
    status=1,
)
def task_module(site: Site, program: str) -> Outcome:
    (site.folder / "fails_to_import.py").write_text("raise RuntimeError('no')\n")
    site.configure("CELERY_IMPORTS = ('fails_to_import',)\n")
    return site.fails(program)


@scenario("schema not migrated, DatabaseScheduler", status=1)
def not_migrated(site: Site) -> Outcome:
    (site.folder / "db.sqlite3").unlink()
    site.configure("INSTALLED_APPS.append('django_celery_beat')\n")
    return site.fails(
        "beat", scheduler="django_celery_beat.schedulers:DatabaseScheduler"
    )


@scenario("beat with a scheduler that raises", status=1)
def scheduler_raises(site: Site) -> Outcome:
    (site.folder / "raising.py").write_text(
        "from celery.beat import Scheduler\n\n"
        "class Raising(Scheduler):\n"
        "    def tick(self, *args, **kwargs):\n"
        "        raise RuntimeError('no')\n"
    )
    return site.fails("beat", scheduler="raising.Raising")


@scenario(
    "{name} idle, {program}",
    {"name": "SIGTERM", "program": "worker", "expected": {"status": 0}},
    {"name": "SIGINT", "program": "worker"},
    {"name": "SIGQUIT", "program": "worker"},
    {"name": "SIGTERM", "program": "beat", "expected": {"status": 0}},
    {"name": "SIGINT", "program": "beat", "expected": {"status": 0}},
    {"name": "SIGQUIT", "program": "beat"},
    {"name": "SIGHUP", "program": "beat"},
)
def signalled_idle(site: Site, name: str, program: str) -> Outcome:
    process = site.ready(program)
    # Beat logs "Starting" before it opens the schedule.
    wait_until_asleep(process)
    return site.end(process, signal.Signals[name])


@scenario(
    "{signals} with tasks",
    {"signals": "SIGTERM", "how": "Warm"},
    {"signals": "SIGTERM SIGTERM", "how": "Warm Warm"},
    {"signals": "SIGINT", "how": "Warm"},
    # Celery 5.0 sometimes begins, and so loses, one task more.
    {"signals": "SIGINT SIGINT", "how": "Warm Cold", "since": (5, 1)},
    {"signals": "SIGQUIT", "how": "Cold"},
    {"signals": "SIGTERM SIGQUIT", "how": "Warm Cold"},
)
def signalled_busy(site: Site, signals: str, how: str) -> Outcome:
    """Two tasks run and two wait when the signals arrive.

    Each signal waits until the one before has taken effect. If a task ended just as a
    signal arrived, Celery's handler could wait forever for the pool whose result it
    interrupted. So tasks end once a warm shutdown has begun, or a cold one cuts them.
    """
    worker = site.ready(concurrency=2, prefetch_multiplier=1, loglevel="DEBUG")
    site.send("hold", *((n,) for n in range(4)))
    site.wait_until_under_way(worker, 2)
    began = time.monotonic()
    kinds = how.split()
    for number, (name, kind) in enumerate(zip(signals.split(), kinds, strict=True), 1):
        worker.send(signal.Signals[name])
        with suppress(ProcessError):  # the last signal may end it at once
            said = rf"{kind} shutdown \(MainProcess\)"
            worker.wait_for(said, count=kinds[:number].count(kind))
            if kind == "Warm":
                worker.wait_for(POOL_STOPS)
    if kinds[-1] == "Warm":
        site.gate.touch()
    return site.ended(worker, began) | _account(site, 4)


def _account(site: Site, sent: int, word: str = "ended ") -> Outcome:
    """Count the tasks that ran, and those that never will."""
    ran = len(site.done(word))
    # Tasks that ran but were not acknowledged still wait, to run again.
    return {"ran": ran, "lost": max(0, sent - ran - site.waiting())}


@scenario("app.control.shutdown()", status=0)
def control_shutdown(site: Site) -> Outcome:
    worker = site.ready()
    wait_until_asleep(worker)  # it says "ready" before it subscribes
    began = time.monotonic()
    with site.app() as app:
        app.control.shutdown()
    return site.ended(worker, began)


@scenario("REMAP_SIGTERM=SIGQUIT", status=0)
def remapped(site: Site) -> Outcome:
    site.env["REMAP_SIGTERM"] = "SIGQUIT"
    worker = site.ready(concurrency=2, prefetch_multiplier=1)
    site.send("hold", ("a",), ("b",), ("c",))
    site.wait_until_under_way(worker, 2)
    return site.end(worker, signal.SIGTERM) | _account(site, 3)


@scenario("killed pool child", status=0)
def killed_child(site: Site) -> Outcome:
    """The kernel kills a child in the middle of a task; another replaces it."""
    worker = site.ready(concurrency=2)
    site.send("fall", ())
    worker.wait_for("WorkerLostError")
    site.send("write", ("after",))
    site.wait_for_notes(1)
    children = len(site.children(worker))
    return site.end_idle(worker) | {"children": children}


@scenario("worker --max-tasks-per-child", status=0)
def replaced_children(site: Site) -> Outcome:
    worker = site.ready(concurrency=1, max_tasks_per_child=2)
    # After the last, no child is about to be replaced: Celery 5.0 may hang then.
    site.send("write", *((n,) for n in range(5)))
    site.wait_for_notes(5)
    return site.end_idle(worker) | _account(site, 5, "")


# Shutdown, and what is lost


# Up to Celery 5.2 the handler raises wherever the signal finds the worker: with 5.0, 3
# of 33 runs lost a message, two of them on the command's side.
@scenario("warm shutdown under load", since=(5, 3), status=0, lost=0)
def warm_shutdown(site: Site) -> Outcome:
    """Running tasks finish, no new one begins, the rest stay queued."""
    sent = 200
    worker = site.ready(concurrency=2)
    site.send("nap", *((0.1, n) for n in range(sent)))
    site.wait_until(lambda: len(site.done()) > 10)
    signalled = time.monotonic()
    worker.send(signal.SIGTERM)
    worker.wait_for(r"Warm shutdown \(MainProcess\)")
    began = len(site.done("began "))
    outcome = site.ended(worker, signalled)
    account = _account(site, sent)
    new = len(site.done("began ")) - began
    cut = len(site.done("began ")) - account.pop("ran")
    # Up to eight may have gone to the children before, and begin after the count.
    return outcome | account | {"cut short": cut, "begun after": max(0, new - 8)}


@scenario(
    "SIGTERM to the group, {task}, REMAP_SIGTERM={remap}",
    {"task": "hold", "remap": ""},
    {"task": "hold_late", "remap": ""},
    {"task": "hold_rejected", "remap": "", "expected": {"lost": 0}},
    {"task": "hold", "remap": "SIGTERM", "expected": {"ran": 2, "lost": 0}},
)
def group_signalled(site: Site, task: str, remap: str) -> Outcome:
    """Heroku, honcho and systemd's default KillMode signal the whole group.

    The remedy is REMAP_SIGTERM: with any value, the pool's children ignore SIGTERM.
    """
    if remap:
        site.env["REMAP_SIGTERM"] = remap
    worker = site.ready(concurrency=2, prefetch_multiplier=1, loglevel="DEBUG")
    site.send(task, ("a",), ("b",), ("c",))
    site.wait_until_under_way(worker, 2)
    children = site.children(worker)
    began = time.monotonic()
    os.killpg(worker.pid, signal.SIGTERM)
    if remap:
        worker.wait_for(POOL_STOPS)
    else:
        site.wait_until(
            lambda: (
                worker.popen.poll() is not None or not children & site.children(worker)
            )
        )
    site.gate.touch()
    try:
        status: int | None = worker.wait()
    except ProcessError:
        status = None  # a platform would have sent SIGKILL long ago
        worker.kill()
    outcome = _account(site, 3)
    if not remap:
        # A child that replaces a dead one may or may not run the third task.
        outcome.pop("ran")
    return outcome | {
        "status": status,
        "seconds": time.monotonic() - began,
        "hangs": status is None,
    }


@scenario(
    "soft shutdown, {what}",
    {"what": "tasks end in time", "soft": 6},
    {"what": "time is over", "soft": 1},
    {"what": "SIGQUIT twice more", "soft": 600},
    since=(5, 5),
    status=0,
)
def soft_shutdown(site: Site, what: str, soft: int) -> Outcome:
    site.configure(f"CELERY_WORKER_SOFT_SHUTDOWN_TIMEOUT = {soft}\n")
    worker = site.ready(concurrency=2, prefetch_multiplier=1)
    site.send("hold_late", ("a",), ("b",), ("c",))
    site.wait_until_under_way(worker, 2)
    began = time.monotonic()
    worker.send(signal.SIGQUIT)
    worker.wait_for("Initiating Soft Shutdown")
    if what == "tasks end in time":
        site.gate.touch()
    elif what == "SIGQUIT twice more":
        worker.send(signal.SIGQUIT)
        worker.wait_for("Waiting gracefully for cold shutdown")
        worker.send(signal.SIGQUIT)
    return site.ended(worker, began) | _account(site, 3)


@scenario(
    "1,000 acks_late tasks, three kills, {broker}",
    {"broker": "redis"},
    {"broker": "rabbitmq", "expected": {"popped": 0}},
    once=True,
    lost=0,
)
def three_kills(site: Site) -> Outcome:
    """Workers end at random moments, by cold shutdown or SIGKILL to their group."""
    sent = 1000
    moments = random.Random(20261122)
    site.configure(
        "CELERY_BROKER_TRANSPORT_OPTIONS = {'visibility_timeout': 3}\n"
        if site.broker.startswith("redis:")
        else ""
    )
    began = time.monotonic()
    identifiers = site.send("work", *((f"ended {n}",) for n in range(sent)))
    stuck = 0
    for number in range(3):
        worker = site.ready(concurrency=2)
        after = len(site.notes()) + moments.randrange(150)
        site.wait_until(
            lambda after=after: len(site.notes()) >= after or len(site.done()) == sent
        )
        time.sleep(moments.random() / 10)
        if number != 1:
            os.killpg(worker.pid, signal.SIGKILL)
            worker.wait()
            continue
        try:
            worker.stop(signal.SIGQUIT, timeout=5)
        except ProcessError:
            # Celery's handler talks to RabbitMQ in the middle of another exchange.
            stuck += 1
            worker.kill()
    for _ in range(5):
        # A worker restores what the dead ones held when it starts, then every 100 s.
        time.sleep(3.5)
        worker = site.ready(concurrency=2)
        before = -1
        while (notes := len(site.notes())) != before:
            before = notes
            time.sleep(2)
        site.end_idle(worker)
        if not site.waiting():
            break
    log = (site.folder / "worker.log").read_text()
    received = set(re.findall(r"ask:? tests\S+\[(\S{36})\]", log))
    done = site.done()
    missing = [n for n in range(sent) if f"ended {n}" not in done]
    # Redis hands out a message and forgets it (BRPOP) before kombu records who has it:
    # if a worker is killed in between, on either side, nobody ever receives it.
    popped = sum(identifiers[n] not in received for n in missing)
    return {
        "done": len(done),
        "lost": len(missing) - popped,
        "popped": popped,
        "stuck": stuck,
        "seconds": time.monotonic() - began,
    }


# Environment and output


@scenario(
    "CELERY_QUIET and CELERY_WORKDIR, {program}",
    {"program": "worker", "began": READY, "told": (5, 1)},
    {"program": "beat", "began": "beat: Starting", "told": (5, 3)},
    there=True,
    quiet=True,
)
def variables(site: Site, program: str, began: str, told: tuple[int, int]) -> Outcome:
    folder = site.folder / "work"
    folder.mkdir()
    path = os.pathsep.join([site.env["PYTHONPATH"], str(ROOT)])
    site.env |= {"CELERY_QUIET": "yes", "CELERY_WORKDIR": str(folder)}
    site.env["PYTHONPATH"] = path
    process = site.run(program, pidfile="it.pid")
    process.wait_for(began)
    wait_until_asleep(process)
    there = (folder / "it.pid").exists()
    return site.end(process, signal.SIGTERM) | {
        "there": there,
        # Before `told`, Celery did not pass --quiet on to the program.
        "quiet": told > celery.VERSION
        or not re.search("transport:|broker ->", process.output),
    }


@scenario("ASCII output, non-ASCII log file", status=0)
def ascii_output(site: Site) -> Outcome:
    site.env["PYTHONIOENCODING"] = "ascii"
    log = site.folder / "wörker.log"
    worker = site.run("worker", logfile=log, concurrency=1)
    site.wait_until(lambda: log.exists() and re.search(READY, log.read_text()))
    return site.end_idle(worker)


@scenario("output to a full device", status=1)
def full_output(site: Site) -> Outcome:
    return site.fails("worker", wrapper=["sh", "-c", 'exec "$@" >/dev/full', "sh"])


# SIGHUP, and losing the broker


@scenario(
    "SIGHUP, {pool}",
    *({"pool": pool} for pool in ("prefork", "gevent", "eventlet")),
    status=0,
)
def hung_up(site: Site, pool: str) -> Outcome:
    """A reload keeps the pid and reads the settings anew."""
    site.configure("TOLD = 'before'\n")
    worker = site.ready(pool=pool, concurrency=2)
    site.send("tell_setting", ("TOLD",))
    site.wait_for_notes(1)
    site.configure("TOLD = 'after'\n")
    worker.send(signal.SIGHUP)
    worker.wait_for(READY, count=2)
    site.send("tell_setting", ("TOLD",))
    site.wait_until(lambda: "TOLD = after" in site.notes())
    site.send("look", ())
    site.wait_until(lambda: site.done("{"))
    (look,) = site.done("{")
    return site.end_idle(worker) | {
        # A set: after a reload, an older green pool may run a task again.
        "told": sorted(site.done("TOLD")),
        "patched": json.loads(look)["patched"],
    }


@scenario("broker gone for ten seconds", broker="redis of its own", lost=0)
def broker_gone(site: Site) -> Outcome:
    """Worker and beat recover by themselves: new tasks run, and beat sends."""
    site.configure(
        "CELERY_BEAT_SCHEDULE = {'every second':"
        " {'task': 'tests.behaviour.tasks.write', 'schedule': 1, 'args': ['beat']}}\n"
    )
    worker = site.ready(concurrency=2)
    beat = site.ready("beat")

    def wait_for_rest() -> None:
        """Wait until one of beat's messages, sent each second, is acknowledged.

        In the middle of one, on both sides, the worker may die if the broker ends, and
        beat may miss SIGTERM: docs/signals.md has the figures.
        """
        before = site.notes().count("beat")
        site.wait_until(lambda: site.notes().count("beat") > before)
        site.wait_until(lambda: not site.waiting())

    wait_for_rest()
    site.server.pause(lambda: time.sleep(10))
    for _ in range(2):
        wait_for_rest()
    site.send("write", *((f"ended {n}",) for n in range(10)))
    site.wait_until(lambda: len(site.done()) == 10)
    wait_for_rest()
    statuses = [site.end(beat, signal.SIGTERM)["status"]]
    outcome = site.end_idle(worker) | _account(site, 10)
    return outcome | {"beat": statuses}


# What is logged


@scenario(
    "log, {what}",
    {"what": "hijacked", "code": ""},
    {"what": "not hijacked", "code": "CELERY_WORKER_HIJACK_ROOT_LOGGER = False\n"},
    {
        "what": "own format",
        "code": "CELERY_WORKER_LOG_FORMAT = 'own %(levelname)s %(message)s'\n"
        "CELERY_WORKER_TASK_LOG_FORMAT = 'own task %(task_name)s %(message)s'\n",
    },
    {
        "what": "Django's LOGGING",
        "code": "LOGGING['formatters']['own'] = {'format': 'LOGGING %(message)s'}\n"
        "LOGGING['handlers']['own'] = {'class': 'logging.StreamHandler',"
        " 'formatter': 'own'}\n"
        "LOGGING['loggers']['django.own'] ="
        " {'handlers': ['own'], 'propagate': False}\n",
    },
    {
        "what": "loggers disabled",
        "code": "LOGGING['disable_existing_loggers'] = True\n",
    },
    {"what": "on a terminal", "code": "", "terminal": True},
    {
        "what": "no_color on a terminal",
        "code": "",
        "terminal": True,
        "env": {"NO_COLOR": "1"},
    },
)
def logged(
    site: Site,
    what: str,
    code: str,
    terminal: bool = False,
    env: Mapping[str, str] | None = None,
) -> Outcome:
    site.env.update(env or {})
    site.configure(code)
    wrapper = []
    if terminal:
        # Copies what the process writes to its terminal, as `script` does.
        wrapper = [sys.executable, "-c", "import pty, sys; pty.spawn(sys.argv[1:])"]
        site.env["TERM"] = "xterm"
    worker = site.run("worker", concurrency=1, wrapper=wrapper)
    worker.wait_for("celery@|mingle") if what == "loggers disabled" else (
        worker.wait_for(READY)
    )
    site.send("log", ("hello",))
    worker.wait_for("logger of LOGGING: hello")
    site.send("write", ("x",))
    site.wait_for_notes(1)
    with site.app() as app:
        app.control.shutdown()
    worker.wait()
    lines = _normal(worker.output)
    if "disable_existing_loggers" in code:
        # The `celery` command imports more, and so disables one more logger.
        lines = [line for line in lines if "Got shutdown from remote" not in line]
    return {
        "lines": lines,
        "count": len(lines),
        "colours": any("\033[" in line for line in lines),
    }


def _normal(output: str) -> list[str]:
    """Return the lines of a log without what differs from run to run."""
    for pattern, instead in (
        (r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(,\d+)?", "TIME"),
        (r"[0-9a-f]{8}-[0-9a-f-]{27}", "ID"),
        (r"0x[0-9a-f]+", "ADDRESS"),
        (r"/\d+\b", "/DATABASE"),
        (r"in \d+\.\d+(e-\d+)?s", "in TIME"),
        (r"/\S*/(celery|prodserver)/", "FOLDER/"),
    ):
        output = re.sub(pattern, instead, output)
    # What django-prodserver and we print before Celery starts.
    ours = re.compile(
        r".*(Starting (server|worker) named|management command is deprecated)"
        r"|celery --app"
    )
    # click warns of the --uid that Celery 5.2 declares twice, and setuptools of the
    # module that 5.0 and 5.1 import; the places they name differ.
    warning = r".*UserWarning: (The parameter --uid|pkg_resources).*\n.*\n"
    output = re.sub(warning, "", output)
    lines = [line.rstrip() for line in output.splitlines() if not ours.match(line)]
    # The number of empty lines, some with a colour reset, varies from run to run.
    return sorted(line for line in lines if line.replace("\033[0m", ""))


@scenario("process title")
def process_title(site: Site) -> Outcome:
    """The parent's title shows the command, each child's its name."""
    worker = site.ready(concurrency=1)
    (child,) = site.children(worker)
    titles = [_title(site, title(worker.pid)), _title(site, title(child))]
    site.end_idle(worker)
    return {"titles": titles}


def _title(site: Site, shown: str) -> str:
    """Return a title with either side's command replaced by COMMAND."""
    commands = {
        "celery": r"--app=prayer_room_api worker --loglevel=INFO --concurrency=1",
        # Celery leaves out manage.py and its subcommand.
        "prodserver": r"worker",
    }
    return re.sub(rf"\({commands[site.side]}\)", "(COMMAND)", shown)


# Pools

POOLS: list[dict[str, Any]] = [
    {"pool": "prefork", "expected": {"patched": ""}},
    {"pool": "solo", "expected": {"patched": ""}},
    {"pool": "threads", "expected": {"patched": ""}},
    {"pool": "gevent", "expected": {"patched": "gevent"}},
    {"pool": "eventlet", "expected": {"patched": "eventlet"}},
    {"pool": "custom", "since": (5, 3), "expected": {"patched": ""}},
]


@scenario("pool {pool}", *POOLS, status=0, ran=10, lost=0)
def pools(site: Site, pool: str) -> Outcome:
    site.env["CELERY_CUSTOM_WORKER_POOL"] = "own_pool:TaskPool"
    (site.folder / "own_pool.py").write_text(
        "from celery.concurrency.solo import TaskPool\n\n"
        "class TaskPool(TaskPool):\n    own = True\n"
    )
    worker = site.ready(pool=pool, concurrency=2)
    banner = re.findall(r"concurrency: .*", worker.output)
    site.send("look", ())
    look = json.loads(site.wait_for_notes(1)[0])
    site.send("write", *((f"ended {n}",) for n in range(10)))
    site.wait_until(lambda: len(site.done()) == 10)
    return (
        site.end_idle(worker)
        | _account(site, 10)
        | {"banner": banner, "patched": look["patched"]}
    )


@scenario(
    "100 naps, {pool}",
    {"pool": "gevent"},
    {"pool": "eventlet"},
    status=0,
    ran=100,
    lost=0,
)
def naps(site: Site, pool: str) -> Outcome:
    """Each greenlet has its own connection to the database."""
    # All are there when the worker comes: a busy machine sends one at a time.
    site.send("nap_with_orm", *[(0.2,)] * 100)
    worker = site.ready(pool=pool, concurrency=100)
    site.wait_until(lambda: sum(n.startswith("ended") for n in site.notes()) == 100)
    notes = site.notes()
    under_way = most = 0
    for note in notes:
        under_way += 1 if note.startswith("began") else -1
        most = max(most, under_way)
    connections = {note for note in notes if note.startswith("ended")}
    outcome = site.end_idle(worker)
    ended = sum(note.startswith("ended") for note in notes)
    return outcome | {
        "ran": ended,
        "lost": max(0, 100 - ended - site.waiting()),
        "connections": len(connections),
        "own connections": len(connections) > 5,
        "changed": "ended changed" in connections,
        "at once": most,
        # In sequence it would be 1.
        "many at once": most > 5,
    }


@scenario(
    "interpreter flags, {pool}", {"pool": "prefork"}, {"pool": "gevent"}, status=0
)
def flags(site: Site, pool: str) -> Outcome:
    python = ["-O", "-X", "behaviour", "-W", "ignore:Behaviour:UserWarning"]
    worker = site.ready(pool=pool, concurrency=1, python=python)
    site.send("look", ())
    look = json.loads(site.wait_for_notes(1)[0])
    return site.end_idle(worker) | look
