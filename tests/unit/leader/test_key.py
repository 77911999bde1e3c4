"""Mistakes in LEADER_LOCK, and what is made of it."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest
from django.core import checks
from django.core.management import CommandError
from django.db import (
    connections,
)
from django.utils.module_loading import import_string

from prodserver_celery5.backends import CeleryBeat, CeleryWorker
from prodserver_celery5.checks import check_processes
from prodserver_celery5.entry import Entry
from prodserver_celery5.key import Start
from prodserver_celery5.leader import locks, schedulers
from prodserver_celery5.leader.key import LeaderLock
from prodserver_celery5.leader.locks import RefusedError, UnavailableError, lock_of
from prodserver_celery5.options.errors import OptionError

PATH = "prodserver_celery5.backends.CeleryBeat"
DATABASE = "django_celery_beat.schedulers:DatabaseScheduler"


def found(settings: Any, entry: dict[str, Any]) -> list[checks.CheckMessage]:
    settings.PRODUCTION_PROCESSES = {"beat": entry}
    return check_processes()


@pytest.mark.parametrize("alias", ["defualt", 5, ["default"]])
def test_no_such_alias(
    settings: Any, beat: dict[str, Any], databases: dict[str, Any], alias: Any
) -> None:
    databases["other"] = databases["default"]
    entry = {**beat, "LEADER_LOCK": alias}
    assert found(settings, entry) == [
        checks.Error(
            f"LEADER_LOCK = {alias!r}: DATABASES has no such alias.",
            hint="It has 'default', 'other'.",
            obj="PRODUCTION_PROCESSES['beat']",
            id="prodserver_celery5.E013",
        )
    ]
    with pytest.raises(CommandError, match="DATABASES has no such alias"):
        CeleryBeat(**entry).prep_server_args()


def test_a_database_that_is_not_supported(
    settings: Any, beat: dict[str, Any], databases: dict[str, Any]
) -> None:
    databases["default"] = {"ENGINE": "django.db.backends.dummy"}
    (error,) = found(settings, beat)
    assert (error.id, error.level) == ("prodserver_celery5.E013", checks.ERROR)
    assert error.msg == (
        "LEADER_LOCK = 'default': the ENGINE 'django.db.backends.dummy' is not"
        " supported."
    )
    assert error.hint == (
        "Name an alias of a PostgreSQL, MySQL, MariaDB or SQLite database."
    )


@pytest.mark.parametrize("name", [":memory:", "file:x?mode=memory&cache=shared"])
def test_sqlite_in_memory(
    settings: Any, beat: dict[str, Any], databases: dict[str, Any], name: str
) -> None:
    databases["default"]["NAME"] = name
    (warning,) = found(settings, beat)
    assert (warning.id, warning.level) == ("prodserver_celery5.W008", checks.WARNING)
    assert warning.msg.endswith("processes do not share SQLite in memory.")
    assert warning.hint == "Name an alias of a database that all processes share."
    with pytest.raises(CommandError, match="do not share SQLite in memory"):
        CeleryBeat(**beat).prep_server_args()


@pytest.mark.django_db
def test_the_database_of_djangos_tests(settings: Any, beat: dict[str, Any]) -> None:
    """Django's test command runs the checks after it has replaced the database."""
    assert connections["default"].is_in_memory_db()  # type: ignore[attr-defined]
    assert found(settings, beat) == []
    with pytest.raises(RefusedError, match="in memory"):
        lock_of("default", "a").connect()


def test_a_driver_that_is_missing_here(
    settings: Any,
    beat: dict[str, Any],
    databases: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    databases["default"] = {"ENGINE": "django.db.backends.mysql", "NAME": "any"}
    monkeypatch.setitem(sys.modules, "MySQLdb", None)
    monkeypatch.delitem(sys.modules, "django.db.backends.mysql.base", raising=False)
    (warning,) = found(settings, beat)
    assert (warning.id, warning.level) == ("prodserver_celery5.W008", checks.WARNING)
    assert "the database cannot be used here: Error loading" in warning.msg
    with pytest.raises(CommandError, match="cannot be used here"):
        CeleryBeat(**beat).prep_server_args()


@pytest.mark.usefixtures("databases")
def test_a_machine_without_posix(
    settings: Any, beat: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "name", "nt")
    (warning,) = found(settings, beat)
    assert (warning.id, warning.level) == ("prodserver_celery5.W008", checks.WARNING)
    assert warning.msg == "LEADER_LOCK = 'default': it needs a POSIX system."


@pytest.mark.usefixtures("databases")
@pytest.mark.parametrize("option", [{"detach": True}, {"uid": "root"}, {"gid": "root"}])
def test_options_that_cannot_be_repeated(
    settings: Any, beat: dict[str, Any], option: dict[str, Any]
) -> None:
    entry = {**beat, "ARGS": {**beat["ARGS"], **option}}
    assert found(settings, entry) == [
        checks.Error(
            f"{next(iter(option))} does not go with LEADER_LOCK, whose beat starts"
            " again under the same pid when it has lost the lead.",
            hint="Leave it to what starts the process, such as systemd or Docker.",
            obj="PRODUCTION_PROCESSES['beat']",
            id="prodserver_celery5.E014",
        )
    ]
    del entry["LEADER_LOCK"]
    assert found(settings, entry) == []


@pytest.mark.usefixtures("databases")
def test_a_file_of_last_runs(settings: Any, beat: dict[str, Any]) -> None:
    entry = {**beat, "ARGS": {"scheduler": "celery.beat:PersistentScheduler"}}
    (warning,) = found(settings, entry)
    assert (warning.id, warning.level) == ("prodserver_celery5.W009", checks.WARNING)
    assert warning.msg == (
        "scheduler = 'celery.beat:PersistentScheduler' keeps its last runs in a file:"
        " what comes due while no beat leads is never sent, unless all beats share the"
        " file."
    )
    assert warning.hint == (
        "Use one with a database, or share the file and silence this check."
    )
    # A doubt does not stop the start.
    assert CeleryBeat(**entry).prep_server_args()
    del entry["LEADER_LOCK"]
    assert found(settings, entry) == []


@pytest.mark.usefixtures("databases")
def test_nothing_wrong(settings: Any, beat: dict[str, Any]) -> None:
    assert found(settings, beat) == []
    assert found(settings, {**beat, "ARGS": {**beat["ARGS"], "pidfile": "b.pid"}}) == []


@pytest.mark.usefixtures("databases")
def test_a_worker_has_no_such_key(settings: Any, beat: dict[str, Any]) -> None:
    path = f"{CeleryWorker.__module__}.{CeleryWorker.__name__}"
    (error,) = found(settings, {**beat, "BACKEND": path, "ARGS": {}})
    assert error.id == "prodserver_celery5.E010"


def entered(entry: dict[str, Any], settings: Any, **processes: Any) -> locks.Lock:
    """Return the lock that a beat with an entry would use."""
    settings.PRODUCTION_PROCESSES = processes
    return LeaderLock().read(CeleryBeat(**entry).entry)


def test_the_name_has_app_and_key_and_nothing_of_args(
    settings: Any, beat: dict[str, Any], databases: dict[str, Any], tmp_path: Path
) -> None:
    changed = {**beat, "ARGS": {**beat["ARGS"], "loglevel": "DEBUG"}}
    other = {**beat, "ARGS": {**beat["ARGS"], "max-interval": 5}}
    names = [
        entered(beat, settings, beat=beat).name,
        entered(changed, settings, beat=changed).name,
        entered(beat, settings, beat=beat, other=other).name,
        entered(other, settings, beat=beat, other=other).name,
        entered(beat, settings, b=beat).name,
        entered({**beat, "APP": "shop:app"}, settings).name,
    ]
    assert names == [
        "shop\0beat", "shop\0beat", "shop\0beat", "shop\0other", "shop\0b",
        "shop:app\0beat",
    ]  # fmt: skip


class RegionalBeat(CeleryBeat):
    """A backend with a key of its own, which changes ARGS."""

    def __init__(self, REGION: str, **config: Any) -> None:  # noqa: N803 - a key
        config["ARGS"] = {**config["ARGS"], "pidfile": f"{REGION}.pid"}
        super().__init__(**config)


@pytest.mark.usefixtures("databases")
@pytest.mark.parametrize("name", ["beat", "nightly", "beat-eu", "beat-us"])
def test_the_name_is_the_word_that_was_typed(
    settings: Any, beat: dict[str, Any], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Whether entries are equal, or the environment changed one, or a backend did."""
    path = f"{__name__}.RegionalBeat"
    settings.PRODUCTION_PROCESSES = processes = {
        "beat": beat,
        "nightly": dict(beat),
        "beat-eu": {**beat, "BACKEND": path, "REGION": "eu"},
        "beat-us": {**beat, "BACKEND": path, "REGION": "us"},
        "worker": {**beat, "BACKEND": "prodserver_celery5.backends.CeleryWorker"},
    }
    monkeypatch.setattr(sys, "argv", ["manage.py", "worker", "worker", name])
    backend = import_string(processes[name]["BACKEND"])
    for loglevel in ("INFO", "DEBUG"):
        given = {**processes[name], "ARGS": {**beat["ARGS"], "loglevel": loglevel}}
        assert LeaderLock().read(backend(**given).entry).name == f"shop\0{name}"


@pytest.mark.usefixtures("databases")
def test_what_a_beat_hands_to_its_lead(
    settings: Any, beat: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.PRODUCTION_PROCESSES = {}
    entry = Entry("beat", {**beat, "ARGS": {"pidfile": "beat.pid"}})
    start = Start(entry, entry.context)
    made: list[tuple[Any, ...]] = []

    def lead(*args: Any) -> None:
        made.append(args)

    monkeypatch.setattr(schedulers, "Lead", lead)
    LeaderLock().prepare(start)
    ((lock, pidfile, say),) = made
    assert lock._path, "it has tried to connect"
    # Celery does not write the one that the lead has.
    assert (pidfile, start.context.params["pidfile"]) == ("beat.pid", None)
    # Whatever comes to listen after that.
    said: list[str] = []
    start.say = said.append
    say("leading")
    assert said == ["leading"]


@pytest.mark.usefixtures("databases")
@pytest.mark.parametrize("error", [RefusedError("a replica.", "Go."), UnavailableError])
def test_a_database_that_refuses_stops_the_start(
    beat: dict[str, Any], monkeypatch: pytest.MonkeyPatch, error: Any
) -> None:
    """One that is away does not: beat waits for it."""

    def connect(lock: object) -> None:
        raise error

    monkeypatch.setattr(locks._SQLiteLock, "connect", connect)
    entry = Entry("beat", beat)
    start = Start(entry, entry.context)
    if error is UnavailableError:
        LeaderLock().prepare(start)
        return
    with pytest.raises(OptionError) as refused:
        LeaderLock().prepare(start)
    assert (str(refused.value.where), str(refused.value), refused.value.hint) == (
        "LEADER_LOCK = 'default'", "a replica.", "Go."
    )  # fmt: skip
