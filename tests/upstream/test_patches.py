"""The patches share the package's modules, and refuse a source that has changed."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from upstream import make, shared
from upstream.edits import EditError
from upstream.leaving import changed
from upstream.series import SERIES, WORKER, Patch
from upstream.source import ROOT, Repository

# Of no distribution, but with the same names in it.
WORKERS = '''\
"""Workers."""

import sys


class CeleryWorker:
    """A worker."""

    def start_server(self, *args):
        sys.exit("something else than what the series was written for")
'''


def test_the_shared_modules_are_the_packages_own() -> None:
    whole, first = shared.options(), shared.options("run")
    assert "def run(" in whole
    assert '"run",' in whole
    assert "def run(" not in first
    assert '"run",' not in first
    for text in (whole, first, shared.green()):
        ast.parse(text)
        assert "prodserver_celery5" not in text
        assert "type: ignore" not in text
    assert len(whole.splitlines()) == len(
        (ROOT / "prodserver_celery5/options.py").read_text().splitlines()
    )


def test_a_function_to_leave_out_has_to_be_there() -> None:
    with pytest.raises(LookupError, match="walk"):
        shared.options("walk")


def test_a_distribution_that_has_changed_is_refused(tmp_path: Path) -> None:
    file = tmp_path / WORKER
    file.parent.mkdir(parents=True)
    file.write_text(WORKERS)
    repository = Repository(tmp_path, "9.9.9")
    patch = SERIES[1]
    with pytest.raises(EditError) as caught:
        make.commit(repository, patch)
    message = str(caught.value)
    assert message.startswith(f"The patch {patch.title!r} no longer fits: {WORKER}:")
    assert "CeleryWorker.start_server is not what it was" in message
    assert "upstream/series.py" in message
    assert repository.git("log", "--format=%s").splitlines() == [
        "chore: django-prodserver 9.9.9, as distributed"
    ]


@pytest.mark.parametrize("patch", SERIES, ids=lambda patch: patch.title)
def test_commit_messages_are_conventional(patch: Patch) -> None:
    subject, blank, *body = patch.message.splitlines()
    assert subject.startswith(("fix(", "feat("))
    assert len(subject) <= 72
    assert not blank
    assert body
    assert all(len(line) <= 80 for line in body)


def test_leaving_the_shim_fits_the_settings() -> None:
    settings = (ROOT / "prayer_room_api/settings.py").read_text()
    document = (ROOT / "UPSTREAM.md").read_text()
    after = changed(document, settings)
    assert "prodserver_celery5" in settings
    assert "prodserver_celery5" not in after
    assert after.count("django_prodserver.backends.workers.celery.Celery") == 2
    compile(after, "settings.py", "exec")
    with pytest.raises(EditError, match="is not in the settings once"):
        changed(document, after)
    with pytest.raises(EditError, match="does not show how"):
        changed("", settings)
