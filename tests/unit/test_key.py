"""A key of one's own: one class, and one word in the class of a program."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any

import pytest
from celery import Celery
from django.core import checks
from django.core.management import CommandError

from prodserver_celery5.backends import CeleryBeat, CeleryWorker
from prodserver_celery5.checks import check_processes
from prodserver_celery5.entry import Entry
from prodserver_celery5.findings import Finding
from prodserver_celery5.key import Key, Start
from prodserver_celery5.options import command
from prodserver_celery5.process import prefork

prepared: list[tuple[str, int]] = []


class Nice(Key):
    name = "NICE"
    takes = "a number from 0 to 19"
    id = "E100"

    def read(self, entry: Entry) -> int:
        value = entry.config[self.name]
        if not isinstance(value, int):
            raise TypeError("it is not a number")
        return value

    def rules(self, entry: Entry) -> Iterator[Finding]:
        if self.read(entry) > 19:
            yield Finding("W100", entry.names, "NICE is above 19.")

    def rules_beside(self, entry: Entry, others: Sequence[Entry]) -> Iterator[Finding]:
        same = [other for other in others if other.gives(self.name)]
        if len(same) > 1:
            yield Finding("W101", entry.names, f"{len(same)} processes are nice.")

    def prepare(self, start: Start) -> None:
        prepared.append((str(start.entry), self.read(start.entry)))


class Worker(CeleryWorker):
    keys = (*CeleryWorker.keys, Nice())


def machine(entry: Entry) -> Iterator[Finding]:
    yield Finding("W102", entry.names, "it cannot run here.", here=True)


class ElsewhereWorker(CeleryWorker):
    rules = (*CeleryWorker.rules, machine)


WORKER: dict[str, Any] = {"BACKEND": f"{__name__}.Worker", "APP": "shop:app"}
BEAT: dict[str, Any] = {
    "BACKEND": "prodserver_celery5.backends.CeleryBeat",
    "APP": "shop:app",
}


@pytest.fixture(autouse=True)
def shop(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("shop")
    module.app = Celery("shop", set_as_current=False, broker="memory://")  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "shop", module)
    monkeypatch.setattr(prefork, "share_memory", lambda pool: None)
    monkeypatch.setattr(command, "run", lambda context: 0)
    monkeypatch.setattr(Entry, "running", False)
    prepared.clear()


def found(settings: Any, **processes: Any) -> list[tuple[str, str, str | None]]:
    settings.PRODUCTION_PROCESSES = processes
    return [
        (str(found.id).partition(".")[2], found.msg, found.hint)
        for found in check_processes()
    ]


def started(backend: Any) -> Any:
    with pytest.raises(SystemExit) as ended:
        backend.start_server(*backend.prep_server_args())
    return ended.value.code


def test_its_value_is_checked(settings: Any) -> None:
    entry = {**WORKER, "NICE": "very"}
    message = "NICE = 'very': it is not a number."
    hint = "It takes a number from 0 to 19."
    assert found(settings, shop=entry) == [("E100", message, hint)]
    with pytest.raises(CommandError, match=f"^shop: {message} {hint}$"):
        Worker(**entry).prep_server_args()


def test_its_doubt_stops_nothing(
    settings: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    entry = {**WORKER, "NICE": 20}
    assert found(settings, shop=entry) == [("W100", "NICE is above 19.", None)]
    assert started(Worker(**entry)) == 0
    assert capsys.readouterr().err == "Warning: shop: NICE is above 19.\n"


def test_it_sees_the_other_entries(settings: Any) -> None:
    entries = {"shop": {**WORKER, "NICE": 1}, "mail": {**WORKER, "NICE": 2}}
    assert [found[0] for found in found(settings, **entries)] == ["W101"] * 2


def test_the_other_program_refuses_it(settings: Any) -> None:
    hint = "A beat can have BACKEND, APP, ARGS, HEARTBEAT_FILE and LEADER_LOCK."
    expected = ("E010", "the key 'NICE' is unknown.", hint)
    assert found(settings, beat={**BEAT, "NICE": 1}) == [expected]
    with pytest.raises(CommandError, match="'NICE' is unknown"):
        CeleryBeat(**BEAT, NICE=1).prep_server_args()


@pytest.mark.parametrize("entry", [WORKER, {**WORKER, "NICE": None}])
def test_none_is_not_given(settings: Any, entry: dict[str, Any]) -> None:
    assert found(settings, shop=entry, mail={**entry, "NICE": 1}) == []
    assert started(Worker(**entry)) == 0
    assert prepared == []


@pytest.mark.parametrize("key", ["HEARTBEAT_FILE", "GRACE_SECONDS", "LEADER_LOCK"])
def test_none_is_not_given_for_ours_either(settings: Any, key: str) -> None:
    entry = BEAT if key == "LEADER_LOCK" else WORKER
    entry = {**entry, key: None}
    assert found(settings, shop=entry) == []
    backend = CeleryBeat if key == "LEADER_LOCK" else Worker
    assert started(backend(**entry)) == 0


def test_it_prepares_the_process(settings: Any) -> None:
    entry = {**WORKER, "NICE": 5}
    settings.PRODUCTION_PROCESSES = {"shop": entry}
    assert started(Worker(**entry)) == 0
    assert prepared == [("shop", 5)]


def test_a_rule_of_ones_own_can_stop_the_start_on_this_machine(settings: Any) -> None:
    entry = {**WORKER, "BACKEND": f"{__name__}.ElsewhereWorker"}
    settings.PRODUCTION_PROCESSES = {"shop": entry}
    (message,) = check_processes()
    assert message.level == checks.WARNING
    with pytest.raises(CommandError, match=r"^shop: it cannot run here\.$"):
        ElsewhereWorker(**entry).prep_server_args()
