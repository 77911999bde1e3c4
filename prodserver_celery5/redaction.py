"""The redaction of passwords in everything that is shown."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from itertools import pairwise

__all__ = ("line", "name_is_secret", "text", "value", "word")

_SECRET = re.compile(
    "api|credential|database|key|pass|pwd|secret|signature|token", re.IGNORECASE
)


# On the web, a password ends before the first slash, and a colon can be a port's.
_WEB = re.compile(
    r"\b((?:https?|file)://[^\s:/[]*):(?!\d{1,5}[,;])[^\s/?#]*@", re.IGNORECASE
)

# Elsewhere up to the last @ before a space: a password may have an unescaped @ or / in
# it. Else, for a password with a space, up to the very last @, unless a port follows
# the colon, or the address ends there.
_ADDRESS = re.compile(
    r"(?<!http)(?<!https)(?<!file)(://[^\s:/[]*):(?:\S*@|(?!\s|\d+\b).*@)",
    re.IGNORECASE,
)

# A key of a dict and its value, as repr() shows them; and a name with its value.
_PAIR = re.compile(
    r"""(['"])([^'"]*)\1: ('(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|[^\s,{}\[\]'"]+)"""
)
_NAMED = re.compile(r"""([\w.-]+)=([^\s'",;&]+)""")


def text(message: str) -> str:
    """Return a sentence, or part of one, without the passwords of its addresses."""
    return _ADDRESS.sub(r"\1:**@", _WEB.sub(r"\1:**@", message))


def value(shown: str) -> str:
    """Return the repr of a value without passwords, whatever is nested in it.

    Args:
        shown: the repr, such as ``{'PASSWORD': 's3cret'}``.
    """

    def pair(found: re.Match[str]) -> str:
        quote, name = found[1], found[2]
        return f"{quote}{name}{quote}: **" if name_is_secret(name) else found[0]

    def named(found: re.Match[str]) -> str:
        return f"{found[1]}=**" if name_is_secret(found[1]) else found[0]

    return text(_NAMED.sub(named, _PAIR.sub(pair, shown)))


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
    shown = re.sub(r"(://[^\s:/[]*):(?!\d+/).*@", r"\1:**@", text(shown))
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
