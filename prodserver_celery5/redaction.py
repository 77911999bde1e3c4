"""The redaction of passwords in everything that is shown."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from itertools import pairwise

__all__ = ("line", "name_is_secret", "text", "word")

_SECRET = re.compile(
    "api|credential|database|key|pass|pwd|secret|signature|token", re.IGNORECASE
)


def text(message: str) -> str:
    """Return a sentence, or part of one, without the passwords of its addresses."""
    # Up to the last @ before a space: a password may have an unescaped @ or / in it.
    # Else, for a password with a space, up to the very last @, unless a port follows
    # the colon, or the address ends there.
    return re.sub(r"(://[^\s:@/[]*):(?:\S*@|(?!\s|\d+\b).*@)", r"\1:**@", message)


def name_is_secret(name: str) -> bool:
    """Whether the value of an option, setting or variable must not be shown."""
    return bool(_SECRET.search(name))


def word(shown: str) -> str:
    """Return one word of a command line, or the repr of a value, without passwords.

    Args:
        shown: the word or the repr, such as ``broker_password=s3cret`` or
            ``'amqp://me:s3cret@host'``.
    """
    # No sentence follows, so everything up to the last @ is the password.
    shown = re.sub(r"(://[^\s:@/[]*):(?!\d+/).*@", r"\1:**@", text(shown))
    name, equals, _ = shown.partition("=")
    return f"{name}=**" if equals and name_is_secret(name) else shown


def line(words: Sequence[str]) -> str:
    """Return the words of a command line, quoted for a shell, without passwords."""
    return shlex.join(
        "**"
        if before.startswith("-")
        and "=" not in before
        and name_is_secret(before)
        and not current.startswith("-")
        else word(current)
        for before, current in pairwise(["", *words])
    )
