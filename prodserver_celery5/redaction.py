"""The one way to hide what is secret, applied where text leaves the package.

Text is whatever is shown: a sentence, the words of a command line, the repr of a
setting, JSON. What may be secret is hidden, even if that hides a little too much.
"""

from __future__ import annotations

import re

__all__ = ("hidden", "is_secret")

_NAME = r"[\w.-]*(?:api|credential|database|key|pass|pwd|secret|signature|token)[\w.-]*"

# A quote, also one in JSON that stands in a repr or in other JSON.
_QUOTE = r"""\\*['"]"""

# A value: quoted, in brackets with at most one more pair inside, or up to a space; the
# first two also behind a word, as in b'…' or Secret('…').
_VALUE = (
    r"""\*\*|\w*(?P<{0}>\\*['"]).*?(?<!\\)(?P={0})"""
    r"|\w*\[(?:[^\[\]]|\[[^\]]*\])*\]|\w*\{{(?:[^{{}}]|\{{[^}}]*\}})*\}}"
    r"""|\w*\((?:[^()]|\([^)]*\))*\)|<[^>]*>|[^\s'",;&{{}}\[\]()<>]+"""
)

_SECRETS = [
    (re.compile(pattern, re.IGNORECASE), shown)
    for pattern, shown in (
        # A password in an address. On the web it ends before the first slash, and what
        # follows the colon can be a port.
        (
            r"\b((?:https?|file)://[^\s:/\[]*):(?!\d{1,5}[,;])[^\s/?#]*@",
            r"\1:**@",
        ),
        # An address that is quoted ends with the quotes.
        (
            rf"({_QUOTE}[^\s'\"]*(?<!http)(?<!https)(?<!file)://[^\s:/\['\"]*):"
            r"(?!\d+[/'\"])[^'\"]*@",
            r"\1:**@",
        ),
        # Elsewhere up to the last @ before a space: an unescaped @ or / may be in it.
        # Else, for one with a space, up to the very last @, unless a port follows the
        # colon or the address ends there.
        (
            r"(?<!http)(?<!https)(?<!file)(://[^\s:/\[]*):(?:\S*@|(?!\s|\d+\b).*@)",
            r"\1:**@",
        ),
        # A key and its value in a dict or in JSON; a key of ARGS and what it is set to.
        (
            rf"((?P<key>{_QUOTE}){_NAME}(?P=key)(?:: ?|\] = ))(?:{_VALUE.format('a')})",
            r"\1**",
        ),
        # A word of a command line that is quoted as a whole.
        (rf"((?P<word>['\"])(?:--?)?{_NAME}=).*?(?<!\\)(?=(?P=word))", r"\1**"),
        # A name with its value, and an option with its own, also as two quoted words.
        (rf"\b({_NAME} ?= ?)(?:{_VALUE.format('b')})", r"\1**"),
        (
            rf"(--?{_NAME}(?:['\"],)? +)(?!-|'-)(?:{_VALUE.format('c')})",
            r"\1**",
        ),
    )
]


def hidden(text: str) -> str:
    """Return a text without what may be secret.

    Args:
        text: what is about to be shown, such as ``--broker=amqp://me:s3cret@host`` or
            ``{'PASSWORD': 's3cret'}``.
    """
    for pattern, shown in _SECRETS:
        text = pattern.sub(shown, text)
    return text


def is_secret(name: str) -> bool:
    """Whether the value of an option or a variable of this name must not be shown."""
    return bool(re.fullmatch(_NAME, name, re.IGNORECASE))
