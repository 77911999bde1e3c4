"""Worker and beat are started by Celery's own declarations of them."""

import pytest

pytest.importorskip("celery")

from django_prodserver.backends.workers import _celery_options as options
from django_prodserver.backends.workers.celery import CeleryBeat, CeleryWorker

from tests.celery_project import STATUS, FakeWorker, app, manage

APP = "tests.celery_project.app"


def test_keyword_arguments_have_types(capsys):
    """The worker gets what ``celery worker`` would have given it."""
    worker = CeleryWorker(APP=APP, ARGS={"concurrency": "2", "queues": ["a", "b"]})

    with pytest.raises(SystemExit) as exc_info:
        worker.start_server(*worker.prep_server_args())

    assert exc_info.value.code == STATUS
    assert FakeWorker.kwargs["concurrency"] == 2
    assert FakeWorker.kwargs["queues"] == ["a", "b"]
    shown = f"celery --app={APP} worker --concurrency=2 --queues=a,b\n"
    assert shown in capsys.readouterr().out


def test_environment_variables_are_read(monkeypatch):
    """Celery's options have variables, which ``app.start()`` does not read."""
    monkeypatch.setenv("CELERY_WORKER_CONCURRENCY", "3")

    with pytest.raises(SystemExit):
        CeleryWorker(APP=APP).start_server()

    assert FakeWorker.kwargs["concurrency"] == 3


def test_options_can_be_parsed_without_starting():
    """Nothing is started to know the keyword arguments, or to run them later."""
    context = options.parse("beat", app, ["--max-interval=5"])

    assert context.params["max_interval"] == 5
    assert options.run(context) == STATUS


@pytest.mark.parametrize("backend", [CeleryWorker, CeleryBeat])
def test_other_subcommands_are_not_imported(backend, tmp_path):
    """Importing celery.bin.celery would bring all of Celery's subcommands."""
    path = f"{backend.__module__}.{backend.__name__}"

    _, status, output = manage(
        tmp_path, {"worker": {"BACKEND": path, "APP": APP}}, "worker", "worker"
    )

    assert status == STATUS, output
    assert "'celery command': False" in output
