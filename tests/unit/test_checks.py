"""What the system checks find, and what they leave alone."""

from __future__ import annotations

import ast
import logging
import math
import os
import re
import subprocess
import sys
from datetime import timedelta
from importlib import import_module
from pathlib import Path
from typing import Any

import celery
import click
import pytest
from celery import Celery
from django.core import checks
from django.core.management import CommandError
from django.utils.functional import SimpleLazyObject, lazystr

from prodserver_celery5 import backends, findings
from prodserver_celery5.backends import CeleryBeat, CeleryWorker
from prodserver_celery5.pytest_plugin.process import DEADLINE

from . import entries
from .entries import (
    APP_TAKES,
    BEAT,
    DATABASE,
    LED,
    PERSISTENT,
    WORKER,
    found,
)
from .options.helpers import invalid

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
        "E006",
        {**WORKER, "ARGS": {"GRACE_SECONDS": 25}},
        f"ARGS['GRACE_SECONDS'] = 25: Celery {celery.__version__}'s worker has no such"
        " option.",
        "A key of the entry stands beside ARGS, not in it.",
    ),
    *(
        (
            "E010",
            {**WORKER, key: 2},
            f"the key {key!r} is unknown.",
            "It is an option: put it into ARGS.",
        )
        for key in ("concurrency", "prefetch_multiplier")
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
        "A worker can have BACKEND, APP, ARGS, GRACE_SECONDS and HEARTBEAT_FILE.",
    ),
    (
        "E010",
        {**WORKER, "LEADER_LOCK": "default"},
        "the key 'LEADER_LOCK' is for a beat.",
        "A worker can have BACKEND, APP, ARGS, GRACE_SECONDS and HEARTBEAT_FILE.",
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
        "the key 'GRACE_SECONDS' is for a worker.",
        "A beat can have BACKEND, APP, ARGS, HEARTBEAT_FILE and LEADER_LOCK.",
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
        "Leave it to what starts the process, such as systemd or Docker.",
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
    {**WORKER, "BACKEND": f"{entries.__name__}.OurWorker"},
]


@pytest.mark.usefixtures("shop")
@pytest.mark.parametrize("entry", GOOD)
def test_nothing_wrong(settings: Any, entry: dict[str, Any]) -> None:
    assert found(settings, shop=entry) == []
    backend = CeleryBeat if entry["BACKEND"] == BEAT["BACKEND"] else CeleryWorker
    assert all(type(w) is str for w in backend(**entry).prep_server_args())


def test_an_app_that_is_missing_is_replaced_for_the_checks_alone() -> None:
    before = celery.current_app._get_current_object()
    (finding,) = CeleryWorker(APP="nowhere").findings()
    assert isinstance(finding.__cause__, ModuleNotFoundError)
    assert celery.current_app._get_current_object() is before


def test_no_processes(settings: Any) -> None:
    assert found(settings) == []


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
