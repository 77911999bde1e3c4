"""What stands between Celery's own command and the exit status."""

from __future__ import annotations

import gc
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import pytest
from celery import Celery, signals
from django.core.management import CommandError

from prodserver_celery5 import command, pytest_plugin
from prodserver_celery5.backends import CeleryBeat, CeleryWorker
from prodserver_celery5.checks import check_processes
from prodserver_celery5.entries import Entry
from prodserver_celery5.pytest_plugin.process import StartedProcess
from tests import parsing


def started(monkeypatch: pytest.MonkeyPatch, ending: BaseException) -> Any:
    """Run a worker whose constructor, the last boundary, raises."""
    app = Celery("proj", set_as_current=False)

    def worker(**kwargs: Any) -> None:
        raise ending

    monkeypatch.setattr(app, "Worker", worker)
    return command.run(parsing.parse("worker", app, []))


def test_ctrl_c_before_the_program_has_its_handlers(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert started(monkeypatch, KeyboardInterrupt()) == 1
    assert capsys.readouterr().err == "Aborted!\n"


def test_an_error_that_the_command_reports_by_click(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert started(monkeypatch, click.UsageError("not so")) == 2
    assert "not so" in capsys.readouterr().err


@pytest.mark.parametrize("status", [0, 1, 73])
def test_the_status_that_the_command_ends_with(
    monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    assert started(monkeypatch, click.exceptions.Exit(status)) == status


@pytest.mark.parametrize("enabled", [True, False])
def test_the_collector_rests_until_the_pool_forks(
    monkeypatch: pytest.MonkeyPatch, enabled: bool
) -> None:
    """A project that has switched it off has it off afterwards as well."""
    app = Celery("proj", set_as_current=False)
    seen: list[object] = []

    def worker(**kwargs: Any) -> None:
        # Celery runs the checks once more, and discards what they find.
        assert check_processes() == []
        seen.append(gc.isenabled())
        signals.celeryd_after_setup.send(sender="worker@here")
        seen.extend([gc.isenabled(), gc.get_freeze_count() > 0])
        raise click.exceptions.Exit(0)

    monkeypatch.setattr(app, "Worker", worker)
    monkeypatch.setattr(signals.celeryd_after_setup, "receivers", [])
    monkeypatch.setattr(sys, "argv", list(sys.argv))
    monkeypatch.setattr(Entry, "app", app)
    monkeypatch.setattr(Entry, "running", False)
    if not enabled:
        gc.disable()
    try:
        with pytest.raises(SystemExit):
            CeleryWorker(APP="proj").start_server()
        assert seen == [False, enabled, True]
    finally:
        gc.unfreeze()
        gc.enable()


def test_arguments_that_prep_server_args_did_not_make() -> None:
    backend = CeleryWorker(APP="prayer_room_api")
    with pytest.raises(CommandError, match=r"worker: .*no such option") as raised:
        backend.start_server("--concurency=2")
    assert isinstance(raised.value.__cause__, command.UnknownOptionError)


def test_a_mistake_in_a_variable_that_celery_does_not_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CELERY_WORKER_AUTOSCALE", "a,b")
    app = Celery("proj", set_as_current=False)
    (mistake,) = parsing.mistakes("worker", app, {"concurrency": 2})
    assert mistake.where == "CELERY_WORKER_…"
    assert "Celery cannot read it" in str(mistake)


def test_an_argument_of_the_app_is_no_key() -> None:
    app = Celery("proj", set_as_current=False)
    app.user_options["worker"].add(click.Argument(["words"], nargs=-1))
    with pytest.raises(command.UnknownOptionError):
        parsing.words("worker", app, {"words": "x"})


def test_a_program_run_as_a_module_can_start_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "argv", ["/lib/django/__main__.py", "prodserver", "x"])
    main = SimpleNamespace(__spec__=SimpleNamespace(name="django.__main__"))
    monkeypatch.setitem(sys.modules, "__main__", main)
    app = Celery("proj", set_as_current=False)
    monkeypatch.setattr(Entry, "app", app)
    monkeypatch.setattr(Entry, "running", False)
    monkeypatch.setattr(command, "run", lambda context: 0)
    with pytest.raises(SystemExit):
        CeleryBeat(APP="proj").start_server()
    assert sys.argv == ["-m", "django", "prodserver", "x"]


def test_an_app_that_cannot_be_imported_when_the_program_starts() -> None:
    with pytest.raises(CommandError, match="APP = 'nowhere' cannot be imported"):
        CeleryWorker(APP="nowhere").start_server()


def test_the_text_of_a_remote_shutdown_is_no_status(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Celery 5.0 to 5.2 return it."""
    context = parsing.parse("worker", Celery("proj", set_as_current=False), [])
    monkeypatch.setattr(context.command, "callback", lambda **kwargs: "Got shutdown")
    assert command.run(context) == 0


def test_a_process_on_the_terminal_has_no_output_here(tmp_path: Path) -> None:
    with StartedProcess(
        ["true"], log=None, cwd=tmp_path, env={"PATH": "/usr/bin"}
    ) as process:
        assert process.wait() == 0
        assert process.stop() == 0
        assert process.output == ""


def test_what_a_backend_writes_may_have_to_be_told(settings: Any) -> None:
    settings.PRODUCTION_PROCESSES = {"mail": {"BACKEND": "shop.MailWorker"}}
    with pytest.raises(ValueError, match=r"mail: give ready=…, what shop\.MailWorker"):
        pytest_plugin._ready("mail")
