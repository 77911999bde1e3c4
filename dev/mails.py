"""Mail in a folder, as Django's file backend leaves it, and as a person reads it."""

from __future__ import annotations

import email
from collections.abc import Iterator
from email import policy
from email.message import EmailMessage
from pathlib import Path

__all__ = ("read", "show", "text")

# Django ends each message with it, so that half a message is never taken for one.
_END = b"\n" + b"-" * 79 + b"\n"


def read(folder: Path) -> Iterator[EmailMessage]:
    """Yield the messages that are there, the oldest file first."""
    for path in sorted(folder.glob("*.log")):
        *messages, _ = path.read_bytes().split(_END)
        for each in messages:
            message = email.message_from_bytes(each, policy=policy.default)
            assert isinstance(message, EmailMessage)
            yield message


def text(message: EmailMessage) -> str:
    """Return what a mail program shows of a message where it shows no HTML."""
    body = message.get_body(("plain",))
    assert body is not None
    return str(body.get_content()).strip()


def show(message: EmailMessage) -> str:
    """Return the message with the headers that a person looks at."""
    headers = (f"{name}: {message[name]}" for name in ("From", "To", "Subject"))
    return "\n".join([*headers, "", text(message)])
