"""The probe: tells whether a worker or a beat is alive, from its loop's file.

``python -m prodserver_celery5.probe FILE [--ready] [--max-age SECONDS]`` prints one
line, and ends with 0 for yes, 1 for no and 2 for misuse. It runs every few seconds, so
it imports nothing of Celery, Django or this package, and reads its few words itself:
argparse alone would double what it costs.
"""

import os
import sys
import time

__all__ = ("MAGIC", "READY", "SIZE", "VERSION", "checksum", "judge", "process_start")

# A record is one line of this size. `record.Record` writes it.
SIZE = 160
VERSION = 1
MAGIC = "prodserver_celery5.heartbeat"

# The states in which a process does its job.
READY = ("ready", "standing by", "leading")

# How often a line is read that is just being written, and how long apart, in seconds.
ATTEMPTS = 20
PAUSE = 0.01

USAGE = "usage: python -m prodserver_celery5.probe FILE [--ready] [--max-age SECONDS]"


def main(words: list[str]) -> int:
    """Say in one line whether a process is alive, or ready; return the exit status.

    Args:
        words: the words of the command line.
    """
    files: list[str] = []
    ready = False
    max_age: float | None = None
    rest = iter(words)
    for word in rest:
        name, equals, value = word.partition("=")
        if word in ("-h", "--help"):
            print(USAGE)
            return 0
        if word == "--ready":
            ready = True
        elif name == "--max-age":
            value = value if equals else next(rest, "")
            try:
                max_age = float(value)
            except ValueError:
                max_age = -1
            if not 0 < max_age < float("inf"):
                return _misused(f"--max-age takes seconds above 0, not {value!r}")
        elif word.startswith("-"):
            return _misused(f"no such option: {word}")
        else:
            files.append(word)
    if len(files) != 1:
        return _misused(f"takes one FILE, not {len(files)}")
    yes, why = judge(files[0], ready=ready, max_age=max_age)
    print(why)
    return 0 if yes else 1


def judge(
    path: str, *, ready: bool = False, max_age: float | None = None
) -> tuple[bool, str]:
    """Judge the process that writes a file: yes or no, and why in one line.

    Args:
        path: the file of its heartbeat.
        ready: whether it has to do its job, too.
        max_age: how long it may have been silent, in seconds; by default as long as it
            has allowed itself.
    """
    try:
        line = _read(path)
    except OSError as exc:
        return False, f"not alive: {path}: {exc.strerror}"
    if not line:
        return False, f"not alive: {path} is empty: nothing has been written to it yet"
    head, *pairs = line.split(" ", 7)
    fields = dict(pair.partition("=")[::2] for pair in pairs)
    if head != MAGIC:
        return False, f"not alive: {path} is not the file of a heartbeat"
    if fields.get("version") != str(VERSION):
        found = fields.get("version")
        return False, f"not alive: {path} is of version {found}; this reads {VERSION}"
    try:
        pid, start = int(fields["pid"]), int(fields["start"])
        at, silence = float(fields["at"]), float(fields["silence"])
        state = fields["state"]
        if not _is_whole(line):
            raise ValueError
    except (KeyError, ValueError):
        return False, f"not alive: {path} is damaged"
    who = f"process {pid}, {state}"
    if state == "stopped":
        return False, f"not alive: {who}"
    if gone := _gone(pid, start):
        return False, f"not alive: {who}: {gone}"
    age = time.monotonic() - at
    if age < 0:
        # Without /proc, another process may have its number by now.
        return False, f"not alive: {who}: written before this machine was started"
    allowed = silence if max_age is None else max_age
    if age > allowed:
        return False, f"not alive: {who}: silent for {age:.1f} s, allowed {allowed:g} s"
    if ready and state not in READY:
        return False, f"alive, but not ready: {who}"
    return True, f"alive: {who}: silent for {age:.1f} s, allowed {allowed:g} s"


def checksum(text: str) -> str:
    """Return Fletcher's checksum of a text, as four hexadecimal digits.

    Args:
        text: the text, in ASCII.
    """
    # Not binascii's, whose import alone takes longer than all of this.
    one = two = 0
    for byte in text.encode("ascii", "replace"):
        one = (one + byte) % 255
        two = (two + one) % 255
    return f"{two:02x}{one:02x}"


def _read(path: str) -> str:
    """Return the line of a file; read it again if it is not whole.

    A file system may show a reader half of an old line and half of a new one.
    """
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(PAUSE)
        # Should it be a pipe, this does not wait for a writer.
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        try:
            line = os.read(fd, SIZE + 1).decode("ascii", "replace").rstrip()
        finally:
            os.close(fd)
        if _is_whole(line):
            break
    return line


def _is_whole(line: str) -> bool:
    """Whether a line has its checksum; another version may have none."""
    if f" version={VERSION} " not in line:
        return True
    head, _, rest = line.partition(" sum=")
    given, _, end = rest.partition(" ")
    return given == checksum(f"{head} {end}")


def process_start(pid: int | str) -> tuple[str, int] | None:
    """Return a process's state, one letter, and when it started, in ticks since boot.

    Args:
        pid: its number, or ``"self"``.

    Returns:
        ``None`` if no such process can be seen.
    """
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as stat:
            # The program's name, in parentheses, may itself have spaces and those.
            fields = stat.read(4096).rpartition(b")")[2].split()
        return fields[0].decode(), int(fields[19])
    except (OSError, IndexError, ValueError):
        return None


def _gone(pid: int, start: int) -> str:
    """Say why the process that wrote is gone; "" if it is there."""
    seen = process_start(pid)
    if seen is None:
        try:
            os.kill(pid, 0)
        except (ProcessLookupError, OverflowError):
            return "there is no such process"
        except PermissionError:
            pass  # another user's, and hidden: it is there
        return ""
    letter, now_start = seen
    if letter in "ZX":
        return "it has ended"
    if start and now_start != start:
        return "another process has its number now"
    return ""


def _misused(message: str) -> int:
    print(f"{message}\n{USAGE}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
