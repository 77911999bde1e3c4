"""The app whose beats are struck; nobody runs what they send."""

import os
import signal
import sys
from pathlib import Path
from typing import Any

from celery import Celery, signals
from django.conf import settings

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.blows.settings")

app = Celery("blows", broker=settings.BROKER_URL)
app.conf.update(
    enable_utc=True,
    timezone="UTC",
    broker_connection_retry_on_startup=True,
    beat_schedule=(
        {"each second": {"task": "blow", "schedule": 1.0}}
        if os.environ.get("BEAT_SCHEDULE")
        else {}
    ),
    redbeat_redis_url=settings.BROKER_URL,
)


def die(**kwargs: Any) -> None:
    """End at once, if the file that asks for it is there, and take that away."""
    try:
        Path(os.environ["HOME"], "die").unlink()
    except FileNotFoundError:
        return
    os.kill(os.getpid(), signal.SIGKILL)


if moment := os.environ.get("DIE"):
    getattr(signals, f"{moment}_task_publish").connect(die)

if "SHOW_MODULES" in os.environ:
    signals.beat_init.connect(
        lambda **kwargs: print(f"modules: {' '.join(sorted(sys.modules))}", flush=True),
        weak=False,
    )
