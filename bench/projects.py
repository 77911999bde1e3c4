# ruff: noqa: S603 - it starts programs
"""The projects to measure: the example, and the example with many more apps."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from celery import Celery
from redis import Redis

from dev.procfile import ROOT

__all__ = ("PROJECTS", "Project")

APPS, MODELS, TASKS = 14, 8, 22

# What a project of that size installs besides its own apps, and what it imports.
INSTALLED = (
    "django.contrib.humanize",
    "django.contrib.sites",
    "allauth",
    "allauth.account",
    "corsheaders",
    "django_filters",
    "drf_spectacular",
    "import_export",
    "simple_history",
    "storages",
    "taggit",
)
IMPORTED = (
    "boto3",
    "django_filters.rest_framework",
    "import_export.resources",
    "PIL.Image",
    "requests",
    "storages.backends.s3",
    "taggit.managers",
)

SETTINGS = """\
import json, os

from prayer_room_api.settings import *

INSTALLED_APPS += {apps!r}
if "allauth" in INSTALLED_APPS:
    MIDDLEWARE += ["allauth.account.middleware.AccountMiddleware"]
CELERY_IMPORTS = ("bench.tasks",)
CELERY_RESULT_BACKEND = os.environ.get("BENCH_RESULTS") or None
_args = json.loads(os.environ.get("BENCH_ARGS", "{{}}"))
_keys = json.loads(os.environ.get("BENCH_KEYS", "{{}}"))
PRODUCTION_PROCESSES = {{}}
for _program in ("Worker", "Beat"):
    _name = _program.lower()
    PRODUCTION_PROCESSES[_name] = {{
        "BACKEND": f"prodserver_celery5.backends.Celery{{_program}}",
        "APP": "prayer_room_api",
        "ARGS": _args,
        **_keys,
    }}
    PRODUCTION_PROCESSES[f"own-{{_name}}"] = {{
        "BACKEND": f"django_prodserver.backends.workers.celery.Celery{{_program}}",
        "APP": "prayer_room_api.celery.app",
        "ARGS": _args,
    }}
"""

MODEL = """
class Thing{number}(models.Model):
    name = models.CharField("the name", max_length=200, db_index=True)
    text = models.TextField("the text", blank=True)
    number = models.PositiveIntegerField("the number", default=0)
    amount = models.DecimalField("the amount", max_digits=9, decimal_places=2)
    made = models.DateTimeField("made on", auto_now_add=True)
    changed = models.DateTimeField("changed on", auto_now=True)
    above = models.ForeignKey("self", models.CASCADE, null=True, blank=True)

    class Meta:
        verbose_name = "thing {number}"
        ordering = ["-made", "name"]
        managed = False

    def __str__(self):
        return self.name
"""

TASK = '''
@shared_task(bind=True, max_retries={number}, autoretry_for=(OSError,))
def task{number}(self, first, second=None, *, third=()):
    """Task {number} of the app: look things up, and write some of them."""
    things = models.Thing{model}.objects.filter(number=first)
    for thing in things.exclude(name="").order_by("name"):
        thing.text = f"{{second}} {{third}}"
        thing.save(update_fields=["text"])
    return things.count()
'''


class Project:
    """A Django project in a temporary folder.

    Args:
        name: one of `PROJECTS`.
        folder: for its settings, its apps and its database.
        redis: the URL of a Redis database.
    """

    def __init__(self, name: str, folder: Path, redis: str) -> None:
        self.name = name
        self.folder = folder
        apps = [f"app{number:02}" for number in range(1, APPS + 1)]
        if name == "small":
            apps = []
        for app in apps:
            _make_app(folder / app)
        if apps:
            apps = [*INSTALLED, *apps]
        (folder / "bench_settings.py").write_text(SETTINGS.format(apps=apps))
        self.naps = folder / "naps"
        self.env = {
            "ALLOWED_HOSTS": "127.0.0.1",
            "DATA_DIR": str(folder),
            "DJANGO_SETTINGS_MODULE": "bench_settings",
            "HOME": os.environ.get("HOME", "/"),
            "NAPS": str(self.naps),
            "PATH": os.environ["PATH"],
            "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)]),
            "REDIS_URL": redis,
            "SECRET_KEY": "only-for-the-benchmark",
        }
        self.manage("migrate", "--noinput")

    def manage(self, *words: str) -> None:
        """Run manage.py, and wait for it to end."""
        self.python("manage.py", *words)

    def python(self, *words: str) -> None:
        """Run Python, and wait for it to end."""
        subprocess.run(
            [sys.executable, *words],
            cwd=ROOT,
            env=self.env,
            check=True,
            stdout=subprocess.DEVNULL,
        )

    def prepare(self, task: str, count: int) -> None:
        """Keep messages in Redis, so that a run's queue can be filled at once."""
        queue = f"{task} {count}"
        with Redis.from_url(self.env["REDIS_URL"]) as redis:
            if redis.exists(queue):
                return
        with (
            Celery("bench", broker=self.env["REDIS_URL"], set_as_current=False) as app,
            app.connection_for_write() as connection,
            app.amqp.Producer(connection) as producer,
        ):
            for _ in range(count):
                app.send_task(f"bench.tasks.{task}", queue=queue, producer=producer)

    def schedule(self, count: int, *, at_once: bool = False) -> None:
        """Create periodic tasks: one runs every second, the rest daily.

        Args:
            count: how many.
            at_once: whether all run daily, and are due now.
        """
        self.python(
            "-c",
            "import django; django.setup()\n"
            "from datetime import timedelta\n"
            "from django.utils.timezone import now\n"
            "from django_celery_beat.models import *\n"
            "PeriodicTask.objects.all().delete()\n"
            "every = IntervalSchedule.objects.get_or_create\n"
            "second = every(every=1, period='seconds')[0]\n"
            "day = every(every=1, period='days')[0]\n"
            f"at_once = {at_once}\n"
            "before = now() - timedelta(days=2 * at_once)\n"
            "PeriodicTask.objects.bulk_create([PeriodicTask(\n"
            "    name=f'task {n}', task='bench.tasks.nothing', last_run_at=before,\n"
            "    interval=day if n or at_once else second,\n"
            "    queue='daily' if n and not at_once else None,\n"
            f") for n in range({count})])\n"
            "PeriodicTasks.update_changed()\n",
        )


def _make_app(folder: Path) -> None:
    folder.mkdir()
    models = "".join(MODEL.format(number=number) for number in range(MODELS))
    tasks = "".join(TASK.format(number=n, model=n % MODELS) for n in range(TASKS))
    things = ", ".join(f"models.Thing{number}" for number in range(MODELS))
    for name, code in {
        "__init__": "",
        "apps": "from django.apps import AppConfig\n\n"
        f"class Config(AppConfig):\n    name = {folder.name!r}\n"
        "    default_auto_field = 'django.db.models.BigAutoField'\n",
        "models": f"from django.db import models\n{models}",
        "admin": "from django.contrib import admin\n\nfrom . import models\n\n"
        f"for model in ({things}):\n"
        "    admin.site.register(model, list_display=['name', 'number'])\n",
        "serializers": "from rest_framework import serializers\n\n"
        "from . import models\n"
        + "".join(
            f"\nclass Thing{n}(serializers.ModelSerializer):\n"
            f"    class Meta:\n        model = models.Thing{n}\n"
            "        fields = '__all__'\n"
            for n in range(MODELS)
        ),
        "tasks": "from celery import shared_task\n"
        + "".join(f"import {module}\n" for module in IMPORTED)
        + f"\nfrom . import models, serializers\n{tasks}",
    }.items():
        (folder / f"{name}.py").write_text(code)


PROJECTS = ("small", "larger")
