"""The lead: of all beats that run, the one that has the lock sends.

The others stand by. Beat saves each run before it sends it, and checks the lock before
each save and each message. So a beat that has lost it (it was stopped, its connection
was cut) sends nothing and overwrites nothing of its successor's. It then restarts under
the same pid: whatever its scheduler has in memory is out of date, and closing the
scheduler would write it down.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NoReturn

from celery import signals
from celery.platforms import Pidfile

from ..process import restart
from ..redaction import hidden
from .locks import LEASE, Lock, RefusedError, UnavailableError

__all__ = ("PAUSE", "PULSE", "Lead")

# How often a beat that stands by asks for the lock, in seconds.
_POLL = 0.25

# How long a leader sleeps at most, in seconds: a session may be idle for `LEASE`.
PULSE = 5

# How long a start may take, from the lock to the first tick, in seconds. The probe
# allows it as much.
_START = 300

# How old the last look at the lock may be when a tick begins, in seconds: of many runs
# that are due at once, each has two looks of its own.
_FRESH = 1

# How long to wait before a new start when something other than the lock has failed, in
# seconds: a database that is away is not asked without pause.
PAUSE = 1


class Lead:
    """What the service and the scheduler of a beat ask: may we send?

    Args:
        lock: the lock that the leader has.
        pidfile: where the leader writes its pid, if anywhere.
        say: a function to call with what beat does: ``"standing by"``, again and again,
            or ``"connecting"`` while the database of the lock is away, then
            ``"starting"``, and after each tick ``"leading"``.

    Attributes:
        is_ending: whether beat ends in its own time, and never starts again.
        failure: why it could not start again, if it could not.
    """

    def __init__(
        self,
        lock: Lock,
        pidfile: str | None = None,
        say: Callable[[str], None] | None = None,
    ) -> None:
        self.is_ending = False
        self.failure = ""
        self._lock = lock
        # A driver may crash if one thread uses a connection while another does.
        self._using = threading.RLock()
        self._pidfile = Pidfile(pidfile) if pidfile else None
        self._say = say or (lambda state: None)
        self._thread = threading.get_ident()  # the one that leads
        self._is_starting = True
        self._held_at = self._until = 0.0
        self._restarting = threading.Lock()  # more than one thread may

    def gain(self) -> None:
        """Stand by until the lock is ours, and the pidfile.

        Raises:
            SystemExit: the database cannot keep the lock.
        """
        said = ""
        while not self.is_ending:
            state = "standing by"
            try:
                if not self._lock.acquire():
                    reason = why = "another one leads"
                elif not self._has_pidfile():
                    self._lock.close()
                    reason = why = "another process has the pidfile"
                else:
                    break
            except UnavailableError as exc:
                state = why = "connecting"
                reason = f"the database of the lock is away: {exc}"
            except RefusedError as exc:
                raise SystemExit(f"beat cannot lead: {exc} {exc.hint}") from exc
            if why != said:
                _log(logging.INFO, f"Standing by: {reason}.")
                said = why
            self._say(state)
            time.sleep(_POLL)
        if self.is_ending:  # and something has swallowed the SystemExit
            raise SystemExit
        _log(logging.INFO, "Leading.")
        self._say("starting")
        self._until = time.monotonic() + _START
        threading.Thread(target=self._watch, name="lead", daemon=True).start()
        # The last check before a message goes out, however a scheduler sends it.
        signals.before_task_publish.connect(self._before_publish, weak=False)

    def is_held(self) -> bool:
        """Ask the database whether the lock is ours."""
        with self._using:
            return self._lock.is_held()

    def hold(self) -> None:
        """Return only if the lock is ours; else restart."""
        if not self.is_held():
            self.start_anew("the lock is lost: nothing is sent")
        self._held_at = time.monotonic()
        if not self._is_starting:
            self._until = self._held_at + LEASE + PULSE

    def begin_tick(self) -> None:
        """Return only if beat may tick.

        Raises:
            SystemExit: beat is ending, and something has swallowed the SystemExit.
        """
        if self.is_ending:
            raise SystemExit
        is_first, self._is_starting = self._is_starting, False
        if is_first or time.monotonic() > self._held_at + _FRESH:
            self.hold()

    def end_tick(self) -> None:
        """Say that beat leads."""
        self._say("leading")

    def give_back(self) -> None:
        """Let another beat lead: remove the pidfile, and release the lock."""
        self._remove_pidfile()
        with self._using:
            self._lock.close()

    def start_anew(self, reason: str, pause: float = 0) -> NoReturn:
        """Replace this process with a new one under the same pid, which stands by.

        Args:
            reason: the reason, for the log.
            pause: how long to wait first, without the lock, in seconds.

        Raises:
            SystemExit: beat is ending, or cannot be started again.
        """
        if self.is_ending:
            raise SystemExit
        with self._restarting:
            _log(logging.WARNING, f"{reason}; starting again, to stand by.")
            if threading.get_ident() == self._thread:
                self.give_back()
            else:  # the one that leads may be using the connection, for ever
                self._remove_pidfile()
            time.sleep(pause)
            try:
                restart.again()
            except (OSError, restart.RestartError) as exc:
                reason = f": {exc}"
        # Not an Exception: whoever swallows those would go on to send.
        self.failure = f"beat cannot start again{reason}"
        raise SystemExit(self.failure)

    def wait_for_database(self, error: Exception) -> NoReturn:
        """Restart, because the database of the schedule is away.

        Args:
            error: what the database said.

        Raises:
            Exception: that error, if it says something else: for SQLite a missing
                table is operational, too.
        """
        if "no such table" in str(error):
            raise error
        reason = f"the database of the schedule is away: {error}"
        self.start_anew(reason, pause=PAUSE)

    def _before_publish(self, **kwargs: Any) -> None:
        # What other threads of the project send is not part of the schedule.
        if threading.get_ident() == self._thread:
            self.hold()

    def _has_pidfile(self) -> bool:
        """Write our pid; return whether that could be done."""
        if not (file := self._pidfile):
            return True
        # Celery 5.0 to 5.4 would take our own pid in it for another process.
        self._remove_pidfile()
        if file.is_locked() and not file.remove_if_stale():
            return False
        file.acquire()
        atexit.register(self._remove_pidfile)
        return True

    def _remove_pidfile(self) -> None:
        """Remove the pidfile, if it is ours: a successor may have one."""
        if file := self._pidfile:
            with suppress(OSError, ValueError):
                if file.read_pid() == os.getpid():
                    file.remove()

    def _watch(self) -> None:
        """Restart if beat hangs for longer than a server keeps the lock for it.

        When the network falls silent, a driver without a timeout waits for its database
        or broker for ever. A start may take longer: until the first tick, this thread
        speaks to the server, which would take the lock from a silent session.
        """
        while time.monotonic() < self._until:
            time.sleep(1)
            if self.is_ending:
                return
            if self._is_starting:
                self.is_held()
        reason = f"no tick for {LEASE + PULSE} s"
        if self._is_starting:
            reason = f"no first tick within {_START} s"
        try:
            self.start_anew(reason)
        except SystemExit as exc:  # would end only this thread, and say nothing
            if exc.code:
                _log(logging.CRITICAL, str(exc).removeprefix("beat "))
                os._exit(1)


def _log(level: int, line: str) -> None:
    # Not made earlier: applying LOGGING may disable the loggers that exist by then.
    logger = logging.getLogger(f"celery.{__name__}")
    logger.log(level, "beat: %s", hidden(" ".join(line.split())))
