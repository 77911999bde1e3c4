"""gevent and eventlet are patched in before anything else is imported."""

import os

import pytest

pytest.importorskip("celery")

from tests.celery_project import STATUS, manage


@pytest.mark.skipif(os.name != "posix", reason="exec keeps the pid on posix only")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("library", ["gevent", "eventlet"])
def test_pool_is_patched_in_time(library, tmp_path):
    """The process starts anew under its pid, with its flags, and patched."""
    pytest.importorskip(library)
    worker = {
        "BACKEND": "django_prodserver.backends.workers.celery.CeleryWorker",
        "APP": "tests.celery_project.app",
        "ARGS": {"pool": library, "concurrency": 100},
    }

    pid, status, output = manage(tmp_path, {"worker": worker}, "worker", "worker")

    assert status == STATUS, output
    assert f"'{library}': True, " in output
    assert f"'pid': {pid}, 'dev mode': True" in output
    assert output.count("Starting worker named worker") == 2
