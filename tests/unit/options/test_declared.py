"""The options of Celery's commands, of `celery` itself and of an app."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import celery
import click
import pytest
from celery import Celery

from prodserver_celery5.options.errors import UnknownOptionError
from tests import parsing

from .helpers import error, parse, shown


def test_an_own_option_of_the_name_of_one_of_celery_itself(app: Celery) -> None:
    """Such as --config: the command's option wins, as on the command line."""
    app.user_options["worker"].add(click.Option(["--config"]))
    assert parse(app, {"config": "x"}).params["config"] == "x"
    assert isinstance(error(app, {"config": "x"}, "beat"), UnknownOptionError)


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


def test_the_value_of_a_secret_variable_is_not_shown(
    app: Celery, monkeypatch: pytest.MonkeyPatch
) -> None:
    option = click.Option(["--my-number"], type=int, envvar="SHOP_TOKEN")
    app.user_options["worker"].add(option)
    monkeypatch.setenv("SHOP_TOKEN", "s3cret")
    wrong = error(app, {})
    assert shown(wrong).startswith("SHOP_TOKEN = **: ")
    assert str(wrong) == "it does not take this value."


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


def test_an_own_option_whose_default_is_wrong(app: Celery) -> None:
    """Neither ARGS nor a variable is to blame."""
    app.user_options["worker"].add(click.Option(["--own"], type=int, default="x"))
    (wrong,) = parsing.mistakes("worker", app, {"concurrency": 2})
    assert str(wrong.where) == "ARGS --own"


def test_an_own_option_that_has_to_be_given(app: Celery) -> None:
    app.user_options["worker"].add(click.Option(["--own-key"], required=True))
    missing = error(app, {"concurrency": 2})
    assert str(missing.where) == "ARGS --own-key"
    assert "Missing option" in str(missing)
    wrong = error(app, {"own-key": "1", "concurency": 2})
    assert str(wrong.where) == "ARGS['concurency'] = 2"
    assert parsing.mistakes("worker", app, {"own-key": "1"}) == []
