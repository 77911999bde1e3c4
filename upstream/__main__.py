"""Makes the patches as commits, and proves them: `nox -s upstream`."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

from .series import PATCHES, EditError, Repository

OUT = Path(__file__).parent.parent / "dist/upstream"
# As upstream's pre-commit runs them.
CHECKS = {
    "ruff": "ruff check --no-cache --output-format=concise src tests",
    "format": "ruff format --no-cache --check src tests",
    "mypy": "mypy --ignore-missing-imports --scripts-are-modules src/django_prodserver",
    "codespell": "codespell_lib src tests docs README.md",
}


def run(folder: Path, words: str) -> str:
    """Run a Python module, and return its output."""
    command = [sys.executable, "-m", *words.split()]
    done = subprocess.run(
        command, cwd=folder, text=True, capture_output=True, check=False
    )
    return done.stdout + done.stderr


def unpack(folder: Path) -> Repository:
    """Download the newest source distribution, and make it a git repository."""
    said = run(folder, "pip download --no-deps --no-binary :all: django-prodserver")
    archive = next(folder.glob("*.tar.gz"), None)
    if not archive:
        raise EditError(said)
    run(folder, f"tarfile --extract {archive.name}")
    repository = Repository(folder / archive.name.removesuffix(".tar.gz"))
    repository.git("init", "--quiet")
    for key in ("name", "email"):
        repository.git("config", f"user.{key}", "nobody@localhost")
    (repository.root / ".git/info/exclude").write_text("*.egg-info\n*.pyc\n.*_cache\n")
    repository.supply()
    repository.git("add", "--all")
    repository.git("commit", "--quiet", f"--message={archive.name}")
    return repository


def passing(folder: Path, *, can_fail: bool = False) -> set[str]:
    """Run upstream's whole suite, and return the tests that pass."""
    output = run(folder, "pytest -p no:cacheprovider -rfEp --tb=short tests")
    found = re.findall(r"^(PASSED|FAILED|ERROR) (.+?)(?: - .*)?$", output, re.M)
    if not found or (not can_fail and any(how != "PASSED" for how, _ in found)):
        raise EditError(output[output.find("= FAILURES =") :][:5000])
    return {test for how, test in found if how == "PASSED"}


def findings(folder: Path) -> set[str]:
    """Return what upstream's checks find, without line numbers."""
    output = "\n".join(run(folder, words) for words in CHECKS.values())
    lines = re.findall(r"^\S+:\d.*|^Would reformat.*|.*No module named.*", output, re.M)
    return {re.sub(r":\d+(:\d+)?:", ":", line) for line in lines}


def prove(repository: Repository) -> None:
    """Make the commits, prove each on top of those before it, and print a table."""
    folder, git = repository.root, repository.git
    if git("status", "--porcelain"):
        raise EditError(f"{folder} has uncommitted changes.")
    known, found = passing(folder), findings(folder)
    head = ("", "lines", "files", "tests", "gone", "new", "failed before")
    rows = [head, ("before", "", "", len(known), "", "", "")]
    for patch in PATCHES:
        repository.commit(patch)
        git("checkout", "--quiet", "HEAD~", "--", "src")
        before = passing(folder, can_fail=True)
        git("checkout", "--quiet", "HEAD", "--", "src")
        after, left = passing(folder), findings(folder)
        if left - found:
            raise EditError(f"{patch.stem}: {left - found}")
        changes = [x.split() for x in git("diff", "--numstat", "HEAD~").splitlines()]
        lines = sum(int(added) for added, _, path in changes if path.startswith("src/"))
        gone, new = known - after, after - known
        rows += [(patch.stem, lines, len(changes), len(after), len(gone), len(new),
                  len(new - before))]  # fmt: skip
        known, found = after, left
    for first, *rest in rows:
        print(f"{first:14}", *(f"{cell:>6}" for cell in rest))
    print("No new findings from", ", ".join(CHECKS))


def main() -> None:
    """Use the clone named on the command line, or else the source distribution."""
    clone = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        try:
            repository = Repository(Path(*clone)) if clone else unpack(Path(folder))
            prove(repository)
            if not clone:
                print(repository.git("format-patch", f"-{len(PATCHES)}", f"-o{OUT}"))
        except EditError as exc:
            sys.exit(str(exc))


if __name__ == "__main__":
    main()
