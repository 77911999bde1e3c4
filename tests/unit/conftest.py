"""The projects and machines that the rules are tried on."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest
from celery import Celery
from django.apps import apps
from django.db import ConnectionHandler, connections

from prodserver_celery5.leader import locks


@pytest.fixture
def shop(monkeypatch: pytest.MonkeyPatch) -> Celery:
    module = ModuleType("shop")
    module.app = Celery("shop", set_as_current=False, broker="memory://")
    module.number = 5
    monkeypatch.setitem(sys.modules, "shop", module)
    for name in ("shop_broken", "shop_lacks"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return module.app


@pytest.fixture
def broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "shop_broken.py").write_text(
        'raise RuntimeError("no amqp://me:s3cret@host,\\n today")'
    )
    (tmp_path / "shop_lacks.py").write_text("import shop_missing_dependency")
    monkeypatch.syspath_prepend(tmp_path)


@pytest.fixture
def poorer(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without gevent and MySQL, a project without django-celery-beat."""
    mysql = {"there": {"ENGINE": "django.db.backends.mysql"}}
    handler = ConnectionHandler({**connections.settings, **mysql})
    monkeypatch.setattr(locks, "connections", handler)
    monkeypatch.setitem(sys.modules, "MySQLdb", None)
    monkeypatch.delitem(sys.modules, "django.db.backends.mysql.base", raising=False)
    monkeypatch.setitem(sys.modules, "gevent", None)
    monkeypatch.setitem(sys.modules, "django_celery_beat.schedulers", None)
    monkeypatch.setattr(apps, "is_installed", lambda name: False)
