"""What the system checks find, and what they leave alone."""

from __future__ import annotations

import ast
import logging
import math
import os
import re
import subprocess
import sys
import tempfile
from datetime import timedelta
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import celery
import click
import pytest
from celery import Celery, concurrency
from celery.utils.nodenames import gethostname
from django.apps import apps
from django.core import checks
from django.core.management import CommandError
from django.db import ConnectionHandler, connections
from django.utils.functional import SimpleLazyObject, lazystr

from prodserver_celery5 import backends, findings
from prodserver_celery5.backends import CeleryBeat, CeleryWorker
from prodserver_celery5.checks import check_processes
from prodserver_celery5.leader import locks
from prodserver_celery5.pytest_plugin.process import DEADLINE

from .test_options import Unshowable, invalid

WORKER = {"BACKEND": "prodserver_celery5.backends.CeleryWorker", "APP": "shop:app"}
BEAT = {"BACKEND": "prodserver_celery5.backends.CeleryBeat", "APP": "shop:app"}
PERSISTENT = "celery.beat:PersistentScheduler"
LED: dict[str, Any] = {
    **BEAT, "LEADER_LOCK": "default", "ARGS": {"scheduler": "celery.beat:Scheduler"}
}  # fmt: skip
HOST = gethostname()
DATABASE = "django_celery_beat.schedulers:DatabaseScheduler"


class OurWorker(CeleryWorker):
    """A project's own backend."""


class MailWorker(CeleryWorker):
    """A backend that changes ARGS."""

    def __init__(self, **entry: Any) -> None:
        super().__init__(**{**entry, "ARGS": {"queues": ["mail"], **entry["ARGS"]}})


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


def found(settings: Any, **processes: Any) -> list[checks.CheckMessage]:
    settings.PRODUCTION_PROCESSES = processes
    return check_processes()


# Each finding, as the checks report it and as it stops a start.

APP_TAKES = 'It takes what `celery -A` takes, such as "proj" or "proj.celery:app".'

PATH_TAKES = 'It takes the path of a file, such as "/run/proj/%n".'

# The id, the entry, the message and the hint.
ERRORS: list[tuple[str, dict[str, Any], str, str]] = [
    ("E003", {**WORKER, "APP": None}, "the key APP is missing.", APP_TAKES),
    ("E003", {"BACKEND": WORKER["BACKEND"]}, "the key APP is missing.", APP_TAKES),
    (
        "E004",
        {**WORKER, "APP": "shop_nowhere"},
        "APP = 'shop_nowhere' cannot be imported: ModuleNotFoundError:"
        " No module named 'shop_nowhere'",
        "",
    ),
    (
        "E004",
        {**WORKER, "APP": "shop_lacks"},
        "APP = 'shop_lacks' cannot be imported: ModuleNotFoundError:"
        " No module named 'shop_missing_dependency'",
        "",
    ),
    (
        "E004",
        {**WORKER, "APP": "shop:ap"},
        "APP = 'shop:ap' cannot be imported: AttributeError:"
        " module 'shop' has no attribute 'ap'",
        "",
    ),
    (
        "E004",
        {**WORKER, "APP": "shop_broken"},
        "APP = 'shop_broken' cannot be imported: RuntimeError:"
        " no amqp://me:**@host, today",
        "",
    ),
    ("E004", {**WORKER, "APP": 5}, "APP is 5.", APP_TAKES),
    (
        "E005",
        {**WORKER, "APP": "shop:number"},
        "APP = 'shop:number' is of type int, not a Celery app.",
        'Name the app itself, such as "proj.celery:app".',
    ),
    (
        "E006",
        {**WORKER, "ARGS": {"concurency": 2}},
        f"ARGS['concurency'] = 2: Celery {celery.__version__}'s worker has no such"
        " option.",
        "Did you mean 'concurrency'?",
    ),
    (
        "E006",
        {**BEAT, "ARGS": {"broker": "redis://:s3cret@h"}},
        "ARGS['broker'] = 'redis://:**@h': this is an option of `celery` itself.",
        "Set BROKER_URL in the settings instead.",
    ),
    (
        "E007",
        {**WORKER, "ARGS": {"time-limit": "long"}},
        f"ARGS['time-limit'] = 'long': {invalid(click.FLOAT, 'long')}",
        "",
    ),
    (
        "E007",
        {**BEAT, "ARGS": {"detach": "maybe"}},
        "ARGS['detach'] = 'maybe': a flag takes True, False or None.",
        "",
    ),
    (
        "E008",
        {**BEAT, "ARGS": {"scheduler": "shop.nowhere:Scheduler"}},
        "scheduler = 'shop.nowhere:Scheduler' cannot be imported: ModuleNotFoundError:"
        " No module named 'shop.nowhere'; 'shop' is not a package",
        "",
    ),
    (
        "E008",
        {**WORKER, "ARGS": {"beat": True, "scheduler": "shop:Nothing"}},
        "scheduler = 'shop:Nothing' cannot be imported: AttributeError:"
        " module 'shop' has no attribute 'Nothing'",
        "",
    ),
    *(
        (
            "E009",
            {**BEAT, "ARGS": {"scheduler": name}},
            f"scheduler = {name!r} needs 'django_celery_beat' in INSTALLED_APPS.",
            "",
        )
        for name in (DATABASE, "django")
    ),
    (
        "W001",
        {**WORKER, "ARGS": {"pool": "gevent"}},
        "pool = 'gevent' needs the module 'gevent', not installed here.",
        "",
    ),
    *(
        (
            "W002",
            {**program, "ARGS": {key: "nobody-here"}},
            f"{key} = 'nobody-here' is unknown here.",
            "It takes a name or a number that this machine knows.",
        )
        for program, key in ((WORKER, "uid"), (BEAT, "gid"))
    ),
    *(
        (
            "W003",
            {**program, "ARGS": {key: "/no/%n/x"}},
            f"{key} = '/no/%n/x': the folder '/no/celery' does not exist here.",
            "",
        )
        for program, key in (
            (WORKER, "pidfile"), (WORKER, "logfile"), (WORKER, "statedb")
        )
    ),
    *(
        (
            "W003",
            {**BEAT, "ARGS": {key: "/no/x"}},
            f"{key} = '/no/x': the folder '/no' does not exist here.",
            "",
        )
        for key in ("pidfile", "logfile")
    ),
    (
        "E007",
        {**WORKER, "ARGS": {"pidfile": "/no/%q"}},
        "pidfile = '/no/%q': Unknown format %q in string '/no/%q'.",
        "",
    ),
    (
        "W003",
        {**WORKER, "ARGS": {"workdir": "/", "pidfile": "no/x"}},
        "pidfile = 'no/x': the folder '/no' does not exist here.",
        "",
    ),
    (
        "W003",
        {**BEAT, "ARGS": {"schedule": "/no/x", "scheduler": PERSISTENT}},
        "schedule = '/no/x': the folder '/no' does not exist here.",
        "",
    ),
    (
        "W003",
        {
            **WORKER,
            "ARGS": {"beat": True, "schedule": "/no/x", "scheduler": PERSISTENT},
        },
        "schedule-filename = '/no/x': the folder '/no' does not exist here.",
        "",
    ),
    (
        "W003",
        {**BEAT, "ARGS": {"workdir": "/no"}},
        "workdir = '/no': this folder does not exist here.",
        "",
    ),
    (
        "E010",
        {**WORKER, "Args": {"loglevel": "INFO"}},
        "the key 'Args' is unknown.",
        "Did you mean 'ARGS'?",
    ),
    (
        "E010",
        {**WORKER, "HEART_BEAT": "/tmp/x"},
        "the key 'HEART_BEAT' is unknown.",
        "Did you mean 'HEARTBEAT_FILE'?",
    ),
    (
        "E010",
        {**WORKER, "NICE": 5},
        "the key 'NICE' is unknown.",
        "An entry can have BACKEND, APP, ARGS, GRACE_SECONDS and HEARTBEAT_FILE.",
    ),
    (
        "E010",
        {**WORKER, "LEADER_LOCK": "default"},
        "the key 'LEADER_LOCK' is for beat.",
        "An entry can have BACKEND, APP, ARGS, GRACE_SECONDS and HEARTBEAT_FILE.",
    ),
    *(
        (
            "E015",
            {**WORKER, "GRACE_SECONDS": value},
            f"GRACE_SECONDS = {value!r}: {reason}.",
            "It takes a number of seconds above 0, or a timedelta.",
        )
        for value, reason in (
            ("25s", "it is not a number of seconds"),
            (True, "it is not a number of seconds"),
            (0, "it is not a time above 0"),
            (-1.5, "it is not a time above 0"),
            (math.inf, "it is not a time above 0"),
            (math.nan, "it is not a time above 0"),
            (timedelta(0), "it is not a time above 0"),
        )
    ),
    (
        "E015",
        {**WORKER, "GRACE_SECONDS": 25, "ARGS": {"detach": True}},
        "GRACE_SECONDS has no effect with detach, which starts Celery's own worker.",
        "Remove one of the two.",
    ),
    (
        "E010",
        {**BEAT, "GRACE_SECONDS": 25},
        "the key 'GRACE_SECONDS' is for worker.",
        "An entry can have BACKEND, APP, ARGS, HEARTBEAT_FILE and LEADER_LOCK.",
    ),
    (
        "E013",
        {**LED, "LEADER_LOCK": "nowhere"},
        "LEADER_LOCK = 'nowhere': DATABASES has no such alias.",
        "It has 'default', 'there'.",
    ),
    (
        "E014",
        {**LED, "ARGS": {**LED["ARGS"], "detach": True}},
        "detach does not go with LEADER_LOCK, whose beat starts again under the same"
        " pid when it has lost the lead.",
        "Leave it to what starts the process.",
    ),
    (
        "W008",
        {**LED, "LEADER_LOCK": "there"},
        "LEADER_LOCK = 'there': the database cannot be used here: Error loading MySQLdb"
        " module. Did you install mysqlclient?",
        "",
    ),
    *(
        ("E011", {**WORKER, "HEARTBEAT_FILE": value}, message, PATH_TAKES)
        for value, message in (
            (5, "HEARTBEAT_FILE = 5: it is not a path."),
            (b"/tmp", "HEARTBEAT_FILE = b'/tmp': it is not a path."),
            ("", "HEARTBEAT_FILE = '': it is not the path of a file."),
            (
                "/tmp/a\0b",
                r"HEARTBEAT_FILE = '/tmp/a\x00b': it is not the path of a file.",
            ),
            (
                "/tmp/%q",
                "HEARTBEAT_FILE = '/tmp/%q': Unknown format %q in string '/tmp/%q'.",
            ),
        )
    ),
    (
        "E012",
        {**WORKER, "ARGS": {"detach": True}, "HEARTBEAT_FILE": "/tmp/w"},
        "HEARTBEAT_FILE is not written with detach, which starts Celery's own worker.",
        "Remove one of the two.",
    ),
    *(
        ("W006", {**program, "HEARTBEAT_FILE": value}, message, "")
        for program in (WORKER, BEAT)
        for value, message in (
            (
                Path("/no/%n"),
                "HEARTBEAT_FILE = '/no/%n': the folder '/no' does not exist here.",
            ),
            (
                lazystr("/dev/null"),
                "HEARTBEAT_FILE = '/dev/null': this is not a regular file here.",
            ),
            ("/tmp", "HEARTBEAT_FILE = '/tmp': this is not a regular file here."),
        )
    ),
    (
        "W006",
        {**WORKER, "HEARTBEAT_FILE": "~/x"},
        f"HEARTBEAT_FILE = '~/x': the folder '{os.getcwd()}/~' does not exist here.",
        "Nothing expands ~: write Path.home().",
    ),
]  # fmt: skip


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


@pytest.mark.usefixtures("shop", "broken", "poorer")
@pytest.mark.parametrize(("number", "entry", "message", "hint"), ERRORS)
def test_a_finding_of_a_check_stops_the_start(
    settings: Any, number: str, entry: dict[str, Any], message: str, hint: str
) -> None:
    level = checks.Error if number[0] == "E" else checks.Warning
    expected = level(
        message,
        hint=hint or None,
        obj="PRODUCTION_PROCESSES['shop']",
        id=f"prodserver_celery5.{number}",
    )
    assert found(settings, shop=entry) == [expected]

    with pytest.raises(CommandError) as stopped:
        (CeleryBeat if "Beat" in entry["BACKEND"] else CeleryWorker)(
            **entry
        ).prep_server_args()
    assert str(stopped.value) == f"shop: {message} {hint}".rstrip()
    assert stopped.value.returncode == 1
    assert stopped.value.__cause__ is not None


def test_each_finding_that_stops_a_start_has_its_row() -> None:
    """Except four, found before there is a backend; a doubt stops nothing."""
    package = Path(findings.__file__).parent
    stopping = {
        node.value
        for path in package.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and re.fullmatch(r"E\d{3}", str(node.value))
    }
    # On this machine; W022 has a test of its own.
    stopping |= {"W001", "W002", "W003", "W006", "W008"}
    assert {row[0] for row in ERRORS} == stopping - {"E001", "E002", "E016", "E017"}


def test_a_machine_without_posix(
    settings: Any, shop: Celery, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("fcntl", "grp", "pwd"):
        monkeypatch.setitem(sys.modules, module, None)
    for name in [name for name in sys.modules if name.startswith("prodserver_celery5")]:
        monkeypatch.delitem(sys.modules, name)
    check = import_module("prodserver_celery5.checks").check_processes
    keys = {"HEARTBEAT_FILE": "/tmp/shop", "GRACE_SECONDS": 25}
    settings.PRODUCTION_PROCESSES = {"shop": {**WORKER, **keys}, "beat": LED}
    assert check() == []
    settings.PRODUCTION_PROCESSES = {"shop": {**WORKER, "ARGS": {"uid": 0}}}
    (message,) = check()
    assert message.id == "prodserver_celery5.W002"


def failing() -> Any:
    raise RuntimeError("not today")


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


@pytest.mark.parametrize(
    ("names", "message", "hint", "line"),
    [
        ((), "a is missing.", "", "a is missing."),
        (("a", "b"), "it is wrong", "Mend it.", "a, b: it is wrong. Mend it."),
        (("a",), "it is wrong.", "Mend it.", "a: it is wrong. Mend it."),
        (("a",), "is it wrong?", "Mend it.", "a: is it wrong? Mend it."),
        (("a",), "it is wrong", "", "a: it is wrong"),
    ],
)
def test_a_finding_is_one_line(
    names: tuple[str, ...], message: str, hint: str, line: str
) -> None:
    assert str(findings.Finding("E007", names, message, hint)) == line


@pytest.mark.usefixtures("shop")
@pytest.mark.parametrize(
    ("args", "hint"),
    [
        ({"concurency": "$COUNT"}, "Did you mean 'concurrency'?"),
        (
            {"concurrency": "$COUNT"},
            'Write "concurrency": os.environ["COUNT"] in the settings.',
        ),
        ({"pidfile": "~/no-such/x"}, "Nothing expands ~: write Path.home()."),
        (
            ["-Q", "$QUEUE"],
            'Write "ARGS": ["-Q", os.environ["QUEUE"]] in the settings.',
        ),
        ({"queues": "$QUEUE"}, 'Write "queues": os.environ["QUEUE"] in the settings.'),
    ],
)
def test_the_hint_where_a_shell_would_expand_it(
    settings: Any, args: Any, hint: str
) -> None:
    (message,) = found(settings, shop={**WORKER, "ARGS": args})
    assert message.hint == hint


def make_scheduler() -> None:
    """Celery calls whatever the path of a scheduler names."""


@pytest.mark.usefixtures("shop")
def test_a_scheduler_that_is_no_class(settings: Any) -> None:
    path = f"{__name__}:make_scheduler"
    assert found(settings, beat={**BEAT, "ARGS": {"scheduler": path}}) == []


def failing_in_silence() -> Any:
    raise KeyError


@pytest.mark.usefixtures("shop")
def test_a_lazy_heartbeat_file_that_says_nothing(settings: Any) -> None:
    file = SimpleLazyObject(failing_in_silence)
    (message,) = found(settings, shop={**WORKER, "HEARTBEAT_FILE": file})
    assert message.id == "prodserver_celery5.E011"
    assert message.msg.endswith(": KeyError.")


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


@pytest.mark.usefixtures("shop")
def test_a_scheduler_that_ends_the_program(
    settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "shop_scheduler.py").write_text("raise SystemExit(0)")
    monkeypatch.delitem(sys.modules, "shop_scheduler", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    entry = {**BEAT, "ARGS": {"scheduler": "shop_scheduler:Scheduler"}}
    (message,) = found(settings, beat=entry)
    assert message.id == "prodserver_celery5.E008"


@pytest.mark.usefixtures("shop")
def test_a_scheduler_that_an_installed_app_lacks(settings: Any) -> None:
    path = "django_celery_beat.schedulers:Database"
    (message,) = found(settings, beat={**BEAT, "ARGS": {"scheduler": path}})
    assert message.id == "prodserver_celery5.E008"


@pytest.mark.usefixtures("shop")
def test_processes_that_share_an_entry_share_its_file(settings: Any) -> None:
    entry = {**WORKER, "HEARTBEAT_FILE": "/tmp/hb"}
    (message,) = found(settings, one=entry, other=dict(entry))
    assert message == checks.Warning(
        "HEARTBEAT_FILE = '/tmp/hb' is that of each process with this entry (one,"
        " other): on one machine only one would start.",
        hint="Give each a file of its own.",
        obj="PRODUCTION_PROCESSES['one'], PRODUCTION_PROCESSES['other']",
        id="prodserver_celery5.W007",
    )


@pytest.mark.usefixtures("shop")
def test_a_lock_that_cannot_be_evaluated(settings: Any) -> None:
    lock = SimpleLazyObject(failing)
    (message,) = found(settings, beat={**LED, "LEADER_LOCK": lock})
    assert message.id == "prodserver_celery5.E013"
    assert message.msg.endswith("it cannot be evaluated: RuntimeError: not today")


@pytest.mark.usefixtures("shop")
def test_no_password_of_a_database_in_place_of_its_alias(settings: Any) -> None:
    lock = {"NAME": "x", "PASSWORD": "s3cret"}
    (message,) = found(settings, beat={**LED, "LEADER_LOCK": lock})
    assert message.id == "prodserver_celery5.E013"
    assert "s3cret" not in message.msg


@pytest.mark.usefixtures("shop")
def test_a_custom_pool_without_its_variable(
    settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(concurrency.ALIASES, "custom", None)
    (message,) = found(settings, shop={**WORKER, "ARGS": {"pool": "custom"}})
    assert message.id in ("prodserver_celery5.W001", "prodserver_celery5.E007")
    if message.id.endswith("W001"):
        assert message.msg == (
            "pool = 'custom' needs the variable CELERY_CUSTOM_WORKER_POOL."
        )


@pytest.mark.usefixtures("shop")
@pytest.mark.parametrize(
    "value", [25, 2.5, Decimal(25), Fraction(5, 2), timedelta(seconds=25)]
)
def test_a_time_to_end_in(settings: Any, value: Any) -> None:
    assert found(settings, shop={**WORKER, "GRACE_SECONDS": value}) == []


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
@pytest.mark.parametrize("entry", [WORKER, BEAT])
def test_umask_and_executable_without_detach(
    settings: Any, entry: dict[str, Any]
) -> None:
    args = {"umask": "022", "executable": "/usr/bin/python3"}
    assert found(settings, shop={**entry, "ARGS": args}) == [
        checks.Warning(
            f"{key} has no effect without detach.",
            obj="PRODUCTION_PROCESSES['shop']",
            id="prodserver_celery5.W004",
        )
        for key in args
    ]
    assert found(settings, shop={**entry, "ARGS": {**args, "detach": True}}) == []


@pytest.mark.parametrize("mapped", ["SIGQUIT", "SIGTERM", ""])
def test_grace_and_a_sigterm_that_waits_for_nothing(
    settings: Any, shop: Celery, monkeypatch: pytest.MonkeyPatch, mapped: str
) -> None:
    monkeypatch.setenv("REMAP_SIGTERM", mapped)
    entry = {**WORKER, "GRACE_SECONDS": 25}
    expected = checks.Warning(
        "GRACE_SECONDS has no effect with REMAP_SIGTERM=SIGQUIT:"
        " SIGTERM then stops cold.",
        hint="Remove the variable, or set it to SIGTERM.",
        obj="PRODUCTION_PROCESSES['shop']",
        id="prodserver_celery5.W010",
    )
    assert found(settings, shop=entry) == [expected] * (mapped == "SIGQUIT")
    assert CeleryWorker(**entry).prep_server_args() == []


@pytest.mark.usefixtures("shop")
def test_a_second_beat(settings: Any) -> None:
    embedded = {**WORKER, "ARGS": {"beat": True}}
    expected = checks.Warning(
        "beat = True starts a second beat of this app, beside the process b:"
        " each scheduled task would be sent twice.",
        hint="Remove one of the two.",
        obj="PRODUCTION_PROCESSES['w']",
        id="prodserver_celery5.W005",
    )
    assert found(settings, w=embedded, b=BEAT) == [expected]
    assert found(settings, b=BEAT, w={**WORKER, "ARGS": "-B"}) == [expected]
    assert found(settings, w=embedded) == []
    assert found(settings, w=WORKER, b=BEAT) == []
    assert found(settings, w=embedded, b={**BEAT, "APP": "prayer_room_api"}) == []
    # The same app, spelled differently.
    assert found(settings, w=embedded, b={**BEAT, "APP": "shop"}) == [expected]


@pytest.mark.usefixtures("shop")
def test_two_processes_with_one_heartbeat_file(settings: Any) -> None:
    entry = {**WORKER, "HEARTBEAT_FILE": "/tmp/%n"}
    same = {**WORKER, "ARGS": {"queues": ["mail"]}, "HEARTBEAT_FILE": "/tmp/celery"}
    expected = [
        checks.Warning(
            f"HEARTBEAT_FILE = {path!r} is also that of the process {other}: on one"
            " machine only one of the two would start.",
            hint="Give each a file of its own.",
            obj=f"PRODUCTION_PROCESSES[{name!r}]",
            id="prodserver_celery5.W007",
        )
        for name, other, path in (("a", "b", "/tmp/%n"), ("b", "a", "/tmp/celery"))
    ]
    assert found(settings, a=entry, b=same) == expected
    for other in (
        {**entry, "ARGS": {"hostname": "mail@%h"}},
        {**entry, "HEARTBEAT_FILE": "/tmp/other"},
        {**BEAT, "HEARTBEAT_FILE": "/tmp/%n"},
        WORKER,
    ):
        assert found(settings, a=entry, b=other) == []


@pytest.mark.usefixtures("shop")
def test_entries_that_differ_in_their_heartbeat_file_have_their_own_names(
    settings: Any,
) -> None:
    reported = found(
        settings,
        a={**WORKER, "HEARTBEAT_FILE": "/no/a"},
        b={**WORKER, "HEARTBEAT_FILE": "/no/b"},
        c=WORKER,
    )
    assert [message.obj for message in reported] == [
        "PRODUCTION_PROCESSES['a']",
        "PRODUCTION_PROCESSES['b']",
    ]


@pytest.mark.usefixtures("shop")
@pytest.mark.parametrize(
    ("mode", "message"),
    [
        (0o300, ""),
        (0o500, "no file can be made in the folder {folder!r} here."),
        (0o600, "no file can be made in the folder {folder!r} here."),
    ],
)
def test_a_heartbeat_needs_a_folder_that_can_be_written_to(
    mode: int, message: str
) -> None:
    # Not in one of pytest's, which another user cannot enter.
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        backend = CeleryWorker(**WORKER, HEARTBEAT_FILE=f"{folder}/%n")
        assert [*backend.findings()] == []
        os.chmod(folder, mode)
        if root := os.getuid() == 0:  # who always may
            os.chown(folder, 65534, -1)
            os.setresuid(65534, 65534, 0)
        try:
            found = [*backend.findings()]
        finally:
            if root:
                os.setresuid(0, 0, 0)
            os.chmod(folder, 0o700)
    assert [finding.id for finding in found] == ["W006"] * bool(message)
    assert all(message.format(folder=folder) in finding.message for finding in found)


@pytest.mark.usefixtures("shop")
def test_a_heartbeat_needs_a_file_that_is_no_link(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("file")
    assert not [*CeleryWorker(**WORKER, HEARTBEAT_FILE=tmp_path / "file").findings()]
    link = CeleryWorker(**WORKER, HEARTBEAT_FILE=tmp_path / "link")
    (finding,) = link.findings()
    assert finding.id == "W006"


@pytest.mark.usefixtures("shop")
def test_a_heartbeat_needs_posix(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = CeleryWorker(**WORKER, HEARTBEAT_FILE="/tmp/w")
    assert [*backend.findings()] == []
    monkeypatch.setattr(os, "name", "nt")
    (finding,) = backend.findings()
    assert finding.id == "E012"
    assert finding.message.endswith(": it needs a POSIX system.")


@pytest.mark.usefixtures("shop")
@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({**WORKER, "HEARTBEAT_FILE": "run/%n"}, f"{os.getcwd()}/run/celery"),
        ({**WORKER, "HEARTBEAT_FILE": Path("/run/%n@%h")}, f"/run/celery@{HOST}"),
        (
            {
                **WORKER,
                "ARGS": {"hostname": "mail@shop"},
                "HEARTBEAT_FILE": lazystr("/run/%n-%h"),
            },
            "/run/mail-shop",
        ),
        (
            {**BEAT, "HEARTBEAT_FILE": SimpleLazyObject(lambda: Path("/run/%n-%h"))},
            f"/run/celerybeat-{HOST}",
        ),
    ],
)
def test_the_path_of_a_heartbeat(entry: dict[str, Any], expected: str) -> None:
    program = CeleryBeat if "Beat" in entry["BACKEND"] else CeleryWorker
    (key,) = (key for key in program.keys if key.name == "HEARTBEAT_FILE")
    assert key.read(program(**entry).entry) == expected


@pytest.mark.usefixtures("shop")
def test_each_mistake_of_each_entry_is_reported(settings: Any) -> None:
    args = {"beat": 1, "no-such": 1, "uid": "nobody-here"}
    reported = found(settings, a={**WORKER, "ARGS": args}, b={**BEAT, "APP": "nope"})
    ids = [str(message.id).partition(".")[2] for message in reported]
    assert ids == ["E007", "E006", "E004"]


@pytest.mark.usefixtures("shop")
def test_processes_that_share_an_entry_are_named_together(
    settings: Any,
) -> None:
    entry = {**WORKER, "ARGS": {"beat": 1}}
    (reported,) = found(settings, a=entry, b=BEAT, c=dict(entry))
    assert reported.obj == "PRODUCTION_PROCESSES['a'], PRODUCTION_PROCESSES['c']"


GOOD: list[dict[str, Any]] = [
    WORKER,
    BEAT,
    {**WORKER, "APP": "shop.app"},
    {**WORKER, "APP": lazystr("shop:app"), "ARGS": {"hostname": lazystr("w@%h")}},
    {**WORKER, "ARGS": {lazystr("queues"): [lazystr("a")]}},
    {**WORKER, "ARGS": {"loglevel": logging.INFO, "pool": "solo"}},
    {**WORKER, "GRACE_SECONDS": 25, "ARGS": {"pool": "solo"}},
    {**WORKER, "GRACE_SECONDS": 0.5},
    {**WORKER, "GRACE_SECONDS": SimpleLazyObject(lambda: 25)},
    {**WORKER, "GRACE_SECONDS": timedelta(minutes=1)},
    # As django-prodserver's own backends have it: strings, and None for a bare flag.
    {**WORKER, "ARGS": {"concurrency": "4", "time-limit": "9", "without-gossip": None}},
    {**WORKER, "ARGS": {"pool": "threads"}},
    {**WORKER, "ARGS": {"uid": "root", "gid": 0, "pidfile": "relative.pid"}},
    {**WORKER, "ARGS": {"workdir": "/", "pidfile": "tmp/w.pid"}},
    # Without beat, a worker ignores the schedule and the scheduler.
    {**WORKER, "ARGS": {"schedule": "/no/x", "scheduler": "no.such:Thing"}},
    # The DatabaseScheduler uses no file.
    {**BEAT, "ARGS": {"schedule": "/no/x", "scheduler": DATABASE}},
    {**BEAT, "ARGS": {"scheduler": PERSISTENT}},
    {**WORKER, "BACKEND": f"{__name__}.OurWorker"},
]


@pytest.mark.usefixtures("shop")
@pytest.mark.parametrize("entry", GOOD)
def test_nothing_wrong(settings: Any, entry: dict[str, Any]) -> None:
    assert found(settings, shop=entry) == []
    backend = CeleryBeat if entry["BACKEND"] == BEAT["BACKEND"] else CeleryWorker
    assert all(type(w) is str for w in backend(**entry).prep_server_args())


@pytest.mark.usefixtures("shop")
def test_a_backend_derived_from_ours(settings: Any) -> None:
    entry = {**WORKER, "BACKEND": f"{__name__}.OurWorker", "ARGS": {"beat": 1}}
    assert [message.id for message in found(settings, shop=entry)] == [
        "prodserver_celery5.E007"
    ]


@pytest.mark.parametrize(
    "entry",
    [
        {"BACKEND": "django_prodserver.backends.celery.CeleryWorker", "APP": "nope"},
        {"BACKEND": "django_prodserver.backends.gunicorn.GunicornServer", "ARGS": 5},
        {"BACKEND": "nowhere.Backend", "ARGS": {"x": object()}},
    ],
)
def test_other_backends_are_left_alone(settings: Any, entry: Any) -> None:
    before = set(sys.modules)
    assert found(settings, other=entry) == []
    assert set(sys.modules) == before


def test_an_app_that_is_missing_is_replaced_for_the_checks_alone() -> None:
    before = celery.current_app._get_current_object()
    (finding,) = CeleryWorker(APP="nowhere").findings()
    assert isinstance(finding.__cause__, ModuleNotFoundError)
    assert celery.current_app._get_current_object() is before


def test_no_processes(settings: Any) -> None:
    assert found(settings) == []


def test_the_apps_configuration_is_left_as_it_was(settings: Any, shop: Celery) -> None:
    shop.user_options["worker"].add(click.Option(["--own"]))
    before = dict(shop.conf.table()), list(shop.user_options["worker"])
    args = ["--own=1", "-c3", "worker.prefetch_multiplier=9"]
    assert found(settings, shop={**WORKER, "ARGS": args}, beat=BEAT) == []
    assert (dict(shop.conf.table()), list(shop.user_options["worker"])) == before


# In separate processes

PRELUDE = """
import os, socket, sys, threading
import django
from django.conf import settings

def refuse(*args, **kwargs):
    raise AssertionError("a check connects or starts something")

settings.configure(
    INSTALLED_APPS=["prodserver_celery5"], PRODUCTION_PROCESSES={processes!r}
)
django.setup()
from django.apps import apps
from django.core.checks import run_checks
"""


def run(code: str, processes: dict[str, Any], folder: Path) -> str:
    (folder / "shop.py").write_text(
        "from celery import Celery\n"
        "app = Celery('shop', broker='redis://127.0.0.1:1', backend='rpc://')\n"
    )
    prelude = PRELUDE.format(processes=processes)
    done = subprocess.run(
        [sys.executable, "-c", prelude + code],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(Path(backends.__file__).parents[1])},
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_project_without_celery_pays_nothing(tmp_path: Path) -> None:
    web = {"BACKEND": "django_prodserver.backends.gunicorn.GunicornServer"}
    code = "assert run_checks() == []\nprint(*sys.modules)"
    loaded = run(code, {"web": web}, tmp_path).split()
    assert "prodserver_celery5.checks" in loaded
    packages = {module.partition(".")[0] for module in loaded}
    assert packages.isdisjoint({"celery", "kombu", "click", "django_prodserver"})
    assert "prodserver_celery5.backends" not in loaded


@pytest.mark.parametrize("pool", ["prefork", "gevent", "eventlet", "solo", "threads"])
def test_the_checks_do_nothing_but_look(tmp_path: Path, pool: str) -> None:
    code = """
socket_class, connect = socket.socket, socket.socket.connect
socket.socket.connect = socket.create_connection = refuse
os.fork = os.execv = os.posix_spawn = threading.Thread.start = refuse
import shop
conf = shop.app.conf.table()
hooks, path, environment = list(sys.path_hooks), list(sys.path), dict(os.environ)
messages = run_checks()
assert all(message.id.endswith("W001") for message in messages), messages
assert shop.app.conf.table() == conf
assert socket.socket is socket_class
assert (sys.path_hooks, sys.path, dict(os.environ)) == (hooks, path, environment)
assert shop.app.amqp.__dict__.get("_producer_pool") is None
print(*sys.modules)
"""
    processes = {
        "worker": {**WORKER, "ARGS": {"pool": pool, "detach": True, "purge": True}},
        "beat": {**BEAT, "ARGS": {"detach": True}},
    }
    loaded = set(run(code, processes, tmp_path).split())
    assert "prodserver_celery5.backends" in loaded
    assert "celery.bin.celery" not in loaded
    pools = {m for m in loaded if m.startswith("celery.concurrency.")}
    assert pools <= {"celery.concurrency.base"}
    packages = {module.partition(".")[0] for module in loaded}
    assert packages.isdisjoint({"gevent", "eventlet"})
    assert not list(tmp_path.glob("celerybeat*"))


@pytest.mark.parametrize(
    ("backend", "reason"),
    [
        ("prodserver_celery5.backends.CeleryBackend", "AttributeError: .*"),
        ("prodserver_celery5.entry.Entry", r"TypeError: it is not a backend\."),
        ("prodserver_celery5", "ImportError: .*"),
        (f"{__name__}.MailWorker", "KeyError: 'ARGS'"),
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


@pytest.mark.parametrize(
    "pool",
    [
        "celery.concurrency.solo:TaskPool",
        "celery.concurrency.solo.TaskPool",
        "celery.concurrency.solo",
    ],
)
def test_the_path_of_a_pool(shop: Celery, pool: str) -> None:
    shop.conf.worker_pool = pool
    assert CeleryWorker(**WORKER).prep_server_args() == []
    shop.conf.worker_pool = "nowhere"
    (finding,) = CeleryWorker(**WORKER).findings()
    assert finding.message.startswith("pool = 'nowhere' needs the module 'nowhere',")


@pytest.mark.usefixtures("shop")
def test_a_backend_that_changes_args_is_known_by_the_rest(settings: Any) -> None:
    path = f"{__name__}.MailWorker"
    entry = {**WORKER, "BACKEND": path, "ARGS": {"concurency": 2}}
    messages = found(settings, shop=WORKER, mail=entry, sms={**entry, "APP": "shop"})
    assert [message.obj for message in messages] == [
        "PRODUCTION_PROCESSES['mail']",
        "PRODUCTION_PROCESSES['sms']",
    ]


def test_what_is_no_backend_of_ours_beside_an_app(settings: Any, shop: Celery) -> None:
    entry = {"BACKEND": "celery.Celery", "APP": "shop:app"}
    assert found(settings, worker=entry) == []


def test_embedded_beat_beside_a_beat_whose_app_is_missing(
    settings: Any, shop: Celery
) -> None:
    messages = found(
        settings,
        worker={**WORKER, "ARGS": {"beat": True}},
        beat={**BEAT, "APP": "shop_nowhere"},
    )
    assert [message.id for message in messages] == ["prodserver_celery5.E004"]


def test_a_pool_in_a_package_that_is_missing(shop: Celery) -> None:
    shop.conf.worker_pool = "shop_nowhere.pools:TaskPool"
    with pytest.raises(CommandError, match=r"module 'shop_nowhere\.pools'"):
        CeleryWorker(**WORKER).prep_server_args()


# What a check leaves to the start


class Counting:
    """A configuration that counts its reads."""

    broker_url = "memory://"
    sent = False

    def __init__(self) -> None:
        self.reads = 0

    def __getattribute__(self, name: str) -> Any:
        if name != "reads":
            self.reads += 1
        return super().__getattribute__(name)


@pytest.fixture
def conf(shop: Celery) -> Counting:
    """The configuration of an app that sends a message once it is configured."""
    conf = Counting()
    shop.config_from_object(conf)

    def send(**kwargs: Any) -> None:
        conf.sent = True
        raise RuntimeError("the broker is down")

    shop.on_after_configure.connect(send, weak=False)

    def read(ctx: click.Context, param: click.Parameter, value: str | None) -> str:
        return value or ctx.obj.app.conf.task_default_queue.upper()

    class Known(click.ParamType):
        name = "known"

        def convert(self, value: Any, param: Any, ctx: Any) -> Any:
            return {"a": ctx.obj.app.conf.task_default_queue.upper()}[value]

    class Own(click.Option):
        def process_value(self, ctx: click.Context, value: Any) -> Any:
            return ctx.obj.app.conf.task_default_queue

    def function(value: str) -> str:
        return f"{value}{shop.conf.task_default_queue}"

    for option in (
        click.Option(["--own"], callback=read),
        click.Option(["--known"], type=Known()),
        click.Option(["--shard"], default=lambda: shop.conf.worker_concurrency),
        click.Option(["--made"], type=function),
        click.Option(["--pair"], nargs=2, type=(function, Known())),
        click.Option(["--asked"], prompt=True),
        click.Option(["--file"], type=click.File()),
        Own(["--overridden"]),
    ):
        shop.user_options["preload"].add(option)
    return conf


@pytest.mark.parametrize(
    "args",
    [
        {},
        {"own": "x", "known": "a", "made": "b", "pair": ["c", "a"], "file": "/no/x"},
        {"loglevel": "INFO", "pidfile": "x", "schedule": "x"},
        {"scheduler": PERSISTENT, "schedule": "x"},
        "-l INFO -- worker.prefetch_multiplier=1",
        {"no-such": 1, "loglevel": "loud"},
    ],
)
@pytest.mark.parametrize("entry", [WORKER, BEAT])
def test_a_check_does_not_configure_the_app(
    settings: Any, conf: Counting, entry: dict[str, Any], args: Any
) -> None:
    embedded = {**WORKER, "ARGS": {"beat": True}}
    messages = found(settings, w=embedded, shop={**entry, "ARGS": args}, b=BEAT)
    assert conf.reads == 0
    assert not conf.sent
    ids = {str(message.id).partition(".")[2] for message in messages}
    assert ids == {"W005", *(("E006", "E007") if "no-such" in args else ())}


@pytest.mark.parametrize("backend", [CeleryWorker, CeleryBeat])
def test_a_start_configures_the_app(shop: Celery, conf: Counting, backend: Any) -> None:
    shop.user_options["preload"].clear()  # one of them asks
    backend(**WORKER).prep_server_args()
    assert conf.reads > 0
    assert conf.sent


def test_what_the_configuration_names_waits_for_the_start(
    settings: Any, shop: Celery, poorer: None
) -> None:
    shop.conf.update(
        beat_scheduler=DATABASE, worker_pool="gevent", worker_pidfile="/no/x"
    )
    assert found(settings, worker=WORKER, beat=BEAT) == []
    with pytest.raises(CommandError, match="needs 'django_celery_beat' in INSTALLED"):
        CeleryBeat(**BEAT).prep_server_args()
    with pytest.raises(CommandError, match="needs the module 'gevent'"):
        CeleryWorker(**WORKER).prep_server_args()
    shop.conf.worker_pool = "solo"
    if celery.VERSION >= (5, 3):
        with pytest.raises(CommandError, match="the folder '/no' does not exist"):
            CeleryWorker(**WORKER).prep_server_args()


# Lists


@pytest.mark.usefixtures("shop")
@pytest.mark.parametrize(
    ("args", "message", "hint"),
    [
        ({"queues": "a, b"}, "queues has ' b'", "Remove the space."),
        ({"queues": ["a", " b"]}, "queues has ' b'", "Remove the space."),
        ("-Q 'a ,b'", "queues has 'a '", "Remove the space."),
        (
            {"exclude_queues": "a,\n b"},
            "exclude_queues has '\\n b'",
            "Remove the space.",
        ),
        (["-I", "a,b "], "include has 'b '", "Remove the space."),
        ({"queues": ""}, "queues has ''", "Remove it."),
        ({"queues": "a,"}, "queues has ''", "Remove it."),
    ],
)
def test_the_space_in_a_list(settings: Any, args: Any, message: str, hint: str) -> None:
    entry = {**WORKER, "ARGS": args}
    assert found(settings, shop=entry) == [
        checks.Warning(
            f"{message}, which Celery takes as it is.",
            hint=hint,
            obj="PRODUCTION_PROCESSES['shop']",
            id="prodserver_celery5.W016",
        )
    ]
    CeleryWorker(**entry).prep_server_args()


def test_a_list_of_what_cannot_have_a_space(shop: Celery) -> None:
    ports = click.Option(["--ports"], callback=lambda ctx, param, value: [5555, 5556])
    shop.user_options["worker"].add(ports)
    backend = CeleryWorker(**WORKER)
    assert [*backend.findings()] == []
    assert backend.entry.context.params["ports"] == [5555, 5556]
