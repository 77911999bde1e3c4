"""The script of the documentation that measures a reader's own project."""

from __future__ import annotations

import runpy
import sys

from dev.procfile import ROOT

# It writes while the script looks for "ready.".
TALKS = """
import time

for number in range(3000):
    print(number, flush=True)
    if number % 30 == 0:
        time.sleep(0.001)
print("celery@host ready.", flush=True)
time.sleep(60)
"""


def test_it_reads_what_a_worker_writes_without_changing_it() -> None:
    script = runpy.run_path(str(ROOT / "docs/measure.py"))
    script["measure"].__globals__["SETTLE"] = 0
    for _ in range(10):
        written = script["measure"]([sys.executable, "-c", TALKS])[2]
        assert written.split()[:3000] == [str(number) for number in range(3000)]
