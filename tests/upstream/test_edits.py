"""Edits fit what they were written for, and say so where upstream has moved."""

from __future__ import annotations

from pathlib import Path

import pytest

from upstream.edits import (
    Append,
    Body,
    EditError,
    Import,
    Insert,
    NewFile,
    Remove,
    Substitute,
    body_print,
)

CODE = '''\
"""Of a module."""

from typing import Any


class Greeter:
    """Greets."""

    def greet(self, who: str) -> str:
        """Say it."""
        # A comment does not count.
        return f"Hello {who}"

    def leave(self) -> None: ...
'''
WAS = body_print("code.py", CODE, "Greeter.greet")


def edited(tmp_path: Path, *edits: object, code: str = CODE) -> str:
    file = tmp_path / "code.py"
    file.write_text(code)
    for edit in edits:
        edit.apply(tmp_path)
    return file.read_text()


def test_a_body_is_replaced_and_its_head_stays(tmp_path: Path) -> None:
    text = edited(
        tmp_path, Body("code.py", "Greeter.greet", WAS, '"""Shout."""\nreturn "HI"\n')
    )
    assert 'str:\n        """Shout."""\n        return "HI"\n\n    def leave' in text
    assert "Hello" not in text


def test_layout_and_comments_do_not_count(tmp_path: Path) -> None:
    code = CODE.replace("# A comment does not count.", "")
    edited(tmp_path, Body("code.py", "Greeter.greet", WAS, "pass\n"), code=code)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("Hello", "Good day", r"Greeter.greet is not what it was .*fingerprint"),
        ("def greet", "def welcome", "code.py: there is no Greeter.greet"),
        ("class Greeter", "class Host", "code.py: there is no Greeter.greet"),
        ("def greet(self, who: str) -> str:", "class greet:", "is no function"),
        ("from typing", "from from", "code.py: invalid syntax"),
    ],
)
def test_a_body_that_has_changed_is_an_error(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    with pytest.raises(EditError, match=message):
        edited(
            tmp_path,
            Body("code.py", "Greeter.greet", WAS, "pass\n"),
            code=CODE.replace(old, new),
        )


def test_a_function_is_removed(tmp_path: Path) -> None:
    text = edited(tmp_path, Remove("code.py", "Greeter.greet", WAS, "name = 1\n"))
    assert '"""Greets."""\n\n    name = 1\n\n    def leave' in text
    with pytest.raises(EditError, match="is not what it was"):
        edited(tmp_path, Remove("code.py", "Greeter.leave", WAS))


def test_a_class_is_added_to(tmp_path: Path) -> None:
    text = edited(
        tmp_path,
        Insert("code.py", "Greeter", "def last(self): ...\n", last=True),
        Insert("code.py", "Greeter", "first = 1\n"),
        Import("code.py", "import sys"),
        Append("code.py", "end = True\n"),
    )
    assert 'module."""\n\nimport sys\nfrom typing' in text
    assert '"""Greets."""\n\n    first = 1\n\n    def greet' in text
    assert text.endswith("...\n\n    def last(self): ...\n\n\nend = True\n")
    with pytest.raises(EditError, match=r"Greeter\.greet is no class"):
        edited(tmp_path, Insert("code.py", "Greeter.greet", "pass\n"))


def test_a_pattern_has_to_match_as_often_as_it_says(tmp_path: Path) -> None:
    assert "-> int:" in edited(tmp_path, Substitute("code.py", r"(-> )str", r"\1int"))
    with pytest.raises(EditError, match="'nowhere' matches 0 times, expected 1"):
        edited(tmp_path, Substitute("code.py", "nowhere", ""))
    with pytest.raises(EditError, match="'str' matches 2 times"):
        edited(tmp_path, Substitute("code.py", "str", ""))


def test_files_are_where_they_should_be(tmp_path: Path) -> None:
    NewFile("a/new.py", "1\n").apply(tmp_path)
    NewFile("a/new.py", "2\n", replaces=True).apply(tmp_path)
    assert (tmp_path / "a/new.py").read_text() == "2\n"
    with pytest.raises(EditError, match=r"a/new\.py is there already"):
        NewFile("a/new.py", "").apply(tmp_path)
    with pytest.raises(EditError, match=r"b\.py is not there"):
        NewFile("b.py", "", replaces=True).apply(tmp_path)
    with pytest.raises(EditError, match=r"gone\.md is no longer there"):
        Append("gone.md", "").apply(tmp_path)
