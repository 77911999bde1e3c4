"""Beat in a container, sharing a database and a broker with a worker."""

from __future__ import annotations

import time

import pytest
from pytest_celery import CeleryTestNode, CeleryTestSetup, CeleryTestWorker

from tests.deployment import wait_until

SCHEDULE = """
from django_celery_beat.models import IntervalSchedule, PeriodicTask
second, _ = IntervalSchedule.objects.get_or_create(every=1, period="seconds")
for name, enabled in (("add", True), ("nap", False)):
    PeriodicTask.objects.create(
        name=f"{name} each second",
        task=f"tests.docker.tasks.{name}",
        interval=second,
        args="[20, 22]" if name == "add" else "[0]",
        enabled=enabled,
    )
"""


@pytest.fixture
def schedule(released: None, celery_worker: CeleryTestWorker) -> None:
    """Rows as the admin would make them; needs a worker only to run manage.py."""
    status, output = celery_worker.container.exec_run(
        ["python", "manage.py", "shell", "-c", SCHEDULE]
    )
    assert status == 0, output.decode()


def test_beat_sends_what_the_database_says(
    celery_setup: CeleryTestSetup, schedule: None, celery_beat: CeleryTestNode
) -> None:
    worker = celery_setup.worker
    celery_beat.assert_log_exists("Sending due task add each second")
    worker.assert_log_exists("succeeded in")
    log = celery_beat.logs() + worker.logs()
    assert "Task tests.docker.tasks.add" in log
    # What is disabled is neither sent nor run.
    assert "nap each second" not in log
    assert "nap began" not in log
    # While beat sends, the signal may be lost (docs/signals.md).
    sent = celery_beat.logs().count("Sending due")
    wait_until(lambda: celery_beat.logs().count("Sending due") > sent)
    time.sleep(0.3)
    assert celery_beat.container.stop() == 0
