"""Mail in a folder, as Django's file backend leaves it, and as a person reads it."""

from __future__ import annotations

import email
from collections.abc import Iterator
from email import policy
from email.message import EmailMessage
from pathlib import Path

__all__ = ("Mailbox", "show", "text")

# Django ends each message with it, so that half a message is never taken for one.
_END = b"\n" + b"-" * 79 + b"\n"


class Mailbox:
    """A folder that takes mail instead of a mail server.

    Args:
        folder: is made if it is not there.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._read: dict[Path, int] = {}
        folder.mkdir(exist_ok=True)

    @property
    def url(self) -> str:
        """The EMAIL_URL of those who are to send their mail there."""
        # django-environ takes the first slash of the path for a separator.
        return f"filemail:///{self._folder}"

    def new(self) -> Iterator[EmailMessage]:
        """Yield the messages that have come since the last time."""
        for path in sorted(self._folder.glob("*.log")):
            content = path.read_bytes()
            *messages, begun = content[self._read.get(path, 0) :].split(_END)
            self._read[path] = len(content) - len(begun)
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
