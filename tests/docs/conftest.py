"""The project `proj`, which the documentation's examples use."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from celery import current_app

from .blocks import of


@pytest.fixture
def proj(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with the package `proj`, whose Celery app is the README's."""
    (block,) = of("python", "app = Celery(", "README.md")
    package = tmp_path / "proj"
    package.mkdir()
    (package / "__init__.py").write_text("from .celery import app")
    (package / "celery.py").write_text(block.text)
    before = current_app._get_current_object()
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    before.set_current()
    for name in [name for name in sys.modules if name.partition(".")[0] == "proj"]:
        del sys.modules[name]
