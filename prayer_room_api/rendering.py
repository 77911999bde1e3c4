"""Renders a Markdown template as an email's subject, plain text and HTML.

What people wrote is never markup: in the HTML part, its special characters become
character references, which neither Markdown nor a browser takes for markup.
"""

import re
import textwrap
from collections.abc import Callable
from typing import NamedTuple, TypeAlias
from unicodedata import category

from django.template import Context, Engine
from django.utils.html import format_html
from django.utils.safestring import SafeString, mark_safe
from markdown import markdown

Value: TypeAlias = "str | int | list[dict[str, Value]]"
Content: TypeAlias = dict[str, Value]

# Without loaders, and with plain data only: a template can read its digest, and
# nothing else in the project.
_ENGINE = Engine(autoescape=False)

# All ASCII that can be markup, including a full stop after a digit: "1. one".
_MARKUP = re.compile(r"(?<=[0-9])\.|[^\x80-\U0010ffffA-Za-z0-9 ,.?!:;/]")

# Wraps what people wrote, in the plain text: not every mail program wraps lines.
_WIDTH = 72  # columns
# Longer words are broken; few URLs are that long.
_LONG_WORD = re.compile(r"\S{150}")

_SAMPLE_REQUEST: dict[str, Value] = {
    "id": 1,
    "kind": "Prayer",
    "name": "Ann",
    "text": "For my neighbour",
    "created": "1 Nov 2026, 08:00",
    "flags": 1,
    "status": "approved",
    "response": "We prayed",
    "responded": "2 Nov 2026, 08:00",
}
_TO_DECIDE = {**_SAMPLE_REQUEST, "link": "https://prayer.example/1"}
_SAMPLES: dict[str, Content] = {
    "moderator": {
        "pending": [_TO_DECIDE],
        "flagged": [_TO_DECIDE],
        "count": 2,
        "link": "https://prayer.example/",
    },
    "daily": {"requests": [_SAMPLE_REQUEST], "count": 1},
    "weekly": {"requests": [_SAMPLE_REQUEST], "count": 1},
}


class Rendered(NamedTuple):
    """An email: its subject, its plain text, and what is in its HTML part."""

    subject: str
    text: str
    content: SafeString

    @property
    def html(self) -> SafeString:
        """The HTML part."""
        return format_html(
            '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
            '<body style="overflow-wrap: anywhere">\n{}\n</body>\n</html>\n',
            self.content,
        )


def render(subject: str, body: str, content: Content, note: str = "") -> Rendered:
    """Render a digest.

    Args:
        subject: a Django template for one line.
        body: a Django template in Markdown.
        content: what the templates can show.
        note: a paragraph of Markdown, below the body.
    """
    plain = Context(_map(_plain, content), autoescape=False)
    inline = Context(_map(_html, content), autoescape=False)
    template = _ENGINE.from_string(body)
    return Rendered(
        # A header is one line, whatever somebody wrote.
        subject=" ".join(_ENGINE.from_string(subject).render(plain).split()),
        text=f"{template.render(plain).strip()}\n\n{note}".strip() + "\n",
        content=mark_safe(  # noqa: S308 - what people wrote is escaped
            markdown(f"{template.render(inline)}\n\n{note}")
        ),
    )


def sample(digest: str, subject: str, body: str) -> Rendered:
    """Render a digest as `render` does, with made-up requests."""
    return render(subject, body, _SAMPLES[digest])


def placeholders(digest: str) -> list[tuple[str, str]]:
    """Return what a digest's template can show, each with what it is in the sample."""
    found = []
    for name, value in _SAMPLES[digest].items():
        if isinstance(value, list):
            loop = f"{{% for request in {name} %}} … {{% endfor %}}"
            found.append((loop, "once for each of these requests"))
        else:
            found.append((f"{{{{ {name} }}}}", str(value)))
    (request,) = next(each for each in _SAMPLES[digest].values() if type(each) is list)
    return found + [
        (f"{{{{ request.{name} }}}}", str(value)) for name, value in request.items()
    ]


def check(digest: str, subject: str, body: str) -> str | None:
    """Return what is wrong with a template, or None."""
    if digest not in _SAMPLES:
        return None
    try:
        rendered = sample(digest, subject, body)
    except Exception as error:
        return f"This template does not work: {error}"
    if not rendered.subject:
        return "The subject of this template is empty."
    return None


def _map(function: Callable[[str], str], value: Content) -> Content:
    def convert(value: Value) -> Value:
        if isinstance(value, str):
            return function(value)
        if isinstance(value, list):
            return [_map(function, item) for item in value]
        return value

    return {key: convert(item) for key, item in value.items()}


def _lines(text: str) -> list[str]:
    """Split what somebody wrote into lines, without control characters."""
    lines = (
        "".join(" " if category(character) == "Cc" else character for character in line)
        for line in text.splitlines()
    )
    return [line.strip() for line in lines if line.strip()]


def _plain(text: str) -> str:
    return "\n  ".join(
        piece
        for line in _lines(text)
        for piece in textwrap.wrap(
            _LONG_WORD.sub(r"\g<0> ", line),
            _WIDTH,
            break_long_words=False,
            break_on_hyphens=False,
        )
    )


def _html(text: str) -> str:
    return "<br>".join(_MARKUP.sub(_reference, line) for line in _lines(text))


def _reference(match: re.Match[str]) -> str:
    return f"&#{ord(match[0])};"
