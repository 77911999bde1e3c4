"""Turns each patch in `patches/` into a commit in a copy of django-prodserver."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

__all__ = ("PATCHES", "EditError", "Repository", "edited", "message", "scripts")

PATCHES = sorted(Path(__file__).parent.glob("patches/*.ed"))
SUPPORT = Path(__file__).parent / "support"


class EditError(Exception):
    """A patch cannot be made or proved."""


def message(patch: Path) -> str:
    """Return the commit message: the pull request's title and its description."""
    text = patch.with_suffix(".md").read_text()
    title, description, _ = re.split(r"^### .*\n", text, flags=re.M)
    return f"{title}\n{description.strip()}\n"


def scripts(patch: Path) -> Iterator[tuple[str, str, str]]:
    """Yield the path of each file, what its script fits, and the script.

    What it fits is the contents' git hash, with `?` if not every version has them;
    `new`; or nothing, if an earlier patch has changed the file.
    """
    for part in re.split(r"^= ", patch.read_text(), flags=re.M)[1:]:
        heading, _, script = part.partition("\n")
        path, _, fits = heading.partition(" ")
        yield path, fits, script


def edited(text: str, script: str) -> str:
    """Return a text edited by a `diff -e` script, which works from the end up."""
    lines = text.splitlines(keepends=True)
    rest = iter(script.splitlines(keepends=True))
    for line in rest:
        found = re.fullmatch(r"(\d+|\$)(?:,(\d+))?([acd])\n", line)
        if not found:
            raise EditError(f"{line!r} is not an ed command.")
        first, last, command = found.groups()
        start = len(lines) if first == "$" else int(first) - (command != "a")
        end = start if command == "a" else int(last or first)
        lines[start:end] = iter(rest.__next__, ".\n") if command != "d" else ()
    return "".join(lines)


class Repository:
    """A git repository with django-prodserver's source, in the folder `root`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        # The files as the scripts make them from the contents that they fit.
        self._made: dict[str, str] = {}

    def git(self, *words: str) -> str:
        """Run git, and return its output."""
        done = subprocess.run(
            ["git", *words], cwd=self.root, text=True, capture_output=True, check=False
        )
        if done.returncode:
            raise EditError(f"git {words[0]}: {done.stderr or done.stdout}")
        return done.stdout

    def supply(self) -> None:
        """Add what the tests need and the source distribution lacks."""
        shutil.copytree(SUPPORT, self.root, dirs_exist_ok=True)
        path = "tests/backends/test_celery.py"
        self._made[path] = (SUPPORT / path).read_text()

    def commit(self, patch: Path) -> None:
        """Make a patch's changes, and commit them.

        Raises:
            EditError: a file has moved on, and git cannot merge the change.
        """
        for path, fits, script in scripts(patch):
            if fits == "new" or (self.root / path).exists():
                try:
                    self._edit(path, fits.removesuffix("?"), script)
                except EditError as exc:
                    if not fits.endswith("?"):
                        raise EditError(f"{patch.stem}: {path}: {exc}") from exc
            else:
                print(f"{patch.stem}: there is no {path} here")
        self.git("add", "--all")
        self.git("commit", "--quiet", "--no-verify", f"--message={message(patch)}")

    def _edit(self, path: str, fits: str, script: str) -> None:
        file = self.root / path
        current = before = file.read_text() if fits != "new" else ""
        if path in self._made:
            before = self._made[path]
        elif fits not in ("new", blob(current)):
            # A clone still has every version of a file in its history.
            before = self.git("cat-file", "blob", fits)
        after = self._made[path] = edited(before, script)
        if current != before:
            with tempfile.TemporaryDirectory() as folder:
                names = [f"{folder}/{name}" for name in ("current", "before", "after")]
                for name, text in zip(names, (current, before, after), strict=True):
                    Path(name).write_text(text)
                after = self.git("merge-file", "-p", *names)
        file.write_text(after)


def blob(text: str) -> str:
    """Return the git hash of a file's contents."""
    data = text.encode()
    return hashlib.sha1(b"blob %d\0%b" % (len(data), data)).hexdigest()  # noqa: S324
