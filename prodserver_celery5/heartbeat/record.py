"""The file that the probe reads: one line of a fixed size, rewritten in place.

So a write needs no more space than the file has. A checksum tells a reader who has read
half of an old line and half of a new one.
"""

from __future__ import annotations

import math
import os
import stat
import time
from contextlib import suppress

from ..probe import MAGIC, SIZE, VERSION, checksum, process_start

__all__ = ("Record", "RecordError")


class RecordError(OSError):
    """The file of a heartbeat cannot be used; the text says why."""


class Record:
    """The file of one process, locked while it lives, and removed when it ends.

    Others may write to the folder, so whatever is not clearly ours is left alone.

    Args:
        path: the file, absolute.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._fd: int | None = None
        self._start = 0

    def __str__(self) -> str:
        return f"HEARTBEAT_FILE {self._path}"

    def open(self) -> None:
        """Open and lock the file.

        Raises:
            RecordError: the file belongs to another process, or is no heartbeat's.
            OSError: it cannot be opened.
        """
        self._opened()

    def _opened(self) -> int:
        while self._fd is None:
            self._fd = self._open()
            seen = process_start("self")
            self._start = seen[1] if seen else 0
        return self._fd

    def _open(self) -> int | None:
        """Return the descriptor, or ``None`` if the file was removed meanwhile."""
        import fcntl  # which only POSIX has

        with suppress(FileNotFoundError):
            # O_NOFOLLOW alone says "too many levels of symbolic links".
            if stat.S_ISLNK(os.lstat(self._path).st_mode):
                raise RecordError("this is a symbolic link")
        # Should it be a pipe, this does not wait for a reader.
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
        fd = os.open(self._path, flags, 0o644)
        try:
            found = os.fstat(fd)
            content = self._read(fd, found)
            try:
                # Children do not inherit this kind of lock, and cannot outlive it.
                fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as exc:
                pid = content.partition(" pid=")[2].partition(" ")[0] or "another"
                who = f"process {pid} writes to it"
                raise RecordError(f"{who}: each needs a file of its own") from exc
            with suppress(FileNotFoundError):
                if os.path.samestat(os.lstat(self._path), found):
                    os.fchmod(fd, 0o644)
                    os.ftruncate(fd, min(found.st_size, SIZE))
                    return fd
        except BaseException:
            os.close(fd)
            raise
        # The process that owned the file has just removed it.
        os.close(fd)
        return None

    def _read(self, fd: int, found: os.stat_result) -> str:
        """Return what the file has in it, after making sure that it may be written."""
        if not stat.S_ISREG(found.st_mode):
            raise RecordError("this is not a regular file")
        if found.st_uid != os.geteuid():
            raise RecordError("this belongs to another user")
        if found.st_nlink > 1:
            raise RecordError("this file has another name as well")
        content = os.pread(fd, SIZE, 0).decode("ascii", "replace")
        if content and not content.startswith(f"{MAGIC} "):
            raise RecordError("there is something in it that is not a heartbeat")
        return content

    def say(self, state: str, silence: float, again: bool) -> None:
        """Write the line, to a new file if somebody has removed ours.

        Raises:
            OSError: it cannot be written, or not made anew: see `open`.
        """
        if not self._is_in_place():
            self._close()
        fd = self._opened()
        # Rounded down: the probe takes a time in the future for one before a reboot.
        at = math.floor(time.monotonic() * 1000) / 1000
        head = (
            f"{MAGIC} version={VERSION} pid={os.getpid()} start={self._start}"
            f" at={at:.3f} silence={math.ceil(silence)}"
        )
        end = f"state={state}"
        line = f"{head} sum={checksum(f'{head} {end}')} {end}".ljust(SIZE - 1)
        if os.pwrite(fd, f"{line}\n".encode("ascii"), 0) != SIZE:
            raise RecordError("was not written as a whole")

    def close(self) -> None:
        """Remove the file, if it is still ours."""
        try:
            if self._is_in_place():
                os.unlink(self._path)
        except FileNotFoundError:
            pass
        except OSError:
            # It was opened before privileges were dropped.
            self.say("stopped", 0, False)
        finally:
            self._close()

    def _is_in_place(self) -> bool:
        """Whether the file is open, and still has its name, as far as can be seen."""
        if self._fd is None:
            return False
        try:
            return os.path.samestat(os.lstat(self._path), os.fstat(self._fd))
        except FileNotFoundError:
            return False
        except OSError:  # it was opened before privileges were dropped
            return True

    def _close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
