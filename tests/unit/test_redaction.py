"""No password in anything that leaves the package."""

from __future__ import annotations

import json
import logging
import shlex
import sys
from types import ModuleType
from typing import Any

import click
import pytest
from celery import Celery
from django.core.management import CommandError
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from prodserver_celery5.backends import CeleryWorker
from prodserver_celery5.checks import check_processes
from prodserver_celery5.entry import Entry
from prodserver_celery5.findings import Finding
from prodserver_celery5.leader import lead
from prodserver_celery5.options import command
from prodserver_celery5.redaction import hidden, is_secret


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("--queues=a,b", "--queues=a,b"),
        ("broker.url=redis://:s3cret@h:1/0", "broker.url=redis://:**@h:1/0"),
        ("--x=amqp://me:s3cret@h//", "--x=amqp://me:**@h//"),
        ("--x=amqp://me:s3/cret@a@h//", "--x=amqp://me:**@h//"),
        ("--x=amqp://me:s3 cret@h//", "--x=amqp://me:**@h//"),
        ("--x=redis://:s3cret@a;redis://:s3cret@b", "--x=redis://:**@b"),
        ("--api-token=s3cret", "--api-token=**"),
        ("broker_password=s3cret", "broker_password=**"),
        ("'amqp://me:s3cret@h'", "'amqp://me:**@h'"),
        ("'--x=amqp://me:s3@c ret@h//'", "'--x=amqp://me:**@h//'"),
        ("--hostname=w@host", "--hostname=w@host"),
        ("http://host:80/", "http://host:80/"),
    ],
)
def test_a_word(text: str, shown: str) -> None:
    assert hidden(text) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        *(
            (whole, whole)
            for whole in (
                "https://host:8080/path, contact admin@corp",
                "https://host:8080/?mail=admin@corp",
                "https://host:8080/users/admin@corp",
                "https://host:8080,admin@corp",
                "http://host:port/path, contact admin@corp",
                "file://C:/x, ask admin@corp",
                "no redis://localhost: it is gone, ask admin@corp",
                "no redis://[::1]:6379/0, ask admin@corp",
                "no amqp://host:5672: refused (admin@corp)",
                "ARGS --own-key: Missing option '--own-key'.",
                "the key 'PASSWORD' is unknown. Did you mean 'api-key'?",
            )
        ),
        (
            "no amqp://me:s3cret@host:5672//, ask admin@corp",
            "no amqp://me:**@host:5672//, ask admin@corp",
        ),
        ("no amqp://me:s3 cret@host", "no amqp://me:**@host"),
        ("no amqp://me@corp:s3cret@host/", "no amqp://me@corp:**@host/"),
        ("https://me:s3cret@host/a@b", "https://me:**@host/a@b"),
        ("file://C:/x, amqp://me:s3cret@h", "file://C:/x, amqp://me:**@h"),
        ("sqs+https://me:s3cret@host", "sqs+https://me:**@host"),
        ("no redis://:8080/a@host", "no redis://:**@host"),
        ("ARGS['api-token'] = ['s3cret']: it's", "ARGS['api-token'] = **: it's"),
        ("SHOP_TOKEN = 's3cret': it takes one", "SHOP_TOKEN = **: it takes one"),
    ],
)  # fmt: skip
def test_the_rest_of_a_sentence_is_shown(text: str, shown: str) -> None:
    assert hidden(text) == shown
    assert hidden(shown) == shown


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["--my-password", "s3cret", "-c", "2"], "--my-password ** -c 2"),
        (["--my-password", "s3 cret", "-c", "2"], "--my-password ** -c 2"),
        (["--my-password=s3cret"], "--my-password=**"),
        (["--my-password=s3 cret", "next"], "'--my-password=**' next"),
        (["--api-flag", "--beat"], "--api-flag --beat"),
        (
            ["--", 'broker.transport_options=(dict){"a": {"password": "s3cret"}}'],
            """-- 'broker.transport_options=(dict){"a": {"password": **}}'""",
        ),
    ],
)
def test_a_command_line(words: list[str], shown: str) -> None:
    assert hidden(shlex.join(words)) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ({"USER": "me", "PASSWORD": "s3cret"}, "{'USER': 'me', 'PASSWORD': **}"),
        ({"a": [{"my-token": 5, "b": 1}]}, "{'a': [{'my-token': **, 'b': 1}]}"),
        ({"OPTIONS": {"passwd": 's3"cret'}}, "{'OPTIONS': {'passwd': **}}"),
        ({"key": b"s3cret", "b": 1}, "{'key': **, 'b': 1}"),
        ({"key": ["s3", "cret"], "b": 1}, "{'key': **, 'b': 1}"),
        ({"credentials": {"user": "s3cret"}, "b": 1}, "{'credentials': **, 'b': 1}"),
        ("-A proj --api_key=s3cret -c 2", "'-A proj --api_key=** -c 2'"),
        (["--api-token", "s3cret", "-c2"], "['--api-token', **, '-c2']"),
        ({"url": "amqp://me:s3cret@host"}, "{'url': 'amqp://me:**@host'}"),
        ({"queues": "a=b"}, "{'queues': 'a=b'}"),
    ],
)  # fmt: skip
def test_the_repr_of_a_value(value: Any, shown: str) -> None:
    assert hidden(repr(value)) == shown


@pytest.mark.parametrize(
    "name",
    [
        "api", "credentials", "database-url", "KEY", "passphrase", "pwd", "my_secret",
        "signature", "Token",
    ],
)  # fmt: skip
def test_a_secret_name(name: str) -> None:
    assert is_secret(name)
    assert hidden(f"{name}=s3cret") == f"{name}=**"


# Each kind of secret, at each exit

# Letters and digits that are nowhere else, and what an address or JSON has to escape.
SECRET = st.text("abcdxyz019-_.%+!/", min_size=1, max_size=8).map(
    lambda text: f"S3CRET{text}S3CRET"
)
KINDS = {
    "address": lambda secret: f"amqp://me:{secret}@host:5672//",
    "word": lambda secret: f"broker.password={secret}",
    "json": lambda secret: json.dumps({"sentinel_kwargs": {"password": secret}}),
    "a word of json": lambda secret: (
        "broker.transport_options=(dict)"
        + json.dumps({"sentinel_kwargs": {"password": secret}})
    ),
    "json in json": lambda secret: json.dumps(
        {"options": json.dumps({"password": secret})}
    ),
    "dict": lambda secret: {"a": [{"API_KEY": secret}]},
    "list": lambda secret: ["--api-token", secret],
    "repr": lambda secret: f"<Broker token={secret!r}>",
}
EACH = hypothesis_settings(
    max_examples=30,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@pytest.fixture
def shop(monkeypatch: pytest.MonkeyPatch) -> Celery:
    module = ModuleType("shop")
    module.app = Celery("shop", set_as_current=False)
    module.app.user_options["worker"].add(click.Option(["--own"]))
    monkeypatch.setitem(sys.modules, "shop", module)
    monkeypatch.setattr(command, "run", lambda context: 0)
    monkeypatch.setattr(CeleryWorker, "prepare", lambda *args: None)
    monkeypatch.setattr(Entry, "running", False)
    return module.app


@EACH
@given(kind=st.sampled_from(sorted(KINDS)), secret=SECRET)
def test_the_line_at_start(
    shop: Celery, capsys: pytest.CaptureFixture[str], kind: str, secret: str
) -> None:
    value = KINDS[kind](secret)
    words = value if isinstance(value, list) else ["--own", str(value)]
    if words[0] not in ("--own",):
        shop.user_options["worker"].add(click.Option(["--api-token"]))
    backend = CeleryWorker(APP="shop:app", ARGS=words)
    with pytest.raises(SystemExit):
        backend.start_server(*backend.prep_server_args())
    shown = capsys.readouterr()
    assert shown.out.startswith("celery --app=shop:app worker ")
    assert "S3CRET" not in shown.out + shown.err


@EACH
@given(kind=st.sampled_from(sorted(KINDS)), secret=SECRET)
def test_a_finding_and_a_check(
    shop: Celery, settings: Any, kind: str, secret: str
) -> None:
    value = KINDS[kind](secret)
    backend = "prodserver_celery5.backends.CeleryWorker"
    for entry in (
        {"APP": "shop:app", "ARGS": {"concurrency": value}},
        {"APP": "shop:app", "ARGS": {"no-such": value}},
        {"APP": "shop:app", "ARGS": [str(value), "stray"]},
        {"APP": "shop:app", "ARGS": f"-c2 {shlex.quote(str(value))} $HOME"},
        {"APP": "shop:app", "HEARTBEAT_FILE": {"a": value}},
    ):
        entry = {"BACKEND": backend, **entry}
        settings.PRODUCTION_PROCESSES = {"shop": entry}
        messages = check_processes()
        assert messages
        assert "S3CRET" not in "".join(map(str, messages))
        with pytest.raises(CommandError) as stopped:
            CeleryWorker(**entry).prep_server_args()
        assert "S3CRET" not in str(stopped.value)


@EACH
@given(kind=st.sampled_from(sorted(KINDS)), secret=SECRET)
def test_a_log(caplog: pytest.LogCaptureFixture, kind: str, secret: str) -> None:
    caplog.clear()
    lead._log(logging.WARNING, f"the database is away: {KINDS[kind](secret)}")
    assert "is away" in caplog.text
    assert "S3CRET" not in caplog.text


def test_a_long_place_is_shortened_when_nothing_in_it_is_secret_any_more() -> None:
    args = ["x" * 90, "--api-token", "s3cret" * 20]
    from prodserver_celery5.findings import Where

    finding = Finding("E007", (), "no.", where=Where("ARGS", f"= {args!r}"))
    assert "s3" not in str(finding)
    assert len(str(finding)) < 130
