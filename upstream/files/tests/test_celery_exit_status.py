"""The exit status of Celery's programs is that of the process."""

import os
import sys
from unittest.mock import Mock, patch

import pytest

pytest.importorskip("celery")

import click
from celery.bin.celery import celery
from django.test import override_settings

from django_prodserver.backends.servers.flower import CeleryFlower
from django_prodserver.management.commands.worker import Command

from tests.celery_project import STATUS, manage

WORKER = "django_prodserver.backends.workers.celery.CeleryWorker"
BEAT = "django_prodserver.backends.workers.celery.CeleryBeat"
APP = "tests.celery_project.app"


@pytest.mark.parametrize("backend", [WORKER, BEAT])
def test_status_is_handed_on(backend):
    """Whatever status the program ends with is what the command exits with."""
    with override_settings(
        PRODUCTION_PROCESSES={"worker": {"BACKEND": backend, "APP": APP}}
    ):
        with pytest.raises(SystemExit) as exc_info:
            Command().run_from_argv(["manage.py", "worker", "worker"])

    assert exc_info.value.code == STATUS


def test_flower_status_is_handed_on():
    """Flower is a subcommand of the ``celery`` command as well."""

    @click.command("flower")
    @click.pass_context
    def flower(ctx):
        ctx.exit(STATUS)

    with (
        patch.dict(sys.modules, {"flower": Mock()}),
        patch.dict(celery.commands, {"flower": flower}),
        pytest.raises(SystemExit) as exc_info,
    ):
        CeleryFlower(APP=APP).start_server()

    assert exc_info.value.code == STATUS


@pytest.mark.skipif(os.name != "posix", reason="os.kill(pid, 0) is a look on posix")
def test_pidfile_in_use(tmp_path):
    """A real worker whose pidfile is in use ends as ``celery worker`` does."""
    pidfile = tmp_path / "worker.pid"
    pidfile.write_text(f"{os.getpid()}\n")
    worker = {
        "BACKEND": WORKER,
        "APP": "tests.celery_project.real_app",
        "ARGS": {"pidfile": str(pidfile), "pool": "solo"},
    }

    _, status, output = manage(tmp_path, {"worker": worker}, "worker", "worker")

    assert status == os.EX_CANTCREAT, output
