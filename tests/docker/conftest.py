"""`nox -s docker` runs these tests; elsewhere they are skipped, and say why."""

from __future__ import annotations

import gc
import os
import warnings
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest

if find_spec("pytest_celery"):
    from .containers import *


class Skipped(pytest.Module):
    """A module that says why it is not even imported."""

    reason: str

    def collect(self) -> list[pytest.Item]:
        pytest.skip(self.reason, allow_module_level=True)


def pytest_pycollect_makemodule(
    module_path: Path, parent: pytest.Collector
) -> pytest.Module | None:
    if not find_spec("pytest_celery"):
        reason = "pytest-celery is not installed; `nox -s docker` installs it"
    elif reason := no_daemon():
        # In CI a run without Docker must fail, not pass by skipping.
        if os.environ.get("CI"):
            raise pytest.UsageError(reason)
    else:
        return None
    module = Skipped.from_parent(parent, path=module_path)
    module.reason = reason
    return module


@cache
def no_daemon() -> str:
    """Return why Docker cannot be used, or nothing."""
    import docker

    reason = ""
    with warnings.catch_warnings():
        # A client that cannot connect leaves its socket to the garbage collector.
        warnings.simplefilter("ignore", ResourceWarning)
        try:
            docker.from_env().close()
        except docker.errors.DockerException as exc:
            reason = f"no Docker daemon answers: {exc}"
        gc.collect()
    return reason
