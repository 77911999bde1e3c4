"""The patches merge with what has moved on upstream, or name what does not fit."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from upstream.series import PATCHES, EditError, Repository, edited, message, scripts

ROOT = Path(__file__).parent.parent.parent
TEXT = "".join(f"line {number}\n" for number in range(1, 21))


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    """A clone whose `code.py` has moved on since the scripts were written."""
    repository = Repository(tmp_path)
    repository.git("init", "--quiet")
    for key in ("name", "email"):
        repository.git("config", f"user.{key}", "nobody@localhost")
    for text in (TEXT, "first\n" + TEXT):
        (tmp_path / "code.py").write_text(text)
        repository.git("add", "--all")
        repository.git("commit", "--quiet", "--message=text")
    return repository


@pytest.fixture
def patch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("patches")
    (folder / "1.md").write_text("fix: it\n### Why\n\nIt was broken.\n\n### List\n")
    return folder / "1.ed"


def known(repository: Repository) -> str:
    return repository.git("rev-parse", "HEAD~:code.py").strip()


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
    assert edited(TEXT, "19,20d\n$a\nlast\n.\n").endswith("line 18\nlast\n")
    with pytest.raises(EditError, match="'s/a/b/"):
        edited(TEXT, "s/a/b/\n")


def test_changes_are_merged_with_what_has_moved_on(
    repository: Repository, patch: Path
) -> None:
    patch.write_text(f"= code.py {known(repository)}?\n15d\n= a.py new\n0a\na\n.\n")
    repository.commit(patch)
    patch.write_text("= code.py\n12c\ntwelve\n.\n= docs/gone.md 123\n1d\n")
    repository.commit(patch)
    new = TEXT.replace("line 15\n", "").replace("line 12\n", "twelve\n")
    assert repository.git("show", "HEAD:code.py") == f"first\n{new}"
    assert repository.git("show", "HEAD:a.py") == "a\n"
    assert repository.git("log", "-1", "--format=%B").strip() == (
        "fix: it\n\nIt was broken."
    )


@pytest.mark.parametrize(
    ("fits", "says"), [("0" * 40, "1: code.py: git cat-file"), ("", "git merge-file")]
)
def test_a_file_that_does_not_fit_is_named(
    repository: Repository, patch: Path, fits: str, says: str
) -> None:
    script = f"= code.py {fits or known(repository)}"
    patch.write_text(f"{script}\n1c\nanother\n.\n")
    with pytest.raises(EditError, match=says):
        repository.commit(patch)
    patch.write_text(f"{script}?\n1c\nanother\n.\n= a.py new\n0a\na\n.\n")
    repository.commit(patch)
    assert repository.git("show", "HEAD:code.py") == "first\n" + TEXT


@pytest.mark.parametrize("patch", PATCHES, ids=lambda patch: patch.stem)
def test_a_pull_request_is_short(patch: Path) -> None:
    text = patch.with_suffix(".md").read_text().splitlines()
    assert len(text) <= 20
    subject, blank, *body = message(patch).splitlines()
    assert subject.startswith(("fix(", "feat("))
    assert not blank
    assert all(len(line) <= 88 for line in [subject, *body])
    for path, fits, script in scripts(patch):
        assert path.endswith((".py", ".md"))
        if fits == "new":
            assert len(edited("", script).splitlines()) <= 60


def test_leaving_fits_the_settings() -> None:
    settings = (ROOT / "prayer_room_api/settings.py").read_text().splitlines()
    document = (ROOT / "UPSTREAM.md").read_text()
    diff = document.partition("```diff\n")[2].partition("```")[0].splitlines()
    old = [line[1:] for line in diff if line.startswith("-")]
    assert [settings.count(line) for line in old] == [1, 1, 1]
    assert not [x for x in settings if "prodserver_celery5" in x and x not in old]
