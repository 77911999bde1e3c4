"""What a mistake in ARGS says, and where it is."""

from __future__ import annotations

from typing import Any

import click
import pytest
from celery import Celery

from prodserver_celery5.options.errors import OptionError
from tests import parsing

from .helpers import error, invalid, parse, shown


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


SECRET = "amqp://me:s3cret@host//"


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
