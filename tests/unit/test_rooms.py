"""The structure of the package: which module imports which."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import prodserver_celery5

PACKAGE = Path(prodserver_celery5.__file__).parent
MODULES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts): path
    for path in sorted(PACKAGE.rglob("*.py"))
    if path.name != "__init__.py" and "pytest_plugin" not in path.parts
}

# Each module with those that it imports; docs/inside.md says what each is for.
ROOMS: dict[str, set[str]] = {
    "apps": {"checks", "process.green"},
    "checks": {
        "backends", "entry", "findings", "options.errors", "process.picture", "rules",
        "values",
    },
    "backends": {
        "entry", "findings", "grace.key", "heartbeat.key", "key", "leader.key",
        "options.command", "options.errors", "options.rules", "process.green",
        "process.prefork", "process.restart", "redaction", "rules",
    },
    "rules": {
        "entry", "findings", "key", "options.errors", "options.rules", "surroundings",
        "values",
    },
    "key": {"findings", "options.errors", "values"},
    "entry": {
        "findings", "options.command", "options.errors", "options.spelling",
        "process.picture", "values",
    },
    "findings": {"redaction"},
    "values": set(),
    "redaction": set(),
    "probe": set(),
    "options.rules": {
        "entry", "findings", "options.command", "options.errors", "options.pasted",
        "options.spelling", "process.green", "values",
    },
    "options.spelling": {
        "findings", "options.command", "options.declared", "options.errors",
        "options.pasted", "values",
    },
    "options.command": {
        "findings", "options.declared", "options.errors", "options.pasted",
    },
    "options.pasted": set(),
    "process.green": {"process.restart"},
    "process.picture": {"options.errors"},
    "process.prefork": set(),
    "process.restart": set(),
    "heartbeat.key": {
        "findings", "heartbeat.loops", "heartbeat.notify", "heartbeat.record",
        "heartbeat.report", "key", "options.errors", "values",
    },
    "heartbeat.loops": {"findings", "heartbeat.report", "options.errors"},
    "heartbeat.notify": {"heartbeat.report", "probe"},
    "heartbeat.record": {"probe"},
    "heartbeat.report": set(),
    "leader.key": {
        "findings", "key", "leader.locks", "leader.schedulers", "options.rules",
        "values",
    },
    "leader.lead": {"leader.locks", "process.restart", "redaction"},
    "leader.schedulers": {"findings", "leader.lead", "leader.locks", "options.errors"},
    "leader.locks": set(),
    "grace.key": {
        "findings", "grace.outside", "grace.shutdown", "key", "options.errors",
        "values",
    },
    "grace.outside": set(),
    "grace.shutdown": {"grace.brokers", "grace.results", "process.green"},
    "grace.brokers": {"process.green"},
    "grace.results": set(),
    "options.declared": {"findings", "options.errors", "redaction"},
    "options.errors": {"findings"},
    "surroundings": {"entry", "findings", "process.restart"},
}  # fmt: skip

# The keys, each with its room.
KEYS = {
    "HEARTBEAT_FILE": "heartbeat",
    "LEADER_LOCK": "leader",
    "GRACE_SECONDS": "grace",
}


def imports(module: str) -> set[str]:
    """Return the package's modules that one of them imports, even in a function.

    What is imported for its types alone is not.
    """
    text = MODULES[module].read_text()
    assert f"import {PACKAGE.name}" not in text
    assert f"from {PACKAGE.name}" not in text
    tree = ast.parse(text)
    only_types = {
        id(inside)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inside in ast.walk(node)
    }
    found = set()
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.ImportFrom)
            and node.level
            and id(node) not in only_types
        ):
            above = module.split(".")[: -node.level]
            base = [*above, *(node.module.split(".") if node.module else [])]
            whole = ".".join(base)
            found |= (
                {whole}
                if whole in MODULES
                else {".".join([*base, name.name]) for name in node.names}
            )
    return found


@pytest.mark.parametrize("module", MODULES)
def test_imports_run_one_way(module: str) -> None:
    assert imports(module) == ROOMS[module]


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


@pytest.mark.parametrize("module", MODULES)
def test_a_key_is_known_in_its_own_room_only(module: str) -> None:
    text = MODULES[module].read_text()
    elsewhere = [name for name, room in KEYS.items() if module.split(".")[0] != room]
    assert [name for name in elsewhere if name in text] == []


@pytest.mark.parametrize("module", MODULES)
def test_a_room_is_as_large_as_its_role(module: str) -> None:
    assert len(MODULES[module].read_text().splitlines()) <= 380
