"""Measure a worker of your own project: `celery` beside `prodserver`.

Save this file beside manage.py, stop every other worker of the project, and run:

    python measure.py worker

`worker` is a key of PRODUCTION_PROCESSES, with loglevel INFO and without quiet, logfile
and detach. The workers that this starts take tasks like any other worker. It reads
idle workers; after some tasks, `celery` takes more.
"""

import os
import re
import shlex
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROUNDS = 3
SETTLE = 5  # seconds from "ready." until the memory is read
LIMIT = 120  # seconds to become ready


def tree(pid: int) -> list[int]:
    """A process and its descendants."""
    found = [pid]
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in children.read_text().split():
            found += tree(int(child))
    return found


def pss(pid: int) -> float:
    """The memory of a whole worker in MiB: pages that are shared count once."""
    total = 0
    for member in tree(pid):
        text = Path(f"/proc/{member}/smaps_rollup").read_text()
        total += int(re.search(r"^Pss:\s+(\d+)", text, re.MULTILINE)[1])
    return total / 1024


def measure(words: list[str]) -> tuple[float, float, str]:
    """Start a worker and end it: seconds to ready, MiB, and what it wrote."""
    with tempfile.TemporaryFile() as log:
        began = time.monotonic()
        worker = subprocess.Popen(
            words, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            while True:
                # Not read(): it would move the place where the worker writes.
                text = os.pread(log.fileno(), 2**20, 0).decode(errors="replace")
                if re.search(r"\S+ ready\.", text):
                    break
                if worker.poll() is not None or time.monotonic() - began > LIMIT:
                    sys.exit(f"{shlex.join(words)} did not become ready:\n{text}")
                time.sleep(0.01)
            seconds = time.monotonic() - began
            time.sleep(SETTLE)
            memory = pss(worker.pid)
            worker.send_signal(signal.SIGTERM)
            worker.wait(60)
            return seconds, memory, text
        finally:
            if worker.poll() is None:
                os.killpg(worker.pid, signal.SIGKILL)


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    ours = [sys.executable, "manage.py", "prodserver", sys.argv[1]]
    # The first start is not counted: it warms the caches and prints the other command.
    line = re.search(r"^celery (--app=.*)$", measure(ours)[2], re.MULTILINE)
    if not line:
        sys.exit("It did not print its `celery` line: leave quiet out of the entry.")
    theirs = [sys.executable, "-m", "celery", *shlex.split(line[1])]
    found = {"celery": [], "prodserver": []}
    for _ in range(ROUNDS):
        for name, words in zip(found, (theirs, ours), strict=True):
            found[name].append(measure(words)[:2])
    for title, column in (("seconds to ready", 0), ("MiB (PSS)", 1)):
        one, two = (
            statistics.median(row[column] for row in rows) for rows in found.values()
        )
        print(f"{title}: celery {one:.1f}, prodserver {two:.1f}, ratio {two / one:.2f}")


if __name__ == "__main__":
    main()
