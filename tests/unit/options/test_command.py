"""What the installed Celery makes of the words."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import celery
import click
import pytest
from celery import Celery, bootsteps
from celery.bin import worker

from prodserver_celery5.options.command import Command, command_line, run
from prodserver_celery5.options.errors import UnknownOptionError
from tests import parsing

from .helpers import error, parse

VERSION = celery.__version__


@pytest.mark.parametrize(
    ("program", "key", "nearest"),
    [
        ("worker", "concurency", "Did you mean 'concurrency'?"),
        ("worker", "c", "Did you mean 'concurrency'?"),
        ("worker", "-c", "Did you mean 'concurrency'?"),
        ("worker", "--concurrency", "Did you mean 'concurrency'?"),
        ("worker", "quite", "Did you mean 'quiet'?"),
        ("beat", "max-intervall", "Did you mean 'max-interval'?"),
        ("beat", "concurrency", ""),
        ("worker", "---", ""),
        ("worker", "xyzzy", ""),
    ],
)
def test_an_unknown_key(app: Celery, program: str, key: str, nearest: str) -> None:
    found = error(app, {key: 1}, program)
    assert isinstance(found, UnknownOptionError)
    assert str(found.where) == f"ARGS[{key!r}] = 1"
    assert str(found) == f"Celery {VERSION}'s {program} has no such option."
    assert found.hint == nearest


@pytest.mark.parametrize("words", ["--concurency=4", ["--concurency", "4"]])
def test_an_unknown_word(app: Celery, words: Any) -> None:
    found = error(app, words)
    assert str(found.where) == "ARGS --concurency"
    assert found.hint == "Did you mean 'concurrency'?"


def test_what_is_honoured(app: Celery) -> None:
    args = {"workdir": Path("/"), "no-color": True, "quiet": True, "concurrency": 2}
    context = parse(app, args)
    assert context.obj.no_color is True
    assert context.obj.quiet is True
    assert context.obj.workdir == Path("/")
    assert command_line("proj", context) == [
        "celery", "--app=proj", "--workdir=/", "--no-color", "--quiet", "worker",
        "--concurrency=2",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("envvar", "set_", "named"),
    [
        (None, None, "CELERY_WORKER_SPEED"),
        ("SPEED", None, "SPEED"),
        ("SPEED", "CELERY_WORKER_SPEED", "CELERY_WORKER_SPEED"),
        (["SPEED", "PACE"], None, "SPEED"),
        (["SPEED", "PACE"], "PACE", "PACE"),
    ],
)
def test_the_variable_of_an_option(
    app: Celery, monkeypatch: pytest.MonkeyPatch, envvar: Any, set_: Any, named: str
) -> None:
    """The one that is set, or else the first that the option reads."""
    if set_:
        monkeypatch.setenv(set_, "5")
    option = click.Option(["--speed"], envvar=envvar)
    assert Command("worker", app).variable(option) == named


@pytest.mark.skipif(celery.VERSION < (5, 3), reason="Celery 5.3 added --skip-checks")
def test_skip_checks(app: Celery, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CELERY_SKIP_CHECKS", "")
    monkeypatch.setattr(worker, "maybe_drop_privileges", lambda **kwargs: None)
    app.Worker = lambda **kwargs: SimpleNamespace(start=lambda: None, exitcode=3)
    context = parse(app, {"skip-checks": True})
    assert command_line("proj", context)[2] == "--skip-checks"
    assert os.environ["CELERY_SKIP_CHECKS"] == ""
    assert run(context) == 3
    assert os.environ["CELERY_SKIP_CHECKS"] == "true"


@pytest.mark.parametrize("program", ["worker", "beat"])
def test_a_variable_starts_no_help(
    app: Celery, monkeypatch: pytest.MonkeyPatch, program: str
) -> None:
    """Of click before 8.5 it would print Celery's, and end the check."""
    monkeypatch.setenv(f"CELERY_{program.upper()}_HELP", "1")
    assert parsing.mistakes(program, app, {}) == []


@pytest.mark.parametrize(
    "variable", ["APP", "BROKER_URL", "RESULT_BACKEND", "LOADER", "CONFIG_MODULE"]
)
def test_variables_of_celery_itself_are_not_read(
    app: Celery, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, "x")
    assert parsing.mistakes("worker", app, {}) == []


def test_parsing_starts_nothing(app: Celery, monkeypatch: pytest.MonkeyPatch) -> None:
    def started(*args: object, **kwargs: object) -> None:
        raise AssertionError

    app.Worker = app.Beat = started
    for name in ("fork", "execv", "chdir", "setuid", "setgid", "umask"):
        monkeypatch.setattr(os, name, started)
    args = {"detach": True, "workdir": "/", "uid": "nobody", "gid": 7, "umask": "022"}
    for program in ("worker", "beat"):
        assert parse(app, args, program).params["detach"] is True


def test_the_apps_configuration_is_left_as_it_was(app: Celery) -> None:
    before = app.conf.table()
    parse(app, ["-c", "3", "worker.prefetch_multiplier=9"])
    assert app.conf.table() == before


def test_without_the_import_of_the_pool(app: Celery) -> None:
    argv = ["--pool=solo"]
    assert Command("worker", app).parse(argv).params["pool"] == "solo"
    assert isinstance(parse(app, argv).params["pool"], type)


def test_an_own_option_that_opens_a_file(app: Celery, tmp_path: Path) -> None:
    """It stays open until the program ends."""
    (tmp_path / "file").touch()
    app.user_options["worker"].add(click.Option(["--own"], type=click.File()))
    context = parse(app, {"own": tmp_path / "file"})
    assert not context.params["own"].closed
    context.close()


def test_an_own_option_reaches_a_bootstep(
    app: Celery, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Step(bootsteps.Step):
        def __init__(self, parent: Any, own: str = "", **options: Any) -> None:
            super().__init__(parent, **options)
            seen.append(own)

    seen: list[str] = []
    monkeypatch.setattr(worker, "maybe_drop_privileges", lambda **kwargs: None)
    monkeypatch.setattr(app.Worker, "start", lambda self: None)
    app.user_options["worker"].add(click.Option(["--own"]))
    app.steps["worker"].add(Step)
    app.conf.broker_url = "memory://"
    # Celery warns when it runs as root.
    monkeypatch.setattr("celery.apps.worker.check_privileges", lambda accept: None)
    argv = parsing.words("worker", app, {"own": "here", "pool": "solo"})
    run(parse(app, argv))
    assert seen == ["here"]
