from unittest.mock import Mock, patch

import pytest

# Upstream's tests are not in the source distribution; the new ones follow.
celery = pytest.importorskip("celery")

from django_prodserver.backends.workers.celery import (  # NOQA: E402
    CeleryBeat,
    CeleryWorker,
)
