"""The outcomes of each scenario on both sides, compared and as a table."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pytest

__all__ = ("Outcomes", "differences", "table")

# Shown but not compared: they vary from run to run.
SHOWN = {"done", "seconds", "at once", "connections", "popped", "stuck"}

COLUMNS = ("status", "ran", "lost", "seconds")


def differences(command: Mapping[str, Any], ours: Mapping[str, Any]) -> list[str]:
    """Compare two outcomes; losing less than the command is no difference."""
    found = []
    for key in command.keys() | ours.keys():
        theirs, own = command.get(key), ours.get(key)
        if key in SHOWN:
            continue
        if key == "lost" and own is not None and theirs is not None and own <= theirs:
            continue
        if theirs != own:
            found.append(f"{key}: {theirs!r} with celery, {own!r} with prodserver")
    return found


class Outcomes:
    """Takes the outcomes of a test into its report, from any of pytest's processes.

    Args:
        record_property: pytest's fixture.
    """

    def __init__(self, record_property: Callable[[str, object], None]) -> None:
        self._record = record_property

    def add(
        self, name: str, command: Mapping[str, Any], ours: Mapping[str, Any]
    ) -> None:
        """Keep both outcomes of a scenario, the command's and ours."""
        values = [_cell(column, command, ours) for column in COLUMNS]
        rest = [
            f"{key} {_cell(key, command, ours)}"
            for key in ours
            if key not in COLUMNS and len(str(ours[key])) < 60
        ]
        self._record("outcomes", [name, *values, ", ".join(rest)])


def table(reports: Iterable[pytest.TestReport]) -> list[str]:
    """Format the outcomes of all tests; each cell shows celery/prodserver."""
    rows = [
        row
        for report in reports
        for name, row in report.user_properties
        if name == "outcomes"
    ]
    if not rows:
        return []
    cells = [["scenario", *COLUMNS, ""], *sorted(rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
    return [
        "  ".join(text.ljust(w) for text, w in zip(row, widths, strict=True)).rstrip()
        for row in cells
    ]


def _cell(key: str, command: Mapping[str, Any], ours: Mapping[str, Any]) -> str:
    texts = [_text(side.get(key)) for side in (command, ours)]
    if key in COLUMNS or texts[0] != texts[1]:
        return "/".join(texts) if any(texts) else ""
    return texts[0]


def _text(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.1f}" if isinstance(value, float) else str(value)
