"""What happens to an entry when a private name of Celery's is gone."""

from __future__ import annotations

import ast
import re
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from celery import Celery, __version__
from celery.worker.consumer import Consumer
from django.core.management import CommandError

from prodserver_celery5 import checks
from prodserver_celery5.backends import CeleryBeat, CeleryWorker
from prodserver_celery5.heartbeat import loops
from prodserver_celery5.heartbeat.report import Heartbeat
from prodserver_celery5.leader import schedulers
from prodserver_celery5.options import errors
from prodserver_celery5.options.errors import OptionError
from prodserver_celery5.process import prefork, restart

from .test_rooms import PACKAGE

# Each name, ARGS that do not need it, and ARGS whose start or check says that it is
# missing. Without the last three, no ARGS can be read.
NAMES: dict[str, tuple[Any, Any]] = {
    "celery.app.defaults._TO_OLD_KEY": ({"concurrency": 2}, {"broker": "memory://"}),
    "celery.bin.base.LogLevel": (
        {"loglevel": "INFO", "concurrency": 2},
        {"loglevel": 20},
    ),
    "celery.bin.base.CommaSeparatedList": ({"queues": "a,b"}, {"queues": ["a"]}),
    "celery.bin.worker.Autoscale": ({"queues": ["a"]}, {"autoscale": (3, 10)}),
    "celery.concurrency.ALIASES": ({"concurrency": 2}, {"pool": "solo"}),
    "celery.platforms.parse_gid": ({"uid": 0}, {"gid": 0}),
    "celery.platforms.parse_uid": ({"gid": 0}, {"uid": 0}),
    "celery.utils.imports.load_extension_class_names": ({}, {"beat": True}),
    "celery.utils.nodenames.node_format": ({"concurrency": 2}, {"pidfile": "%n.pid"}),
    "celery.utils.nodenames.host_format": ({}, {"HEARTBEAT_FILE": "/tmp/%n"}),
    "celery.app.utils.find_app": (None, {}),
    "celery.bin.base.CLIContext": (None, {}),
    "celery.utils.imports.import_from_cwd": (None, {}),
}

# Only a heartbeat needs them: when the worker starts, and when its consumer is made.
STARTING = "celery.worker.state.maybe_shutdown"
CONNECTING = "celery.worker.consumer.consumer.maybe_shutdown"

# Only the checks need them, to put back what importing an app changes.
CHECKING = {
    "celery._state._get_active_apps",
    "celery._state._tls",
    "celery._state.default_app",
    "celery._state.set_default_app",
}

# Only a prefork worker with GRACE_SECONDS needs it, at its start.
ENDING = "celery.concurrency.asynpool.ResultHandler._flush_outqueue"

# What a beat with LEADER_LOCK asks of its scheduler, by the fence; tests of those say
# what happens when it is gone.
ATTRIBUTES = {
    "_Fenced": (),
    "_FencedDatabase": ("_dirty", "_schedule"),
    "_FencedFile": ("_store",),
    "_FencedRedBeat": ("lock_key",),
}


def worker(app: str, args: dict[str, Any]) -> CeleryWorker:
    """Make a worker from ARGS; uppercase keys are those of the entry."""
    keys = {key: value for key, value in args.items() if key.isupper()}
    args = {key: value for key, value in args.items() if key not in keys}
    return CeleryWorker(APP=app, ARGS=args, **keys)


def test_each_private_name_has_its_row() -> None:
    """And everything else that is imported from Celery is documented."""
    asked, imported = set(), set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "private":
                asked.add(".".join(map(ast.literal_eval, node.args)))
            if isinstance(node, ast.ImportFrom) and re.match(
                "celery|kombu", node.module or ""
            ):
                imported |= {f"{node.module}.{name.name}" for name in node.names}
    assert asked == NAMES.keys() | {STARTING, CONNECTING} | CHECKING | {ENDING}
    assert imported == {
        "celery.Celery", "celery.maybe_patch_concurrency", "celery.signals",
        "celery.beat.PersistentScheduler", "celery.beat.Scheduler", "celery.bootsteps",
        "celery.concurrency.solo", "celery.platforms.Pidfile",
        "celery.utils.imports.symbol_by_name",
        "celery.worker.consumer.consumer", "celery.worker.request.Request",
        "celery.worker.state", "kombu.transport.TRANSPORT_ALIASES",
    }  # fmt: skip


def test_each_attribute_of_a_scheduler_has_its_row() -> None:
    asked = {
        name: kind.needs
        for name, kind in vars(schedulers).items()
        if isinstance(kind, type) and issubclass(kind, schedulers._Fenced)
    }
    assert asked == ATTRIBUTES


@pytest.fixture
def hidden(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide a name from the package; Celery keeps it."""
    gone, _, name = request.param.rpartition(".")
    if gone.rpartition(".")[2][0].isupper():  # hide the class
        gone, _, name = gone.rpartition(".")

    def without(module: str) -> ModuleType | SimpleNamespace:
        real = import_module(module)
        if module != gone:
            return real
        rest = {key: value for key, value in vars(real).items() if key != name}
        return SimpleNamespace(**rest)

    monkeypatch.setattr(errors, "import_module", without)


@pytest.mark.parametrize(
    ("hidden", "args"),
    [(name, args) for name, (args, _) in NAMES.items() if args is not None],
    indirect=["hidden"],
)
@pytest.mark.usefixtures("hidden")
def test_a_right_entry_still_starts(args: Any) -> None:
    worker("prayer_room_api", args).prep_server_args()


@pytest.mark.parametrize(
    ("hidden", "name", "args"),
    [(name, name, args) for name, (_, args) in NAMES.items()],
    indirect=["hidden"],
)
@pytest.mark.usefixtures("hidden")
def test_what_needs_the_name_says_so(
    name: str, args: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = ModuleType("shop")
    # Without a namespace, Celery reads settings by their old names.
    module.app = Celery("shop", set_as_current=False, broker="memory://")
    monkeypatch.setitem(sys.modules, "shop", module)
    backend = worker("shop", args)
    found = [str(finding) for finding in backend.findings()]
    needs = f"Celery {__version__} has no {name}, which prodserver-celery5 needs."
    needs += " Upgrade prodserver-celery5, or install an older Celery."
    assert any(line.endswith(needs) for line in found)
    if any("left out" in line for line in found):
        assert found == [f"worker: a check is left out: {needs}"]


@pytest.mark.parametrize(
    "hidden", ["celery.utils.imports.load_extension_class_names"], indirect=True
)
@pytest.mark.usefixtures("hidden")
def test_beat_starts_without_what_a_check_needs() -> None:
    assert CeleryBeat(APP="prayer_room_api").prep_server_args() == []


@pytest.mark.parametrize("hidden", ["celery.bin.base.CLIContext"], indirect=True)
@pytest.mark.usefixtures("hidden")
def test_a_start_that_cannot_be_is_one_line() -> None:
    with pytest.raises(CommandError) as stopped:
        CeleryWorker(APP="prayer_room_api").prep_server_args()
    assert "\n" not in str(stopped.value)


@pytest.mark.parametrize("hidden", [STARTING], indirect=True)
@pytest.mark.parametrize("where", ["HEARTBEAT_FILE", "NOTIFY_SOCKET"])
@pytest.mark.usefixtures("hidden")
def test_only_a_heartbeat_needs_it(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restart, "on_sighup", lambda app: None)
    monkeypatch.setattr(prefork, "share_memory", lambda pool: None)
    monkeypatch.setenv("NOTIFY_SOCKET", "")
    args: dict[str, Any] = {"pool": "solo"}
    backend = worker("prayer_room_api", args)
    backend.prepare(backend.entry.context, [])
    if where == "NOTIFY_SOCKET":
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "socket"))
    else:
        args["HEARTBEAT_FILE"] = tmp_path / "file"
    backend = worker("prayer_room_api", args)
    with pytest.raises(OptionError, match=f" has no {STARTING}, which") as stopped:
        backend.prepare(backend.entry.context, [])
    assert str(stopped.value.where) == where


@pytest.mark.parametrize("hidden", [CONNECTING], indirect=True)
@pytest.mark.usefixtures("hidden")
def test_a_consumer_with_a_heartbeat_needs_it() -> None:
    """Later than at the start: what a pool replaces must not be imported before."""
    app = Celery("shop", set_as_current=False, broker="memory://")
    loops.attach_to_worker(app, Heartbeat([]))
    with pytest.raises(OptionError, match=f" has no {CONNECTING}, ") as stopped:
        Consumer(print, app=app, controller=SimpleNamespace(use_eventloop=False))
    assert str(stopped.value.where) == "the heartbeat"


@pytest.mark.parametrize(
    ("hidden", "name"), [(name, name) for name in sorted(CHECKING)], indirect=["hidden"]
)
@pytest.mark.usefixtures("hidden")
def test_only_the_checks_need_it(name: str) -> None:
    worker("prayer_room_api", {"pool": "solo"}).prep_server_args()
    (message,) = checks.check_processes()
    assert message.id == "prodserver_celery5.W012"
    assert message.msg == (
        f"the entries are not checked: Celery {__version__} has no {name}, which"
        " prodserver-celery5 needs."
    )
    assert message.hint == "Upgrade prodserver-celery5, or install an older Celery."


@pytest.mark.parametrize("hidden", [ENDING], indirect=True)
@pytest.mark.usefixtures("hidden")
def test_only_grace_seconds_needs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restart, "on_sighup", lambda app: None)
    monkeypatch.setattr(prefork, "share_memory", lambda pool: None)
    backend = worker("prayer_room_api", {"pool": "prefork"})
    backend.prepare(backend.entry.context, [])
    backend = worker("prayer_room_api", {"pool": "prefork", "GRACE_SECONDS": 9})
    with pytest.raises(OptionError, match=f" has no {ENDING}, which") as stopped:
        backend.prepare(backend.entry.context, [])
    assert str(stopped.value.where) == "GRACE_SECONDS"
