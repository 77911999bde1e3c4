"""The documentation's fenced blocks, and the noxfile's sessions and constants."""

from __future__ import annotations

import ast
import re
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dev.procfile import ROOT

__all__ = ("BLOCKS", "PAGES", "Block", "constants", "of", "sessions", "tutorial")

PAGES = sorted(
    [
        *ROOT.glob("docs/*.md"),
        *(ROOT / f"{name}.md" for name in ("README", "CONTRIBUTING", "SECURITY")),
    ]
)


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Args:
        page: the path of its page in the repository.
        line: the number of its first line.
        language: what follows the backticks.
        text: its content, dedented.
        before: the last line of text above it.
    """

    page: str
    line: int
    language: str
    text: str
    before: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def _blocks() -> list[Block]:
    found = []
    for page in PAGES:
        text = page.read_text()
        for match in re.finditer(
            r"^( *)```(\S*)[^\n]*\n(.*?)^\1```$", text, re.DOTALL | re.MULTILINE
        ):
            above = text[: match.start()].rstrip().splitlines()
            found.append(
                Block(
                    page=str(page.relative_to(ROOT)),
                    line=text.count("\n", 0, match.start()) + 1,
                    language=match[2],
                    text=textwrap.dedent(match[3]),
                    before=above[-1].strip() if above else "",
                )
            )
    return found


BLOCKS = _blocks()


def of(language: str, containing: str = "", page: str = "") -> list[Block]:
    """Select blocks by language, content and page."""
    return [
        block
        for block in BLOCKS
        if block.language == language
        and containing in block.text
        and block.page.endswith(page)
    ]


# The line above a block of the README, and the file that it names.
_FILES = {
    "`proj/celery.py`:": "proj/celery.py",
    "`proj/__init__.py`, so that every process loads the app:": "proj/__init__.py",
    "`proj/tasks.py`:": "proj/tasks.py",
    "At the end of `proj/settings.py`:": "proj/settings.py",
}


def tutorial(folder: Path) -> None:
    """Write the files of the README's "A project from scratch", after startproject."""
    written = set()
    for block in of("python", page="README.md"):
        if path := _FILES.get(block.before):
            written.add(path)
            with (folder / path).open("a") as file:
                file.write(block.text)
    assert written == set(_FILES.values())


_NOXFILE = ast.parse((ROOT / "noxfile.py").read_text())


def sessions() -> set[str]:
    """The names of the nox sessions."""
    return {
        node.name
        for node in _NOXFILE.body
        if isinstance(node, ast.FunctionDef)
        and any("nox.session" in ast.unparse(mark) for mark in node.decorator_list)
    }


def constants() -> dict[str, Any]:
    """The literal constants of the noxfile, such as CELERIES."""
    found = {}
    for node in _NOXFILE.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            try:
                found[node.targets[0].id] = ast.literal_eval(node.value)
            except ValueError:
                continue
    return found
