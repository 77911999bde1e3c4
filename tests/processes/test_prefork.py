"""What the children of a prefork pool share with their parent."""

from __future__ import annotations

from tests.deployment import Deployment


def test_children_leave_alone_what_was_loaded_before_the_fork(
    deployment: Deployment,
) -> None:
    deployment.configure(
        "PRODUCTION_PROCESSES['worker']['ARGS']['max-tasks-per-child'] = 1\n"
    )
    deployment.start("worker")
    deployment.shell(
        "from tests.processes.tasks import collector\n"
        "for _ in range(2): collector.delay()"
    )
    notes = [note.rpartition(" ") for note in deployment.wait_for_notes(2)]
    assert {collector for collector, _, _ in notes} == {"True True"}
    # Each ran in a child of its own: replacements are like the first.
    assert len({pid for _, _, pid in notes}) == 2
