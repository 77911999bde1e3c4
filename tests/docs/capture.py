"""The terminal at the top of the README: `nox -s docs -- --capture` draws it anew.

Everything shown is what the commands printed, in a project made of the README's own
blocks; only the machine's name is replaced, and Celery's banner left out.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import tempfile
from html import escape, unescape
from pathlib import Path

from dev.procfile import ROOT
from prodserver_celery5.pytest_plugin.process import StartedProcess

from .blocks import tutorial

__all__ = ("IMAGE", "record", "shown", "timeless")

IMAGE = ROOT / "docs/images/terminal.svg"

COLUMNS = 96
# Pixels of a character and of a line, and the margin.
WIDE, HIGH, MARGIN = 8, 19, 16
# SVG would drop those at the beginning of a line.
SPACE = "\xa0"
# What a line has in it, and its colour.
COLOURS = (
    (r"^\$ ", "#ffffff"),
    (r"^…$", "#7f849c"),
    (r"ready\.$", "#a6e3a1"),
    (r"HINT", "#f9e2af"),
    (r"ERRORS|\(prodserver_celery5\.|has no such option", "#f38ba8"),
    (r"", "#cdd6f4"),
)


def record(folder: Path) -> list[str]:
    """Make a mistake, find it, mend it and start the worker, in an empty folder.

    Returns:
        The lines that a terminal shows, without their ends.
    """
    python = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    python.pop("DJANGO_SETTINGS_MODULE", None)
    subprocess.run(
        [sys.executable, "-m", "django", "startproject", "proj", "."],
        cwd=folder, env=python, check=True,
    )  # fmt: skip
    tutorial(folder)
    settings = folder / "proj/settings.py"
    settings.write_text(settings.read_text().replace('"concurrency"', '"concurency"'))

    check = "python manage.py check"
    mend = "sed -i s/concurency/concurrency/ proj/settings.py"
    start = "python manage.py worker worker"

    found = subprocess.run(
        check.split(), cwd=folder, env=python, text=True, check=False,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    ).stdout  # fmt: skip
    subprocess.run(mend.split(), cwd=folder, env=python, check=True)
    with StartedProcess(
        start.split(), log=folder / "worker.log", cwd=folder, env=python
    ) as worker:
        ready = worker.wait_for(r".*ready\.", timeout=120)
        # Up to the equivalent command. Root would be warned after it.
        (first,) = re.findall(r"\A.*?^celery [^\n]*", worker.output, re.S | re.M)
    lines = [
        f"$ {check}", *found.expandtabs(4).strip().splitlines(), "",
        f"$ {mend}", f"$ {start}", *first.splitlines(), "…", ready,
    ]  # fmt: skip
    return [line.replace(socket.gethostname(), "host") for line in lines]


def timeless(line: str) -> str:
    """Return a line without its date and without versions."""
    line = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d+", "DATE", line)
    return re.sub(r"\d+\.\d+(\.\d+)?", "VERSION", line)


def draw(lines: list[str]) -> str:
    """Return the lines as an SVG, wrapped as a terminal would."""
    rows = []
    for line in lines:
        colour = next(c for pattern, c in COLOURS if re.search(pattern, line))
        parts = [line[i : i + COLUMNS] for i in range(0, len(line), COLUMNS)] or [""]
        kinds = ["line", *["more"] * len(parts)]
        rows += [(part, colour, kind) for part, kind in zip(parts, kinds, strict=False)]
    width, height = COLUMNS * WIDE + 2 * MARGIN, len(rows) * HIGH + 2 * MARGIN
    text = "\n".join(
        f'<text class="{kind}" x="{MARGIN}" y="{MARGIN + HIGH * row + 14}"'
        f' fill="{colour}" textLength="{len(part) * WIDE}"'
        f' lengthAdjust="spacingAndGlyphs">{escape(part).replace(" ", SPACE)}</text>'
        for row, (part, colour, kind) in enumerate(rows)
        if part
    )
    return f"""\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" \
height="{height}" role="img" font-size="13" \
font-family="ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', \
monospace">
<title>manage.py check names a misspelt option; mended, the worker starts</title>
<rect width="{width}" height="{height}" rx="8" fill="#1e1e2e"/>
{text}
</svg>
"""


def shown() -> list[str]:
    """Return the lines of the picture, unwrapped and without the blank ones."""
    lines: list[str] = []
    for kind, text in re.findall(
        r'<text class="(\w+)"[^>]*>(.*?)</text>', IMAGE.read_text()
    ):
        if kind == "more":
            lines[-1] += unescape(text)
        else:
            lines.append(unescape(text))
    return [line.replace(SPACE, " ") for line in lines]


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made:
        IMAGE.write_text(draw(record(Path(made))))
    print(f"{IMAGE.relative_to(ROOT)}:", *shown(), sep="\n")
