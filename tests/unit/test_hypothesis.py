"""Any ARGS become keyword arguments, or one line that says what is wrong."""

from __future__ import annotations

import os
import shlex
from datetime import timedelta
from pathlib import Path
from typing import Any

import click
import pytest
from celery import Celery
from celery.bin.beat import beat
from celery.bin.worker import worker
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from prodserver_celery5.findings import Finding
from prodserver_celery5.options.command import Command
from prodserver_celery5.options.errors import OptionError
from tests import parsing

settings.register_profile(
    "prodserver_celery5",
    max_examples=int(os.environ.get("HYPOTHESIS_EXAMPLES", "300")),
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
EACH = settings.get_profile("prodserver_celery5")

NAMES = sorted(
    {
        spelling
        for command in (worker, beat)
        for option in command.params
        for spelling in (*option.opts, *option.secondary_opts, str(option.name))
    }
    | {f"--{name}" for name in ("workdir", "quiet", "no-color", "broker", "help")}
)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    # The second has more digits than Python converts to text.
    st.sampled_from([400, 5000]).map(lambda digits: 10**digits),
    st.floats(),
    st.text(),
    st.sampled_from(["4", "a,b", "3,10", "INFO", "solo", "x:y", "%n", "--", "=", "-"]),
    st.binary(),
    st.timedeltas(),
    st.sampled_from([timedelta.max, Path("a"), object(), len, NotImplemented]),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.tuples(inner, inner),
        st.dictionaries(st.text(), inner, max_size=3),
    ),
    max_leaves=8,
) | st.frozensets(st.integers() | st.text() | st.none(), max_size=4)
KEYS = st.one_of(
    st.sampled_from([name.lstrip("-") for name in NAMES]),
    st.sampled_from([name.lstrip("-").replace("-", "_") for name in NAMES]),
    st.sampled_from(NAMES),
    st.text(),
    SCALARS.filter(lambda key: type(key).__hash__ is not None),
)
TEXTS = st.one_of(
    st.sampled_from(NAMES),
    st.builds("{}={}".format, st.sampled_from(NAMES), st.text()),
    st.builds("{}{}".format, st.sampled_from(["-", "--"]), st.text()),
    st.text(),
)
WORDS = TEXTS | SCALARS
ARGS = st.one_of(
    st.dictionaries(KEYS, VALUES, max_size=5),
    st.lists(WORDS, max_size=6),
    st.lists(WORDS, max_size=6).map(tuple),
    st.lists(TEXTS, max_size=6).map(" ".join),
    st.lists(TEXTS, max_size=6).map(shlex.join),
    st.text(),
    VALUES,
)


@pytest.fixture(scope="module")
def app() -> Celery:
    app = Celery("proj", set_as_current=False)
    app.user_options["worker"].add(click.Option(["--own"], multiple=True, nargs=2))
    app.user_options["preload"].add(click.Option(["--two/--no-two"]))
    return app


def is_one_line(text: str) -> bool:
    return bool(text.strip()) and len(text.splitlines()) == 1


def parse(app: Celery, program: str, args: Any) -> click.Context:
    words = parsing.words(program, app, args)
    assert all(type(word) is str for word in words)
    return Command(program, app).parse(words)


@EACH
@given(program=st.sampled_from(["worker", "beat"]), args=ARGS)
def test_arbitrary_args(app: Celery, program: str, args: Any) -> None:
    mistakes = parsing.mistakes(program, app, args)
    for mistake in mistakes:
        assert isinstance(mistake, OptionError)
        finding = Finding("E007", (), str(mistake), where=mistake.where)
        assert is_one_line(str(finding))
    if mistakes:
        with pytest.raises(OptionError):
            parse(app, program, args)
    else:
        context = parse(app, program, args)
        assert {param.name for param in context.command.params} == set(context.params)
