"""Words of the command line, as the django-prodserver after 3.0 hands them on.

It is not released: `tests/processes/forwarding` has a command that does the same.
"""

from __future__ import annotations

import subprocess

import pytest

from prodserver_celery5.pytest_plugin.process import StartedProcess
from tests.deployment import Deployment

pytestmark = pytest.mark.once

FLAG = 'PRODUCTION_PROCESSES["worker"]["ARGS"]["without-gossip"] = True\n'


@pytest.fixture
def forwarding(deployment: Deployment) -> Deployment:
    deployment.configure(f'INSTALLED_APPS += ["tests.processes.forwarding"]\n{FLAG}')
    return deployment


def start(deployment: Deployment, name: str, *words: str) -> StartedProcess:
    return deployment.start(
        name, command=["python", "manage.py", "forward", name, *words]
    )


def end(deployment: Deployment, *words: str) -> subprocess.CompletedProcess[str]:
    done = deployment.manage("forward", "worker", *words)
    assert "Traceback" not in done.stderr
    return done


def test_a_worker_with_words_of_both_kinds(forwarding: Deployment) -> None:
    """Of ARGS, whose values they replace, and others, which follow."""
    worker = start(
        forwarding, "worker", "--without-gossip=false", "-Q", "mail,celery",
        "--concurrency", "2", "--max-tasks-per-child=5",
    )  # fmt: skip
    worker.wait_until_ready()
    shown = (
        "worker --loglevel=INFO --concurrency=2 -Q mail,celery --max-tasks-per-child=5"
    )
    assert shown in worker.output
    assert "concurrency: 2 (prefork)" in worker.output
    forwarding.shell("from tests.processes.tasks import write; write.delay('hi')")
    assert forwarding.wait_for_notes(1) == ["hi"]


def test_beat_without_words(forwarding: Deployment) -> None:
    beat = start(forwarding, "beat", "--loglevel=debug")
    beat.wait_until_ready()
    assert beat.stop() == 0


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--concurency=2"], "worker: on the command line, --concurency: Celery "),
        (
            ["--without-gossip", "--pool=solo"],
            "worker: ARGS['without-gossip'] = '--pool=solo': a flag takes True, False"
            ' or None. On a command line, write "=true" or "=false" after its name.',
        ),
    ],
)
def test_a_mistake_in_the_words_is_one_line(
    forwarding: Deployment, words: list[str], line: str
) -> None:
    done = end(forwarding, *words)
    assert done.returncode == 1
    (error,) = [row for row in done.stderr.splitlines() if "CommandError" in row]
    assert error.startswith(f"CommandError: {line}")


def test_the_checks_before_the_start_stop_it(forwarding: Deployment) -> None:
    with forwarding.settings_file.open("a") as file:
        file.write('PRODUCTION_PROCESSES["beat"]["ARGS"]["no-such"] = 1\n')
    done = end(forwarding)
    assert done.returncode == 1
    assert "PRODUCTION_PROCESSES['beat']: (prodserver_celery5.E006)" in done.stderr
