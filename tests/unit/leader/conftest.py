"""A beat with the lock, its databases, and its lead."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from celery import Celery, signals
from django.db import (
    ConnectionHandler,
)

from prodserver_celery5.leader import lead as leader
from prodserver_celery5.leader import locks
from prodserver_celery5.leader.locks import lock_of
from prodserver_celery5.process import restart

PATH = "prodserver_celery5.backends.CeleryBeat"
DATABASE = "django_celery_beat.schedulers:DatabaseScheduler"


@pytest.fixture
def beat(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """An entry without a mistake."""
    module = ModuleType("shop")
    module.app = Celery("shop", set_as_current=False, broker="memory://")  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "shop", module)
    args = {"scheduler": DATABASE}
    return {"BACKEND": PATH, "APP": "shop", "LEADER_LOCK": "default", "ARGS": args}


@pytest.fixture
def databases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The aliases of DATABASES; tests may add some."""
    settings = {
        "default": {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": tmp_path / "db.sqlite3",
        }
    }
    monkeypatch.setattr(locks, "connections", ConnectionHandler(settings))
    return settings


@pytest.fixture
def lead(
    databases: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> leader.Lead:
    """A lead whose process cannot be started again."""

    def again() -> None:
        raise restart.RestartError("this program cannot be started again")

    monkeypatch.setattr(restart, "again", again)
    monkeypatch.setattr(signals.before_task_publish, "receivers", [])
    return leader.Lead(lock_of("default", "a"), str(tmp_path / "beat.pid"))


@pytest.fixture
def anew(lead: leader.Lead, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, float]]:
    """Why, and after which pause, the lead would have started again."""
    told: list[tuple[str, float]] = []

    def start_anew(reason: str, pause: float = 0) -> None:
        told.append((reason, pause))
        raise SystemExit

    monkeypatch.setattr(lead, "start_anew", start_anew)
    return told
