"""The traces that a shell, a Procfile or a unit file leaves in pasted ARGS."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Sequence

__all__ = ("literal_percent", "stray_word", "unexpanded", "whole_line")

_DASHES = "\u2010\u2011\u2012\u2013\u2014\u2212"  # what text editors make of --
_SHELL = re.compile(r"[&|;<]|\d*>|.*[;&]$")
_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]*=")
_UNEXPANDED = re.compile(
    r"\$(?:(?P<name>[A-Za-z_]\w*)|\{(?P<braced>\w+)(?::?-(?P<default>[^}]*))?\}"
    r"|\([^)]*\)|\{[^}]*\}|[@*#?$!0-9])"
)


def whole_line(words: Sequence[str], program: str) -> str:
    """Return a hint if the words of ARGS begin before the options of the program."""
    names = [os.path.basename(word) for word in words]
    if not words or words[0].startswith("-"):
        return ""
    if "celery" not in names and words[0] not in ("worker", "beat", "exec"):
        return ""
    before = names.index("celery") if "celery" in names else 0
    kept: list[str] = []
    other = ""
    rest = list(words[before:])
    while rest:
        word = rest.pop(0)
        if word in ("-A", "--app", "-b", "--broker"):
            rest[:1] = []
        elif word in ("worker", "beat") and word != program:
            other = f" This entry runs {program}, not {word}."
        elif os.path.basename(word) not in ("celery", "exec", program) and not (
            re.match("-[Ab]|--(app|broker)=", word)
        ):
            kept.append(word)
    hint = f'Write "{shlex.join(kept)}".' if kept else "None of it is needed."
    if before and words[0] != "exec":
        hint += f" What stands before celery ({words[0]} …) stays in the Procfile."
    return hint + other


def stray_word(words: Sequence[str], word: str) -> str:
    """Return a hint to the likely cause of one of ARGS' words that fits no option."""
    before = words[words.index(word) - 1] if words.index(word) else ""
    if word.startswith(tuple(_DASHES)):
        return f"Its dash is a text editor's. Write --{word.lstrip(_DASHES)}."
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


def unexpanded(text: str) -> tuple[str, str] | None:
    """Find what a shell would expand in a value or word of ARGS, and its Python."""
    if not (found := _UNEXPANDED.search(text)):
        return None
    name = found["name"] or found["braced"]
    if not name:
        return found.group(), "the value itself"
    if found["default"] is None:
        return found.group(), f'os.environ["{name}"]'
    return found.group(), f'os.environ.get("{name}", "{found["default"]}")'


def literal_percent(text: str) -> str:
    """Find ``%%h`` or its like in a value or word of ARGS; Celery makes it ``%h``."""
    found = re.search(r"%%[hndiIpN]", text)
    return found.group() if found else ""
