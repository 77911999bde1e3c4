"""The app whose options are read."""

from __future__ import annotations

import pytest
from celery import Celery


@pytest.fixture
def app() -> Celery:
    return Celery("proj", set_as_current=False)
