"""What a check leaves to the start: the app's configuration."""

from __future__ import annotations

from typing import Any

import celery
import click
import pytest
from celery import Celery
from django.core.management import CommandError

from prodserver_celery5.backends import CeleryBeat, CeleryWorker

from .entries import BEAT, DATABASE, PERSISTENT, WORKER, found


def test_the_apps_configuration_is_left_as_it_was(settings: Any, shop: Celery) -> None:
    shop.user_options["worker"].add(click.Option(["--own"]))
    before = dict(shop.conf.table()), list(shop.user_options["worker"])
    args = ["--own=1", "-c3", "worker.prefetch_multiplier=9"]
    assert found(settings, shop={**WORKER, "ARGS": args}, beat=BEAT) == []
    assert (dict(shop.conf.table()), list(shop.user_options["worker"])) == before


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
