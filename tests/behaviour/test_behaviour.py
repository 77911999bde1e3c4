"""Each scenario ends the same with ``celery`` and ``manage.py prodserver``."""

from __future__ import annotations

from collections.abc import Callable

import celery
import pytest

from .outcomes import Outcomes, differences
from .scenarios import SCENARIOS, Scenario
from .sides import SIDES, Site, both

# Until 5.3 the command lost the worker's exit status.
LOSES_STATUS = celery.VERSION < (5, 3)


@pytest.mark.parametrize(
    "scenario",
    [
        pytest.param(each, id=each.name, marks=[pytest.mark.once] * each.once)
        for each in SCENARIOS
    ],
)
def test_it_behaves_as_the_command(
    scenario: Scenario, make_site: Callable[[str, str], Site], outcomes: Outcomes
) -> None:
    if not scenario.runs:
        pytest.skip(f"not on Celery {celery.__version__}: see the scenario")
    sites = [make_site(side, scenario.broker) for side in SIDES]
    command, ours = both(scenario, sites)
    outcomes.add(scenario.name, command, ours)
    logs = "\n".join(site.logs() for site in sites)
    assert ours == {**ours, **scenario.expected}, logs
    theirs = {**command, "status": ours.get("status")} if LOSES_STATUS else command
    assert differences(theirs, ours) == [], logs
