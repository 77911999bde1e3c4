"""Words that django-prodserver forwards from its own command line."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from django.core.management import CommandError

from prodserver_celery5.backends import CeleryBackend, CeleryBeat, CeleryWorker
from prodserver_celery5.options import command
from prodserver_celery5.options import spelling as arguments
from prodserver_celery5.options.command import Command


@pytest.mark.parametrize(
    ("args", "extra", "words"),
    [
        ({}, [], []),
        ({"concurrency": 4}, [], ["--concurrency=4"]),
        (None, ["-c", "2"], ["-c", "2"]),
        ({"concurrency": 4}, ["-c", "2"], ["--concurrency=4", "-c", "2"]),
        ("-c 4", ("-c2",), ["-c", "4", "-c2"]),
        (["-c", 4], ["-Qa"], ["-c", "4", "-Qa"]),
        # Options stay before what Celery reads as settings.
        ("-c 4 -- worker.x=1", ["-c2"], ["-c", "4", "-c2", "--", "worker.x=1"]),
        ("-c4", ["--", "worker.x=1"], ["-c4", "--", "worker.x=1"]),
        ("-- a.b=1", ["-c2", "--", "c.d=2"], ["-c2", "--", "a.b=1", "c.d=2"]),
    ],
)
def test_they_follow_those_of_args(args: Any, extra: Any, words: list[str]) -> None:
    celery = CeleryWorker(APP="prayer_room_api").entry.command
    assert arguments.followed(arguments.spell(celery, args), extra) == words


@pytest.mark.parametrize("backend", [CeleryWorker, CeleryBeat])
def test_the_later_one_wins(backend: type[CeleryBackend]) -> None:
    assert backend.accepts_extra_args
    made = backend(APP="prayer_room_api", ARGS={"loglevel": "INFO", "pidfile": "a"})
    words = made.prep_server_args(["-l", "debug", "--pidfile=b"])
    assert words == ["--loglevel=INFO", "--pidfile=a", "-l", "debug", "--pidfile=b"]
    params = made.entry.parsed(words).params
    assert (params["loglevel"], params["pidfile"]) == (10, "b")


def test_they_are_parsed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    counted: Counter[str] = Counter()
    real = Command.parse

    def parse(self: Command, words: Any) -> Any:
        counted["parse"] += 1
        return real(self, words)

    monkeypatch.setattr(command.Command, "parse", parse)
    backend = CeleryWorker(APP="prayer_room_api", ARGS={"concurrency": 4})
    backend.entry.parsed(backend.prep_server_args(["-c2"]))
    assert counted["parse"] == 1


@pytest.mark.parametrize(
    ("args", "extra", "line"),
    [
        ({}, ["--concurency=2"], "worker: on the command line, --concurency: Celery "),
        ("-c4", ["--time-limit=x"], "worker: on the command line, --time-limit: "),
        ({}, ["&"], "worker: on the command line, word '&': it belongs to no option."),
        ({}, ["-A", "x"], "worker: on the command line, --app: this has no place in "),
        (
            {"loglevel": "INFO"},
            ["--pidfile=/no/x"],
            "worker: on the command line, pidfile = '/no/x': the folder '/no' does not",
        ),
        (
            {},
            ["worker", "-c2"],
            "worker: on the command line, word 'worker': only what follows",
        ),
        ({}, ["--uid=nobody-here"], "worker: on the command line, uid = 'nobody-here'"),
        # The command line is not blamed for a mistake in ARGS.
        ({"no-such": 1}, ["-c2"], "worker: ARGS['no-such'] = 1: Celery "),
        ({"pidfile": "/no/x"}, ["-c2"], "worker: pidfile = '/no/x': the folder "),
        ("--no-such", ["-c2"], "worker: ARGS --no-such: Celery "),
    ],
)
def test_a_mistake_is_where_it_is(args: Any, extra: list[str], line: str) -> None:
    with pytest.raises(CommandError) as stopped:
        CeleryWorker(APP="prayer_room_api", ARGS=args).prep_server_args(extra)
    assert str(stopped.value).startswith(line)
    assert "\n" not in str(stopped.value)


def test_the_hint_for_a_command_line_is_not_about_args() -> None:
    with pytest.raises(CommandError, match=r" Remove it: none of it is needed\.$"):
        CeleryWorker(APP="prayer_room_api").prep_server_args(["celery", "worker"])


def test_what_args_have_wrong_they_may_put_right() -> None:
    backend = CeleryWorker(APP="prayer_room_api", ARGS={"pidfile": "/no/x"})
    assert backend.prep_server_args(["--pidfile=x"])[-1] == "--pidfile=x"
