"""Breaks the package in many places, one at a time, to see which tests notice.

``nox -s mutants -- --count 300 --seed 1`` takes a random sample of mutants. It runs the
unit and differential tests that reach a mutant's line, then those with real processes
where a module has some, and prints the survivors.
"""

from __future__ import annotations

import argparse
import ast
import copy
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import coverage
import pytest

PACKAGE = "prodserver_celery5"
SUITES = ["tests/unit", "tests/differential"]
PYTEST = ["-x", "-q", "-p", "no:cacheprovider", "--ignore=tests/unit/prayer_room"]
# What only a real process shows of a module.
HEARTBEATS = ["tests/processes/test_heartbeat.py"]
LEADERS = ["tests/processes/test_locks.py", "tests/processes/test_leader.py"]
PROCESSES = {
    "backends": ["tests/processes/test_procfile.py", *HEARTBEATS],
    "grace": ["tests/behaviour/test_grace.py"],
    "heartbeat": HEARTBEATS,
    "leader": LEADERS,
    "process": [
        "tests/unit/test_picture.py",
        "tests/behaviour/test_green.py",
        "tests/behaviour/test_started.py",
        "tests/behaviour/test_surroundings.py",
    ],
}
# Seconds for a mutant, with the unit tests and with real processes.
UNIT_LIMIT = 180
PROCESS_LIMIT = 600
INTERRUPTED_LIMIT = 30

SWAPPED = {
    ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Lt: ast.GtE, ast.GtE: ast.Lt,
    ast.Gt: ast.LtE, ast.LtE: ast.Gt, ast.And: ast.Or, ast.Or: ast.And,
    ast.Add: ast.Sub, ast.Sub: ast.Add,
}  # fmt: skip
# What returning None instead would not change.
SAME = ("return", "return None")
REMOVED = (ast.Expr, ast.Assign, ast.AugAssign, ast.Raise, ast.Break, ast.Continue)


def variants(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the mutations of a node."""
    if isinstance(node, ast.Compare):
        yield ast.Compare(node.left, [SWAPPED[type(node.ops[0])]()], node.comparators)
    elif isinstance(node, ast.BoolOp):
        yield ast.BoolOp(SWAPPED[type(node.op)](), node.values)
        yield from (copy.deepcopy(value) for value in node.values)
    elif isinstance(node, ast.BinOp) and type(node.op) in SWAPPED:
        yield ast.BinOp(node.left, SWAPPED[type(node.op)](), node.right)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield copy.deepcopy(node.operand)
    elif isinstance(node, ast.IfExp):
        yield copy.deepcopy(node.body)
        yield copy.deepcopy(node.orelse)
    elif isinstance(node, (ast.If, ast.While)):
        changed = copy.deepcopy(node)
        changed.test = ast.UnaryOp(ast.Not(), changed.test)
        yield changed
    elif isinstance(node, ast.Constant):
        if isinstance(node.value, bool):
            yield ast.Constant(not node.value)
        elif isinstance(node.value, int):
            yield ast.Constant(node.value + 1)
        elif isinstance(node.value, str):
            yield ast.Constant(f"{node.value}XX")
    elif isinstance(node, ast.Return) and ast.unparse(node) not in SAME:
        yield ast.Return(ast.Constant(None))
    elif isinstance(node, REMOVED):
        yield ast.Pass()


def is_prose(node: ast.AST, parent: ast.AST) -> bool:
    """Whether a node is a docstring."""
    if isinstance(parent, ast.Expr) and isinstance(node, ast.Constant):
        return True
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def skipped(tree: ast.Module) -> set[ast.AST]:
    """Return the nodes that change nothing at run time: __all__ and type imports."""
    found: set[ast.AST] = set()
    for node in tree.body:
        text = ast.unparse(node)
        if text.startswith(("__all__ =", "if TYPE_CHECKING:")):
            found.update(ast.walk(node))
    return found


class Mutant:
    """One change to one file.

    Args:
        path: the file.
        number: which of its changes.
    """

    def __init__(self, path: Path, number: int) -> None:
        self.path, self.number = path, number
        # The module, or the folder that it is in.
        self.room = path.stem if path.parent.name == PACKAGE else path.parent.name
        self.line = 0
        self.text = ""
        tree = ast.parse(path.read_text())
        told = skipped(tree)
        seen = -1
        for parent in ast.walk(tree):
            for field, value in ast.iter_fields(parent):
                if field in ("annotation", "returns", "decorator_list"):
                    continue
                for index, node in enumerate(
                    value if isinstance(value, list) else [value]
                ):
                    if not isinstance(node, ast.AST) or node in told:
                        continue
                    if is_prose(node, parent):
                        continue
                    for variant in variants(node):
                        seen += 1
                        if seen != number:
                            continue
                        self.line = vars(node)["lineno"]
                        self.text = f"{ast.unparse(node)}  →  {ast.unparse(variant)}"
                        ast.copy_location(variant, node)
                        if isinstance(value, list):
                            value[index] = variant
                        else:
                            setattr(parent, field, variant)
                        self.source = ast.unparse(ast.fix_missing_locations(tree))
                        return
        raise IndexError(number)


def every(folder: Path) -> list[Mutant]:
    """Make all mutants of the package, except its pytest plugin."""
    found = []
    for path in sorted(folder.glob(f"{PACKAGE}/**/*.py")):
        if path.parent.name == "pytest_plugin":
            continue
        number = 0
        while True:
            try:
                found.append(Mutant(path, number))
            except IndexError:
                break
            number += 1
    return found


def enter(folder: Path) -> None:
    """Make this process and its children import the package from there."""
    os.chdir(folder)
    sys.path.insert(0, str(folder))
    # Of this package, too, the tests know the folder that they start processes in.
    for name in [name for name in sys.modules if name.partition(".")[0] == "dev"]:
        del sys.modules[name]
    os.environ["PYTHONPATH"] = str(folder)


def run(folder: Path, words: list[str], limit: float) -> int:
    """Run pytest in a fork, so that shared imports happen once; return its status."""
    sys.stdout.flush()
    pid = os.fork()
    if not pid:
        os.setsid()
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(null, 2)
        status = 2
        # A mutant of what starts a program again would start this one.
        os.execv = lambda *_: os._exit(3)
        try:
            enter(folder)
            status = int(pytest.main([*PYTEST, *words]))
        finally:
            # Whatever a mutant raises: what encloses this is the parent's.
            os._exit(status)
    if (ended := wait(pid, limit)) is not None:
        return ended
    # Interrupted, pytest ends the servers and processes that its tests have started.
    os.kill(pid, signal.SIGINT)
    ended = wait(pid, INTERRUPTED_LIMIT)
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
    if ended is None:
        os.waitpid(pid, 0)
    return -signal.SIGKILL


def wait(pid: int, limit: float) -> int | None:
    """Return the status of a process, or ``None`` if it still runs after a time."""
    deadline = time.monotonic() + limit
    while time.monotonic() < deadline:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    return None


def tests_by_line(folder: Path) -> dict[tuple[str, int], set[str]]:
    """Return the test functions that reach each line, as coverage records them."""
    data = folder / "contexts"
    pid = os.fork()
    if not pid:
        enter(folder)
        measured = coverage.Coverage(
            data_file=str(data), source=[PACKAGE], config_file=False
        )
        measured.start()
        words = [word for word in PYTEST if word != "-x"] + SUITES
        status = pytest.main(words, plugins=[Contexts(measured)])
        measured.stop()
        measured.save()
        os._exit(int(status))
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    found = coverage.CoverageData(str(data))
    found.read()
    reached: dict[tuple[str, int], set[str]] = defaultdict(set)
    for name in found.measured_files():
        inside = lines_of_functions(Path(name))
        for line, contexts in found.contexts_by_lineno(name).items():
            if line not in inside:
                continue  # run by whichever test imports it first
            reached[name, line].update(filter(None, contexts))
    return reached


class Contexts:
    """Tells coverage which test function runs, its fixtures included.

    Args:
        measured: the coverage that is being measured.
    """

    def __init__(self, measured: coverage.Coverage) -> None:
        self._measured = measured

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self._measured.switch_context(nodeid.partition("[")[0])


def lines_of_functions(path: Path) -> set[int]:
    """Return the lines that run when a function is called."""
    found: set[int] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef):
            found.update(range(node.body[0].lineno, (node.end_lineno or 0) + 1))
    return found


def tests_of(mutant: Mutant, reached: dict[tuple[str, int], set[str]]) -> list[str]:
    """Return the unit and differential tests that reach a mutant's line."""
    if mutant.line not in lines_of_functions(mutant.path):
        return SUITES
    # A line may run before a test begins, or only in a process that a test starts.
    return sorted(reached[str(mutant.path), mutant.line]) or SUITES


def survivors(
    folder: Path,
    mutants: list[Mutant],
    tests: Callable[[Mutant], list[str]],
    limit: float,
) -> list[Mutant]:
    """Return, and print, the mutants that live through their tests."""
    lived = []
    for mutant in mutants:
        words = tests(mutant)
        original = mutant.path.read_text()
        mutant.path.write_text(mutant.source)
        try:
            status = run(folder, words, limit) if words else 0
        finally:
            mutant.path.write_text(original)
        if status == 0:
            lived.append(mutant)
            print(
                f"survived: {mutant.path.relative_to(folder)}:{mutant.line}:"
                f" {mutant.text}",
                flush=True,
            )
    return lived


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument(
        "--only", default="", help="modules or folders, separated by commas"
    )
    words = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part in (PACKAGE, "tests", "dev", "prayer_room_api", "docs"):
            shutil.copytree(part, folder / part)
        for part in ("manage.py", "Procfile", "pyproject.toml"):
            shutil.copy(part, folder)
        reached = tests_by_line(folder)
        only = set(filter(None, words.only.split(",")))
        mutants = [m for m in every(folder) if not only or m.room in only]
        random.Random(words.seed).shuffle(mutants)
        sample = mutants[: words.count]
        print(f"seed {words.seed}: {len(sample)} of {len(mutants)} mutants")
        lived = survivors(folder, sample, lambda m: tests_of(m, reached), UNIT_LIMIT)
        print(f"{len(sample) - len(lived)} of {len(sample)} killed by unit tests")
        lived = survivors(
            folder, lived, lambda m: PROCESSES.get(m.room, []), PROCESS_LIMIT
        )
        print(f"{len(sample) - len(lived)} of {len(sample)} killed")


if __name__ == "__main__":
    main()
