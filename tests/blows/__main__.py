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
import time
from collections import defaultdict
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
    "connection ended": 0,
    "server restarted": 0,
    "SIGSTOP, past the lease": LEASE,
    "network silent": LEASE,
}
# A file's lock has no lease, and no server.
KINDS_OF_SQLITE = tuple(KINDS)[:6]


class Ring:
    """Three beats, and the blows that can strike the leader.

    Args:
        database: ``"postgresql"``, ``"mariadb"`` or ``"sqlite"``.
        folder: for the servers and the logs.
        stack: ends them all.
        chance: determines how long a blow takes.
    """

    def __init__(
        self, database: str, folder: Path, stack: ExitStack, chance: random.Random
    ) -> None:
        self.chance = chance
        self.database = database
        self.server: Any = None
        if database != "sqlite":
            kind = {"postgresql": PostgreSQL, "mariadb": MariaDB}[database]
            self.server = kind(folder, stack)
        if database == "mariadb":
            self.server.sql("", "INSTALL SONAME 'metadata_lock_info'")
        self.site = Site(folder, stack, Redis(folder, stack), self.server)
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
        elif kind == "connection ended":
            self._end_session()
        elif kind == "server restarted":
            self.server.pause(lambda: time.sleep(1))
            begin = time.time()
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


def wrongs(messages: list[Message], runs: int) -> list[str]:
    """Return what is wrong with the messages that were sent.

    Args:
        messages: all of them.
        runs: how many the database counts.
    """
    wrong = []
    if len(messages) > runs:
        wrong.append(f"{len(messages)} messages for {runs} runs")
    if len({message.run for message in messages}) < len(messages):
        wrong.append("a run was sent twice")
    ordered = sorted(messages, key=lambda message: message.noted)
    for before, after in itertools.pairwise(ordered):
        # The interval is a second, minus ten milliseconds that beat takes off.
        if after.noted - before.noted < 0.95:
            wrong.append(f"twice for one due time: {before}, {after}")
    turns = [sender for sender, _ in itertools.groupby(m.sender for m in ordered)]
    if len(turns) > len(set(turns)):
        wrong.append("one beat sent in the midst of another's lead")
    return wrong


def main() -> int:
    """Run the program, and return 0 if nothing is wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.blows", description=__doc__)
    databases = ("postgresql", "mariadb", "sqlite")
    parser.add_argument("--database", choices=databases, default="postgresql")
    parser.add_argument("--blows", type=int, default=60)
    parser.add_argument("--kind", action="append", choices=KINDS)
    parser.add_argument("--bound", type=int, default=3, help="for a gap, in seconds")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    options = parser.parse_args()
    print(f"{options.database}, seed {options.seed}", flush=True)
    chance = random.Random(options.seed)
    possible = KINDS_OF_SQLITE if options.database == "sqlite" else tuple(KINDS)
    names = tuple(options.kind or possible)
    for kind in {*names} - {*possible}:
        parser.error(f"{options.database} has no such blow: {kind}")
    # All kinds equally often, in random order.
    kinds = (list(names) * options.blows)[: options.blows]
    chance.shuffle(kinds)
    gaps: dict[str, list[float]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        folder.chmod(0o755)
        ring = Ring(options.database, folder, stack, chance)
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
    wrong = wrongs(messages, runs)
    for kind, seen in sorted(gaps.items()):
        print(f"{kind}: {len(seen)} times, the longest gap {max(seen):.2f} s")
        bound = KINDS[kind] + options.bound
        if max(seen) > bound:
            wrong.append(f"{kind}: a gap of more than {bound} s")
    print(f"{len(messages)} messages for {runs} runs")
    print("\n".join(f"WRONG: {line}" for line in wrong) or "nothing is wrong")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
