"""What an app has to have beside it, and what beat needs where it runs."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from celery import Celery
from django.apps import apps
from django.core.management import CommandError
from django.db import OperationalError

from prodserver_celery5 import surroundings
from prodserver_celery5.backends import CeleryBackend, CeleryBeat, CeleryWorker
from prodserver_celery5.checks import check_processes

WORKER = {"BACKEND": "prodserver_celery5.backends.CeleryWorker", "APP": "shop:app"}
BEAT = {"BACKEND": "prodserver_celery5.backends.CeleryBeat", "APP": "shop:app"}
PERSISTENT = "celery.beat:PersistentScheduler"


@pytest.fixture
def shop(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A module whose app takes Django's settings with a namespace."""
    module = ModuleType("shop")
    module.app = Celery("shop", set_as_current=False, namespace="SHOP")  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "shop", module)
    monkeypatch.delenv("CELERY_BROKER_URL", raising=False)
    return module


def ids(settings: Any, **processes: Any) -> list[str]:
    settings.PRODUCTION_PROCESSES = processes
    return [str(found.id).partition(".")[2] for found in check_processes()]


def found(backend: CeleryBackend) -> list[str]:
    return [f"{finding.id} {finding}" for finding in backend.findings()]


def test_without_this_package_in_installed_apps(
    settings: Any, shop: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.app.conf.broker_url = "memory://"
    assert found(CeleryWorker(**WORKER)) == []
    monkeypatch.setattr(apps, "is_installed", lambda name: False)
    assert found(CeleryWorker(**WORKER)) == [
        "W019 worker: no check looks at the entries: INSTALLED_APPS lacks this package."
        ' Add "prodserver_celery5".'
    ]
    # A check that runs at all has been asked for.
    assert ids(settings, worker=WORKER) == []


@pytest.mark.parametrize(
    ("url", "gone", "line"),
    [
        ("redis://:s3cret@h/0", "packaging", "redis://… needs 'packaging', not"),
        ("rediss://h/0", "redis", "rediss://… needs 'redis', not"),
        ("sentinel://h;sentinel://i", "redis", "sentinel://… needs 'redis', not"),
        (["redis://a", "redis://b"], "redis", "redis://… needs 'redis', not"),
        ("sqs://", "boto3", "sqs://… needs 'boto3"),
        ("amqp://h//", "redis", ""),
        ("memory://", "redis", ""),
        ("shop.transport:Transport://", "redis", ""),
        (None, "redis", ""),
    ],
)
def test_a_broker_without_its_package(
    settings: Any,
    shop: Any,
    monkeypatch: pytest.MonkeyPatch,
    url: Any,
    gone: str,
    line: str,
) -> None:
    """The check knows it from Django's settings; the app is not configured."""
    real = metadata.version

    def version(name: str) -> str:
        if name == gone:
            raise metadata.PackageNotFoundError(name)
        # Of sqs, whatever else may be missing here is there.
        return "1" if name in ("urllib3", "pycurl") else real(name)

    monkeypatch.setattr(metadata, "version", version)
    settings.SHOP_BROKER_URL = url
    settings.PRODUCTION_PROCESSES = {"worker": WORKER}
    messages = check_processes()
    assert [message.id for message in messages] == (
        ["prodserver_celery5.W020"] if line else []
    )
    if line:
        assert line in messages[0].msg
        extra = "sqs" if "sqs" in line else "redis"
        assert messages[0].hint == f'Run: pip install "celery[{extra}]"'
        assert "s3cret" not in messages[0].msg


def test_the_broker_of_the_variable(
    settings: Any, shop: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def version(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", version)
    monkeypatch.setenv("CELERY_BROKER_URL", "sqs://")
    assert ids(settings, worker=WORKER) == ["W020"]


def test_a_setting_that_the_app_did_not_take(settings: Any, shop: Any) -> None:
    settings.CELERY_BROKER_URL = "memory://"
    line = (
        "W021 worker: the app has no broker: it did not take the setting"
        ' CELERY_BROKER_URL. Write app.config_from_object("django.conf:settings",'
        ' namespace="CELERY") where the app is made.'
    )
    assert found(CeleryWorker(**WORKER)) == [line]
    # What the app takes is known once it is configured.
    assert ids(settings, worker=WORKER) == []
    shop.app.conf.broker_url = "memory://"
    assert found(CeleryWorker(**WORKER)) == []


def test_no_broker_anywhere(shop: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Celery's own default, which somebody may want."""
    monkeypatch.setattr(surroundings, "settings", SimpleNamespace(SETTINGS_MODULE=""))
    assert found(CeleryWorker(**WORKER)) == []


SCHEDULE = """
import os, sys
import django
from django.conf import settings
settings.configure(INSTALLED_APPS=["prodserver_celery5"])
django.setup()
from prodserver_celery5.backends import CeleryBeat
schedule = {"scheduler": "celery.beat:PersistentScheduler", "schedule": "schedule"}
# Whoever comes next may not be able to read what is imported here.
assert [*CeleryBeat(APP="shop:app", ARGS=schedule).findings()] == []
os.setgid(65534)
os.setuid(65534)
for finding in CeleryBeat(APP="shop:app", ARGS=schedule).findings():
    print(finding.id, finding.stops, finding.message, finding.hint)
"""


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="needs root")
@pytest.mark.parametrize("there", ["", "schedule", "schedule.db"])
@pytest.mark.parametrize("writable", [True, False])
def test_a_schedule_that_beat_cannot_write(
    tmp_path: Path, there: str, writable: bool
) -> None:
    """As another user: root may write anywhere."""
    (tmp_path / "shop.py").write_text(
        "from celery import Celery\napp = Celery('shop', broker='memory://')\n"
    )
    folder = tmp_path / "run"
    folder.mkdir()
    if there:
        (folder / there).touch()
        (folder / there).chmod(0o666 if writable else 0o644)
    folder.chmod(0o777 if writable else 0o755)
    done = subprocess.run(
        [sys.executable, "-c", SCHEDULE],
        cwd=folder,  # whose path the other user may not be able to follow
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    expected = (
        "W022 True schedule = 'schedule': beat cannot write this file here."
        " Name one in a folder that it can write to.\n"
    )
    assert done.stdout == ("" if writable else expected)


@pytest.mark.parametrize(
    ("setting", "path"), [(None, "celerybeat-schedule"), ("beat.db", "beat.db")]
)
def test_the_check_knows_where_beat_writes(
    settings: Any,
    shop: Any,
    monkeypatch: pytest.MonkeyPatch,
    setting: str | None,
    path: str,
) -> None:
    """As in a folder that is read-only: from Django's settings, or Celery's default."""
    settings.SHOP_BEAT_SCHEDULE_FILENAME = setting
    settings.PRODUCTION_PROCESSES = {"beat": BEAT}
    assert check_processes() == []
    monkeypatch.setattr(os, "access", lambda *args: False)
    (warning,) = check_processes()
    assert warning.id == "prodserver_celery5.W022"
    assert warning.msg == f"schedule = {path!r}: beat cannot write this file here."


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (
            "no such table: django_celery_beat_periodictask",
            "beat: the tables of the schedule are missing: no such table:"
            " django_celery_beat_periodictask. Run: python manage.py migrate",
        ),
        ("no such table: shop_order", None),
    ],
)
def test_a_schedule_before_migrate(
    shop: Any, monkeypatch: pytest.MonkeyPatch, error: str, line: str | None
) -> None:
    def start(backend: CeleryBackend, *args: str) -> None:
        raise OperationalError(error)

    monkeypatch.setattr(CeleryBackend, "start_server", start)
    with pytest.raises(CommandError if line else OperationalError) as ended:
        CeleryBeat(**BEAT).start_server()
    assert str(ended.value) == (line or error)


@pytest.mark.parametrize(
    ("args", "setting", "expected"),
    [
        ({}, None, ["W009"]),
        ({"scheduler": PERSISTENT}, None, ["W009"]),
        ({}, PERSISTENT, ["W009"]),
        ({}, "celery.beat:Scheduler", []),
        ({"scheduler": "celery.beat:Scheduler"}, None, []),
    ],
)
def test_a_leader_whose_last_runs_are_in_a_file(
    settings: Any, shop: Any, args: Any, setting: str | None, expected: list[str]
) -> None:
    """Without a scheduler in ARGS, the check knows it from Django's settings."""
    if setting:
        settings.SHOP_BEAT_SCHEDULER = setting
        shop.app.conf.beat_scheduler = setting
    shop.app.conf.broker_url = "memory://"
    entry = {**BEAT, "LEADER_LOCK": "default", "ARGS": args}
    assert ids(settings, beat=entry) == expected
    assert [finding.id for finding in CeleryBeat(**entry).findings()] == expected


def test_every_mistake_is_told_at_once(settings: Any, shop: Any) -> None:
    shop.app.conf.broker_url = "memory://"
    for args in (
        "--concurency=2 --quques a --time-limit long",
        ["--concurency", "2", "--quques=a", "--time-limit", "long"],
    ):
        entry = {**WORKER, "ARGS": args, "NICE": 1}
        expected = ["E010", "E006", "E006", "E007"]
        assert ids(settings, worker=entry) == expected
        with pytest.raises(CommandError) as stopped:
            CeleryWorker(**entry).prep_server_args()
        lines = str(stopped.value).splitlines()
        assert len(lines) == 4
        assert all(line.startswith("worker: ") for line in lines)
        assert "ARGS --quques: " in lines[2]
