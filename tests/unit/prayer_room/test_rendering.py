from html.parser import HTMLParser

import pytest
from django.core.exceptions import ValidationError

from prayer_room_api.models import Digest, EmailTemplate
from prayer_room_api.shipped_templates import SHIPPED

pytestmark = pytest.mark.django_db

render = EmailTemplate.render


def content(text: str, **fields) -> dict:
    request = {
        "id": 1,
        "kind": "Prayer",
        "name": "Ann",
        "text": text,
        "created": "today",
        "flags": 1,
        "response": "We prayed",
        "responded": "today",
        **fields,
    }
    requests = [request]
    return {"requests": requests, "pending": requests, "flagged": [], "count": 1}


class Tags(HTMLParser):
    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)

    def handle_data(self, data):
        self.text += data


@pytest.mark.parametrize("digest", list(Digest))
@pytest.mark.parametrize(
    "text",
    [
        "<script>alert(1)</script>",
        "<img src=x onerror=alert(1)>",
        "[a link](https://evil.example)",
        "![an image](https://evil.example/x.png)",
        "<https://evil.example>",
        "# heading",
        "Title\n=====",
        "one\n\n# heading\n\n- item\n\n    code",
        "**bold** _em_ `code` ~~~\nfence\n~~~",
        "> quote\n\n---\n\n1. one",
        "1. one\n2. two",
        "===\n---",
        "[ref]: https://evil.example",
        "&lt;script&gt; &#60;b&#62;",
        "{{ count }} {% include 'x' %}",
        "\x02klzzwxh:0000\x03",
        '" onclick="alert(1)',
    ],
)
def test_what_people_write_is_text(digest, text):
    """The HTML has the same tags as for harmless text, and shows what was written."""
    plain = Tags(render(digest, content("harmless", name="A", response="B")).html)
    for field in ("text", "name", "response"):
        hostile = {"text": "harmless", "name": "A", "response": "B", field: text}
        rendered = Tags(render(digest, content(**hostile)).html)
        assert [tag for tag in rendered.tags if tag != "br"] == plain.tags
        shown = " ".join(rendered.text.split())
        if field == "text":
            for line in text.split("\n"):
                assert " ".join(line.strip("\x02\x03").split()) in shown


def test_lines_stay_lines():
    rendered = render("daily", content("one\ntwo"))
    assert "one<br>two" in rendered.html
    assert "one\n  two" in rendered.text


def test_the_plain_part_has_the_text_as_it_was_written():
    assert "5 < 6 & **7**" in render("moderator", content("5 < 6 & **7**")).text


def test_staff_s_own_template_is_used():
    EmailTemplate.objects.filter(digest="daily").delete()
    EmailTemplate.objects.create(
        digest="daily",
        subject="{{ count }} answer",
        body="*Dear* {{ requests.0.name }}",
    )
    rendered = render("daily", content("x"))
    assert rendered.subject == "1 answer"
    assert rendered.text == "*Dear* Ann\n"
    assert "<em>Dear</em> Ann" in rendered.html


def test_a_subject_is_one_line():
    EmailTemplate.objects.filter(digest="daily").delete()
    EmailTemplate.objects.create(
        digest="daily", subject="For {{ requests.0.text }}", body="x"
    )
    rendered = render("daily", content("you\r\nBcc: all@example.org"))
    assert rendered.subject == "For you Bcc: all@example.org"


@pytest.mark.parametrize("body", ["{% if %}", "{% include 'admin/base.html' %}"])
def test_a_broken_template_falls_back_to_the_shipped_one(body, caplog):
    EmailTemplate.objects.filter(digest="daily").delete()
    expected = render("daily", content("x"))
    EmailTemplate.objects.create(digest="daily", subject="x", body=body)
    assert render("daily", content("x")) == expected
    assert "daily email template does not work" in caplog.text


@pytest.mark.parametrize(
    ("subject", "body"),
    [
        ("ok", "{% if %}"),
        ("{{ count", "{% endif %}"),
        ("ok", "{% include 'admin/base.html' %}"),
        ("ok", "{% load static %}"),
        ("ok", "{% for a, b in requests %}{% endfor %}"),
        ("{# nothing #}", "ok"),
    ],
)
def test_what_does_not_work_is_refused_when_it_is_saved(subject, body):
    template = EmailTemplate(digest="daily", subject=subject, body=body)
    with pytest.raises(ValidationError, match="template"):
        template.clean()


@pytest.mark.parametrize("digest", list(Digest))
def test_the_shipped_templates_are_where_staff_edit_them(digest):
    template = EmailTemplate.objects.get(digest=digest)
    assert (template.subject, template.body) == SHIPPED[digest]
    template.clean()


def test_it_renders_without_the_models(python):
    code = "import prayer_room_api.rendering, sys; print(*sys.modules)"
    loaded = python("-c", code).stdout.split()
    assert "prayer_room_api.rendering" in loaded
    assert "prayer_room_api.models" not in loaded
