"""The worker in a container, with each broker and more than one Celery."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from celery import chain, chord, group
from packaging.requirements import Requirement
from pytest_celery import (
    CeleryTestSetup,
    CeleryTestWorker,
    CeleryWorkerCluster,
    RedisTestBroker,
)

from . import tasks
from .containers import COMMANDS, WorkerContainer

TIMEOUT = 20

CELERY_VERSIONS = (
    Path(__file__).with_name("celery-versions.txt").read_text().splitlines()
)


def test_canvas(celery_setup: CeleryTestSetup) -> None:
    adding = chain(tasks.add.s(1, 2), tasks.add.s(4), tasks.add.s(8))
    assert adding.delay().get(timeout=TIMEOUT) == 15
    each = [tasks.add.s(n, n) for n in range(8)]
    doubled = [0, 2, 4, 6, 8, 10, 12, 14]
    assert group(each).delay().get(timeout=TIMEOUT) == doubled
    assert chord(each)(tasks.total.s()).get(timeout=TIMEOUT) == sum(doubled)


def test_killed_worker_loses_nothing(celery_setup: CeleryTestSetup) -> None:
    """An `acks_late` task is delivered again after a restart."""
    worker = celery_setup.worker
    result = tasks.late_nap.delay(2)
    worker.wait_for_log("nap began")
    worker.kill()
    assert worker.container.status == "exited"
    assert not result.ready()
    if isinstance(celery_setup.broker, RedisTestBroker):
        # Redis does not redeliver before the visibility_timeout of the settings.
        time.sleep(4)
    worker.restart()
    assert result.get(timeout=TIMEOUT) is True


def test_warm_shutdown(celery_setup: CeleryTestSetup) -> None:
    """`docker stop` lets the task finish, and the status is 0."""
    worker = celery_setup.worker
    result = tasks.nap.delay(3)
    worker.wait_for_log("nap began")
    assert worker.container.stop() == 0
    assert "Warm shutdown" in worker.logs()
    assert result.get(timeout=1) == "rested"


class TestTwoWorkers:
    @pytest.fixture
    def celery_worker_cluster(
        self, celery_worker: CeleryTestWorker, second_worker: CeleryTestWorker
    ) -> CeleryWorkerCluster:
        return CeleryWorkerCluster(celery_worker, second_worker)

    def test_they_share_the_load(self, celery_setup: CeleryTestSetup) -> None:
        results = group(tasks.whereabouts.s(0.2) for _ in range(24)).delay()
        where = results.get(timeout=TIMEOUT)
        ids = {worker.container.id[:12] for worker in celery_setup.worker_cluster}
        assert len(ids) == 2
        assert set(where) == ids


# Last: with another Celery the image is built anew, and the one before is gone.
@pytest.mark.parametrize(
    "worker_celery", CELERY_VERSIONS, indirect=True, scope="session"
)
def test_task(celery_setup: CeleryTestSetup, worker_celery: str) -> None:
    """A task reaches a worker that has the requested Celery."""
    container = celery_setup.worker.container
    # No other plugin's `celery_worker` overrides ours (pytest-celery 442), and no shell
    # or entry point stands between SIGTERM and Celery.
    assert isinstance(container, WorkerContainer)
    assert [container.attrs["Path"], *container.attrs["Args"]] == COMMANDS["worker"]
    version = tasks.version.delay().get(timeout=TIMEOUT)
    assert version in Requirement(worker_celery).specifier
    assert f"v{version}" in celery_setup.worker.logs()
