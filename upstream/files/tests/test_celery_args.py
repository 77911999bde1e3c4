"""ARGS of the Celery backends keep their types; mistakes are reported in a line."""

import logging
from datetime import timedelta
from io import StringIO

import pytest

pytest.importorskip("celery")

from django.core.management import CommandError
from django.test import override_settings

from django_prodserver.backends.workers.celery import CeleryBeat, CeleryWorker
from django_prodserver.management.commands.worker import Command

APP = "tests.celery_project.app"


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        ({"without-gossip": True}, ["--without-gossip"]),
        ({"without_gossip": None}, ["--without-gossip"]),
        ({"without-gossip": False}, []),
        ({"concurrency": None}, []),
        ({"max_tasks_per_child": 10}, ["--max-tasks-per-child=10"]),
        ({"queues": ["high", "low"]}, ["--queues=high,low"]),
        ({"autoscale": (10, 3)}, ["--autoscale=10,3"]),
        ({"queues": []}, []),
        ({"time-limit": timedelta(minutes=5)}, ["--time-limit=300"]),
        ({"loglevel": logging.INFO}, ["--loglevel=INFO"]),
        (
            "--concurrency=2 --queues='high,low'",
            ["--concurrency=2", "--queues=high,low"],
        ),
    ],
)
def test_worker_args(args, expected):
    """A value is spelled as it would stand on the command line."""
    assert CeleryWorker(APP=APP, ARGS=args).prep_server_args() == expected


def test_beat_args():
    """Beat has options of its own."""
    args = {"max_interval": 5, "scheduler": None}

    assert CeleryBeat(APP=APP, ARGS=args).prep_server_args() == ["--max-interval=5"]


@pytest.mark.parametrize("app", ["tests.celery_project", "tests.celery_project:app"])
def test_app_is_found_as_celery_finds_it(app):
    """APP takes what ``celery --app`` takes."""
    assert CeleryWorker(APP=app).app.main == "tests"


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"ARGS": {"concurency": 2}}, "'concurrency'"),
        ({"ARGS": {"time-limit": "long"}}, "'long' is not a valid float"),
        ({"ARGS": {"without-gossip": "yes"}}, "ARGS['without-gossip'] = 'yes'"),
        ({"ARGS": {"time-limit": [1, 2]}}, "ARGS['time-limit'] = [1, 2]"),
        ({"ARGS": {"queues": ["a,b"]}}, "ARGS['queues'] = ['a,b']"),
        ({"ARGS": {"pool": "greenlet"}}, "'greenlet' is not one of"),
        ({"ARGS": {"autoscale": "a,b"}}, "ARGS['autoscale'] = 'a,b'"),
        ({"ARGS": {"help": True}}, "ARGS['help'] = True"),
        ({"ARGS": 1}, "ARGS"),
        ({"APP": None}, "the key APP is missing"),
        ({"APP": "nowhere"}, "APP = 'nowhere' cannot be imported"),
        ({"APP": "tests.celery_project:STATUS"}, "is a int, not a Celery app"),
    ],
)
def test_mistake_is_one_line(entry, message):
    """A mistake is an error of one line that names the process and the key."""
    process = {
        "BACKEND": "django_prodserver.backends.workers.celery.CeleryWorker",
        "APP": APP,
        **entry,
    }
    command = Command()
    command.stderr = StringIO()

    with override_settings(PRODUCTION_PROCESSES={"mailer": process}):
        with pytest.raises(SystemExit) as exc_info:
            command.run_from_argv(["manage.py", "worker", "mailer"])

    assert exc_info.value.code == 1
    (line,) = command.stderr.getvalue().splitlines()
    assert line.startswith("CommandError: mailer: ")
    assert message in line


def test_mistake_in_further_arguments():
    """Arguments given to start_server are checked as well."""
    with pytest.raises(CommandError, match="no such option"):
        CeleryWorker(APP=APP).start_server("--concurency=2")
