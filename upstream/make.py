"""Makes the patches: edits become commits, commits become files."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from .edits import EditError
from .series import Patch
from .source import Repository

__all__ = ("check", "commit", "tidy", "write")


def commit(repository: Repository, patch: Patch) -> None:
    """Make a patch's changes, in upstream's form, and commit them.

    Raises:
        EditError: an edit does not fit the source any more.
    """
    paths = []
    for edit in patch.edits():
        try:
            edit.apply(repository.folder)
        except EditError as exc:
            raise EditError(
                f"The patch {patch.title!r} no longer fits: {exc}\nLook at what"
                " django-prodserver has there now, and renew the edit in"
                " upstream/series.py."
            ) from exc
        paths.append(edit.path)
    tidy(repository.folder, paths)
    repository.commit(patch.message)


def tidy(root: Path, paths: Sequence[str]) -> None:
    """Give Python files the form that upstream's own ruff settings ask for."""
    files = sorted({path for path in paths if path.endswith(".py")})
    ruff = [sys.executable, "-m", "ruff"]
    # What is left is reported by the proof, with the rules' names.
    for words in (["check", "--fix-only", "--quiet"], ["format", "--quiet"]):
        subprocess.run([*ruff, *words, *files], cwd=root, check=True)


def write(repository: Repository, folder: Path, since: str) -> list[Path]:
    """Write the commits after a revision as patches, and nothing else.

    Args:
        repository: where the commits are.
        folder: where the patches go; older ones there are removed.
        since: the revision.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    repository.git(
        "format-patch", "--quiet", "--zero-commit", "--no-signature", "--full-index",
        "--output-directory", str(folder), since,
    )  # fmt: skip
    return sorted(folder.glob("*.patch"))


def check(repository: Repository, files: Sequence[Path], since: str) -> None:
    """Apply the patches, as files, to where they start: the same has to come out.

    Args:
        repository: where they were made; its branch stays as it is.
        files: the patches.
        since: the revision where they start.

    Raises:
        EditError: something else came out.
    """
    repository.git("checkout", "--quiet", "--detach", since)
    repository.git("am", "--quiet", *map(str, files))
    difference = repository.git("diff", "--stat", "HEAD", "main")
    repository.git("checkout", "--quiet", "main")
    if difference:
        raise EditError(f"The patches do not give what was made:\n{difference}")
