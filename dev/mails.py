"""Reads the mail that Django's file backend leaves in a folder."""

from __future__ import annotations

import email
from collections.abc import Iterator
from email import policy
from email.message import EmailMessage
from pathlib import Path

__all__ = ("Mailbox", "show", "text")

# Django ends each message with this, so half a message is never taken for a whole one.
_END = b"\n" + b"-" * 79 + b"\n"


class Mailbox:
    """A folder that takes mail in place of a mail server.

    Args:
        folder: created if missing.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._read: dict[Path, int] = {}
        folder.mkdir(exist_ok=True)

    @property
    def url(self) -> str:
        """The EMAIL_URL that sends mail here."""
        # django-environ takes the first slash of the path for a separator.
        return f"filemail:///{self._folder}"

    def new(self) -> Iterator[EmailMessage]:
        """Yield the messages that have arrived since the last call."""
        for path in sorted(self._folder.glob("*.log")):
            content = path.read_bytes()
            *messages, begun = content[self._read.get(path, 0) :].split(_END)
            self._read[path] = len(content) - len(begun)
            for each in messages:
                message = email.message_from_bytes(each, policy=policy.default)
                assert isinstance(message, EmailMessage)
                yield message


def text(message: EmailMessage) -> str:
    """Return a message's plain text."""
    body = message.get_body(("plain",))
    assert body is not None
    return str(body.get_content()).strip()


def show(message: EmailMessage) -> str:
    """Return the message with the headers that people look at."""
    headers = (f"{name}: {message[name]}" for name in ("From", "To", "Subject"))
    return "\n".join([*headers, "", text(message)])
