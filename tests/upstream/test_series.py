"""The patches merge with what has moved on, or leave the clone as it was."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

import upstream.__main__ as upstream
from upstream import series
from upstream.series import EditError, adapted, edited, git, message, sections

ROOT = Path(__file__).parent.parent.parent
TEXT = "".join(f"line {number}\n" for number in range(1, 21))
TESTS = """class TestIt:
    def test_a(self):
        app.start.assert_called()

    @patch("it")
    def test_b(self):
        app.start.assert_called()

    def started(self):
        app.start.assert_called()
"""


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A distribution of one file, and two patches for it."""
    folder, patches = tmp_path / "source", tmp_path / "patches"
    for new in (folder, patches):
        new.mkdir()
    (folder / "code.py").write_text(TEXT)
    for name, text in {
        "1.ed": "= code.py\n15d\n= new/a.py\n0a\na\n.\n? docs.md: # End\nnew\n# End\n",
        "2.ed": "= code.py\n12c\ntwelve\n.\n- test_*.py: .start\n? gone.md: it\nit\n",
        "1.md": "fix: one\n\n### Why\n\nIt was broken.\n",
        "2.md": "fix: two\n\n### Why\n\nIt was too.\n",
    }.items():
        (patches / name).write_text(text)
    monkeypatch.setattr(series, "PATCHES", sorted(patches.glob("*.ed")))
    series.make(folder)
    return folder


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A clone that has moved on, with somebody's work in it."""
    clone = tmp_path / "clone"
    clone.mkdir()
    git(clone, "init", "--quiet", "--initial-branch=main")
    for key in ("name", "email"):
        git(clone, "config", f"user.{key}", "You")
    (clone / "code.py").write_text("first\n" + TEXT)
    (clone / "docs.md").write_text("# Docs\n\n# End\n")
    (clone / "test_it.py").write_text(TESTS)
    (clone / "src").mkdir()
    (clone / "src/kept.py").touch()
    series.commit(clone, "Moved on")
    (clone / "docs.md").write_text("half a thought\n")
    return clone


def state(clone: Path) -> tuple[str, ...]:
    """What somebody sees of a clone."""
    words = ("status --porcelain --branch", "for-each-ref", "stash list", "diff")
    return tuple(git(clone, *line.split()) for line in words)


@pytest.mark.parametrize(
    "new",
    [
        "",
        TEXT.replace("line 3\n", "").replace("line 9\n", "nine\nand more\n"),
        "first\n" + TEXT + "last\n",
        TEXT.replace("line 1\n", "one\n").replace("line 20\n", "twenty\n"),
    ],
)
def test_scripts_of_diff_are_understood(tmp_path: Path, new: str) -> None:
    for name, text in {"old": TEXT, "new": new}.items():
        (tmp_path / name).write_text(text)
    script = subprocess.run(
        ["diff", "-e", "old", "new"], cwd=tmp_path, capture_output=True, text=True
    ).stdout
    assert edited(TEXT, script) == new


def test_what_is_no_script_is_an_error() -> None:
    with pytest.raises(EditError, match="'s/a/b/"):
        edited(TEXT, "s/a/b/\n")


def test_a_line_is_found_by_its_text_if_it_is_the_only_one() -> None:
    assert adapted("a\n  b\nc\n", "?", "b", "B\n") == "a\nB\nc\n"
    for text in ("a\nc\n", "b\nb\n"):
        assert adapted(text, "?", "b", "B\n") == text


def test_tests_are_removed_by_their_text() -> None:
    left = (
        "class TestIt:\n\n    def started(self):\n        app.start.assert_called()\n"
    )
    assert adapted(TESTS, "-", ".start.", "") == left
    assert adapted(TESTS, "-", ".stop.", "") == TESTS


def test_branches_are_each_on_the_one_before(
    source: Path, clone: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before, copy = state(clone), tmp_path / "copy"
    series.bring(source, clone, copy)
    assert state(clone) == before
    assert git(copy, "log", "--format=%D|%an|%s|%b", "celery-2").split("\n\n") == [
        "HEAD -> celery-2|You|fix: two|It was too.",
        "celery-1|You|fix: one|It was broken.",
        "origin/main, origin/HEAD, main|You|Moved on|\n",
    ]
    one, two = (git(copy, "show", f"celery-{n}:code.py") for n in (1, 2))
    assert one == "first\n" + TEXT.replace("line 15\n", "")
    assert two == one.replace("line 12\n", "twelve\n")
    assert git(copy, "show", "celery-1:new/a.py") == "a\n"
    assert git(copy, "show", "celery-1:docs.md") == "# Docs\n\nnew\n# End\n"
    assert "def test_" not in git(copy, "show", "celery-2:test_it.py")
    assert capsys.readouterr().out == "2: left out, as gone.md has no 'it'\n"


def test_what_cannot_be_merged_is_named(
    source: Path, clone: Path, tmp_path: Path
) -> None:
    (clone / "code.py").write_text(TEXT.replace("line 12\n", "dozen\n"))
    series.commit(clone, "Moved on again")
    before = state(clone)
    with pytest.raises(EditError, match=r"(?s)conflict in code\.py.*\.\.\. 2\b"):
        series.bring(source, clone, tmp_path / "copy")
    assert state(clone) == before


def test_what_is_missing_is_seen_first(
    source: Path, clone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    git(clone, "branch", "celery-2")
    with pytest.raises(EditError, match="already has a branch celery-2"):
        series.bring(source, clone, tmp_path / "copy")
    for key in ("name", "email"):
        git(clone, "config", "--unset", f"user.{key}")
    git(clone, "config", "user.useConfigOnly", "true")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    for name in ("NAME", "EMAIL"):
        monkeypatch.delenv(f"GIT_AUTHOR_{name}", raising=False)
    with pytest.raises(EditError, match=r"(?s)git var:.*user\.email"):
        series.bring(source, clone, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_what_failed_before_is_no_fault_of_a_patch(
    source: Path,
    clone: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    copy, faults = tmp_path / "copy", {"old fault"}

    def measure(folder: Path, *checks: str) -> tuple[set[str], set[str], str]:
        is_patched = "twelve" in (folder / "code.py").read_text()
        return {"a test"}, faults if is_patched else {"old fault"}, "why"

    series.bring(source, clone, copy)
    monkeypatch.setattr(upstream, "PATCHES", series.PATCHES)
    monkeypatch.setattr(upstream, "measure", measure)
    upstream.prove(copy)
    assert "still do: 1" in capsys.readouterr().out
    faults.add("new fault")
    with pytest.raises(EditError, match="2\nnew fault\nwhy"):
        upstream.prove(copy)


@pytest.mark.parametrize("patch", series.PATCHES, ids=lambda patch: patch.stem)
def test_a_pull_request_is_short(patch: Path) -> None:
    subject, blank, *body = message(patch).splitlines()
    assert subject.startswith(("fix(", "feat("))
    assert not blank
    assert "###" not in message(patch)
    assert len(body) <= 14
    assert all(len(line) <= 88 for line in [subject, *body])
    lines = 0
    for kind, path, where, new in sections(patch):
        assert kind in "=?-"
        assert path.endswith((".py", ".md"))
        assert bool(where) == (kind != "=")
        lines += new.count("\n") if path.startswith("src/") else 0
    assert lines <= 60


def test_leaving_fits_the_settings() -> None:
    settings = (ROOT / "prayer_room_api/settings.py").read_text().splitlines()
    document = (ROOT / "UPSTREAM.md").read_text()
    diff = document.partition("```diff\n")[2].partition("```")[0].splitlines()
    old = [line[1:] for line in diff if line.startswith("-")]
    assert [settings.count(line) for line in old] == [1, 1, 1]
    assert not [x for x in settings if "prodserver_celery5" in x and x not in old]
