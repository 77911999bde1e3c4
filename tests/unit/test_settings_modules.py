"""W017: a project whose manage.py and Celery app name different settings."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from prodserver_celery5.pytest_plugin.process import DEADLINE

MANAGE = """
import os, sys
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "proj.local")
if __name__ == "__main__":
    from django.core.management import execute_from_command_line
    execute_from_command_line(sys.argv)
"""

APP = """
import os
from celery import Celery, signals
{names}
app = Celery("proj", broker="memory://")

@signals.worker_init.connect
def initialize(**kwargs):
    os._exit(0)
"""

SETTINGS = """
SECRET_KEY = "x"
INSTALLED_APPS = ["django_prodserver", "prodserver_celery5"]
PRODUCTION_PROCESSES = {
    "worker": {
        "BACKEND": "prodserver_celery5.backends.CeleryWorker",
        "APP": "proj",
        "ARGS": {"pool": "solo"},
    }
}
"""

DEFAULT = 'os.environ.setdefault("DJANGO_SETTINGS_MODULE", "proj.{name}")'
ASSIGNED = 'os.environ["DJANGO_SETTINGS_MODULE"] = "proj.{name}"'

TWO_DEFAULTS = (
    "the default settings of proj.celery, the module of APP, are 'proj.live', which"
    " `celery` reads; those of this program are 'proj.local'."
)
CHANGED = (
    "DJANGO_SETTINGS_MODULE is 'proj.live' since APP = 'proj' was imported, but this"
    " program has read 'proj.local'."
)


CASES: list[tuple[str, list[str], dict[str, str], str]] = [
    (DEFAULT.format(name="live"), [], {}, TWO_DEFAULTS),
    (DEFAULT.format(name="local"), [], {}, ""),
    (DEFAULT.format(name="live"), ["--settings=proj.local"], {}, ""),
    (DEFAULT.format(name="live"), [], {"DJANGO_SETTINGS_MODULE": "proj.local"}, ""),
    (ASSIGNED.format(name="live"), [], {}, CHANGED),
    (ASSIGNED.format(name="local"), [], {}, ""),
]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc")
@pytest.mark.parametrize(
    ("names", "words", "env", "expected", "imported"),
    [
        *((*case, True) for case in CASES),
        # What is found, also where the project's package does not import its app.
        *((*case, False) for case in CASES if case[-1]),
    ],
)
def test_two_settings_modules(
    tmp_path: Path,
    names: str,
    words: list[str],
    env: dict[str, str],
    expected: str,
    imported: bool,
) -> None:
    project = tmp_path / "proj"
    project.mkdir()
    (tmp_path / "manage.py").write_text(MANAGE)
    (project / "__init__.py").write_text("from .celery import app\n" * imported)
    (project / "celery.py").write_text(APP.format(names=names))
    for name in ("local", "live"):
        (project / f"{name}.py").write_text(SETTINGS)
    clean = {k: v for k, v in os.environ.items() if k != "DJANGO_SETTINGS_MODULE"}
    path = os.pathsep.join(filter(None, sys.path))

    def run(*command: str) -> str:
        done = subprocess.run(
            [sys.executable, "manage.py", *command, *words],
            cwd=tmp_path,
            env={**clean, **env, "PYTHONPATH": path},
            capture_output=True,
            text=True,
            timeout=DEADLINE,
        )
        assert done.returncode == 0, done.stderr
        return done.stderr

    for output in (run("check"), run("prodserver", "worker")):
        assert ("settings" in output.replace("settings.W", "")) is bool(expected)
        assert expected in output
