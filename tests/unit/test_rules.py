"""Whatever an entry runs: its shape, its BACKEND and its APP."""

from __future__ import annotations

import re
import sys
from enum import Enum
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from celery import Celery
from django.core import checks
from django.core.management import CommandError
from django.utils.functional import SimpleLazyObject, lazystr

from prodserver_celery5.backends import CeleryWorker
from prodserver_celery5.checks import check_processes

from . import entries
from .entries import WORKER, failing, found
from .options.helpers import Unshowable


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (lambda: "worker", "is 'worker'"),
        (lambda: None, "is None"),
        (lambda: 5, "is 5"),
        (lambda: ["BACKEND"], "is ['BACKEND']"),
        (lambda: SimpleLazyObject(lambda: 5), "is 5"),
        (Unshowable, "is <Unshowable>"),
        (
            lambda: SimpleLazyObject(failing),
            "cannot be evaluated: RuntimeError: not today",
        ),
    ],
)
def test_an_entry_that_is_no_mapping(settings: Any, make: Any, what: str) -> None:
    entry = make()
    (message,) = found(settings, shop=entry, other=entry)
    assert message.id == "prodserver_celery5.E001"
    assert message.msg.removesuffix(".") == f"the entry {what}"
    assert message.hint == "It must be a dict with the keys BACKEND, APP and ARGS."
    assert message.obj == "PRODUCTION_PROCESSES['shop'], PRODUCTION_PROCESSES['other']"


class Backends(Enum):
    WORKER = WORKER["BACKEND"]


BACKEND_TAKES = 'It takes a path, such as "prodserver_celery5.backends.CeleryWorker".'


@pytest.mark.parametrize(
    ("entry", "message", "hint"),
    [
        ({}, "the key BACKEND is missing.", BACKEND_TAKES),
        ({"APP": "shop:app"}, "the key BACKEND is missing.", BACKEND_TAKES),
        *(
            (
                {key: WORKER["BACKEND"], "APP": "shop:app"},
                "the key BACKEND is missing.",
                f"Is it misspelt as {key!r}?",
            )
            for key in ("backend", "Backend", "BACKENDS", "BACKED")
        ),
        ({"BACKEND": None}, "BACKEND is None.", BACKEND_TAKES),
        ({"BACKEND": 5}, "BACKEND is 5.", BACKEND_TAKES),
        (
            {"BACKEND": CeleryWorker},
            f"BACKEND is {CeleryWorker!r}.",
            BACKEND_TAKES,
        ),
        ({"BACKEND": len}, "BACKEND is <built-in function len>.", None),
        ({"BACKEND": "", "APP": "shop:app"}, "BACKEND is empty.", None),
        ({"BACKEND": Path(WORKER["BACKEND"])}, "BACKEND is of type PosixPath.", None),
        ({"BACKEND": Backends.WORKER}, "BACKEND is of type Backends.", None),
    ],
)
def test_a_backend_that_is_no_path(
    settings: Any, entry: dict[str, Any], message: str, hint: str | None
) -> None:
    expected = checks.Error(
        message,
        hint=hint or BACKEND_TAKES,
        obj="PRODUCTION_PROCESSES['shop'], PRODUCTION_PROCESSES['same']",
        id="prodserver_celery5.E002",
    )
    assert found(settings, shop=entry, same=dict(entry)) == [expected]


@pytest.mark.usefixtures("shop")
def test_a_start_names_all_processes_of_an_entry(settings: Any) -> None:
    entry = {**WORKER, "ARGS": {"no-such": 1}}
    settings.PRODUCTION_PROCESSES = {"mail": entry, "fast": entry}
    with pytest.raises(CommandError, match=r"^mail, fast: ARGS\['no-such'\]"):
        CeleryWorker(**entry).prep_server_args()


@pytest.mark.usefixtures("shop")
@pytest.mark.parametrize("name", [1, None, ("a", "b"), ""])
def test_a_name_that_nobody_can_type(settings: Any, name: Any) -> None:
    settings.PRODUCTION_PROCESSES = {name: WORKER, "shop": {**WORKER, "ARGS": "-c2"}}
    (message,) = check_processes()
    assert message == checks.Error(
        f"no command can start a process with the name {name!r}.",
        hint='A name must be a string, such as "worker".',
        obj="PRODUCTION_PROCESSES",
        id="prodserver_celery5.E017",
    )


@pytest.mark.usefixtures("shop")
def test_what_is_equal_is_not_the_same(settings: Any) -> None:
    right = {**WORKER, "ARGS": {"without-gossip": True}}
    wrong = {**WORKER, "ARGS": {"without-gossip": 1}}
    (message,) = found(settings, right=right, wrong=wrong)
    assert message.obj == "PRODUCTION_PROCESSES['wrong']"
    with pytest.raises(CommandError, match=r"^wrong: "):
        CeleryWorker(**wrong).prep_server_args()


@pytest.mark.parametrize("exits", ["sys.exit()", "sys.exit('set FLOWER_KEY')"])
def test_a_module_that_ends_the_program(
    settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exits: str
) -> None:
    for name in ("shop_exits", "shop_flower"):
        (tmp_path / f"{name}.py").write_text(f"import sys; {exits}")
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    processes = {
        "flower": {"BACKEND": "shop_flower.Flower", "APP": "shop_exits"},
        "worker": {**WORKER, "APP": "shop_exits"},
        "named": {**WORKER, "APP": "shop_exits:app"},
    }
    messages = found(settings, **processes)
    ids = [message.id.removeprefix("prodserver_celery5.") for message in messages]
    assert ids == ["W015", "E004", "E004"]
    said = "SystemExit" + ("('set FLOWER_KEY')" if "KEY" in exits else "()")
    assert messages[1].msg.endswith(f"ImportError: it ends the program ({said})")
    with pytest.raises(CommandError, match="it ends the program"):
        CeleryWorker(**processes["worker"]).prep_server_args()


IS_A_DICT = "It must be a dict of names of processes and their entries."


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: None, "PRODUCTION_PROCESSES is None."),
        (lambda: [WORKER], f"PRODUCTION_PROCESSES is {[WORKER]}."),
        (lambda: "worker", "PRODUCTION_PROCESSES is 'worker'."),
        (lambda: SimpleLazyObject(lambda: 5), "PRODUCTION_PROCESSES is 5."),
        (
            lambda: SimpleLazyObject(failing),
            "PRODUCTION_PROCESSES cannot be evaluated: RuntimeError: not today",
        ),
    ],
)
def test_processes_that_are_no_mapping(settings: Any, make: Any, message: str) -> None:
    settings.PRODUCTION_PROCESSES = make()
    assert check_processes() == [
        checks.Error(
            message,
            hint=IS_A_DICT,
            obj="PRODUCTION_PROCESSES",
            id="prodserver_celery5.E016",
        )
    ]


@pytest.mark.parametrize(
    ("given", "hint"),
    [
        ("PRODUCTION_PROCESES", "Is it misspelt as 'PRODUCTION_PROCESES'?"),
        ("PRODUCTION_PROCESS", "Is it misspelt as 'PRODUCTION_PROCESS'?"),
        ("SHOP_QUEUES", IS_A_DICT),
    ],
)
def test_the_setting_is_missing(settings: Any, given: str, hint: str) -> None:
    del settings.PRODUCTION_PROCESSES
    setattr(settings, given, {"worker": WORKER})
    assert check_processes() == [
        checks.Error(
            "the setting PRODUCTION_PROCESSES is missing.",
            hint=hint,
            obj="PRODUCTION_PROCESSES",
            id="prodserver_celery5.E016",
        )
    ]


def test_the_setting_in_small_letters(
    settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Django ignores it: a setting's name is in capitals."""
    module = ModuleType("shop_settings")
    module.production_processes = {}  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "shop_settings", module)
    del settings.PRODUCTION_PROCESSES
    settings.SETTINGS_MODULE = "shop_settings"
    (message,) = check_processes()
    assert message.hint == "Is it misspelt as 'production_processes'?"
    # As after settings.configure().
    settings.SETTINGS_MODULE = None
    (message,) = check_processes()
    assert message.hint == IS_A_DICT


@pytest.mark.usefixtures("shop")
@pytest.mark.parametrize("wrong", [False, True])
def test_lazy_entries(settings: Any, wrong: bool) -> None:
    key = "concurency" if wrong else "concurrency"
    lazy = SimpleLazyObject(
        lambda: {
            "BACKEND": lazystr(WORKER["BACKEND"]),
            "APP": SimpleLazyObject(lambda: "shop:app"),
            "ARGS": SimpleLazyObject(lambda: {key: SimpleLazyObject(lambda: 2)}),
        }
    )
    messages = found(settings, shop=lazy)
    assert [message.id for message in messages] == ["prodserver_celery5.E006"] * wrong
    start = CeleryWorker(**lazy)
    if wrong:
        with pytest.raises(CommandError, match=r"^shop: ARGS\['concurency'\] = 2: "):
            start.prep_server_args()
    else:
        assert start.prep_server_args() == ["--concurrency=2"]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SimpleLazyObject(lambda: 5), "APP is 5."),
        (Unshowable, "APP is <Unshowable>."),
        (lambda: [], "APP is []."),
        (
            lambda: SimpleLazyObject(failing),
            "APP cannot be evaluated: RuntimeError: not today",
        ),
    ],
)
def test_an_app_that_is_no_string(settings: Any, make: Any, message: str) -> None:
    entry = {**WORKER, "APP": make()}
    (reported,) = found(settings, shop=entry)
    assert reported.id == "prodserver_celery5.E004"
    assert reported.msg.startswith(message)
    with pytest.raises(CommandError, match=r"^shop: APP (is|cannot be evaluated)"):
        CeleryWorker(**entry).prep_server_args()


def test_a_backend_that_cannot_be_imported(settings: Any) -> None:
    path = "prodserver_celery5.backends.CeleryWroker"
    expected = checks.Error(
        f"BACKEND = {path!r} cannot be used: ImportError: "
        'Module "prodserver_celery5.backends" does not define a "CeleryWroker"'
        " attribute/class",
        hint="Did you mean 'prodserver_celery5.backends.CeleryWorker'?",
        obj="PRODUCTION_PROCESSES['shop']",
        id="prodserver_celery5.E002",
    )
    assert found(settings, shop={**WORKER, "BACKEND": path}) == [expected]


@pytest.mark.usefixtures("shop")
def test_a_backend_derived_from_ours(settings: Any) -> None:
    entry = {**WORKER, "BACKEND": f"{entries.__name__}.OurWorker", "ARGS": {"beat": 1}}
    assert [message.id for message in found(settings, shop=entry)] == [
        "prodserver_celery5.E007"
    ]


@pytest.mark.parametrize(
    "entry",
    [
        {"BACKEND": "django_prodserver.backends.celery.Flower", "APP": "nope"},
        {"BACKEND": "django_prodserver.backends.gunicorn.GunicornServer", "ARGS": 5},
        {"BACKEND": "nowhere.Backend", "ARGS": {"x": object()}},
    ],
)
def test_other_backends_are_left_alone(settings: Any, entry: Any) -> None:
    before = set(sys.modules)
    assert found(settings, other=entry) == []
    assert set(sys.modules) == before


@pytest.mark.parametrize("package", ["celery", "workers.celery"])
@pytest.mark.parametrize("name", ["CeleryWorker", "CeleryBeat"])
def test_a_backend_of_django_prodservers_own(
    settings: Any, package: str, name: str
) -> None:
    path = f"django_prodserver.backends.{package}.{name}"
    before = set(sys.modules)
    entry = {"BACKEND": path, "APP": "nope"}
    assert found(settings, shop=entry, same=dict(entry)) == [
        checks.Warning(
            f"BACKEND = {path!r} is django-prodserver's own.",
            hint=f'Write "prodserver_celery5.backends.{name}".',
            obj="PRODUCTION_PROCESSES['shop'], PRODUCTION_PROCESSES['same']",
            id="prodserver_celery5.W023",
        )
    ]
    assert set(sys.modules) == before


@pytest.mark.parametrize(
    ("backend", "reason"),
    [
        ("prodserver_celery5.backends.CeleryBackend", "AttributeError: .*"),
        ("prodserver_celery5.entry.Entry", r"TypeError: it is not a backend\."),
        ("prodserver_celery5", "ImportError: .*"),
        (f"{entries.__name__}.MailWorker", "KeyError: 'ARGS'"),
    ],
)
def test_a_backend_that_cannot_be_used(
    settings: Any, backend: str, reason: str
) -> None:
    entry = {**WORKER, "BACKEND": backend}
    (message,) = found(settings, shop=entry, same=dict(entry))
    assert (message.id, message.level) == ("prodserver_celery5.E002", checks.ERROR)
    begin, _, end = message.msg.partition(" cannot be used: ")
    assert begin == f"BACKEND = '{backend}'"
    assert re.fullmatch(reason, end)
    is_below_ours = backend.startswith("prodserver_celery5")
    assert ("prodserver_celery5.backends." in (message.hint or "")) == is_below_ours
    assert message.obj == "PRODUCTION_PROCESSES['shop'], PRODUCTION_PROCESSES['same']"


@pytest.mark.parametrize(
    "backend", ["nosuch.backends.Flower", "broken_backends.Worker"]
)
def test_another_backend_that_cannot_be_imported(
    settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backend: str
) -> None:
    """Only its import would tell whether it derives from ours."""
    (tmp_path / "broken_backends.py").write_text("raise RuntimeError('no\\nway')\n")
    monkeypatch.syspath_prepend(tmp_path)
    (message,) = found(settings, shop={"BACKEND": backend, "APP": "proj"})
    assert (message.id, message.level) == ("prodserver_celery5.W015", checks.WARNING)
    assert message.msg.startswith(f"BACKEND = '{backend}' cannot be used: ")
    assert "\n" not in message.msg
    assert message.hint == "Nothing else of the entry was checked."
    assert found(settings, shop={"BACKEND": backend}) == []


@pytest.mark.usefixtures("shop")
def test_a_backend_that_changes_args_is_known_by_the_rest(settings: Any) -> None:
    path = f"{entries.__name__}.MailWorker"
    entry = {**WORKER, "BACKEND": path, "ARGS": {"concurency": 2}}
    messages = found(settings, shop=WORKER, mail=entry, sms={**entry, "APP": "shop"})
    assert [message.obj for message in messages] == [
        "PRODUCTION_PROCESSES['mail']",
        "PRODUCTION_PROCESSES['sms']",
    ]


def test_what_is_no_backend_of_ours_beside_an_app(settings: Any, shop: Celery) -> None:
    entry = {"BACKEND": "celery.Celery", "APP": "shop:app"}
    assert found(settings, worker=entry) == []
