"""The rules for Celery's options."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click
import pytest
from celery import Celery, concurrency
from django.core import checks
from django.core.management import CommandError

from prodserver_celery5.backends import CeleryWorker

from ..entries import BEAT, WORKER, found


@pytest.mark.usefixtures("shop")
@pytest.mark.parametrize(
    ("args", "hint"),
    [
        ({"concurency": "$COUNT"}, "Did you mean 'concurrency'?"),
        (
            {"concurrency": "$COUNT"},
            'Write "concurrency": os.environ["COUNT"] in the settings.',
        ),
        ({"pidfile": "~/no-such/x"}, "Nothing expands ~: write Path.home()."),
        (
            ["-Q", "$QUEUE"],
            'Write "ARGS": ["-Q", os.environ["QUEUE"]] in the settings.',
        ),
        ({"queues": "$QUEUE"}, 'Write "queues": os.environ["QUEUE"] in the settings.'),
    ],
)
def test_the_hint_where_a_shell_would_expand_it(
    settings: Any, args: Any, hint: str
) -> None:
    (message,) = found(settings, shop={**WORKER, "ARGS": args})
    assert message.hint == hint


def make_scheduler() -> None:
    """Celery calls whatever the path of a scheduler names."""


@pytest.mark.usefixtures("shop")
def test_a_scheduler_that_is_no_class(settings: Any) -> None:
    path = f"{__name__}:make_scheduler"
    assert found(settings, beat={**BEAT, "ARGS": {"scheduler": path}}) == []


@pytest.mark.usefixtures("shop")
def test_a_scheduler_that_ends_the_program(
    settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "shop_scheduler.py").write_text("raise SystemExit(0)")
    monkeypatch.delitem(sys.modules, "shop_scheduler", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    entry = {**BEAT, "ARGS": {"scheduler": "shop_scheduler:Scheduler"}}
    (message,) = found(settings, beat=entry)
    assert message.id == "prodserver_celery5.E008"


@pytest.mark.usefixtures("shop")
def test_a_scheduler_that_an_installed_app_lacks(settings: Any) -> None:
    path = "django_celery_beat.schedulers:Database"
    (message,) = found(settings, beat={**BEAT, "ARGS": {"scheduler": path}})
    assert message.id == "prodserver_celery5.E008"


@pytest.mark.usefixtures("shop")
def test_a_custom_pool_without_its_variable(
    settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(concurrency.ALIASES, "custom", None)
    (message,) = found(settings, shop={**WORKER, "ARGS": {"pool": "custom"}})
    assert message.id in ("prodserver_celery5.W001", "prodserver_celery5.E007")
    if message.id.endswith("W001"):
        assert message.msg == (
            "pool = 'custom' needs the variable CELERY_CUSTOM_WORKER_POOL."
        )


@pytest.mark.usefixtures("shop")
@pytest.mark.parametrize("entry", [WORKER, BEAT])
def test_umask_and_executable_without_detach(
    settings: Any, entry: dict[str, Any]
) -> None:
    args = {"umask": "022", "executable": "/usr/bin/python3"}
    assert found(settings, shop={**entry, "ARGS": args}) == [
        checks.Warning(
            f"{key} has no effect without detach.",
            obj="PRODUCTION_PROCESSES['shop']",
            id="prodserver_celery5.W004",
        )
        for key in args
    ]
    assert found(settings, shop={**entry, "ARGS": {**args, "detach": True}}) == []


@pytest.mark.usefixtures("shop")
def test_a_second_beat(settings: Any) -> None:
    embedded = {**WORKER, "ARGS": {"beat": True}}
    expected = checks.Warning(
        "beat = True starts a second beat of this app, beside the process b:"
        " each scheduled task would be sent twice.",
        hint="Remove one of the two.",
        obj="PRODUCTION_PROCESSES['w']",
        id="prodserver_celery5.W005",
    )
    assert found(settings, w=embedded, b=BEAT) == [expected]
    assert found(settings, b=BEAT, w={**WORKER, "ARGS": "-B"}) == [expected]
    assert found(settings, w=embedded) == []
    assert found(settings, w=WORKER, b=BEAT) == []
    assert found(settings, w=embedded, b={**BEAT, "APP": "prayer_room_api"}) == []
    # The same app, spelled differently.
    assert found(settings, w=embedded, b={**BEAT, "APP": "shop"}) == [expected]


@pytest.mark.parametrize(
    "pool",
    [
        "celery.concurrency.solo:TaskPool",
        "celery.concurrency.solo.TaskPool",
        "celery.concurrency.solo",
    ],
)
def test_the_path_of_a_pool(shop: Celery, pool: str) -> None:
    shop.conf.worker_pool = pool
    assert CeleryWorker(**WORKER).prep_server_args() == []
    shop.conf.worker_pool = "nowhere"
    (finding,) = CeleryWorker(**WORKER).findings()
    assert finding.message.startswith("pool = 'nowhere' needs the module 'nowhere',")


def test_embedded_beat_beside_a_beat_whose_app_is_missing(
    settings: Any, shop: Celery
) -> None:
    messages = found(
        settings,
        worker={**WORKER, "ARGS": {"beat": True}},
        beat={**BEAT, "APP": "shop_nowhere"},
    )
    assert [message.id for message in messages] == ["prodserver_celery5.E004"]


def test_a_pool_in_a_package_that_is_missing(shop: Celery) -> None:
    shop.conf.worker_pool = "shop_nowhere.pools:TaskPool"
    with pytest.raises(CommandError, match=r"module 'shop_nowhere\.pools'"):
        CeleryWorker(**WORKER).prep_server_args()


@pytest.mark.usefixtures("shop")
@pytest.mark.parametrize(
    ("args", "message", "hint"),
    [
        ({"queues": "a, b"}, "queues has ' b'", "Remove the space."),
        ({"queues": ["a", " b"]}, "queues has ' b'", "Remove the space."),
        ("-Q 'a ,b'", "queues has 'a '", "Remove the space."),
        (
            {"exclude_queues": "a,\n b"},
            "exclude_queues has '\\n b'",
            "Remove the space.",
        ),
        (["-I", "a,b "], "include has 'b '", "Remove the space."),
        ({"queues": ""}, "queues has ''", "Remove it."),
        ({"queues": "a,"}, "queues has ''", "Remove it."),
    ],
)
def test_the_space_in_a_list(settings: Any, args: Any, message: str, hint: str) -> None:
    entry = {**WORKER, "ARGS": args}
    assert found(settings, shop=entry) == [
        checks.Warning(
            f"{message}, which Celery takes as it is.",
            hint=hint,
            obj="PRODUCTION_PROCESSES['shop']",
            id="prodserver_celery5.W016",
        )
    ]
    CeleryWorker(**entry).prep_server_args()


def test_a_list_of_what_cannot_have_a_space(shop: Celery) -> None:
    ports = click.Option(["--ports"], callback=lambda ctx, param, value: [5555, 5556])
    shop.user_options["worker"].add(ports)
    backend = CeleryWorker(**WORKER)
    assert [*backend.findings()] == []
    assert backend.entry.context.params["ports"] == [5555, 5556]
