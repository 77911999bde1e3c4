"""Renders the figures as Markdown tables and SVG plots."""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

__all__ = ("interval", "tables", "write")

NAMES = {
    "celery": "`celery`",
    "own": "django-prodserver's own",
    "ours": "prodserver-celery5",
    "without": "without the key",
    "with": "with the key",
    "pass": "`python -c pass`",
    "probe": "the probe",
    "ping": "`celery inspect ping`",
}
# Legible on both light and dark backgrounds.
COLOURS = {"celery": "#d9772b", "own": "#8b8f97", "ours": "#2f81f7"}
INK = "#7d8590"

# Student's t for a 95 % interval, by degrees of freedom.
STUDENT = {1: 12.71, 2: 4.30, 3: 3.18, 4: 2.78, 5: 2.57, 6: 2.45, 7: 2.36, 8: 2.31}
STUDENT |= {9: 2.26, 14: 2.14, 19: 2.09, 29: 2.05, 39: 2.02, 59: 2.00}


def interval(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, float]:
    """Return the 95 % interval of the geometric mean of paired ratios."""
    logs = [math.log(a / b) for a, b in zip(ours, theirs, strict=True)]
    if len(logs) < 2:
        return 0.0, math.inf
    free = len(logs) - 1
    factor = STUDENT[max(n for n in STUDENT if n <= free)]
    half = factor * statistics.stdev(logs) / math.sqrt(len(logs))
    mean = statistics.fmean(logs)
    return math.exp(mean - half), math.exp(mean + half)


def tables(known: dict[str, Any]) -> dict[str, str]:
    """Return each table by its title."""
    values = known["values"]
    made = {"machine": _machine(known["machine"])} | _sentences(values)
    for project in ("small", "larger"):
        for kind, unit, title in (
            ("ready", "s", "Time to ready"),
            ("cpu", "s", "CPU to ready"),
            ("pss", "MiB", "Whole worker, PSS after 2,000 tasks"),
            ("private", "MiB", "A child, private"),
            ("pss with queries", "MiB", "Whole worker, PSS after queries"),
            ("private with queries", "MiB", "A child, private, after queries"),
        ):
            rows = {
                f"{children} children" if children > 1 else "1 child": found
                for children in (1, 2, 4, 8, 16)
                if (found := values.get(f"{project} prefork {children} {kind}"))
            }
            made |= _table(f"{project}: {title}", unit, rows)
        rows = {
            f"{label}, after {total:,} tasks": found
            for kind, label in (
                ("parent", "the parent, RSS"),
                ("private", "a child, private"),
                ("pss", "the whole, PSS"),
            )
            for count, total in ((200, 200), (2000, 2200))
            if (found := values.get(f"{project} replaced {count} {kind}"))
        }
        made |= _table(f"{project}: Children replaced", "MiB", rows)
        rows = {
            f"`max-tasks-per-child` {limit}": found
            for limit in (1, 10)
            if (found := values.get(f"{project} turnover {limit}"))
        }
        made |= _table(f"{project}: Tasks per second, children replaced", "", rows)
        rows = {
            label: found
            for task, label in (
                ("nothing", "without results"),
                ("answer", "with results"),
            )
            if (found := values.get(f"{project} throughput {task}"))
        }
        made |= _table(f"{project}: Tasks per second", "", rows, paired=True)
        rows = {
            label: found
            for kind, label in (
                ("naps", "100 naps of 0.2 s"),
                ("ready", "time to ready"),
                ("end", "SIGTERM to exit"),
            )
            if (found := values.get(f"{project} gevent {kind}"))
        }
        made |= _table(f"{project}: gevent, 100 greenlets", "s", rows)
    for kind, unit, title in (
        ("first", "s", "to the first message"),
        ("late", "ms", "lateness of a message, median"),
        ("latest", "ms", "lateness of a message, worst"),
    ):
        rows = {
            f"{count:,} periodic tasks": found
            for count in (10, 1000, 10_000)
            if (found := values.get(f"small beat {count} {kind}"))
        }
        # A ratio of a few milliseconds would say nothing.
        made |= _table(f"beat: {title}", unit, rows, ratio=unit != "ms")
    for kind, unit, title in (
        ("ready", "s", "time to ready"),
        ("throughput", "", "tasks per second"),
        ("first", "s", "beat's first message"),
    ):
        rows = {
            f"`{key}`": found
            for key in ("HEARTBEAT_FILE", "GRACE_SECONDS", "LEADER_LOCK")
            if (found := values.get(f"key {key} {kind}"))
        }
        pair = ("with", "without")
        made |= _table(f"key: {title}", unit, rows, pair=pair, paired=True)
    rows = {
        database: found
        for database in ("SQLite", "PostgreSQL")
        if (found := values.get(f"burst {database}"))
    }
    made |= _table("burst", "s", rows, pair=("with", "without"), paired=True)
    rows = {"both keys": found} if (found := values.get("key all cpu")) else {}
    pair = ("with", "celery")
    made |= _table("key: CPU for 2,500 tasks", "s", rows, pair=pair, paired=True)
    rows = {
        label: found
        for kind, label in (("cpu", "CPU"), ("wall", "time"))
        if (found := values.get(f"probe {kind}"))
    }
    made |= _table("probe", "s", rows, pair=("probe", "pass"))
    return made


def write(known: dict[str, Any], made: dict[str, str], docs: Path) -> None:
    """Put the tables between the document's marks, and draw the plots."""
    page = docs / "benchmarks.md"
    text = page.read_text()

    def replaced(match: re.Match[str]) -> str:
        title = match.group(1)
        table = made.get(title, "Not measured yet.\n")
        return f"<!-- bench: {title} -->\n{table}<!-- end -->"

    marks = r"<!-- bench: (.*?) -->\n.*?<!-- end -->"
    page.write_text(re.sub(marks, replaced, text, flags=re.DOTALL))
    images = docs / "images"
    images.mkdir(exist_ok=True)
    for kind, title in (
        ("ready", "Seconds to “ready.”"),
        ("pss", "MiB of the whole worker, PSS after its tasks"),
        ("private", "MiB private to a child"),
    ):
        (images / f"bench-{kind}.svg").write_text(_plot(known["values"], kind, title))


def _machine(found: dict[str, str]) -> str:
    return "".join(f"- {name}: {value}\n" for name, value in found.items())


# What hardly differs from row to row is one sentence: its title, the rows, the unit of
# their figures, its subject, and what their number counts.
SENTENCES = {
    "peak": (r"{} prefork (\d+) peak", "MiB", "The parent's peak", "child"),
    "SIGTERM to exit": (r"{} prefork (\d+) end", "s", "SIGTERM to exit", "child"),
    "beat: peak": (r"{} beat (\d+) peak", "MiB", "beat's peak", "periodic task"),
    "beat: PSS": (r"{} beat (\d+) pss", "MiB", "beat's PSS", "periodic task"),
}


def _sentences(values: dict[str, Any]) -> dict[str, str]:
    """Return a sentence for each of `SENTENCES` that was measured."""
    made = {}
    for title, (pattern, unit, subject, counted) in SENTENCES.items():
        said = []
        for project in ("small", "larger"):
            kind = pattern.format(project)
            rows = {
                int(match[1]): values[key]
                for key in values
                if (match := re.fullmatch(kind, key))
            }
            if not rows:
                continue
            ratios = sorted(_ratio(found, "ours", "celery") for found in rows.values())
            span = " to ".join(dict.fromkeys((ratios[0], ratios[-1])))
            least = min(rows)
            ours, celery = (_number(rows[least][name]) for name in ("ours", "celery"))
            said.append(
                f"{span} of `celery`'s in the {project} project ({ours} {unit} against"
                f" {celery} {unit} with {least} {counted}{'s' * (least > 1)})"
            )
        if said:
            made[title] = f"{subject}: {', '.join(said)}.\n"
    return made


def _table(
    title: str,
    unit: str,
    rows: dict[str, dict[str, list[float]]],
    *,
    pair: tuple[str, str] = ("ours", "celery"),
    paired: bool = False,
    ratio: bool = True,
) -> dict[str, str]:
    """Return a table whose rows have each contender's median and a pair's ratio."""
    if not rows:
        return {}
    present = [name for name in NAMES if any(name in found for found in rows.values())]
    heads = ["", *(NAMES[name] for name in present)]
    heads += [f"ratio to {NAMES[pair[1]]}"] * ratio + ["95 % interval"] * paired
    lines = [heads, ["---", *["---:"] * (len(heads) - 1)]]
    for label, found in rows.items():
        scale = 1000 if unit == "ms" else 1
        cells = [
            f"{_number([scale * value for value in found[name]])} {unit}".strip()
            if name in found
            else "-"
            for name in present
        ]
        if ratio:
            cells.append(f"**{_ratio(found, *pair)}**")
        if paired:
            low, high = interval(found[pair[0]], found[pair[1]])
            cells.append(f"{low:.3f} to {high:.3f}")
        lines.append([label, *cells])
    return {title: "".join(f"| {' | '.join(line)} |\n" for line in lines)}


def _number(
    runs: Sequence[float], most: int | None = None, median: float | None = None
) -> str:
    """Format the median of some runs with the digits that they agree on.

    Args:
        runs: the value of each.
        most: decimals at most; by default, as many as make two significant digits.
        median: in place of theirs.
    """
    if median is None:
        median = statistics.median(runs)
    if most is None:
        most = next((n for n in range(3) if abs(median) >= 10 / 10**n), 3)
    if len(runs) > 1 and (error := statistics.stdev(runs) / math.sqrt(len(runs))):
        # The last digit is worth at least half the standard error.
        most = min(most, -math.ceil(math.log10(error / 2)))
        # But one digit is always significant.
        most = max(most, -math.floor(math.log10(abs(median))))
    return f"{round(median, most):,.{max(most, 0)}f}"


def _ratio(found: dict[str, list[float]], one: str, other: str) -> str:
    """Format the ratio of two medians with the digits that the pairs agree on."""
    medians = [statistics.median(found[name]) for name in (one, other)]
    pairs = zip(found[one], found[other], strict=True)
    return _number([a / b for a, b in pairs], most=2, median=medians[0] / medians[1])


# Plots

WIDTH, HEIGHT = 760, 320
TOP, BOTTOM, LEFT, GAP = 64, 44, 52, 60


def _plot(values: dict[str, Any], kind: str, title: str) -> str:
    """Draw a panel per project, a line per contender, by number of children."""
    panels = []
    width = (WIDTH - LEFT - GAP - 16) / 2
    for index, project in enumerate(("small", "larger")):
        series: dict[str, dict[int, float]] = {}
        for children in (1, 2, 4, 8, 16):
            found = values.get(f"{project} prefork {children} {kind}", {})
            for name, numbers in found.items():
                series.setdefault(name, {})[children] = statistics.median(numbers)
        panels.append(_panel(project, series, LEFT + index * (width + GAP), width))
    legend, x = [], float(LEFT)
    for name in COLOURS:
        text = NAMES[name].replace("`", "")
        legend.append(
            f'<rect x="{x:.0f}" y="34" width="18" height="4" fill="{COLOURS[name]}"/>'
            f'<text x="{x + 24:.0f}" y="41">{text}</text>'
        )
        x += 44 + 7.2 * len(text)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}"'
        f' role="img" aria-label="{title}" font-family="sans-serif" font-size="13"'
        f' fill="{INK}">\n<title>{title}</title>\n'
        f'<text x="{LEFT}" y="20" font-size="15" font-weight="bold">{title}</text>\n'
        + "\n".join([*legend, *panels])
        + "\n</svg>\n"
    )


def _panel(
    project: str, series: dict[str, dict[int, float]], left: float, width: float
) -> str:
    highest = max((v for points in series.values() for v in points.values()), default=1)
    step = _step(highest)
    top = math.ceil(highest / step) * step

    def x(children: int) -> float:
        return left + 12 + math.log2(children) / 4 * (width - 24)

    def y(value: float) -> float:
        return HEIGHT - BOTTOM - value / top * (HEIGHT - BOTTOM - TOP - 12)

    drawn = [f'<text x="{left:.0f}" y="{TOP}">{project} project</text>']
    for number in range(round(top / step) + 1):
        value = number * step
        drawn.append(
            f'<line x1="{left:.0f}" x2="{left + width:.0f}" y1="{y(value):.1f}"'
            f' y2="{y(value):.1f}" stroke="{INK}" stroke-opacity="0.25"/>'
            f'<text x="{left - 6:.0f}" y="{y(value) + 4:.1f}" text-anchor="end"'
            f' font-size="11">{value:g}</text>'
        )
    for children in (1, 2, 4, 8, 16):
        drawn.append(
            f'<text x="{x(children):.1f}" y="{HEIGHT - BOTTOM + 18}"'
            f' text-anchor="middle" font-size="11">{children}</text>'
        )
    drawn.append(
        f'<text x="{left + width / 2:.0f}" y="{HEIGHT - 8}" text-anchor="middle"'
        ' font-size="11">prefork children</text>'
    )
    drawn += _lines(series, x, y)
    return "\n".join(drawn)


def _lines(
    series: dict[str, dict[int, float]],
    x: Callable[[int], float],
    y: Callable[[float], float],
) -> list[str]:
    drawn = []
    for name in COLOURS:
        points = series.get(name, {})
        path = " ".join(f"{x(n):.1f},{y(value):.1f}" for n, value in points.items())
        # Its line often covers that of `celery`.
        dashes = ' stroke-dasharray="6 6"' if name == "own" else ""
        drawn.append(
            f'<polyline points="{path}" fill="none" stroke="{COLOURS[name]}"'
            f' stroke-width="2.5"{dashes}/>'
        )
        drawn += [
            f'<circle cx="{x(n):.1f}" cy="{y(v):.1f}" r="3.5" fill="{COLOURS[name]}"/>'
            for n, v in points.items()
        ]
    return drawn


def _step(highest: float) -> float:
    """Return a round number that divides the axis into about five parts."""
    rough = highest / 5
    power = 10.0 ** math.floor(math.log10(rough))
    return min(f * power for f in (1, 2, 2.5, 5, 10) if f * power >= rough)
