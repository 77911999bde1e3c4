"""Turns each of `patches/` into a commit, in the distribution and then in a clone."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

PATCHES = sorted(Path(__file__).parent.glob("patches/*.ed"))


class EditError(Exception):
    """A patch cannot be made or proved."""


def git(folder: Path, *words: str) -> str:
    """Run git in a folder, and return its output.

    Raises:
        EditError: git failed.
    """
    done = subprocess.run(
        ["git", *words], cwd=folder, text=True, capture_output=True, check=False
    )
    if done.returncode:
        raise EditError(f"git {words[0]}: {done.stdout}{done.stderr}".strip())
    return done.stdout


def branch(patch: Path) -> str:
    """Return the name of a patch's branch."""
    return f"celery-{patch.stem}"


def message(patch: Path) -> str:
    """Return the commit's message: the pull request's title and description."""
    return re.sub(r"^###.*\n\n", "", patch.with_suffix(".md").read_text(), flags=re.M)


def sections(patch: Path) -> Iterator[tuple[str, ...]]:
    """Yield the kind of each change, its file, where it goes, and what it is.

    `=` is an ed script for a file of the source distribution. What that lacks is found
    by its text in a clone, or left out: `?` replaces the one line that is `where`, and
    `-` removes the tests that contain it.
    """
    form = r"^([=?-]) (\S+?)(?:: (.*))?\n((?:(?![=?-] ).*\n)*)"
    for part in re.finditer(form, patch.read_text(), re.M):
        yield part.groups("")


def edited(text: str, script: str) -> str:
    """Return a text edited by a `diff -e` script, which works from the end up."""
    lines = text.splitlines(keepends=True)
    rest = iter(script.splitlines(keepends=True))
    for line in rest:
        found = re.fullmatch(r"(\d+)(?:,(\d+))?([acd])\n", line)
        if not found:
            raise EditError(f"{line!r} is not an ed command.")
        first, last, command = found.groups()
        start = int(first) - (command != "a")
        end = start if command == "a" else int(last or first)
        lines[start:end] = iter(rest.__next__, ".\n") if command != "d" else ()
    return "".join(lines)


def adapted(text: str, kind: str, where: str, new: str) -> str:
    """Return a file of a clone with a change of the kind `?` or `-`, if it is found."""
    lines = text.splitlines(keepends=True)
    if kind == "?":
        found = [n for n, line in enumerate(lines) if line.strip() == where]
        if len(found) == 1:
            lines[found[0]] = new
        return "".join(lines)
    functions = [x for x in ast.walk(ast.parse(text)) if isinstance(x, ast.FunctionDef)]
    for test in sorted(functions, key=lambda test: -test.lineno):
        first = min(node.lineno for node in (test, *test.decorator_list))
        body = "".join(lines[first - 1 : test.end_lineno])
        if test.name.startswith("test_") and where in body:
            first -= not lines[first - 2].strip()
            del lines[first - 1 : test.end_lineno]
    return "".join(lines)


def commit(folder: Path, words: str) -> None:
    """Commit everything in a folder."""
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--no-verify", f"--message={words}")


def make(folder: Path) -> None:
    """Commit the patches, one by one, in a folder with the source distribution."""
    git(folder, "init", "--quiet")
    for key in ("name", "email"):
        git(folder, "config", f"user.{key}", "the@distribution")
    commit(folder, "The source distribution")
    for patch in PATCHES:
        for kind, path, _, script in sections(patch):
            if kind == "=":
                file = folder / path
                file.parent.mkdir(parents=True, exist_ok=True)
                before = file.read_text() if file.exists() else ""
                file.write_text(edited(before, script))
        commit(folder, patch.stem)


def bring(source: Path, clone: Path, copy: Path) -> None:
    """Make a branch for each patch in a copy of a clone, each on the one before.

    The copy is of what the clone has committed, with its git identity. `source` is the
    folder in which the patches have been made.

    Raises:
        EditError: git knows no identity or has one of the branches, or it cannot merge
            a patch with what has changed since the distribution.
    """
    name, email, _ = re.split(" <|> ", git(clone, "var", "GIT_AUTHOR_IDENT"))
    for taken in git(clone, "branch", "--list", *map(branch, PATCHES)).split():
        raise EditError(f"{clone} already has a branch {taken}.")
    settings = (f"--config=user.name={name}", f"--config=user.email={email}")
    git(clone, "clone", "--quiet", *settings, ".", str(copy))
    git(copy, "fetch", "--quiet", str(source.resolve()), "HEAD")
    changes = git(copy, "rev-list", "--reverse", f"-{len(PATCHES)}", "FETCH_HEAD")
    for patch, change in zip(PATCHES, changes.split(), strict=True):
        git(copy, "checkout", "--quiet", "-b", branch(patch))
        git(copy, "cherry-pick", "--no-commit", change)
        for kind, path, where, new in sections(patch):
            changed = kind == "="
            for file in copy.glob(path) if kind != "=" else ():
                before = file.read_text()
                file.write_text(adapted(before, kind, where, new))
                changed |= file.read_text() != before
            if not changed:
                print(f"{patch.stem}: left out, as {path} has no {where!r}")
        commit(copy, message(patch))
