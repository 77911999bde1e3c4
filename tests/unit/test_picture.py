"""A check leaves the process as it was, whatever the modules of the apps do."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from prodserver_celery5.pytest_plugin.process import DEADLINE

Run = Callable[[str, tuple[str, ...]], str]

# The module of an app that changes whatever a module can change.
APP = """
import logging, os, signal, sys
from celery import Celery, signals

app = Celery({name!r}, broker="memory://{name}")
os.environ["OWN"] = {name!r}
os.environ.pop("GONE", None)
os.environ["DJANGO_SETTINGS_MODULE"] = "settings"
sys.path.append("/{name}")
sys.argv = ["{name}"]
os.chdir("/")
signal.signal(signal.SIGUSR2, lambda *args: None)
logging.getLogger().addHandler(logging.NullHandler())
logging.getLogger("known").setLevel({level})
logging.getLogger("known").disabled = True

@signals.worker_init.connect
def initialize(**kwargs):
    print("initialized", os.environ["OWN"], os.environ.get("GONE"), os.getcwd())
    print(logging.getLogger("known").level, sys.path[-1])
    sys.stdout.flush()
    os._exit(0)

@signals.before_task_publish.connect(weak=False)
def publish(**kwargs):
    pass
"""

SETTINGS = """
SECRET_KEY = "x"
INSTALLED_APPS = ["django_prodserver", "prodserver_celery5"]
PRODUCTION_PROCESSES = {{
    app: {{
        "BACKEND": "prodserver_celery5.backends.CeleryWorker",
        "APP": app,
        "ARGS": {{"pool": "solo"}},
    }}
    for app in {apps!r}
}}
"""

PICTURE = """
import logging, os, signal, sys
import django

django.setup()
import {imported}
from celery import _state, shared_task, signals
from django.core import checks, management


@shared_task
def add():
    pass


def picture():
    loggers = [logging.root, logging.getLogger("known"), logging.getLogger("celery")]
    return {{
        "current": _state._tls.current_app,
        "default": _state.default_app,
        "sends": add.app.main if _state.default_app else None,
        "signals": [
            (name, list(each.receivers))
            for name, each in vars(signals).items()
            if getattr(each, "receivers", None) is not None
        ],
        "environ": dict(os.environ),
        "path": list(sys.path),
        "argv": list(sys.argv),
        "folder": os.getcwd(),
        "handlers": [signal.getsignal(n) for n in sorted(signal.valid_signals())],
        "logging": [
            (each.level, each.disabled, each.propagate, list(each.handlers))
            for each in loggers
        ],
    }}


before = picture()
found = checks.run_checks()
assert not found
after = picture()
assert before == after, [key for key in before if before[key] != after[key]]
"""


@pytest.fixture
def run(tmp_path: Path) -> Run:
    def run(code: str, apps: tuple[str, ...]) -> str:
        for level, name in enumerate(("first", "second"), 1):
            text = APP.format(name=name, level=level)
            (tmp_path / f"{name}.py").write_text(text)
        (tmp_path / "settings.py").write_text(SETTINGS.format(apps=apps))
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=tmp_path,
            env={
                **os.environ,
                "DJANGO_SETTINGS_MODULE": "settings",
                "PYTHONPATH": os.pathsep.join([str(tmp_path), *filter(None, sys.path)]),
                "GONE": "here",
            },
            capture_output=True,
            text=True,
            timeout=DEADLINE,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


@pytest.mark.parametrize("apps", [("first", "second"), ("second", "first")])
@pytest.mark.parametrize("imported", ["first", "os"])
def test_a_check_changes_nothing(
    run: Run, imported: str, apps: tuple[str, ...]
) -> None:
    run(PICTURE.format(imported=imported), apps)


# The rest of PICTURE, in a process with one app that nothing has imported before.
LATER = """
assert before["default"] is before["current"] is None
for key in ("default", "sends"):
    before.pop(key), after.pop(key)
assert before == after
import first
assert add.app is first.app
"""


def test_the_only_app_stays_for_who_imports_it_later(run: Run) -> None:
    code = PICTURE.format(imported="os").partition("assert before == after")[0]
    run(code + LATER, ("first",))


def test_a_program_starts_with_all_that_its_app_does(run: Run) -> None:
    """In a process that has run the checks, too, as a command of a project's may."""
    code = """
import logging, os, signal, sys
import django
django.setup()
from django.core import checks, management
if {checked}:
    checks.run_checks()
    assert os.environ["GONE"] == "here"
logging.getLogger().addHandler(logging.StreamHandler())
os.environ["SINCE"] = "then"
management.execute_from_command_line(["manage.py", "prodserver", "first"])
"""
    outputs = [
        run(code.format(checked=checked), ("second", "first"))
        for checked in (False, True)
    ]
    assert outputs[0] == outputs[1]
    assert "initialized first None /" in outputs[0]
