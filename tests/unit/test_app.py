"""APP, in each spelling that `celery -A` takes."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import celery
import pytest
from django.utils.functional import lazystr

from prayer_room_api.celery import app
from prodserver_celery5 import rules
from prodserver_celery5.entry import Entry


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
        (app, "E004", "APP is <Celery"),
        ("nowhere", "E004", "No module named 'nowhere'"),
        ("prayer_room_api.celery:ap", "E004", "has no attribute 'ap'"),
        (
            "prayer_room_api.celery.ap",
            "E004",
            "'prayer_room_api.celery' is not a package",
        ),
        ("prayer_room_api.models:Digest", "E005", "not a Celery app"),
    ],
)
def test_anything_else_is_a_finding(name: object, id_: str, reason: str) -> None:
    (finding,) = rules.app(Entry("worker", {"APP": name}))
    assert finding.id == id_
    assert finding.names == ("worker",)
    assert reason in str(finding)
    assert "\n" not in str(finding)


@pytest.mark.parametrize(
    ("spelling", "imported"),
    [
        *product(["{}", "{}.celery", "{}.celery:app"], [False, True]),
        # With this spelling, only the package imports the module.
        ("{}:app", True),
    ],
)
@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import redsi", "ModuleNotFoundError: No module named 'redsi'"),
        ("from os import nothing", "ImportError: cannot import name 'nothing' from"),
        ("raise RuntimeError('no key')", "RuntimeError: no key"),
        ("raise RuntimeError", "RuntimeError"),
        ("raise ValueError('so')", "ValueError: so"),
        ("def (", "SyntaxError: invalid syntax (celery.py, line 1)"),
        ("nothing", "NameError: name 'nothing' is not defined"),
        ("import os; os.nothing", "AttributeError: module 'os' has no attribute"),
        ("raise KeyError('SECRET_KEY')", "KeyError: 'SECRET_KEY'"),
        (
            "from django.core import exceptions\n"
            "raise exceptions.ImproperlyConfigured('x')",
            "ImproperlyConfigured: x",
        ),
    ],
)
def test_the_reason_of_a_module_that_raises(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    code: str,
    reason: str,
    spelling: str,
    imported: bool,
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    # A new name each time, because an imported module stays imported.
    package = tmp_path / f"proj_{len(_made)}"
    _made.append(package)
    package.mkdir()
    (package / "__init__.py").write_text("from . import celery" if imported else "")
    (package / "celery.py").write_text(code)
    name = spelling.format(package.name)
    (finding,) = rules.app(Entry("worker", {"APP": name}))
    assert finding.message.startswith(f"APP = {name!r} cannot be imported: ")
    assert reason in finding.message


_made: list[Path] = []


@pytest.mark.parametrize("name", ["celery", "django", "json", "tests.settings"])
def test_a_module_without_an_app(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    # Once accessed, it is cached in the module, where Celery would find it.
    monkeypatch.delitem(vars(celery), "current_app", raising=False)
    (finding,) = rules.app(Entry("worker", {"APP": name}))
    assert finding.id == "E005"
    assert str(finding) == (
        f"worker: APP = {name!r} holds no Celery app. Name the app itself, such as"
        ' "proj.celery:app".'
    )


@pytest.mark.parametrize("name", [".", ":", "a..b", ":app", "a:", " "])
def test_an_app_that_is_no_name(name: str) -> None:
    (finding,) = rules.app(Entry("worker", {"APP": name}))
    assert finding.message.startswith(f"APP = {name!r} cannot be imported: ")
