"""APP, in the spellings that `celery -A` takes."""

from __future__ import annotations

import pytest
from django.utils.functional import lazystr

from prayer_room_api.celery import app
from prodserver_celery5 import findings
from prodserver_celery5.entries import Entry


@pytest.mark.parametrize(
    "name",
    [
        "prayer_room_api",
        "prayer_room_api.celery",
        "prayer_room_api.celery:app",
        "prayer_room_api.celery.app",
        lazystr("prayer_room_api"),
    ],
)
@pytest.mark.parametrize("program", ["worker", "beat"])
def test_each_spelling_finds_the_app(program: str, name: str) -> None:
    assert Entry(program, {"APP": name}).app is app


@pytest.mark.parametrize(
    ("name", "id_", "reason"),
    [
        (None, "E003", "the key APP is missing"),
        ("", "E003", "the key APP is missing"),
        (app, "E004", "is no string"),
        ("nowhere", "E004", "No module named 'nowhere'"),
        ("prayer_room_api.celery:ap", "E004", "has no attribute 'ap'"),
        ("prayer_room_api.celery.ap", "E004", "has no attribute 'ap'"),
        ("prayer_room_api.models:Digest", "E005", "not a Celery app"),
    ],
)
def test_anything_else_is_a_finding(name: object, id_: str, reason: str) -> None:
    (finding,) = findings.app(Entry("worker", {"APP": name}))
    assert finding.id == id_
    assert finding.names == ("worker",)
    assert reason in str(finding)
    assert "\n" not in str(finding)
