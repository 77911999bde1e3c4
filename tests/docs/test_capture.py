"""The picture at the top of the README is what the commands print today."""

from __future__ import annotations

from pathlib import Path

from .capture import record, shown, timeless


def test_the_terminal_shows_what_the_commands_print(tmp_path: Path) -> None:
    """If this fails, look at the new output; then `nox -s docs -- --capture`."""
    now = [timeless(line) for line in record(tmp_path) if line]
    assert [timeless(line) for line in shown()] == now
