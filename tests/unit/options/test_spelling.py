"""How ARGS are spelt as words of a command line."""

from __future__ import annotations

import enum
import logging
from collections import OrderedDict, UserDict
from datetime import timedelta
from decimal import Decimal
from pathlib import Path, PurePosixPath
from typing import Any

import click
import pytest
from celery import Celery
from celery.bin import worker
from celery.local import Proxy
from django.utils.functional import SimpleLazyObject, lazy, lazystr

from prodserver_celery5.options.errors import OptionError, UnknownOptionError
from tests import parsing

from .helpers import Unshowable, error, parse


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


def test_an_option_that_counts(app: Celery) -> None:
    app.user_options["worker"].add(click.Option(["--loud"], count=True))
    assert parsing.words("worker", app, {"loud": True}) == ["--loud"]
    assert parsing.words("worker", app, {"loud": False}) == []


def test_a_level_without_a_name_is_a_number(app: Celery) -> None:
    assert parsing.words("worker", app, {"loglevel": 21}) == ["--loglevel=21"]


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
