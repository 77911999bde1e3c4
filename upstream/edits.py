"""Changes of a fetched file, described without keeping a line of it.

A function is found by its name, and by a fingerprint of what it was when the
change was written: where upstream has moved, an edit fails instead of fitting by
accident.
"""

from __future__ import annotations

import ast
import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

__all__ = (
    "Append",
    "Body",
    "Edit",
    "EditError",
    "Import",
    "Insert",
    "NewFile",
    "Remove",
    "Substitute",
    "body_print",
    "fingerprint",
)


class EditError(Exception):
    """An edit does not fit the fetched source."""


class Edit(Protocol):
    """A change of one file of the tree."""

    @property
    def path(self) -> str:
        """The file, from the root of the tree."""

    def apply(self, root: Path) -> None:
        """Change the file.

        Raises:
            EditError: it is not the file that the edit was written for.
        """


@dataclass(frozen=True)
class NewFile:
    """Adds a file.

    Args:
        path: the file, which is not to exist yet.
        text: what it says.
        replaces: whether an earlier patch of the series has written it.
    """

    path: str
    text: str
    replaces: bool = False

    def apply(self, root: Path) -> None:
        """Write the file."""
        file = root / self.path
        if file.exists() is not self.replaces:
            state = "is not there" if self.replaces else "is there already"
            raise EditError(f"{self.path} {state}.")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(self.text)


@dataclass(frozen=True)
class Import:
    """Adds an import; ruff sorts it in.

    Args:
        path: a Python file.
        statement: the import.
    """

    path: str
    statement: str

    def apply(self, root: Path) -> None:
        """Put the import before the file's own."""
        body = _parse(self.path, _read(root, self.path)).body
        imports = [n for n in body if isinstance(n, ast.Import | ast.ImportFrom)]
        line = imports[0].lineno - 1 if imports else 0
        _replace(root, self.path, line, line, self.statement + "\n")


@dataclass(frozen=True)
class Body:
    """Replaces the body of a function, docstring included; its head stays.

    Args:
        path: a Python file.
        name: the qualified name, such as ``"Command.handle"``.
        was: the fingerprint of the body that is replaced.
        text: what stands there instead, indented as for the top level.
    """

    path: str
    name: str
    was: str
    text: str

    def apply(self, root: Path) -> None:
        """Replace the body."""
        node = _known(root, self.path, self.name, self.was)
        first = node.body[0]
        text = _indented(self.text, first.col_offset)
        _replace(root, self.path, first.lineno - 1, node.end_lineno, text)


@dataclass(frozen=True)
class Remove:
    """Removes a function, and may put something in its place.

    Args:
        path: a Python file.
        name: its qualified name.
        was: the fingerprint of its body.
        text: what stands there instead, indented as for the top level.
    """

    path: str
    name: str
    was: str
    text: str = ""

    def apply(self, root: Path) -> None:
        """Remove the function."""
        node = _known(root, self.path, self.name, self.was)
        text = _indented(self.text, node.col_offset)
        _replace(root, self.path, node.lineno - 1, node.end_lineno, text)


@dataclass(frozen=True)
class Insert:
    """Inserts a definition or a statement into a class.

    Args:
        path: a Python file.
        name: the name of the class.
        text: what is inserted, indented as for the top level.
        last: whether it comes after all that the class has, not after its docstring.
    """

    path: str
    name: str
    text: str
    last: bool = False

    def apply(self, root: Path) -> None:
        """Insert the text."""
        node = _find(self.path, _read(root, self.path), self.name)
        if not isinstance(node, ast.ClassDef):
            raise EditError(f"{self.path}: {self.name} is no class.")
        if not self.last and not ast.get_docstring(node):
            raise EditError(f"{self.path}: {self.name} has no docstring.")
        line = node.end_lineno if self.last else node.body[0].end_lineno
        text = "\n" + _indented(self.text, node.col_offset + 4)
        _replace(root, self.path, line or 0, line, text)


@dataclass(frozen=True)
class Append:
    """Adds to the end of a file.

    Args:
        path: the file.
        text: what is added.
    """

    path: str
    text: str

    def apply(self, root: Path) -> None:
        """Add the text."""
        text = _read(root, self.path)
        (root / self.path).write_text(text.rstrip("\n") + "\n\n\n" + self.text)


@dataclass(frozen=True)
class Substitute:
    r"""Replaces what matches a pattern, where there is no function to name.

    Args:
        path: the file.
        pattern: a regular expression, as short as it can be.
        text: what stands there instead; ``\1`` is a group of the match.
        count: how often the pattern has to match.
    """

    path: str
    pattern: str
    text: str
    count: int = 1

    def apply(self, root: Path) -> None:
        """Replace what matches."""
        text, count = re.subn(
            self.pattern, self.text, _read(root, self.path), flags=re.MULTILINE
        )
        if count != self.count:
            raise EditError(
                f"{self.path}: {self.pattern!r} matches {count} times,"
                f" expected {self.count}."
            )
        (root / self.path).write_text(text)


def fingerprint(source: str) -> str:
    """Identify a piece of Python by its syntax: comments and layout do not count."""
    return hashlib.sha256(ast.unparse(ast.parse(source)).encode()).hexdigest()[:12]


def body_print(path: str, text: str, name: str) -> str:
    """Identify the body of a function.

    Args:
        path: the file, for the error message.
        text: what the file says.
        name: the qualified name of the function.
    """
    body = _function(path, text, name).body
    return fingerprint("\n".join(map(ast.unparse, body)))


def _read(root: Path, path: str) -> str:
    try:
        return (root / path).read_text()
    except FileNotFoundError:
        raise EditError(f"{path} is no longer there.") from None


def _parse(path: str, text: str) -> ast.Module:
    try:
        return ast.parse(text)
    except SyntaxError as exc:
        raise EditError(f"{path}: {exc}") from exc


def _find(path: str, text: str, name: str) -> ast.AST:
    node: ast.AST = _parse(path, text)
    for part in name.split("."):
        body = getattr(node, "body", [])
        found = [n for n in body if getattr(n, "name", None) == part]
        if not found:
            raise EditError(f"{path}: there is no {name}.")
        node = found[0]
    return node


def _function(path: str, text: str, name: str) -> ast.FunctionDef:
    node = _find(path, text, name)
    if not isinstance(node, ast.FunctionDef):
        raise EditError(f"{path}: {name} is no function.")
    return node


def _known(root: Path, path: str, name: str, was: str) -> ast.FunctionDef:
    """Find a function, and see that its body is what it was."""
    text = _read(root, path)
    found = body_print(path, text, name)
    if found != was:
        raise EditError(
            f"{path}: {name} is not what it was when this edit was written"
            f" (fingerprint {found}, expected {was})."
        )
    return _function(path, text, name)


def _replace(root: Path, path: str, start: int, end: int | None, text: str) -> None:
    """Put a text in the place of some lines, counted from 0."""
    lines = _read(root, path).splitlines(keepends=True)
    lines[start:end] = [text]
    (root / path).write_text("".join(lines))


def _indented(text: str, by: int) -> str:
    lines = text.splitlines(keepends=True)
    return "".join(" " * by + line if line.strip() else line for line in lines)
