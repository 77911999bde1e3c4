"""Strike the leader of three beats at random, and count what is sent.

``python -m tests.blows --database postgresql --blows 60 --seed 1``
"""

from __future__ import annotations

import argparse
import itertools
import random
import re
import signal
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from dev.servers import MariaDB, PostgreSQL, Redis
from dev.waiting import wait_until
from prodserver_celery5.leader.locks import LEASE
from prodserver_celery5.pytest_plugin.process import StartedProcess

from .relay import Relay
from .site import Message, Site, leader_of

# Each blow, and how long the lock stays taken after it, in seconds.
KINDS = {
    "SIGTERM": 0,
    "SIGKILL": 0,
    "SIGSTOP, short": 0,
    "SIGKILL before it sends": 0,
    "SIGKILL once it has sent": 0,
    "broker away": 0,
    "edited meanwhile": 0,
    "one-off and clocked": 0,
    "connection ended": 0,
    "server restarted": 0,
    "server away for a minute": 0,
    "SIGSTOP, past the lease": LEASE,
    "network silent": LEASE,
    "failover": 0,
}
# A file's lock has no lease, and no server.
KINDS_OF_SQLITE = tuple(KINDS)[:8]
# redbeat has no row that somebody could edit.
KINDS_OF_REDBEAT = tuple(KINDS)[:6]

SCHEDULERS = {"database": "Noted", "derived": "Tenants", "redbeat": "NotedRedBeat"}

# Edits the task, one field each time: who writes a whole row may put back an old last
# run. In one transaction, as the admin does: if the schedule changes once more while
# beat reads it, what is due is sent twice, by `celery beat` too (docs/one-beat.md).
EDIT = """
import time, django; django.setup()
from django.db import transaction
from django_celery_beat.models import PeriodicTask
for number in range(5):
    with transaction.atomic():
        task = PeriodicTask.objects.get(name="each second")
        task.description = f"edit {number}"
        task.save(update_fields=["description", "date_changed"])
    time.sleep(1)
print(task.description)
"""
# Tasks that run once, one each second from now on; prints how soon, in seconds.
ONCE = """
import django; django.setup()
from datetime import timedelta
from django.db import transaction
from django.utils.timezone import now
from django_celery_beat.models import *
first = now() + timedelta(seconds=8)
with transaction.atomic():
    every, _ = IntervalSchedule.objects.get_or_create(every=1, period="seconds")
    for number in range(8):
        due = first + timedelta(seconds=number)
        if number % 2:
            how = dict(clocked=ClockedSchedule.objects.create(clocked_time=due))
        else:
            how = dict(interval=every, start_time=due)
        name = f"once ROUND-{number}"
        PeriodicTask.objects.create(name=name, task="blow", one_off=True, **how)
print((first - now()).total_seconds())
"""


class Ring:
    """Three beats, and the blows that can strike the leader.

    Args:
        database: ``"postgresql"``, ``"mariadb"`` or ``"sqlite"``.
        folder: for the servers and the logs.
        stack: ends them all.
        chance: determines how long a blow takes.
        scheduler: one of `SCHEDULERS`.
    """

    def __init__(
        self,
        database: str,
        folder: Path,
        stack: ExitStack,
        chance: random.Random,
        scheduler: str = "database",
    ) -> None:
        self.chance = chance
        self.database = database
        self.stack = stack
        self.folder = folder
        self.server: Any = None
        self.servers = 0
        # How often tasks that run once were struck, and the last edit of the other.
        self.onces = 0
        self.edit = ""
        if database == "postgresql":
            self.server = PostgreSQL(folder, stack)
        elif database == "mariadb":
            self.server = self._mariadb()
        env = {"SCHEDULER": f"tests.blows.scheduler:{SCHEDULERS[scheduler]}"}
        if scheduler == "redbeat":
            env["BEAT_SCHEDULE"] = "each second"
        self.site = Site(folder, stack, Redis(folder, stack), self.server, **env)
        self.relays: dict[str, Relay | None] = {}
        self.beats: dict[str, StartedProcess] = {}
        for name in ("one", "two", "three"):
            # Each reaches the database through a relay of its own.
            relay = self.server and stack.enter_context(Relay(self.server.port))
            self.relays[name] = relay
            self.beats[name] = self.site.start(name, relay)

    def settle(self) -> None:
        """Restart beats that have ended; wait until all have settled and one sends."""
        for name, beat in self.beats.items():
            if beat.popen.poll() is not None:
                self.beats[name] = self.site.start(name, self.relays[name])
        wait_until(self._is_settled)
        self.site.inbox.wait_for_one(time.time())
        # One that has lost the lock may not have noticed before.
        wait_until(self._is_settled)

    def _is_settled(self) -> bool:
        """Whether one beat leads, and the others stand by."""
        states = sorted(state_of(beat) for beat in self.beats.values())
        return states == ["Leading", "Standing", "Standing"]

    def strike(self, kind: str) -> float:
        """Strike the leader once, and return the gap in seconds."""
        name = leader_of(self.beats)
        beat = self.beats[name]
        begin = time.time()
        if kind == "SIGTERM":
            assert beat.stop() == 0, beat.output
        elif kind == "SIGKILL":
            beat.kill()
        elif kind.startswith("SIGKILL "):
            moment = "before" if "before" in kind else "after"
            (self.site.folder / f"die {moment}").touch()
            wait_until(lambda: beat.popen.poll() is not None)
            begin = time.time()
        elif kind == "SIGSTOP, short":
            beat.send(signal.SIGSTOP)
            time.sleep(self.chance.uniform(1, LEASE / 3))
            begin = time.time()
            beat.send(signal.SIGCONT)
        elif kind == "broker away":
            self.site.broker.leave()
            time.sleep(10)
            begin = time.time()
            self.site.broker.come_back()
        elif kind == "edited meanwhile":
            begin = self._edit(beat)
        elif kind == "one-off and clocked":
            begin = self._strike_tasks_that_run_once(beat)
        elif kind == "connection ended":
            self._end_session()
        elif kind.startswith("server "):
            seconds = 60 if "minute" in kind else 1
            self.server.pause(lambda: time.sleep(seconds))
            begin = time.time()
        elif kind == "failover":
            begin = self._fail_over()
        elif kind == "SIGSTOP, past the lease":
            said = beat.output.count("Standing by")
            beat.send(signal.SIGSTOP)
            gap = self._gap(begin)
            beat.send(signal.SIGCONT)
            beat.wait_for("Standing by", count=said + 1)
            return gap
        elif relay := self.relays[name]:
            relay.silence()
            gap = self._gap(begin)
            relay.speak()
            return gap
        return self._gap(begin)

    def _gap(self, begin: float) -> float:
        # A message already under way does not count.
        return self.site.inbox.wait_for_one(begin + 0.1, LEASE + 20) - begin

    def _edit(self, beat: StartedProcess) -> float:
        """Kill the leader while somebody edits the task; return when."""
        told: list[str] = []
        editing = threading.Thread(target=lambda: told.append(self.site.python(EDIT)))
        editing.start()
        time.sleep(self.chance.uniform(1, 6))
        beat.kill()
        begin = time.time()
        editing.join()
        (self.edit,) = told
        return begin

    def _strike_tasks_that_run_once(self, beat: StartedProcess) -> float:
        """End the leader while such tasks come due; return when."""
        self.onces += 1
        first = time.time() + float(
            self.site.python(ONCE.replace("ROUND", str(self.onces)))
        )
        time.sleep(max(0, first - time.time()) + self.chance.uniform(0, 7))
        if self.chance.random() < 0.5:
            assert beat.stop() == 0, beat.output
        else:
            beat.kill()
        begin = time.time()
        time.sleep(max(0, first + 10 - begin))
        return begin

    def _mariadb(self) -> Any:
        """Start a server that another one can follow."""
        self.servers += 1
        (folder := self.folder / f"server {self.servers}").mkdir()
        options = (
            f"--server-id={self.servers}",
            "--log-bin=log",
            "--log-slave-updates",
        )
        server = MariaDB(folder, self.stack, *options)
        server.sql("", "INSTALL SONAME 'metadata_lock_info'")
        return server

    def _fail_over(self) -> float:
        """Put a replica in the place of the server, which is fenced; return when."""
        old, new = self.server, self._mariadb()
        new.sql(
            "",
            "CHANGE MASTER TO MASTER_HOST = '127.0.0.1', MASTER_USER = 'root',"
            f" MASTER_PORT = {old.port}, MASTER_USE_GTID = slave_pos; START SLAVE",
        )
        relays = [relay for relay in self.relays.values() if relay]
        for relay in relays:
            relay.leave()
        position = old.sql("", "SELECT @@gtid_binlog_pos")
        assert new.sql("", f"SELECT MASTER_GTID_WAIT('{position}', 60)") == "0"
        new.sql("", "STOP SLAVE; RESET SLAVE ALL")
        old.process.kill()
        self.server = self.site.server = new
        self.site.url = self.site.url.replace(f":{old.port}/", f":{new.port}/")
        for relay in relays:
            relay.turn_to(new.port)
            relay.come_back()
        return time.time()

    def _end_session(self) -> None:
        """Make the server end the session that has the lock."""
        if self.database == "postgresql":
            self.site.sql(
                "SELECT pg_terminate_backend(pid) FROM pg_locks"
                " WHERE locktype = 'advisory' AND granted"
            )
        else:
            session = self.site.sql(
                "SELECT thread_id FROM information_schema.metadata_lock_info"
                " WHERE lock_type = 'User lock'"
            )
            self.site.sql(f"KILL {session}")


def state_of(beat: StartedProcess) -> str:
    """Return what a beat last said of its lead, without the reason."""
    lines = re.findall("beat: (Leading|Standing|.*starting again)", beat.output)
    return lines[-1] if lines else ""


def once_each(messages: list[Message]) -> list[Message]:
    """Drop what one process has sent again for the same run.

    django-celery-beat does that if an edit comes between two looks of the same tick, as
    on a busy machine, and `celery beat` with it (docs/one-beat.md).
    """
    return list(
        {(each.name, each.sender, each.run): each for each in messages}.values()
    )


def wrongs(messages: list[Message], runs: int) -> list[str]:
    """Return what is wrong with the messages that were sent.

    Args:
        messages: all of them.
        runs: how often the task of each second has run, as the database counts.
    """
    wrong = []
    for name in sorted({message.name for message in messages}):
        own = [message for message in messages if message.name == name]
        due = 1 if name.startswith("once") else runs
        if len(own) > due:
            wrong.append(f"{name}: {len(own)} messages for {due} runs")
        if len({message.run for message in own}) < len(own):
            wrong.append(f"{name}: a run was sent twice")
        ordered = sorted(own, key=lambda message: message.noted)
        for before, after in itertools.pairwise(ordered):
            # The interval is a second, minus ten milliseconds that beat takes off.
            if after.noted - before.noted < 0.95:
                wrong.append(f"twice for one due time: {before}, {after}")
    # A task that runs once has no last run to order it by.
    often = [message for message in messages if not message.name.startswith("once")]
    ordered = sorted(often, key=lambda message: message.noted)
    turns = [sender for sender, _ in itertools.groupby(m.sender for m in ordered)]
    if len(turns) > len(set(turns)):
        wrong.append("one beat sent in the midst of another's lead")
    return wrong


def never(messages: list[Message], runs: int, onces: int) -> dict[str, int]:
    """Return how often each task was due, and never sent.

    Args:
        messages: all that were sent.
        runs: how often the task of each second has run, as the database counts.
        onces: how often eight tasks that run once were made.
    """
    sent = Counter(message.name for message in messages)
    due = {name: runs for name in sent if not name.startswith("once")}
    # A derived scheduler sends for each tenant.
    ends = [name.removeprefix("each second") for name in due]
    once = [f"once {n}-{k}" for n in range(1, onces + 1) for k in range(8)]
    due |= {f"{name}{end}": 1 for name in once for end in ends}
    return {name: due[name] - sent[name] for name in due if due[name] > sent[name]}


def main() -> int:
    """Run the program, and return 0 if nothing is wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.blows", description=__doc__)
    databases = ("postgresql", "mariadb", "sqlite")
    parser.add_argument("--database", choices=databases, default="postgresql")
    parser.add_argument("--scheduler", choices=SCHEDULERS, default="database")
    parser.add_argument("--blows", type=int, default=60)
    parser.add_argument("--kind", action="append", choices=KINDS)
    parser.add_argument("--bound", type=int, default=3, help="for a gap, in seconds")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    options = parser.parse_args()
    what = f"{options.database}, {options.scheduler} scheduler, seed {options.seed}"
    print(what, flush=True)
    chance = random.Random(options.seed)
    possible = set(KINDS)
    if options.database == "sqlite":
        possible &= {*KINDS_OF_SQLITE}
    if options.scheduler == "redbeat":
        possible &= {*KINDS_OF_REDBEAT}
    if options.database != "mariadb":
        possible -= {"failover"}
    names = tuple(options.kind or filter(possible.__contains__, KINDS))
    for kind in {*names} - possible:
        parser.error(f"{what}: there is no such blow here: {kind}")
    # All kinds equally often, in random order.
    kinds = (list(names) * options.blows)[: options.blows]
    chance.shuffle(kinds)
    gaps: dict[str, list[float]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        folder.chmod(0o755)
        ring = Ring(options.database, folder, stack, chance, options.scheduler)
        try:
            for count, kind in enumerate(kinds, 1):
                ring.settle()
                time.sleep(chance.uniform(0, 2))
                gaps[kind].append(ring.strike(kind))
                print(f"{count:3} {kind}: {gaps[kind][-1]:.2f} s", flush=True)
            ring.settle()
            for beat in ring.beats.values():
                assert beat.stop() == 0, beat.output
        except BaseException:
            for name, beat in ring.beats.items():
                print(f"--- {name}, {beat.popen.poll()}\n{beat.output[-6000:]}")
            raise
        # Let messages under way arrive.
        time.sleep(0.5)
        messages, runs = ring.site.inbox.messages, ring.site.runs()
        if options.scheduler == "redbeat":
            runs = max(message.run for message in messages)
        if ring.edit:
            query = "SELECT description FROM django_celery_beat_periodictask"
            found = ring.site.sql(f"{query} WHERE name = 'each second'")
            kept = once_each(messages)
            print(f"{len(messages) - len(kept)} sent again, as the schedule changed")
            messages = kept
    wrong = wrongs(messages, runs)
    if ring.edit and found != ring.edit:
        wrong.append(f"an edit was undone: {found} in place of {ring.edit}")
    for kind, seen in sorted(gaps.items()):
        print(f"{kind}: {len(seen)} times, the longest gap {max(seen):.2f} s")
        bound = KINDS[kind] + options.bound
        if max(seen) > bound:
            wrong.append(f"{kind}: a gap of more than {bound} s")
    print(f"{len(messages)} messages for {runs} runs")
    lost = never(messages, runs, ring.onces)
    print(f"never sent: {lost or 'nothing'}")
    # A blow can fall between the save of a run and its message. While the broker is
    # away, beat gives up each message after a moment, as `celery beat` does.
    allowed = len(kinds) + 12 * kinds.count("broker away")
    if sum(lost.values()) > allowed * len({m.name for m in messages} & {*lost}):
        wrong.append("more was lost than one run at each blow")
    print("\n".join(f"WRONG: {line}" for line in wrong) or "nothing is wrong")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
