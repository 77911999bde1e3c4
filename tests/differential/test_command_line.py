"""ARGS against the installed Celery's command line, option by option.

A recorder replaces Celery's worker and beat: ARGS must give it exactly what
`celery worker …` gives it.
"""

from __future__ import annotations

import logging
import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import pytest
from celery import Celery, signals
from celery.bin import beat, worker
from celery.bin.base import CommaSeparatedList, LogLevel
from celery.bin.celery import celery
from celery.bin.worker import Autoscale
from click.types import FloatParamType, IntParamType

from prodserver_celery5.options.command import command_line, run
from prodserver_celery5.options.errors import OptionError
from tests.parsing import mistakes, parse

COMMANDS = {"worker": worker.worker, "beat": beat.beat}


@dataclass
class Case:
    """ARGS, and the words after ``celery worker`` that must do the same."""

    program: str
    args: Any
    words: list[str]
    above: list[str] = field(default_factory=list)  # before the word `worker`
    env: dict[str, str] = field(default_factory=dict)
    refused: bool | None = None  # by Celery; None: maybe


# Both ways to the recorder


def make_app(calls: list[Any]) -> Celery:
    """Make an app whose worker and beat only record their arguments."""

    class Recorder:
        exitcode = 0

        def __init__(self, *args: object, **kwargs: object) -> None:
            calls.append((args, kwargs, os.getcwd()))

        def start(self) -> None:
            calls.append("start")

        run = start

    app = Celery("recorded", set_as_current=False)
    app.Worker = app.Beat = Recorder
    for name in ("worker", "beat"):
        app.user_options[name].add(click.Option([f"--{name}-own"], type=int))
    app.user_options["preload"].add(click.Option(["--both-own"], multiple=True))
    return app


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recorded")
    (folder / "sub").mkdir()
    return folder


@pytest.fixture(scope="session")
def known() -> dict[Any, Any]:
    """The command line's outcome per words and environment, which many ARGS share."""
    return {}


@pytest.fixture
def outcomes(
    monkeypatch: pytest.MonkeyPatch, folder: Path, known: dict[Any, Any]
) -> Iterator[Any]:
    """Return a case's outcomes: from the command line, from ARGS, and as shown."""
    calls: list[Any] = []

    def note(*args: Any, **kwargs: Any) -> None:
        calls.append((args, kwargs))

    for module in (worker, beat):
        monkeypatch.setattr(module, "maybe_drop_privileges", note)
    # Real processes test the path and words that it gets, too.
    monkeypatch.setattr(worker, "detach", lambda *_, app, **kw: note(**kw))
    monkeypatch.setattr(
        beat, "detached", lambda *args, **kw: nullcontext(note(*args, **kw))
    )
    signals.user_preload_options.connect(
        note_preload := lambda **kw: note(kw["options"])
    )

    def outcome(run: Any) -> Any:
        calls.clear()
        with monkeypatch.context() as patch:
            patch.chdir(folder)
            # `celery` adds the app's options to its subcommands permanently.
            for command in celery.commands.values():
                patch.setattr(command, "params", list(command.params))
                patch.setattr(command, "callback", command.callback)
            # Set first, so that monkeypatch restores it even if the run sets it.
            patch.setenv("CELERY_SKIP_CHECKS", "")
            patch.delenv("CELERY_SKIP_CHECKS")
            app = make_app(calls)
            try:
                run(app, patch)
            except (click.ClickException, OptionError):
                return "refused"
            except (AttributeError, ImportError):
                # Celery raises these for --autoscale=a,b and --pool=eventlet.
                return "refused by accident"
            checks = os.environ.get("CELERY_SKIP_CHECKS")
        conf = app.conf.table(with_defaults=False, censored=False)
        return list(calls), conf, checks

    def by_command_line(words: list[str], env: dict[str, str]) -> Any:
        def run(app: Celery, patch: pytest.MonkeyPatch) -> None:
            module = ModuleType("recorded")
            module.app = app
            patch.setitem(sys.modules, "recorded", module)
            celery.main(
                words, "celery", standalone_mode=False, auto_envvar_prefix="CELERY"
            )

        key = (*words, *env.items())
        if key not in known:
            known[key] = outcome(run)
        return known[key]

    def by_args(case: Case, shown: list[str]) -> Any:
        def start(app: Celery, patch: pytest.MonkeyPatch) -> None:
            context = parse(case.program, app, case.args)
            shown.extend(command_line("recorded:app", context))
            run(context)

        return outcome(start)

    def all_ways(case: Case) -> list[Any]:
        for name, value in case.env.items():
            monkeypatch.setenv(name, value)
        words = ["--app=recorded:app", *case.above, case.program, *case.words]
        shown: list[str] = []
        found = [by_command_line(words, case.env), by_args(case, shown)]
        if found[1] != "refused":
            found.append(by_command_line(shown[1:], case.env))
        return found

    yield all_ways
    signals.user_preload_options.disconnect(note_preload)


# Sample values, by the type that Celery declares


def samples(option: click.Option) -> list[tuple[Any, str | None]]:
    """Return values in Python, and as they are written on the command line."""
    kind = option.type
    if option.is_flag:
        return [(True, ""), (None, ""), (False, None)]
    if isinstance(kind, LogLevel):
        names = [*kind.choices, "info"]
        return [
            *((name, name) for name in names),
            (logging.INFO, "INFO"),
            (logging.WARNING, "WARNING"),
        ]
    if isinstance(kind, click.Choice):
        return [(str(choice), str(choice)) for choice in kind.choices]
    if isinstance(kind, IntParamType):
        return [(7, "7"), ("7", "7"), (0, "0"), (timedelta(minutes=1), "60")]
    if isinstance(kind, FloatParamType):
        return [
            (2.5, "2.5"), ("2.5", "2.5"), (3, "3"), (1e-7, "1e-07"),
            (timedelta(seconds=90), "90"), (timedelta(milliseconds=1500), "1.5"),
        ]  # fmt: skip
    if isinstance(kind, Autoscale):
        return [((10, 3), "10,3"), ([3, 10], "3,10"), ("10,3", "10,3"), (5, "5")]
    if isinstance(kind, CommaSeparatedList):
        return [
            (["a", "b"], "a,b"), (("a", "b"), "a,b"), ({"b", "a"}, "a,b"),
            ("a,b", "a,b"), ("a", "a"), (["a"], "a"), ("", ""),
        ]  # fmt: skip
    names = ["3", "run/%n-%h-%i.x", "-x", "two words", 'quo"te', "ünï", ""]
    return [
        *((text, text) for text in names),
        (3, "3"),
        (Path("a/%n.b"), "a/%n.b"),
    ]


def texts(option: click.Option) -> list[str]:
    return sorted({text for _, text in samples(option) if text is not None})


def spell(spelling: str, text: str | None, option: click.Option) -> list[str]:
    """Write an option as people do: its value is a separate word if possible."""
    if option.is_flag:
        return [spelling] if text is not None else []
    if spelling.startswith("--"):
        return [f"{spelling}={text}"] if text[:1] == "-" else [spelling, text]
    return [spelling, text]


def walk() -> Iterator[Case]:
    """Make the cases for each option that the installed Celery declares."""
    for program, command in COMMANDS.items():
        for option in command.params:
            assert isinstance(option, click.Option)
            spellings = [*option.opts, *option.secondary_opts]
            long = [spelling for spelling in spellings if spelling[:2] == "--"]
            keys = {spelling[2:]: spelling for spelling in long}
            for key, spelling in (keys or {option.name: spellings[0]}).items():
                for number, (value, text) in enumerate(samples(option)):
                    words = spell(spelling, text, option)
                    if text is None and option.secondary_opts:
                        other = {*option.opts, *option.secondary_opts} - {spelling}
                        words = sorted(other)[:1]
                    for name in sorted({key, key.replace("-", "_")}):
                        yield Case(
                            program,
                            {name: value},
                            words,
                            refused=None if number else False,
                        )
            for spelling in spellings:
                for text in texts(option):
                    words = spell(spelling, text, option)
                    yield Case(program, words, words)
                    yield Case(program, shlex.join(words), words)
            variable = f"CELERY_{program}_{option.name}".upper()
            for text in ["1"] if option.is_flag else texts(option):
                yield Case(program, {}, [], env={variable: text})
            if not option.is_flag:
                wrong = spell(spellings[-1], "no such value", option)
                yield Case(program, wrong, wrong)


def key_of(option: click.Option) -> str:
    """Return the long name, or the parameter's if there is none."""
    return next((o[2:] for o in option.opts if o[:2] == "--"), option.name or "")


def together() -> Iterator[Case]:
    """Make cases with all of a command's options at once."""
    for program, command in COMMANDS.items():
        first = [(option, *samples(option)[0]) for option in command.params]
        first = [row for row in first if row[0].name != "detach"]
        words = [word for o, _, text in first for word in spell(o.opts[-1], text, o)]
        args = {key_of(option): value for option, value, _ in first}
        yield from (
            Case(program, a, words, refused=False)
            for a in (args, words, shlex.join(words))
        )


def others() -> Iterator[Case]:
    """Make the cases beyond single options."""
    for program in COMMANDS:
        own = f"--{program}-own"
        for args in ({}, None, "", [], ()):
            yield Case(program, args, [], refused=False)
        for args, words in (
            # The app's own options.
            ({own[2:]: 5}, [own, "5"]),
            ({own[2:].replace("-", "_"): "5"}, [own, "5"]),
            (f"{own} 5", [own, "5"]),
            ([own, "5"], [own, "5"]),
            ({"both-own": ["a,b", "c"]}, ["--both-own=a,b", "--both-own=c"]),
            ({"both_own": "a"}, ["--both-own", "a"]),
            # Words that are not options: Celery reads them as settings.
            *(
                (words, words)
                for words in (
                    ["worker.prefetch_multiplier=9"],
                    ["beat.max_loop_interval=9", "-linfo", "task_ignore_result=1"],
                    ["-linfo", "--", "task.ignore_result=1"],
                )
            ),
            (
                "broker.pool_limit=(int)3 -l info",
                ["broker.pool_limit=(int)3", "-linfo"],
            ),
        ):
            yield Case(program, args, words, refused=False)
        for words in (
            ["--no-such"], ["-Z"], ["--pidfile"], ["--detach=1"], ["--detac"],
            ["junk"], ["no_such=1"], ["worker.prefetch_multiplier=x"],
            ["--", "--quiet"],
        ):  # fmt: skip
            yield Case(program, words, words, refused=True)
            yield Case(program, shlex.join(words), words, refused=True)
        # Options of `celery` itself, which precede the command.
        for args, above in (
            ({"workdir": "sub"}, ["--workdir", "sub"]),
            ({"workdir": Path("sub"), "no_color": None}, ["-C", "--workdir=sub"]),
            (["--workdir", "sub", "-linfo"], ["--workdir=sub"]),
            ({"no-color": True}, ["--no-color"]),
            ({"quiet": True}, ["-q"]),
            ("--quiet -linfo --no-color", ["-q", "-C"]),
            ({"quiet": False, "no-color": False}, []),
        ):
            words = ["-linfo"] if "-linfo" in args else []
            yield Case(program, args, words, above, refused=False)
        for text in ("1", "0", "", "x"):
            yield Case(program, {}, [], env={"NO_COLOR": text}, refused=text == "x")
    # The command line beats the environment.
    env = {"CELERY_WORKER_CONCURRENCY": "5"}
    yield Case("worker", {"concurrency": 2}, ["-c2"], env=env, refused=False)
    for words in (["-c2", "-Qa,b"], ["-EB"], ["-EBlinfo"], ["-Qa", "-Qb"], ["-Ofair"]):
        yield Case("worker", words, words, refused=False)


def ids(case: Case) -> str:
    # The same in each process that pytest-xdist starts: a set has an order of its own.
    name = repr(case.env or case.args).replace("{'b', 'a'}", "{'a', 'b'}")
    return f"{case.program}-{name}"


@pytest.mark.parametrize("case", [*walk(), *together(), *others()], ids=ids)
def test_args_are_the_command_line(
    case: Case, outcomes: Any, record_property: Any
) -> None:
    expected, *found = outcomes(case)
    refused = str(expected).startswith("refused")
    assert case.refused in (refused, None)
    if refused:
        assert found == ["refused"]
    else:
        assert found == [expected, expected]
    record_property("compared", case.program)


def test_each_option_of_celery_itself_is_honoured_or_refused(
    outcomes: Any,
) -> None:
    refused = set()
    for option in celery.params:
        args = {key_of(option): option.is_flag or "sub"}
        found = mistakes("worker", make_app([]), args)
        if found:
            assert "no such option" not in str(found[0])
            refused.add(key_of(option))
            continue
        words = [option.opts[-1]] if option.is_flag else [option.opts[-1], "sub"]
        expected, *found = outcomes(Case("worker", args, [], words))
        assert found == [expected, expected]
    assert refused == {
        "app", "broker", "result-backend", "loader", "config", "version"
    }  # fmt: skip


# Step 2 of the README, taken literally

LINES = """
celery -A proj worker
celery -A proj worker -l INFO
celery -A proj worker --loglevel=info
celery --app=proj worker --loglevel INFO --concurrency 2
celery --app proj.celery:app worker -E -l info
celery worker -A proj -l info
celery -A proj worker -c 4 -Q default,mail -n w1@%h
celery -A proj worker --pool=solo -l info
celery -A proj worker -P threads --concurrency=10
celery -A proj worker -l info -Ofair --max-tasks-per-child=100
celery -A proj worker --without-gossip --without-mingle --without-heartbeat
celery -A proj worker --autoscale=10,3 --time-limit=300 --soft-time-limit 240
celery -A proj worker -B -s celerybeat-schedule --loglevel=INFO
celery -A proj worker --beat --scheduler django -l info
celery -A proj --workdir sub worker -l INFO
celery -A proj -q --no-color worker -l INFO -X slow
celery -C -A proj worker --pidfile= --prefetch-multiplier=1
celery -b redis://localhost:6379/0 -A proj worker -l WARNING
celery -A proj worker -l INFO -- worker.prefetch_multiplier=1
celery -A proj beat
celery -A proj beat -l INFO --scheduler django_celery_beat.schedulers:DatabaseScheduler
celery -A proj beat -S django -l info --pidfile=
celery --app=proj beat --loglevel=info --schedule=/tmp/schedule --max-interval 60
celery -A proj -q beat --pidfile /tmp/beat.pid
""".strip().splitlines()


def step_2(line: str) -> tuple[str, str, list[str], list[str]]:
    """Remove `celery`, `-A …`, `-b …` and the word `worker` or `beat`.

    Return the program, what is left, and the words before and after the program.
    """
    words = shlex.split(line)[1:]
    (program,) = {"worker", "beat"} & set(words)
    place = words.index(program)

    def without(part: list[str]) -> list[str]:
        part = [word for word in part if not word.startswith("--app=")]
        for option in ("-A", "--app", "-b"):
            if option in part:
                del part[(i := part.index(option)) : i + 2]
        return part

    above, below = without(words[:place]), without(words[place + 1 :])
    return program, shlex.join([*above, *below]), above, below


@pytest.mark.parametrize("line", LINES)
def test_a_pasted_line_is_the_command_line(line: str, outcomes: Any) -> None:
    program, args, above, words = step_2(line)
    expected, *found = outcomes(Case(program, args, words, above))
    assert not str(expected).startswith("refused")
    assert found == [expected, expected]
