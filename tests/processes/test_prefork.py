"""What the children of a prefork pool share with their parent."""

from __future__ import annotations

from tests.deployment import Deployment


def run_twice(deployment: Deployment, task: str) -> None:
    deployment.start("worker")
    deployment.shell(
        f"from tests.processes.tasks import {task}\nfor _ in range(2): {task}.delay()"
    )


def test_children_leave_alone_what_was_loaded_before_the_fork(
    deployment: Deployment,
) -> None:
    deployment.configure(
        "PRODUCTION_PROCESSES['worker']['ARGS']['max-tasks-per-child'] = 1\n"
    )
    run_twice(deployment, "collector")
    notes = [note.rpartition(" ") for note in deployment.wait_for_notes(2)]
    assert {collector for collector, _, _ in notes} == {"True True"}
    # Each in a child of its own: those that replace others are as the first.
    assert len({pid for _, _, pid in notes}) == 2


def test_a_child_builds_the_tracers_of_the_tasks_that_it_runs(
    deployment: Deployment,
) -> None:
    run_twice(deployment, "tracers")
    notes = deployment.wait_for_notes(4)
    assert notes == ["applied", "built: tracers"] * 2


def test_a_tracer_around_celerys_is_kept(deployment: Deployment) -> None:
    deployment.configure("import tests.processes.instrumented\n")
    run_twice(deployment, "tracers")
    notes = deployment.wait_for_notes(8)
    runs = ["tracers began", "write began", "applied", "built: tracers"]
    assert notes == runs * 2
