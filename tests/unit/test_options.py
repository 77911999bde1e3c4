"""ARGS → argument list → keyword arguments, value by value."""

from __future__ import annotations

import enum
import logging
import os
from collections import OrderedDict, UserDict
from datetime import timedelta
from decimal import Decimal
from pathlib import Path, PurePosixPath
from types import SimpleNamespace
from typing import Any

import celery
import click
import pytest
from celery import Celery, bootsteps
from celery.bin import worker
from celery.local import Proxy
from django.utils.functional import SimpleLazyObject, lazy, lazystr

from prodserver_celery5.findings import Finding
from prodserver_celery5.options.command import Command, command_line, run
from prodserver_celery5.options.errors import OptionError, UnknownOptionError
from tests import parsing


@pytest.fixture
def app() -> Celery:
    return Celery("proj", set_as_current=False)


def parse(app: Celery, args: Any, program: str = "worker") -> click.Context:
    return parsing.parse(program, app, args)


def error(app: Celery, args: Any, program: str = "worker") -> OptionError:
    """Return the only mistake."""
    (found,) = parsing.mistakes(program, app, args)
    return found


def shown(found: OptionError) -> str:
    """Return the mistake as a finding shows it."""
    return str(Finding("E007", (), str(found), found.hint, where=found.where))


def invalid(kind: click.ParamType, value: str) -> str:
    """Return what the installed click says about an invalid value."""
    with pytest.raises(click.BadParameter) as caught:
        kind.convert(value, None, None)
    return caught.value.message


# Values


class Level(enum.IntEnum):
    LOW = 10


class Queue(str, enum.Enum):
    FAST = "fast"


class Text(str):
    def __str__(self) -> str:
        return "something else"


class Size(enum.Enum):
    TWO = 2
    NAME = "big"


class Switch(enum.Enum):
    ON = True


class Key(str, enum.Enum):
    QUEUES = "queues"

    def __str__(self) -> str:
        return "something else"


class Number(int):
    def __repr__(self) -> str:
        return "something else"


class Unshowable:
    def __repr__(self) -> str:
        raise RuntimeError

    __str__ = __repr__


def lazily(value: Any) -> SimpleLazyObject:
    return SimpleLazyObject(lambda: value)


def failing() -> Any:
    raise KeyError("QUEUES")


@pytest.mark.parametrize(
    ("args", "argv"),
    [
        ({}, []),
        (None, []),
        ({"concurrency": 4}, ["--concurrency=4"]),
        ({"concurrency": "4"}, ["--concurrency=4"]),
        ({"concurrency": Level.LOW}, ["--concurrency=10"]),
        ({"concurrency": None}, []),
        ({"time-limit": 2.5}, ["--time-limit=2.5"]),
        ({"time-limit": 1e-7}, ["--time-limit=1e-07"]),
        ({"time-limit": timedelta(minutes=2)}, ["--time-limit=120"]),
        ({"time-limit": timedelta(milliseconds=1)}, ["--time-limit=0.001"]),
        ({"heartbeat-interval": timedelta(seconds=5)}, ["--heartbeat-interval=5"]),
        ({"loglevel": logging.INFO}, ["--loglevel=INFO"]),
        ({"loglevel": logging.FATAL}, ["--loglevel=CRITICAL"]),
        ({"loglevel": "info"}, ["--loglevel=info"]),
        ({"pidfile": Path("run") / "w.pid"}, ["--pidfile=run/w.pid"]),
        ({"pidfile": PurePosixPath("w.pid")}, ["--pidfile=w.pid"]),
        ({"pidfile": Text("w.pid")}, ["--pidfile=w.pid"]),
        ({"uid": 1000}, ["--uid=1000"]),
        ({"logfile": "-x"}, ["--logfile=-x"]),
        ({"logfile": "--quiet"}, ["--logfile=--quiet"]),
        ({"logfile": "a b=c"}, ["--logfile=a b=c"]),
        ({"hostname": ""}, ["--hostname="]),
        ({"queues": "a"}, ["--queues=a"]),
        ({"queues": "a,b"}, ["--queues=a,b"]),
        ({"queues": ["a", "b"]}, ["--queues=a,b"]),
        ({"queues": ("b", "a")}, ["--queues=b,a"]),
        ({"queues": {"c", "a", "b"}}, ["--queues=a,b,c"]),
        ({"queues": frozenset("cba")}, ["--queues=a,b,c"]),
        ({"queues": [Queue.FAST, 7]}, ["--queues=fast,7"]),
        ({"queues": []}, []),
        ({"queues": set()}, []),
        ({"queues": None}, []),
        ({"autoscale": (3, 10)}, ["--autoscale=3,10"]),
        ({"autoscale": "10,3"}, ["--autoscale=10,3"]),
        ({"autoscale": 10}, ["--autoscale=10"]),
        ({"without-gossip": True}, ["--without-gossip"]),
        ({"without-gossip": None}, ["--without-gossip"]),
        ({"without-gossip": False}, []),
        ({"without_gossip": True}, ["--without-gossip"]),
        # Flags as text, as on a command line.
        ({"without-gossip": "true"}, ["--without-gossip"]),
        ({"without-gossip": "Yes"}, ["--without-gossip"]),
        ({"without-gossip": "0"}, []),
        ({"without-gossip": Switch.ON}, ["--without-gossip"]),
        # Members of an Enum, other numbers, and subclasses.
        ({"concurrency": Size.TWO}, ["--concurrency=2"]),
        ({Key.QUEUES: [Size.NAME, Queue.FAST]}, ["--queues=big,fast"]),
        ({"time-limit": Decimal("2.5")}, ["--time-limit=2.5"]),
        ({"time-limit": Decimal(60)}, ["--time-limit=60"]),
        ({"concurrency": Number(3)}, ["--concurrency=3"]),
        ({Text("queues"): Text("a")}, ["--queues=a"]),
        (Text("-c 3"), ["-c", "3"]),
        # Lazy values, anywhere.
        ({"concurrency": lazily(2)}, ["--concurrency=2"]),
        ({"concurrency": lazily("2")}, ["--concurrency=2"]),
        ({"concurrency": lazy(lambda: 2, int)()}, ["--concurrency=2"]),
        ({"time-limit": lazily(timedelta(minutes=1))}, ["--time-limit=60"]),
        ({"time-limit": lazily(2.5)}, ["--time-limit=2.5"]),
        ({"pidfile": lazily(Path("w.pid"))}, ["--pidfile=w.pid"]),
        ({"queues": [lazily("a"), lazystr("b")]}, ["--queues=a,b"]),
        ({"queues": lazily(["a", lazily("b")])}, ["--queues=a,b"]),
        ({"queues": lazy(lambda: ["a"], list)()}, ["--queues=a"]),
        ({"queues": {lazily("a")}}, ["--queues=a"]),
        ({"queues": {"b": 1, "a": 2}.keys()}, ["--queues=a,b"]),
        ({"without-gossip": lazily(True)}, ["--without-gossip"]),
        ({"concurrency": lazily(None)}, []),
        ({"concurrency": lazily(lazily(2))}, ["--concurrency=2"]),
        ({lazily("concurrency"): 2}, ["--concurrency=2"]),
        ({lazystr("concurrency"): 2}, ["--concurrency=2"]),
        (lazily({"concurrency": lazily(2)}), ["--concurrency=2"]),
        (lazily("-c 2"), ["-c", "2"]),
        (lazystr("-c 2"), ["-c", "2"]),
        (lazily(["-c", lazily(2)]), ["-c", "2"]),
        (lazily(None), []),
        ({"events": True}, ["--events"]),
        ({"discard": True}, ["--discard"]),
        ({"schedule": "s"}, ["--schedule=s"]),
        (UserDict(concurrency=1), ["--concurrency=1"]),
        # In the given order.
        (
            OrderedDict([("uid", "a"), ("concurrency", 1), ("beat", True)]),
            ["--uid=a", "--concurrency=1", "--beat"],
        ),
        # One string, split as a shell would, or a list of words.
        ("", []),
        ("-l info -Q 'a b,c'", ["-l", "info", "-Q", "a b,c"]),
        (r"--hostname=a\ b", ["--hostname=a b"]),
        (["-l", "info", "-c", 4], ["-l", "info", "-c", "4"]),
        (("--pidfile", Path("w.pid")), ["--pidfile", "w.pid"]),
    ],
)
def test_args_become_an_argument_list(app: Celery, args: Any, argv: list[str]) -> None:
    assert parsing.words("worker", app, args) == argv
    parse(app, argv)


def test_a_key_is_the_parameters_name_where_there_is_no_long_one(app: Celery) -> None:
    """As with -O in Celery 5.0 to 5.2."""
    app.user_options["worker"].add(click.Option(["my_profile", "-Y"]))
    for key in ("my-profile", "my_profile"):
        argv = parsing.words("worker", app, {key: "-fair"})
        assert argv == ["-Y", "-fair"]
        assert parse(app, argv).params["my_profile"] == "-fair"


@pytest.mark.parametrize(
    ("key", "value", "argv"),
    [
        ("shout", True, ["--shout"]),
        ("shout", False, ["--no-shout"]),
        ("shout", None, ["--shout"]),
        ("no-shout", True, ["--no-shout"]),
        ("no_shout", False, ["--shout"]),
    ],
)
def test_a_pair_of_flags(
    app: Celery, key: str, value: bool | None, argv: list[str]
) -> None:
    app.user_options["beat"].add(click.Option(["--shout/--no-shout"], default=None))
    assert parsing.words("beat", app, {key: value}) == argv
    assert parse(app, {key: value}, "beat").params["shout"] is (argv == ["--shout"])
    assert parse(app, {}, "beat").params["shout"] is None


def test_the_other_name_of_a_pair_is_one_word(app: Celery) -> None:
    pair = click.Option(["--shout/--no-shout", "--loud/--quietly"], default=None)
    app.user_options["beat"].add(pair)
    assert parsing.words("beat", app, {"loud": False}) == ["--no-shout"]
    assert parsing.words("beat", app, {"quietly": False}) == ["--shout"]


@pytest.mark.parametrize(
    ("declared", "value", "parsed"),
    [
        ({"multiple": True}, ["a,b", "c"], ("a,b", "c")),
        ({"multiple": True}, "a", ("a",)),
        ({"multiple": True}, [], ()),
        ({"nargs": 2}, ("a,b", "c"), ("a,b", "c")),
        ({"type": int, "multiple": True}, {3, 20}, (20, 3)),
        ({"type": click.Choice(["x", "y"])}, "x", "x"),
        ({"type": click.IntRange(1, 5)}, timedelta(seconds=3), 3),
        ({"type": click.Path()}, Path("a"), "a"),
    ],
)
def test_the_apps_own_options(
    app: Celery, declared: dict[str, Any], value: Any, parsed: Any
) -> None:
    app.user_options["preload"].add(click.Option(["--my-own"], **declared))
    for program in ("worker", "beat"):
        assert parse(app, {"my-own": value}, program).params["my_own"] == parsed
    # Celery's own declarations are unchanged.
    assert "my_own" not in [param.name for param in worker.worker.params]


def test_an_own_option_of_the_name_of_one_of_celery_itself(app: Celery) -> None:
    """Such as --config: the command's option wins, as on the command line."""
    app.user_options["worker"].add(click.Option(["--config"]))
    assert parse(app, {"config": "x"}).params["config"] == "x"
    assert isinstance(error(app, {"config": "x"}, "beat"), UnknownOptionError)


# Refused values

A_LIST = "it takes a string, or a list of strings or numbers."
ONE = "it takes one string, path or number."
INTEGER = "it takes one integer, or a timedelta."
FLAG = "a flag takes True, False or None."
COMMA = "an element cannot contain a comma: Celery would split it in two."


@pytest.mark.parametrize(
    ("args", "where", "message"),
    [
        ({"queues": {"a": 1}}, "ARGS['queues'] = {'a': 1}", A_LIST),
        ({"queues": [["a"]]}, "ARGS['queues'] = [['a']]", A_LIST),
        ({"queues": [None]}, "ARGS['queues'] = [None]", A_LIST),
        ({"queues": ["a,b", "c"]}, "ARGS['queues'] = ['a,b', 'c']", COMMA),
        ({"queues": True}, "ARGS['queues'] = True", A_LIST),
        ({"queues": b"a"}, "ARGS['queues'] = b'a'", A_LIST),
        ({"prefetch-multiplier": True}, "ARGS['prefetch-multiplier'] = True", INTEGER),
        ({"prefetch_multiplier": [4]}, "ARGS['prefetch_multiplier'] = [4]", INTEGER),
        ({"prefetch_multiplier": {}}, "ARGS['prefetch_multiplier'] = {}", INTEGER),
        ({"pidfile": ["a"]}, "ARGS['pidfile'] = ['a']", ONE),
        ({"pidfile": False}, "ARGS['pidfile'] = False", ONE),
        (
            {"pidfile": timedelta(1)},
            "ARGS['pidfile'] = datetime.timedelta(days=1)",
            ONE,
        ),
        ({"without-gossip": 1}, "ARGS['without-gossip'] = 1", FLAG),
        ({"without-gossip": "maybe"}, "ARGS['without-gossip'] = 'maybe'", FLAG),
        ({"without-gossip": "a-b"}, "ARGS['without-gossip'] = 'a-b'", FLAG),
        ({"without-gossip": ""}, "ARGS['without-gossip'] = ''", FLAG),
        ({"beat": []}, "ARGS['beat'] = []", FLAG),
        ("--pidfile 'a", "ARGS", "a shell could not split it: No closing quotation."),
        (["-c", None], "ARGS", "each word must be a string or number, not None."),
        (["-c", ["4"]], "ARGS", "each word must be a string or number, not ['4']."),
        (4, "ARGS", "it takes a dict, a string or a list of words."),
        (b"-c4", "ARGS", "it takes a dict, a string or a list of words."),
        ({"-c"}, "ARGS", "it takes a dict, a string or a list of words."),
    ],
)
def test_what_no_option_takes(app: Celery, args: Any, where: str, message: str) -> None:
    found = error(app, args)
    assert (str(found.where), str(found)) == (where, message)
    with pytest.raises(OptionError):
        parsing.words("worker", app, args)


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        ("-Q", 'On a command line, write "=true" or "=false" after its name.'),
        ("a-b", ""),
    ],
)
def test_a_flag_that_has_taken_the_next_option(
    app: Celery, value: str, hint: str
) -> None:
    assert error(app, {"without-gossip": value}).hint == hint


@pytest.mark.parametrize("declared", [{"multiple": True}, {"nargs": 2}])
def test_what_an_own_list_does_not_take(app: Celery, declared: dict[str, Any]) -> None:
    app.user_options["worker"].add(click.Option(["--own"], **declared))
    assert str(error(app, {"own": b"a"})) == A_LIST


HAD = "it cannot be evaluated: KeyError: 'QUEUES'"
STANDS = "it cannot be evaluated: TypeError: a Proxy stands here for another value."


@pytest.mark.parametrize(
    ("make", "where", "message"),
    [
        (lambda: {"queues": lazily({"a": 1})}, "ARGS['queues'] = {'a': 1}", A_LIST),
        (lambda: {"beat": lazily(2)}, "ARGS['beat'] = 2", FLAG),
        (lambda: {"queues": Unshowable()}, "ARGS['queues'] = <Unshowable>", A_LIST),
        (lambda: {Unshowable(): 1}, "ARGS[<Unshowable>] = 1", "a key must be an"),
        (
            lambda: {"queues": ["a", SimpleLazyObject(failing)]},
            "ARGS['queues'] = ['a', <SimpleLazyObject: <function failing",
            HAD,
        ),
        (lambda: SimpleLazyObject(failing), "ARGS", HAD),
        (lambda: {"queues": lazy(failing, str)()}, "ARGS['queues'] = <__proxy__>", HAD),
        # From another library than Django.
        (lambda: {"queues": Proxy(lambda: "a")}, "ARGS['queues'] = 'a'", STANDS),
        (lambda: Proxy(lambda: "-c 2"), "ARGS", STANDS),
        (lambda: ["-c", Proxy(lambda: 2)], "ARGS", STANDS),
    ],
)
def test_a_value_that_cannot_be_had(
    app: Celery, make: Any, where: str, message: str
) -> None:
    found = error(app, make())
    assert str(found.where).startswith(where)
    assert str(found).startswith(message)
    assert "\n" not in f"{found.where} {found}"


@pytest.mark.parametrize(
    ("args", "where", "message"),
    [
        (
            {"prefetch-multiplier": "x"},
            "ARGS['prefetch-multiplier'] = 'x'",
            invalid(click.INT, "x"),
        ),
        (
            {"heartbeat-interval": 2.5},
            "ARGS['heartbeat-interval'] = 2.5",
            invalid(click.INT, "2.5"),
        ),
        (
            {"autoscale": [1, 2, 3]},
            "ARGS['autoscale'] = [1, 2, 3]",
            "Expected two comma separated integers or one integer.Got 3 instead.",
        ),
        (
            {"autoscale": "a,b"},
            "ARGS['autoscale'] = 'a,b'",
            "it takes one or two numbers, the maximum first, such as 10,3.",
        ),
        ("--time-limit x", "ARGS --time-limit", invalid(click.FLOAT, "x")),
    ],
)
def test_what_celery_does_not_take(
    app: Celery, args: Any, where: str, message: str
) -> None:
    found = error(app, args)
    assert (str(found.where), str(found)) == (where, message)
    with pytest.raises(OptionError):
        parse(app, args)


@pytest.mark.parametrize(
    ("args", "accepted"),
    [
        ({"loglevel": 21}, "DEBUG"),
        ({"loglevel": "loud"}, "CRITICAL"),
        ({"optimization": "best"}, "fair"),
        # Celery 5.0 takes any name, and tries to import it.
        *([({"pool": "prefrok"}, "prefork")] * (celery.VERSION >= (5, 1))),
        ({"loglevel": ["INFO"]}, "takes one of DEBUG, INFO, WARNING"),
    ],
)
def test_a_choice_says_what_there_is(
    app: Celery, args: dict[str, Any], accepted: str
) -> None:
    assert accepted in str(error(app, args))


def test_the_choice_for_an_option_of_a_kind(app: Celery) -> None:
    app.user_options["worker"].add(click.Option(["--own"], type=click.Choice("ab")))
    assert str(error(app, {"own": ["a"]})) == "it takes one of a, b."


def test_an_option_that_counts(app: Celery) -> None:
    app.user_options["worker"].add(click.Option(["--loud"], count=True))
    assert parsing.words("worker", app, {"loud": True}) == ["--loud"]
    assert parsing.words("worker", app, {"loud": False}) == []


def test_a_level_without_a_name_is_a_number(app: Celery) -> None:
    assert parsing.words("worker", app, {"loglevel": 21}) == ["--loglevel=21"]


# Keys

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


@pytest.mark.parametrize("key", ["", None, 1, b"beat", ("beat",)])
def test_a_key_that_is_no_name(app: Celery, key: Any) -> None:
    found = error(app, {key: True})
    assert isinstance(found, UnknownOptionError)
    assert str(found.where) == f"ARGS[{key!r}] = True"
    assert str(found) == "a key must be an option's long name."


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("without-gossip", "without_gossip"),
        ("task-events", "events"),
        ("purge", "discard"),
        ("schedule-filename", "schedule"),
    ],
)
def test_the_same_option_twice(app: Celery, first: str, second: str) -> None:
    value = "x" if first.startswith("schedule") else True
    found = error(app, {first: value, second: value})
    assert str(found.where) == f"ARGS[{second!r}] = {value!r}"
    assert str(found) == f"this is the same option as {first!r}."


def test_every_mistake_is_found(app: Celery) -> None:
    app.user_options["worker"].add(click.Option(["--own"], required=True))
    args = {"concurency": 1, "beat": 2, "queues": ["a"], "time-limit": "x"}
    wheres = [str(found.where) for found in parsing.mistakes("worker", app, args)]
    assert wheres == [
        "ARGS['concurency'] = 1", "ARGS['beat'] = 2", "ARGS['time-limit'] = 'x'"
    ]  # fmt: skip
    assert parsing.mistakes("worker", app, {"queues": ["a"], "own": "x"}) == []


def test_a_long_value_is_shortened(app: Celery) -> None:
    for length in (120, 500):
        line = shown(error(app, {"beat": "x" * length}))
        assert line.startswith(f"ARGS['beat'] = '{'x' * 103}…: ")
    line = shown(error(app, {"beat": "x" * 103}))
    assert line.startswith(f"ARGS['beat'] = '{'x' * 103}': ")


# Options of `celery` itself


@pytest.mark.parametrize(
    ("configure", "broker", "backend"),
    [
        ({"namespace": "CELERY"}, "CELERY_BROKER_URL", "CELERY_RESULT_BACKEND"),
        ({"namespace": "QUEUES_"}, "QUEUES_BROKER_URL", "QUEUES_RESULT_BACKEND"),
        # Without a namespace, Celery reads Django's settings by its old names.
        ({}, "BROKER_URL", "CELERY_RESULT_BACKEND"),
    ],
)
@pytest.mark.parametrize("program", ["worker", "beat"])
def test_broker_and_result_backend_have_settings(
    app: Celery, configure: dict[str, str], broker: str, backend: str, program: str
) -> None:
    settings = SimpleNamespace(**{broker: "memory://", backend: "cache+memory://"})
    app.config_from_object(settings, **configure)
    # The app does read these names.
    assert app.conf.broker_url == "memory://"
    assert app.conf.result_backend == "cache+memory://"
    for key, setting in (("broker", broker), ("result-backend", backend)):
        found = error(app, {key: "redis://"}, program)
        assert isinstance(found, UnknownOptionError)
        assert str(found.where) == f"ARGS[{key!r}] = 'redis://'"
        assert str(found) == "this is an option of `celery` itself."
        assert found.hint == f"Set {setting} in the settings instead."
        words = error(app, f"--{key} redis://", program)
        assert (str(words), words.hint) == (str(found), found.hint)
        assert str(words.where) == f"ARGS --{key}"


ITS_OWN = "this is for an app that `celery` creates; APP has one.", "Remove it."
NOTHING = "this prints a text and starts nothing.", "Remove it."


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("loader", "x", ITS_OWN),
        ("config", "x", ITS_OWN),
        ("app", "proj", ("this has no place in ARGS.", "Use the key APP instead.")),
        ("help", True, NOTHING),
        ("help", None, NOTHING),
        ("version", True, NOTHING),
    ],
)
def test_what_has_no_place_in_args(
    app: Celery, key: str, value: Any, message: tuple[str, str]
) -> None:
    for program in ("worker", "beat"):
        found = error(app, {key: value}, program)
        assert isinstance(found, UnknownOptionError)
        assert (str(found), found.hint) == message
        assert str(found.where) == f"ARGS[{key!r}] = {value!r}"
        words = [f"--{key}"] if value in (True, None) else [f"--{key}", value]
        found = error(app, words, program)
        assert (str(found), found.hint) == message
        assert str(found.where) == f"ARGS --{key}"


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


def test_an_app_with_such_options_of_its_own(app: Celery) -> None:
    """They mean what the app says, and nothing to Celery."""
    names = ("--quiet", "--no-color", "--workdir")
    app.user_options["worker"].update(
        click.Option([name], is_flag=True) for name in names
    )
    context = parse(app, dict.fromkeys(("quiet", "no-color", "workdir"), True))
    params = context.params
    assert all(params[name] for name in ("quiet", "no_color", "workdir"))
    own = context.obj
    assert (own.quiet, own.no_color, own.workdir) == (False, False, None)


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


# Environment


def test_a_variable_that_celery_refuses(
    app: Celery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CELERY_WORKER_PREFETCH_MULTIPLIER", "many")
    found = error(app, {"beat": True})
    assert str(found.where) == "CELERY_WORKER_PREFETCH_MULTIPLIER = 'many'"
    assert str(found) == invalid(click.INT, "many")
    assert parsing.mistakes("beat", app, {}) == []
    monkeypatch.setenv("NO_COLOR", "perhaps")
    assert str(error(app, None, "beat").where) == "NO_COLOR = 'perhaps'"
    monkeypatch.delenv("NO_COLOR")
    for variable in ("CELERY_NO_COLOR", "CELERY_QUIET"):
        with monkeypatch.context() as patch:
            patch.setenv(variable, "perhaps")
            assert str(error(app, None, "beat").where) == f"{variable} = 'perhaps'"


def test_a_variable_that_args_override_hides_no_mistake(
    app: Celery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CELERY_WORKER_CONCURRENCY", "many")
    args = {"concurrency": 2, "time-limit": "long"}
    assert str(error(app, args).where) == "ARGS['time-limit'] = 'long'"
    assert (
        str(error(app, {"time-limit": "long"}).where) == "ARGS['time-limit'] = 'long'"
    )
    assert str(error(app, {"beat": True}).where) == "CELERY_WORKER_CONCURRENCY = 'many'"
    args = {"concurrency": 2, "time-limit": "long", "queues": ["a"]}
    (wrong,) = parsing.mistakes("worker", app, args)
    assert str(wrong.where) == "ARGS['time-limit'] = 'long'"
    # Of a secret option, both are told in the same words.
    app.user_options["worker"].add(click.Option(["--api-token"], type=int))
    monkeypatch.setenv("CELERY_WORKER_API_TOKEN", "many")
    args = {"concurrency": 2, "api-token": "long"}
    (wrong,) = parsing.mistakes("worker", app, args)
    assert shown(wrong).startswith("ARGS['api-token'] = **: ")


def test_the_value_of_a_secret_variable_is_not_shown(
    app: Celery, monkeypatch: pytest.MonkeyPatch
) -> None:
    option = click.Option(["--my-number"], type=int, envvar="SHOP_TOKEN")
    app.user_options["worker"].add(option)
    monkeypatch.setenv("SHOP_TOKEN", "s3cret")
    wrong = error(app, {})
    assert shown(wrong).startswith("SHOP_TOKEN = **: ")
    assert str(wrong) == "it does not take this value."


@pytest.mark.parametrize("program", ["worker", "beat"])
def test_a_variable_starts_no_help(
    app: Celery, monkeypatch: pytest.MonkeyPatch, program: str
) -> None:
    """Of click before 8.5 it would print Celery's, and end the check."""
    monkeypatch.setenv(f"CELERY_{program.upper()}_HELP", "1")
    assert parsing.mistakes(program, app, {}) == []


def refuse(ctx: click.Context, param: click.Parameter, value: Any) -> Any:
    if value:
        ctx.fail(f"not {value}")


def test_an_option_that_refuses_a_value_the_way_click_documents(
    app: Celery, monkeypatch: pytest.MonkeyPatch
) -> None:
    app.user_options["worker"].add(click.Option(["--own"], callback=refuse))
    assert str(error(app, "--own=x").where) == "ARGS --own"
    monkeypatch.setenv("CELERY_WORKER_OWN", "x")
    (wrong,) = parsing.mistakes("worker", app, {"concurrency": 2, "queues": ["a"]})
    assert (str(wrong.where), str(wrong)) == ("CELERY_WORKER_OWN = 'x'", "not x")


def test_an_option_of_a_class_of_its_own(app: Celery) -> None:
    class Own(click.Option):
        def add_to_parser(self, *args: Any) -> None:
            super().add_to_parser(*args)
            self.is_added = True

        def handle_parse_result(self, *args: Any) -> Any:
            assert self.is_added
            return super().handle_parse_result(*args)

    app.user_options["worker"].add(Own(["--own"]))
    assert parse(app, {"own": "x"}).params["own"] == "x"


@pytest.mark.parametrize(
    "variable", ["APP", "BROKER_URL", "RESULT_BACKEND", "LOADER", "CONFIG_MODULE"]
)
def test_variables_of_celery_itself_are_not_read(
    app: Celery, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, "x")
    assert parsing.mistakes("worker", app, {}) == []


# Parsing starts nothing and changes nothing


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


# The command line as shown


SECRET = "amqp://me:s3cret@host//"


@pytest.mark.parametrize(
    "option",
    [
        click.Option(["--db-password"], type=int),
        click.Option(["--db-password", "dest"], type=int),
        click.Option(["--db-password"], callback=lambda ctx, _, value: int(value or 0)),
        click.Option(["--db-password"], callback=refuse),
    ],
)
def test_a_value_that_is_not_taken_may_be_a_password(
    app: Celery, option: click.Option
) -> None:
    app.user_options["worker"].add(option)
    for args in ({"db-password": "s3cret"}, ["--db-password", "s3cret"]):
        (wrong,) = parsing.mistakes("worker", app, args)
        assert str(wrong) == "it does not take this value."


@pytest.mark.parametrize(
    "args",
    [
        {"broker": SECRET},
        {"concurrency": SECRET},
        {"queues": {SECRET: 1}},
        {"no-such": SECRET},
        {SECRET: 1},
        {"my-password": ["s3cret"]},
        f"--broker={SECRET}",
        f"--{SECRET}",
        f"--prefetch-multiplier={SECRET}",
        f"worker.prefetch_multiplier={SECRET}",
        f"worker.none={SECRET}",
        f"{SECRET}=",
        [SECRET],
        f"'{SECRET}",
    ],
)
def test_no_password_in_an_error(app: Celery, args: Any) -> None:
    app.user_options["worker"].add(click.Option(["--my-password"]))
    found = error(app, args)
    assert "s3cret" not in shown(found)


def test_a_value_under_a_secret_name_is_not_shown(app: Celery) -> None:
    app.user_options["worker"].add(click.Option(["--my-password"]))
    line = shown(error(app, {"my-password": ["s3cret"]}))
    assert line.startswith("ARGS['my-password'] = **: ")


# Options of an app's own bootsteps, as Celery documents them


def test_an_own_option_whose_default_is_wrong(app: Celery) -> None:
    """Neither ARGS nor a variable is to blame."""
    app.user_options["worker"].add(click.Option(["--own"], type=int, default="x"))
    (wrong,) = parsing.mistakes("worker", app, {"concurrency": 2})
    assert str(wrong.where) == "ARGS --own"


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


def test_an_own_option_that_has_to_be_given(app: Celery) -> None:
    app.user_options["worker"].add(click.Option(["--own-key"], required=True))
    missing = error(app, {"concurrency": 2})
    assert str(missing.where) == "ARGS --own-key"
    assert "Missing option" in str(missing)
    wrong = error(app, {"own-key": "1", "concurency": 2})
    assert str(wrong.where) == "ARGS['concurency'] = 2"
    assert parsing.mistakes("worker", app, {"own-key": "1"}) == []
