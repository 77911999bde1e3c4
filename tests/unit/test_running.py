"""From Celery's own command to the exit status, and how tests start processes."""

from __future__ import annotations

import atexit
import gc
import io
import os
import re
import sys
from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import Any

import celery
import celery.app.utils
import celery.utils.dispatch
import click
import psutil
import pytest
from celery import Celery, concurrency, signals
from django.core import checks
from django.core.management import CommandError

from prodserver_celery5.backends import CeleryBackend, CeleryBeat, CeleryWorker
from prodserver_celery5.checks import check_processes
from prodserver_celery5.entry import Entry
from prodserver_celery5.findings import Finding, Where
from prodserver_celery5.grace import shutdown
from prodserver_celery5.heartbeat import loops
from prodserver_celery5.heartbeat.key import WorkerHeartbeat
from prodserver_celery5.key import Start
from prodserver_celery5.leader import schedulers
from prodserver_celery5.options import command, spelling
from prodserver_celery5.options.errors import OptionError
from prodserver_celery5.process import green, prefork, restart
from prodserver_celery5.pytest_plugin.process import ProcessError, StartedProcess
from tests import parsing
from tests.deployment import is_alive, wait_until


def started(monkeypatch: pytest.MonkeyPatch, ending: BaseException) -> Any:
    """Run a worker whose constructor raises."""
    app = Celery("proj", set_as_current=False)

    def worker(**kwargs: Any) -> None:
        raise ending

    monkeypatch.setattr(app, "Worker", worker)
    return command.run(parsing.parse("worker", app, []))


def test_ctrl_c_before_the_program_has_its_handlers(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert started(monkeypatch, KeyboardInterrupt()) == 1
    assert capsys.readouterr().err == "Aborted!\n"


def test_an_error_that_the_command_reports_by_click(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert started(monkeypatch, click.UsageError("not so")) == 2
    assert "not so" in capsys.readouterr().err


@pytest.mark.parametrize("status", [0, 1, 73])
def test_the_status_that_the_command_ends_with(
    monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    assert started(monkeypatch, click.exceptions.Exit(status)) == status


class Solo:
    """A pool that does not fork."""


class Prefork(Solo):
    """A pool that forks, going by its module's name."""

    __module__ = "celery.concurrency.prefork"


class Own(Prefork):
    """A project's own pool."""


@pytest.mark.parametrize("by", ["signal", "fork", "signal fork"])
@pytest.mark.parametrize(("pool", "freezes"), [(Solo, 0), (Own, 1), (None, 0)])
def test_what_is_loaded_is_frozen_once(
    monkeypatch: pytest.MonkeyPatch, pool: object, freezes: int, by: str
) -> None:
    """Before the first fork, for which Celery before 5.3 sends no signal."""
    hooks: list[Any] = []
    done: list[str] = []
    monkeypatch.setattr(os, "register_at_fork", lambda before: hooks.append(before))
    monkeypatch.setattr(atexit, "register", lambda call: done.append(call.__name__))
    monkeypatch.setattr(gc, "collect", lambda: done.append("collect"))
    monkeypatch.setattr(gc, "freeze", lambda: done.append("freeze"))
    signal = celery.utils.dispatch.Signal(name="worker_before_create_process")
    monkeypatch.setattr(signals, signal.name, signal, raising=False)
    before = gc.isenabled(), gc.get_threshold()
    prefork.share_memory(pool)
    assert done == []
    for told in by.split():
        for tell in hooks if told == "fork" else [lambda: signal.send(sender=pool)]:
            tell()
    assert done == ["collect", "freeze", "unfreeze"] * freezes
    assert (gc.isenabled(), gc.get_threshold()) == before


def test_arguments_that_prep_server_args_did_not_make() -> None:
    backend = CeleryWorker(APP="prayer_room_api")
    with pytest.raises(CommandError, match=r"worker: .*no such option") as raised:
        backend.start_server("--concurency=2")
    assert isinstance(raised.value.__cause__, command.UnknownOptionError)


@pytest.mark.parametrize(
    ("words", "where", "message"),
    [
        (
            ["--without-gossip=5"],
            "ARGS",
            "--without-gossip.* does not take a value.?",
        ),
        (
            ["--pool=solo"],
            "ARGS --pool=solo",
            "Celery cannot read it: RuntimeError: no pool",
        ),
    ],
)
def test_a_mistake_that_celery_finds(
    words: list[str], where: str, message: str, tmp_path: Path, monkeypatch: Any
) -> None:
    (tmp_path / "own_pool.py").write_text('raise RuntimeError("no pool")')
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(concurrency.ALIASES, "solo", "own_pool:Pool")
    app = Celery("proj", set_as_current=False)
    with pytest.raises(OptionError) as raised:
        command.import_pool(command.Command("worker", app).parse(words))
    assert str(raised.value.where) == where
    assert re.search(f"{message}$", str(raised.value))


def test_a_mistake_in_a_variable_that_celery_does_not_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CELERY_WORKER_AUTOSCALE", "a,b")
    app = Celery("proj", set_as_current=False)
    (mistake,) = parsing.mistakes("worker", app, {"concurrency": 2})
    assert str(mistake.where) == "CELERY_WORKER_AUTOSCALE = 'a,b'"
    assert str(mistake).startswith("it takes one or two numbers, the maximum first, ")


@pytest.mark.parametrize("seen", [lambda app: app, command.Unconfigured])
def test_an_argument_of_the_app_is_no_key(seen: Any) -> None:
    app = Celery("proj", set_as_current=False)
    app.user_options["worker"].add(click.Argument(["words"], nargs=-1))
    with pytest.raises(command.UnknownOptionError):
        parsing.words("worker", seen(app), {"words": "x"})


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Start an entry up to where Celery's code would run; return its status."""
    monkeypatch.setattr(Entry, "running", False)
    monkeypatch.setattr(sys, "argv", list(sys.argv))
    monkeypatch.setattr(command, "run", lambda context: 73)
    monkeypatch.setattr(prefork, "share_memory", lambda pool: None)

    def start(backend: CeleryBackend) -> object:
        with pytest.raises(SystemExit) as raised:
            backend.start_server(*backend.prep_server_args())
        return raised.value.code

    return start


def test_django_runs_the_checks_until_the_program_runs(
    ended: Any, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Celery would run the checks again, and discard what they find."""
    settings.PRODUCTION_PROCESSES = None
    assert [found.id for found in checks.run_checks()] == ["prodserver_celery5.E016"]
    monkeypatch.setattr(command, "run", lambda context: checks.run_checks())
    assert ended(CeleryWorker(APP="prayer_room_api")) == []


@pytest.mark.parametrize("backend", [CeleryWorker, CeleryBeat])
def test_the_process_ends_with_the_status_of_the_program(
    ended: Any, backend: type[CeleryBackend]
) -> None:
    assert ended(backend(APP="prayer_room_api")) == 73


def test_an_output_without_an_encoding(
    ended: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    ended(CeleryWorker(APP="prayer_room_api", ARGS={"queues": "m\u00f6bel"}))
    line = sys.stdout.getvalue()  # type: ignore[attr-defined] # of a StringIO
    assert line == "celery --app=prayer_room_api worker '--queues=m\\xf6bel'\n"


def test_a_program_that_cannot_be_started_again(
    ended: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def restarted(library: str) -> None:
        raise restart.RestartError("start it from a file.")

    monkeypatch.setattr(green, "needed_by", lambda pool: "gevent")
    monkeypatch.setattr(green, "restart", restarted)
    with pytest.raises(CommandError, match=r"^worker: start it from a file\.$"):
        CeleryWorker(APP="prayer_room_api").start_server()


def test_what_celery_lacks_once_it_runs(
    ended: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(context: Any) -> None:
        raise OptionError("Celery has no such place.", "", Where("the heartbeat"))

    monkeypatch.setattr(command, "run", run)
    with pytest.raises(CommandError) as error:
        CeleryWorker(APP="prayer_room_api", ARGS={"pool": "solo"}).start_server()
    assert str(error.value) == "worker: the heartbeat: Celery has no such place."


def test_no_password_in_the_line_at_start(
    ended: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    app = Celery("proj", set_as_current=False)
    app.user_options["worker"].add(click.Option(["--my-password"]))
    monkeypatch.setattr(Entry, "app", app)
    args = ["--my-password", "s3cret", "--hostname=amqp://me:s3cret@host//"]
    ended(CeleryWorker(APP="proj", ARGS=args))
    assert capsys.readouterr().out == (
        "celery --app=proj worker --my-password ** '--hostname=amqp://me:**@host//'\n"
    )


def test_no_password_of_a_variable_in_a_mistake(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    secret = "amqp://me:s3cret@host//"
    monkeypatch.setenv("CELERY_WORKER_CONCURRENCY", secret)
    monkeypatch.setenv("CELERY_WORKER_PREFETCH_MULTIPLIER", secret)
    app = Celery("proj", set_as_current=False)
    (mistake,) = parsing.mistakes("worker", app, None)
    finding = str(Finding("E007", (), str(mistake), where=mistake.where))
    assert " = 'amqp://me:**@host//': " in finding
    assert "s3cret" not in finding


def test_the_pool_is_its_class_when_the_program_starts(
    ended: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[object] = []
    monkeypatch.setattr(
        command, "run", lambda context: seen.append(context.params["pool"])
    )
    ended(CeleryWorker(APP="prayer_room_api", ARGS={"pool": "solo"}))
    assert isinstance(seen[0], type)


@pytest.mark.parametrize("detach", [True, False])
def test_a_worker_that_detaches_leaves_celery_its_words(
    ended: Any, monkeypatch: pytest.MonkeyPatch, detach: bool
) -> None:
    # Celery runs `python -m celery` with the words in sys.argv.
    monkeypatch.setenv("PYTHONPATH", "")
    ended(CeleryWorker(APP="prayer_room_api", ARGS={"detach": detach}))
    words = ["celery", "--app=prayer_room_api", "worker", "--detach"]
    assert (sys.argv == words) is detach


def test_the_processes_of_a_mistake_at_start_are_all_named(settings: Any) -> None:
    entry = {
        "BACKEND": "prodserver_celery5.backends.CeleryWorker",
        "APP": "prayer_room_api",
    }
    settings.PRODUCTION_PROCESSES = {"one": entry, "two": entry}
    with pytest.raises(
        CommandError, match=r"^one, two: on the command line, --nosuch: "
    ):
        CeleryWorker(**entry).start_server("--nosuch")


def test_an_entry_is_looked_at_once(
    ended: Any, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once at a start, and once per entry in a check."""
    counted: Counter[str] = Counter()

    def count(owner: Any, name: str) -> None:
        real = getattr(owner, name)

        def counting(*args: Any, **kwargs: Any) -> Any:
            # Not find_app()'s calls of itself, which have keyword arguments.
            counted[name] += not kwargs
            return real(*args, **kwargs)

        monkeypatch.setattr(owner, name, counting)

    count(celery.app.utils, "find_app")
    count(spelling, "spell")
    count(command.Command, "parse")
    entry = {"APP": "prayer_room_api", "ARGS": {"concurrency": 2}}
    ended(CeleryWorker(**entry))
    assert counted == {"find_app": 1, "spell": 1, "parse": 1}

    counted.clear()
    monkeypatch.setattr(Entry, "running", False)
    settings.PRODUCTION_PROCESSES = {
        name: {**entry, "BACKEND": "prodserver_celery5.backends.CeleryWorker"}
        for name in ("one", "two")
    }
    assert check_processes() == []
    assert counted == {"find_app": 2, "spell": 2, "parse": 2}


class CeleryEvents(CeleryBackend):
    """A third program."""

    program = "events"


@pytest.mark.filterwarnings("ignore:The parameter -d is used")  # Celery's own
def test_another_program_has_no_rule_of_worker_or_beat(
    ended: Any, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = {
        "BACKEND": f"{__name__}.CeleryEvents",
        "APP": "prayer_room_api",
        # A worker or beat would not start: the folder and the user do not exist.
        "ARGS": {"dump": True, "pidfile": "/no/x", "uid": "nobody-here"},
    }
    settings.PRODUCTION_PROCESSES = {"events": entry}
    assert check_processes() == []
    assert ended(CeleryEvents(**entry)) == 73

    monkeypatch.setattr(Entry, "running", False)
    wrong = {**entry, "ARGS": {"dmup": True}}
    settings.PRODUCTION_PROCESSES = {"events": wrong}
    (message,) = check_processes()
    assert message.hint == "Did you mean 'dump'?"


def test_a_worker_has_its_time_to_end_in(
    ended: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[float] = []
    monkeypatch.setattr(shutdown, "apply", given.append)
    ended(CeleryWorker(APP="prayer_room_api"))
    ended(CeleryWorker(APP="prayer_room_api", GRACE_SECONDS=timedelta(seconds=25)))
    assert given == [25.0]


def test_a_heartbeat_begins_before_the_program(
    ended: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = {"APP": "prayer_room_api", "HEARTBEAT_FILE": tmp_path / "file"}
    begun: list[Any] = []
    monkeypatch.setattr(loops, "attach_to_worker", lambda _, beat: begun.append(beat))
    ended(CeleryWorker(**entry))
    assert " state=starting " in (tmp_path / "file").read_text()
    begun[0].end()
    (tmp_path / "file").mkdir()
    made = CeleryWorker(**entry).entry
    with pytest.raises(CommandError) as refused:
        WorkerHeartbeat().prepare(Start(made, made.context))
    file = tmp_path / "file"
    assert str(refused.value) == f"worker: HEARTBEAT_FILE {file}: Is a directory."


@pytest.mark.parametrize("args", [{}, {"detach": True}])
def test_what_a_beat_says_reaches_whoever_listens(
    ended: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, args: dict[str, Any]
) -> None:
    """A lead and the loop say it; a detached beat says it from where it has gone."""
    leads: list[Any] = []
    loops_: list[Any] = []
    monkeypatch.setattr(schedulers, "enter", lambda start, _: leads.append(start))
    monkeypatch.setattr(loops, "attach_to_beat", lambda _, beat: loops_.append(beat))
    file = tmp_path / "file"
    lock = {} if args else {"LEADER_LOCK": "default"}
    ended(CeleryBeat(APP="prayer_room_api", ARGS={}, **lock))
    assert (len(leads), loops_) == (len(lock), [])
    beat = CeleryBeat(APP="prayer_room_api", ARGS=args, HEARTBEAT_FILE=file, **lock)
    ended(beat)
    (heartbeat,) = loops_
    assert [start.say for start in leads[1:]] == [heartbeat.say] * len(lock)
    assert file.exists() == (not args)
    heartbeat.end()


def test_an_app_that_cannot_be_imported_when_the_program_starts() -> None:
    with pytest.raises(CommandError, match="APP = 'nowhere' cannot be imported"):
        CeleryWorker(APP="nowhere").start_server()


def test_the_text_of_a_remote_shutdown_is_no_status(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Celery 5.0 to 5.2 return it."""
    context = parsing.parse("worker", Celery("proj", set_as_current=False), [])
    monkeypatch.setattr(context.command, "callback", lambda **kwargs: "Got shutdown")
    assert command.run(context) == 0
    monkeypatch.setattr(context.command, "callback", lambda **kwargs: 73)
    assert command.run(context) == 73


def test_a_process_on_the_terminal_has_no_output_here(tmp_path: Path) -> None:
    with StartedProcess(
        ["true"], log=None, cwd=tmp_path, env={"PATH": "/usr/bin"}
    ) as process:
        assert process.wait() == 0
        assert process.stop() == 0
        assert process.output == ""


def test_a_process_says_itself_when_it_is_ready(tmp_path: Path) -> None:
    code = (
        "import os, socket, time\n"
        "said = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)\n"
        "for message in (b'STATUS=starting', b'STATUS=ready\\nREADY=1', b'READY=1'):\n"
        "    said.sendto(message, os.environ['NOTIFY_SOCKET'])\n"
        "    time.sleep(0.2)\n"
    )
    with StartedProcess(
        [sys.executable, "-c", code],
        log=tmp_path / "log",
        cwd=tmp_path,
        env={},
        notify=True,
    ) as process:
        process.wait_until_ready()
        process.wait_until_ready(count=2)
        with pytest.raises(ProcessError, match="ended with 0; awaited: READY=1 on"):
            process.wait_until_ready(count=3)
        expected = ["STATUS=starting", "STATUS=ready", "READY=1", "READY=1"]
        assert process.notified == expected
    # What it said outlives the process and the socket.
    assert process.notified == expected


def test_a_process_that_never_says_so(tmp_path: Path) -> None:
    with (
        StartedProcess(
            ["sleep", "60"], log=None, cwd=tmp_path, env=dict(os.environ), notify=True
        ) as process,
        pytest.raises(ProcessError, match=r"took longer than 0\.1 s; awaited: READY"),
    ):
        process.wait_until_ready(timeout=0.1)


def test_a_process_is_killed_with_its_group(tmp_path: Path) -> None:
    """Its children would live on, and keep what they hold."""
    pids = tmp_path / "pids"
    code = f"sleep 60 & echo $! > {pids}; wait"
    with StartedProcess(
        ["sh", "-c", code], log=None, cwd=tmp_path, env=dict(os.environ)
    ):
        wait_until(lambda: pids.exists() and pids.read_text().strip())
        child = psutil.Process(int(pids.read_text()))
    wait_until(lambda: not is_alive(child))
