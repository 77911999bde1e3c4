"""How our green workers get patched, where the command has no counterpart."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import celery
import pytest

from dev.procfile import ROOT
from prodserver_celery5.pytest_plugin.process import StartedProcess

from .sides import READY, Site

MakeSite = Callable[[str, str], Site]

# Celery 5.2 and older read their entry points in ways that warn.
pytestmark = [
    pytest.mark.filterwarnings("ignore:SelectableGroups:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:pkg_resources:UserWarning"),
]

LIBRARIES = ("gevent", "eventlet")


def start(site: Site, words: list[str], cwd: Path, stack: ExitStack) -> StartedProcess:
    """Start a worker with a given command, and wait until it is ready."""
    log = site.folder / "worker.log"
    command = [sys.executable, *words]
    worker = stack.enter_context(
        StartedProcess(command, log=log, cwd=cwd, env=site.env)
    )
    worker.wait_for(READY)
    return worker


def patched(site: Site, count: int = 1) -> str:
    """Return which library a task finds patched."""
    site.send("look", ())
    return str(json.loads(site.wait_for_notes(count)[-1])["patched"])


@pytest.mark.skipif(
    celery.VERSION < (5, 1), reason="Celery 5.0's worker ignores worker_pool"
)
@pytest.mark.parametrize("library", LIBRARIES)
def test_a_pool_of_the_settings_is_patched_in_any_folder(
    make_site: MakeSite, library: str
) -> None:
    site = make_site("prodserver", "redis")
    site.configure(
        f"CELERY_WORKER_POOL = {library!r}\n"
        "PRODUCTION_PROCESSES['worker']['ARGS'] = {'loglevel': 'INFO'}\n"
    )
    manage = str(ROOT / "manage.py")
    with ExitStack() as stack:
        words = [manage, "prodserver", "worker"]
        worker = start(site, words, site.folder, stack)
        assert patched(site) == library
        worker.send(signal.SIGHUP)
        worker.wait_for(READY, count=2)
        assert patched(site, 2) == library
        assert worker.stop() == 0


@pytest.mark.parametrize("library", LIBRARIES)
def test_where_it_is_patched_already_nothing_is_replaced(
    make_site: MakeSite, library: str
) -> None:
    site = make_site("prodserver", "redis")
    site.configure(
        "PRODUCTION_PROCESSES['worker']['ARGS'] ="
        f" {{'loglevel': 'INFO', 'pool': {library!r}}}\n"
    )
    patch = {
        "gevent": "from gevent.monkey import patch_all; patch_all()",
        "eventlet": "from eventlet import monkey_patch; monkey_patch()",
    }[library]
    program = site.folder / "patched.py"
    program.write_text(
        f"{patch}\n"
        "import sys\n"
        f"sys.path.insert(0, {str(ROOT)!r})\n"
        "print('started', flush=True)\n"
        "from django.core.management import execute_from_command_line\n"
        "execute_from_command_line(sys.argv)\n"
    )
    with ExitStack() as stack:
        words = [str(program), "prodserver", "worker"]
        worker = start(site, words, site.folder, stack)
        assert patched(site) == library
        assert worker.output.count("started") == 1
        assert site.end_idle(worker)["status"] == 0


@pytest.mark.parametrize("library", LIBRARIES)
def test_the_models_are_imported_once(make_site: MakeSite, library: str) -> None:
    """Those of every app, if the two apps stand in their order."""
    site = make_site("prodserver", "redis")
    for name in ("before", "after"):
        (site.folder / name).mkdir()
        code = f"print('models {name}', flush=True)\n"
        (site.folder / name / "models.py").write_text(code)
    site.configure("INSTALLED_APPS = ['before', *INSTALLED_APPS, 'after']\n")
    worker = site.ready(pool=library)
    assert patched(site) == library
    said = [line for line in worker.output.splitlines() if line.startswith("models ")]
    assert said == ["models before", "models after"]
    assert worker.output.count(" named worker") == 1
    assert worker.stop() == 0
