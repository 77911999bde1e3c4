"""The structure of the package: which module imports which."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import prodserver_celery5

PACKAGE = Path(prodserver_celery5.__file__).parent

# Each module with those that it imports; docs/inside.md says what each is for.
ROOMS: dict[str, set[str]] = {
    "__init__": set(),
    "apps": {"checks"},
    "checks": {"backends", "entries", "findings", "values"},
    "backends": {
        "command", "entries", "findings", "grace", "green", "heartbeat", "leader",
        "loops", "notify", "prefork", "record", "redaction", "restart",
    },
    "findings": {
        "arguments", "command", "entries", "grace", "green", "locks", "pasted",
        "redaction", "values",
    },
    "entries": {"arguments", "command", "values"},
    "arguments": {"command", "redaction", "values"},
    "command": {"pasted", "redaction"},
    "pasted": set(),
    "values": {"redaction"},
    "redaction": set(),
    "grace": {"green", "values"},
    "green": {"restart"},
    "restart": set(),
    "prefork": set(),
    "leader": {"command", "entries", "locks", "restart", "values"},
    "locks": set(),
    "loops": {"command", "heartbeat"},
    "notify": {"heartbeat", "probe"},
    "heartbeat": set(),
    "record": {"probe"},
    "probe": set(),
}  # fmt: skip


def imports(module: Path) -> set[str]:
    """Return the package's modules that one of them imports, even in a function."""
    found = set()
    assert f"import {PACKAGE.name}" not in module.read_text()
    assert f"from {PACKAGE.name}" not in module.read_text()
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level == 1:
            found |= (
                {node.module} if node.module else {name.name for name in node.names}
            )
    return found


@pytest.mark.parametrize("module", sorted(PACKAGE.glob("*.py")), ids=lambda p: p.stem)
def test_imports_run_one_way(module: Path) -> None:
    assert imports(module) == ROOMS[module.stem]


def test_there_is_no_circle() -> None:
    order: list[str] = []
    while len(order) < len(ROOMS):
        free = [
            room
            for room, entered in ROOMS.items()
            if room not in order and entered <= set(order)
        ]
        assert free, f"a cycle among {sorted(set(ROOMS) - set(order))}"
        order += free
