"""The app whose beats are struck; no worker runs what they send."""

import os
import signal
import sys
import time
from contextlib import suppress
from functools import partial
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
    result_expires=None,  # else beat has one more task, at four in the morning
    beat_schedule={
        name: {"task": "blow", "schedule": seconds}
        for name, seconds in (("each second", 1.0), ("rare", 10.0))
        if os.environ.get("BEAT_SCHEDULE") == name
    },
    redbeat_redis_url=settings.BROKER_URL,
)


def die(moment: str, **kwargs: Any) -> None:
    """Die at once if a file asks for it, and remove the file."""
    try:
        Path(os.environ["HOME"], f"die {moment}").unlink()
    except FileNotFoundError:
        return
    os.kill(os.getpid(), signal.SIGKILL)


for moment in ("before", "after"):
    publish = getattr(signals, f"{moment}_task_publish")
    publish.connect(partial(die, moment), weak=False)

if "SHOW_MODULES" in os.environ:
    signals.beat_init.connect(
        lambda **kwargs: print(f"modules: {' '.join(sorted(sys.modules))}", flush=True),
        weak=False,
    )

if "SLOW_START" in os.environ:
    signals.beat_init.connect(
        lambda **kwargs: time.sleep(float(os.environ["SLOW_START"])), weak=False
    )

if "SWALLOW" in os.environ:

    class Beat(app.Beat):  # type: ignore[misc]
        """A beat whose SystemExit is lost, as when it interrupts a `__del__`."""

        def install_sync_handler(self, service: Any) -> None:
            super().install_sync_handler(service)
            handle: Any = signal.getsignal(signal.SIGTERM)

            def swallow(number: int, frame: Any) -> None:
                with suppress(SystemExit):
                    handle(number, frame)
                print("swallowed", flush=True)

            signal.signal(signal.SIGTERM, swallow)

    app.Beat = Beat
