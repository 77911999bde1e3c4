"""Makes and proves the patches in a clone: `nox -s upstream -- PATH`."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

from .series import PATCHES, EditError, branch, bring, git, make

# The release that the scripts are for. What has changed since, git merges.
RELEASE = "django-prodserver==3.0.0"
# As upstream's pre-commit runs them.
CHECKS = (
    "ruff check --no-cache --output-format=concise src tests",
    "ruff format --no-cache --check src tests",
    "mypy --ignore-missing-imports --scripts-are-modules src/django_prodserver",
    "codespell_lib src tests docs README.md",
)


def run(folder: Path, words: str) -> str:
    """Run a Python module, and return its output."""
    command = [sys.executable, "-m", *words.split()]
    done = subprocess.run(
        command, cwd=folder, text=True, capture_output=True, check=False
    )
    return done.stdout + done.stderr


def download(folder: Path) -> Path:
    """Download the source distribution, and return the folder with its files."""
    said = run(folder, f"pip download --no-deps --no-binary :all: {RELEASE}")
    archive = next(folder.glob("*.tar.gz"), None)
    if not archive:
        raise EditError(said)
    run(folder, f"tarfile --extract {archive.name}")
    return folder / archive.name.removesuffix(".tar.gz")


def measure(folder: Path, *checks: str) -> tuple[set[str], set[str], str]:
    """Return the tests that pass, what upstream's suite and checks find, and why."""
    why = run(folder, "pytest -p no:cacheprovider -rfEp --tb=short tests")
    tests = re.findall(r"^(PASSED|FAILED|ERROR) (.+?)(?: - .*)?$", why, re.M)
    passed = {test for how, test in tests if how == "PASSED"}
    said = "\n".join(run(folder, words) for words in checks)
    lines = re.findall(r"^\S+:\d.*|^Would reformat.*|.*No module named.*", said, re.M)
    found = {re.sub(r":\d+(:\d+)?:", ":", line) for line in lines}
    failures = why.partition("= FAILURES =")[2][:5000]
    return passed, found | {test for _, test in tests} - passed, failures


def prove(copy: Path) -> None:
    """Prove each branch on the one before, and print a table.

    Raises:
        EditError: a new test fails, or a test or a check that did not fail before.
    """
    git(copy, "checkout", "--quiet", f"{branch(PATCHES[0])}~")
    known, faults, _ = measure(copy, *CHECKS)
    rows = [("", "lines", "files", "tests", "gone", "new", "failed before"),
            ("before", "", "", len(known), "", "", "")]  # fmt: skip
    for patch in PATCHES:
        git(copy, "checkout", "--quiet", branch(patch))
        git(copy, "checkout", "--quiet", "HEAD~", "--", "src")
        old, _, _ = measure(copy)
        git(copy, "checkout", "--quiet", "HEAD", "--", "src")
        passed, left, why = measure(copy, *CHECKS)
        if not passed or left - faults:
            raise EditError("\n".join((patch.stem, *(left - faults), why)))
        changes = [
            *map(str.split, git(copy, "diff", "--numstat", "HEAD~").splitlines())
        ]
        lines = sum(int(added) for added, _, path in changes if path.startswith("src/"))
        new = passed - known
        rows.append((branch(patch), lines, len(changes), len(passed),
                     len(known - passed), len(new), len(new - old)))  # fmt: skip
        known, faults = passed, left
    for first, *rest in rows:
        print(f"{first:20}", *(f"{cell:>6}" for cell in rest))
    print(f"Failed before, and still do: {len(faults)}")


def main() -> None:
    """Make the branches in the clone that the command line names.

    All is done in a copy; the clone gets the branches at the end, if nothing fails.
    """
    clone = Path(*sys.argv[1:])
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy"
        try:
            source = download(Path(folder))
            make(source)
            bring(source, clone, copy)
            prove(copy)
            git(copy, "push", "--quiet", "--atomic", "origin", *map(branch, PATCHES))
        except EditError as exc:
            sys.exit(str(exc))


if __name__ == "__main__":
    main()
