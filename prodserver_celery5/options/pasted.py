"""The traces that a shell, a Procfile or a unit file leaves in pasted ARGS."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Sequence

__all__ = (
    "expanded", "joined", "literal_percent", "lost_backslashes", "spelled",
    "stray_word", "unexpanded", "whole_line", "without",
)  # fmt: skip

_DASHES = "\u2010\u2011\u2012\u2013\u2014\u2212"  # what text editors make of --
_SHELL = re.compile(r"[&|;<`]|\$\(|\d*>|.*[;&]$")
_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]*=")
_UNEXPANDED = re.compile(
    r"\$(?:(?P<name>[A-Za-z_]\w*)|\{(?P<braced>\w+)(?::?-(?P<default>[^}]*))?\}"
    r"|\([^)]*\)|\{[^}]*\}|[@*#?$!0-9])"
)


def joined(line: str) -> str:
    """Return a command line whose lines a backslash continues as one line."""
    return re.sub(r"\\\r?\n", "", line)


def whole_line(words: Sequence[str], program: str) -> str:
    """Return a hint if the words of ARGS begin before the options of the program."""
    names = [os.path.basename(word) for word in words]
    if not words or words[0].startswith("-"):
        return ""
    if "celery" not in names and words[0] not in ("worker", "beat", "exec"):
        return ""
    before = names.index("celery") if "celery" in names else 0
    line = without(words[before:], ("-A", "--app", "-b", "--broker"))
    runs = next((word for word in line if word in ("worker", "beat")), program)
    if runs in line:
        line.remove(runs)
    kept = [
        word
        for word in line
        if os.path.basename(word) not in ("celery", "exec")
        and word[:2] not in ("-A", "-b")
    ]
    hint = f"Write {spelled(kept)}." if kept else "Remove it: none of it is needed."
    if before and words[0] != "exec":
        hint += f" What stands before celery ({words[0]} …) stays in the Procfile."
    other = f" This entry runs {program}, not {runs}." * (runs != program)
    return hint + other


def without(words: Sequence[str], spellings: Sequence[str]) -> list[str]:
    """Drop an option, however it is spelt, with its value."""
    kept: list[str] = []
    rest = [*words]
    while rest:
        word = rest.pop(0)
        if word.partition("=")[0] not in spellings:
            kept.append(word)
        elif "=" not in word and rest and not rest[0].startswith("-"):
            del rest[0]
    return kept


def stray_word(words: Sequence[str], word: str) -> str:
    """Return a hint to the likely cause of one of ARGS' words that fits no option."""
    before = words[words.index(word) - 1] if words.index(word) else ""
    if word.startswith(tuple(_DASHES)):
        return f"A text editor changed its dashes: write --{word.lstrip(_DASHES)}."
    if _VARIABLE.match(word):
        return "A variable stays in front of the command in the Procfile."
    if word.startswith("#"):
        return "ARGS cannot have comments."
    if before.endswith(","):
        return f"Remove the space before it: {before}{word}."
    if ">" in word:
        return "ARGS are not read by a shell. Use --logfile=… instead."
    if _SHELL.match(word) or _UNEXPANDED.match(word):
        return "ARGS are not read by a shell. Remove it."
    return ""


def unexpanded(text: str) -> list[str]:
    """Find what a shell would expand in a value or word of ARGS."""
    return [found.group() for found in _UNEXPANDED.finditer(text)]


def expanded(text: str) -> str:
    """Return the Python that is a value or a word of ARGS as a shell would expand it.

    What only a shell knows stands there as ``…``.
    """
    if whole := _UNEXPANDED.fullmatch(text):
        return _python(whole)
    inside = _UNEXPANDED.sub(_in_f_string, text)
    return f"{'f' * (inside != text)}{_quoted(inside)}"


def _python(found: re.Match[str]) -> str:
    name, default = found["name"] or found["braced"], found["default"]
    if not name:
        return "…"
    if default is None:
        return f'os.environ["{name}"]'
    return f'os.environ.get("{name}", "{default}")'


def _in_f_string(found: re.Match[str]) -> str:
    python = _python(found).replace('"', "'")
    return python if python == "…" else f"{{{python}}}"


def spelled(words: Sequence[str]) -> str:
    """Return the line of an entry that gives words to the program."""
    if not any(map(unexpanded, words)):
        return f'"ARGS": {_quoted(shlex.join(words))}'
    return f'"ARGS": [{", ".join(map(expanded, words))}]'


def _quoted(text: str) -> str:
    text = text.replace("\\", r"\\").replace('"', r"\"")
    return f'"{text}"'


def literal_percent(text: str) -> str:
    """Find ``%%h`` or its like in a value or word of ARGS; Celery makes it ``%h``."""
    found = re.search(r"%%[hndiIpN]", text)
    return found.group() if found else ""


def lost_backslashes(line: str) -> list[str]:
    r"""Find the words of a command line that lose a backslash, such as ``C:\logs``."""
    kept = " ".join(shlex.split(joined(line)))
    return [
        word
        for word in re.findall(r"\S*\\\w\S*", line)
        if word.strip("'\"") not in kept
    ]
