"""Beats that share a schedule, with their own database and broker."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import django
import redis

from dev.procfile import ROOT
from dev.servers import Redis
from dev.waiting import wait_until
from prodserver_celery5.pytest_plugin.process import DEADLINE, StartedProcess

from .relay import Relay

__all__ = ("Inbox", "Message", "Site", "leader_of")

SCHEDULE = """
import django; django.setup()
from django_celery_beat.models import IntervalSchedule, PeriodicTask
every, _ = IntervalSchedule.objects.get_or_create(every=1, period="seconds")
PeriodicTask.objects.create(name="each second", task="blow", interval=every)
"""


@dataclass(frozen=True)
class Message:
    """A message that beat has sent.

    Args:
        at: when it was taken from the broker.
        run: the number of runs, including this one, as beat saved it.
        noted: when the task ran, as beat saved it.
        sender: identifies the start of the process that sent it.
        name: of the task, and of the tenant if there are some.
    """

    at: float
    run: int
    noted: float
    sender: str
    name: str


class Inbox:
    """Takes each message from the broker as it comes.

    Args:
        port: of Redis.
        database: of Redis.
    """

    def __init__(self, port: int, database: int) -> None:
        self.messages: list[Message] = []
        self._redis = redis.Redis(port=port, db=database)
        self._open = True
        self._thread = threading.Thread(target=self._take, daemon=True)
        self._thread.start()

    def _take(self) -> None:
        while self._open:
            if not (found := self._redis.blpop(["celery"], timeout=0.5)):
                continue
            _, message = found
            headers = json.loads(message)["headers"]
            told = (headers.get(key, 0) for key in ("run", "noted", "sender", "name"))
            self.messages.append(Message(time.time(), *told))

    def close(self) -> None:
        """Stop taking messages."""
        self._open = False
        self._thread.join()
        self._redis.close()

    def wait_for_one(self, since: float, timeout: float = DEADLINE) -> float:
        """Wait for a message that arrives after a time, and return when it arrived."""
        deadline = time.time() + timeout
        while True:
            for message in list(self.messages):
                if message.at > since:
                    return message.at
            assert time.time() < deadline, f"no message within {timeout} s"
            time.sleep(0.02)

    def wait_for(self, count: int, timeout: float = DEADLINE) -> None:
        """Wait until that many messages have arrived."""
        wait_until(lambda: len(self.messages) >= count, timeout)


class Site:
    """A schedule with a task each second, and the beats that share it.

    Args:
        folder: for logs, and for SQLite's database.
        stack: ends the beats.
        redis: the broker; the beats reach it through a relay.
        server: of the database; `None` for SQLite.
        env: more variables for all the beats.
    """

    # SQLite's database, as the release phase leaves it: it is the same for each site.
    _released = b""

    def __init__(
        self,
        folder: Path,
        stack: ExitStack,
        redis: Redis,
        server: Any = None,
        **env: str,
    ) -> None:
        self.folder = folder
        self.stack = stack
        self.server = server
        broker = redis.url()
        self.broker = stack.enter_context(Relay(redis.port))
        self.inbox = Inbox(redis.port, int(broker.rpartition("/")[2]))
        stack.callback(self.inbox.close)
        self.env = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "DJANGO_SETTINGS_MODULE": "tests.blows.settings",
            "BROKER": broker.replace(f":{redis.port}/", f":{self.broker.port}/"),
            "MYSQL_DRIVER": "pymysql",
            **env,
        }
        if server:
            self.url = server.url(self._release, "blows")
        else:
            self.url = f"sqlite:///{folder / 'db.sqlite3'}"
            # A transaction that reads first could not wait for its turn to write.
            options: dict[str, Any] = {"timeout": 20}
            if django.VERSION >= (5, 1):
                options["transaction_mode"] = "IMMEDIATE"
            self.env["OPTIONS"] = json.dumps(options)
            if not Site._released:
                self._release(self.url)
                Site._released = (folder / "db.sqlite3").read_bytes()
            (folder / "db.sqlite3").write_bytes(Site._released)

    def start(
        self, name: str, relay: Relay | None = None, **env: str
    ) -> StartedProcess:
        """Start a beat.

        Args:
            name: of its log.
            relay: through which it reaches the database.
            env: more variables for this beat alone.
        """
        url = self.url
        if relay:
            url = re.sub(r":\d+/", f":{relay.port}/", url)
        process = StartedProcess(
            [sys.executable, "-m", "django", "prodserver", "beat"],
            log=self.folder / name,
            cwd=ROOT,
            env={**self.env, "DATABASE_URL": url, **env},
        )
        self.stack.callback(process.kill)
        return process

    def python(self, code: str, url: str = "") -> str:
        """Run code in the project, and return what it prints."""
        return self._run(url or self.url, "-c", code)

    def runs(self) -> int:
        """Return how often the task has run, according to the database."""
        query = (
            "SELECT total_run_count FROM django_celery_beat_periodictask"
            " WHERE name = 'each second'"
        )
        return int(self.sql(query))

    def sql(self, query: str) -> str:
        """Run a query, bypassing the relays."""
        if self.server:
            return str(self.server.sql(self.url.rpartition("/")[2], query))
        path = self.folder / "db.sqlite3"
        # As a context manager, a connection of SQLite commits, and stays open.
        with closing(sqlite3.connect(path, timeout=DEADLINE)) as connection:
            return str(connection.execute(query).fetchone()[0])

    def _release(self, url: str) -> None:
        self._run(url, "-m", "django", "migrate", "-v0")
        self.python(SCHEDULE, url)

    def _run(self, url: str, *words: str) -> str:
        done = subprocess.run(
            [sys.executable, *words],
            cwd=ROOT,
            env={**self.env, "DATABASE_URL": url},
            capture_output=True,
            text=True,
            check=False,
            timeout=DEADLINE,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()


def leader_of(beats: dict[str, StartedProcess]) -> str:
    """Return the name of the beat that last said it leads."""
    said = {}
    for name, beat in beats.items():
        lines = re.findall(r"\[(\S+ \S+): \S+ beat: (Leading|Standing)", beat.output)
        if lines and lines[-1][1] == "Leading":
            said[lines[-1][0]] = name
    return said[max(said)]
