"""Proves the patches: upstream's tests, the new ones, upstream's ruff and mypy."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .source import Repository

__all__ = ("ProofError", "Row", "prove", "supply")

SUPPORT = Path(__file__).parent / "support"
# What pytest says of a test, with -rA: its outcome and its name.
OUTCOME = re.compile(
    r"^(PASSED|FAILED|ERROR|SKIPPED|XFAIL|XPASS) (\S.*?)(?: - .*)?$", re.M
)


class ProofError(Exception):
    """Something that was to be proved is not so."""


@dataclass
class Row:
    """What was found of one commit.

    Args:
        title: what the commit is.
        own: how many of upstream's own tests passed.
        new: how many tests the commit brings, all of which pass.
        before: how many of those failed without the commit's change.
        clean: what of ruff and mypy found nothing.
    """

    title: str
    own: int
    new: int = 0
    before: int = 0
    clean: list[str] = field(default_factory=list)


def supply(repository: Repository) -> None:
    """Add what the tests need and the source distribution lacks, uncommitted."""
    tests = repository.folder / "tests"
    names = ["__init__.py", *(file.name for file in (SUPPORT / "tests").iterdir())]
    names = [name for name in names if name.endswith(".py")]
    repository.ignore(*(f"tests/{name}" for name in names))
    (tests / "__init__.py").touch()
    shutil.copytree(SUPPORT / "tests", tests, dirs_exist_ok=True)


def prove(repository: Repository, titles: Sequence[str]) -> Iterable[Row]:
    """Prove each commit on the ones before it.

    Args:
        repository: the patched tree; its first commit is the distribution.
        titles: of the patches, one for each further commit.

    Raises:
        ProofError: a test has not the outcome that it should have, or a check finds
            something that was not there before.
    """
    revisions = repository.git("rev-list", "--reverse", "HEAD").split()
    repository.git("checkout", "--quiet", "--detach", revisions[0])
    own = _passing(repository, "tests")
    yield Row("as distributed", len(own))
    known = set(own)
    for title, before, after in zip(titles, revisions, revisions[1:], strict=False):
        changed = repository.changed(after)
        tests = [path for path in changed if re.search(r"tests/test_\w+\.py$", path)]
        repository.git("checkout", "--quiet", after, "--", "tests")
        failing = _outcomes(repository, *tests)
        repository.git("reset", "--quiet", "--hard", before)
        found = _checks(repository, changed)
        repository.git("checkout", "--quiet", "--detach", after)
        passing = _passing(repository, "tests")
        lost = known - passing
        if lost:
            raise ProofError(f"{title}: no longer run: {', '.join(sorted(lost))}")
        new = passing - known
        # A module that cannot be imported yet is one outcome, an error, for all of it.
        early = {test for test in new if failing.get(test) == "PASSED"}
        if not new:
            raise ProofError(f"{title}: it brings no test.")
        if early:
            raise ProofError(
                f"{title}: these pass without the change: {', '.join(sorted(early))}"
            )
        row = Row(title, len(own), len(new), len(new) - len(early))
        for name, findings in _checks(repository, changed).items():
            before_it = found.get(name, [])
            fresh = [finding for finding in findings if finding not in before_it]
            if fresh:
                raise ProofError(f"{title}: {name}:\n" + "\n".join(fresh))
            row.clean.append(name)
        known = passing
        yield row
    repository.git("checkout", "--quiet", "main")


def _run(repository: Repository, *words: str) -> tuple[int, str]:
    # What the machine has set for Celery is not for the tests.
    env = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("CELERY_", "DJANGO_", "PYTHON"))
    }
    done = subprocess.run(
        [sys.executable, "-m", *words], cwd=repository.folder, env=env,
        text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout


def _outcomes(repository: Repository, *paths: str) -> dict[str, str]:
    _, output = _run(
        repository, "pytest", "-p", "no:cacheprovider", "--no-header", "-rA", *paths
    )
    found = {name: outcome for outcome, name in OUTCOME.findall(output)}
    if not found:
        raise ProofError(output)
    return found


def _passing(repository: Repository, *paths: str) -> set[str]:
    """Run tests all of which have to pass, and return their names."""
    outcomes = _outcomes(repository, *paths)
    wrong = {test for test, outcome in outcomes.items() if outcome != "PASSED"}
    if wrong:
        _, output = _run(repository, "pytest", "-p", "no:cacheprovider", *sorted(wrong))
        raise ProofError(output)
    return set(outcomes)


def _checks(repository: Repository, paths: Iterable[str]) -> dict[str, list[str]]:
    """What upstream's checks find in files, without the lines where it is."""
    files = [path for path in paths if path.endswith(".py")]
    files = [path for path in files if (repository.folder / path).exists()]
    # As upstream's pre-commit runs them: mypy sees none of the dependencies.
    words = {
        "ruff": ["ruff", "check", "--no-cache", "--output-format=concise", *files],
        "format": ["ruff", "format", "--no-cache", "--check", *files],
        "mypy": ["mypy", "--no-site-packages", "--ignore-missing-imports",
                 "--scripts-are-modules", "--no-error-summary", *files],
    }  # fmt: skip
    found: dict[str, list[str]] = {}
    for name, command in words.items() if files else ():
        status, output = _run(repository, *command)
        found[name] = [
            re.sub(r":\d+(:\d+)?:", ":", line)
            for line in output.splitlines()
            if ": error:" in line or re.match(r"\S+:\d+:|Would ref", line)
        ]
        if status and not found[name]:
            raise ProofError(f"{name} did not run:\n{output}")
    return found
