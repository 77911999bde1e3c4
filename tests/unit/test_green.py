"""The launcher's command line; tests/behaviour starts workers behind it."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from ast import literal_eval
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import django
import pytest
from django.apps import AppConfig
from django.apps import apps as registry
from django.core.management import CommandError, ManagementUtility
from django.utils.functional import SimpleLazyObject

from prodserver_celery5.backends import CeleryWorker
from prodserver_celery5.process import green, restart
from prodserver_celery5.pytest_plugin.process import DEADLINE


@pytest.mark.parametrize("library", green.LIBRARIES)
def test_no_second_start(monkeypatch: pytest.MonkeyPatch, library: str) -> None:
    def never(*args: object) -> None:
        raise AssertionError

    monkeypatch.setattr(os, "execv", never)
    patched = SimpleNamespace(
        is_module_patched=lambda module: module == "socket",
        is_monkey_patched=lambda module: module == "socket",
    )
    module = {"gevent": "gevent.monkey", "eventlet": "eventlet.patcher"}[library]
    monkeypatch.setitem(sys.modules, module, patched)
    assert green.is_patched(library)
    green.restart(library)

    monkeypatch.delitem(sys.modules, module)
    assert not green.is_patched(library)
    argv = [sys.executable, green.__file__, library, "manage.py"]
    monkeypatch.setattr(sys, "orig_argv", argv)
    green.restart(library)


class Pool:
    """A pool of no module of Celery's."""


@pytest.mark.parametrize(
    ("module", "library"),
    [
        ("celery.concurrency.gevent", "gevent"),
        ("celery.concurrency.eventlet", "eventlet"),
        ("celery.concurrency.solo", None),
        ("shop.pools.gevent", None),
        ("gevent", None),
    ],
)
def test_what_a_pool_needs(module: str, library: str | None) -> None:
    """One of a project's own as well, if it derives from Celery's."""
    base = type("TaskPool", (Pool,), {"__module__": module})
    own = type("TaskPool", (base,), {"__module__": "shop.pools"})
    assert green.needed_by(base) == library
    assert green.needed_by(own) == library
    assert green.needed_by("solo") is None


@pytest.mark.parametrize(
    ("args", "extra", "variable", "library"),
    [
        ({"pool": "gevent"}, [], "", "gevent"),
        ({"P": "eventlet", "concurrency": 2}, [], "gevent", "eventlet"),
        ("-c 2 --pool gevent", [], "", "gevent"),
        (["-Pgevent"], [], "solo", "gevent"),
        (["--pool=solo", "-P", "gevent"], [], "", "gevent"),
        ({"pool": "gevent"}, ["--pool=solo"], "", None),
        ({"pool": "solo"}, ["-P", "gevent"], "", "gevent"),
        ({}, [], "gevent", "gevent"),
        (None, [], "gevent", "gevent"),
        ({"pool": "solo"}, [], "gevent", None),
        ({"pool": "shop.pools:Gevent"}, [], "", None),
        ("it's --pool=gevent", [], "", None),
        (["-P"], [], "", None),
        (7, [], "", None),
    ],
)
def test_a_pool_that_is_named(
    monkeypatch: pytest.MonkeyPatch,
    args: object,
    extra: list[str],
    variable: str,
    library: str | None,
) -> None:
    monkeypatch.setenv("CELERY_WORKER_POOL", variable)
    monkeypatch.setattr(green, "find_spec", lambda name: name)
    assert green.named_in(args, extra) == library
    monkeypatch.setattr(green, "find_spec", lambda name: None)
    assert green.named_in(args, extra) is None  # a rule says that it is missing


def test_a_named_pool_is_patched_before_the_app_is_imported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    patched: list[str] = []
    monkeypatch.setattr(green, "find_spec", lambda name: name)
    monkeypatch.setattr(green, "restart", patched.append)
    backend = CeleryWorker(APP="nowhere.to.be.found", ARGS={"pool": "gevent"})
    for typed, expected in (("pytest", []), ("prodserver", ["gevent"])):
        monkeypatch.setattr(sys, "argv", ["manage.py", typed, "worker"])
        with pytest.raises(CommandError, match="cannot be imported"):
            backend.prep_server_args()
        assert patched == expected


@pytest.mark.parametrize(
    ("flags", "way"),
    [
        ([], ["home/program.py"]),
        (["-I", "-O"], ["home/program.py"]),
        *([(["-P"], ["home/program.py"])] * (sys.version_info >= (3, 11))),
        ([], ["links/link"]),
        ([], ["-m", "program"]),
        ([], ["folder"]),
        (["-I"], ["packed"]),
    ],
)
def test_the_launcher_runs_a_program_as_python_does(
    tmp_path: Path, way: list[str], flags: list[str]
) -> None:
    """With the same name, arguments and folder, wherever it is started from."""
    pytest.importorskip("gevent")
    home = tmp_path / "home"
    home.mkdir()
    (home / "beside.py").write_text("")
    (home / "program.py").write_text(
        "import sys\n"
        "print(__name__, sys.argv, sys.path[0])\n"
        "print(sys.modules['__main__'].__dict__ is globals(), __file__)\n"
        f"if sys.path[0].startswith({str(tmp_path)!r}): import beside\n"
    )
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "link").symlink_to("../home/program.py")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "beside.py").write_text("")
    main = tmp_path / "folder" / "__main__.py"
    main.write_text((home / "program.py").read_text())
    with zipfile.ZipFile(tmp_path / "packed", "w") as packed:
        for file in (main, home / "beside.py"):
            packed.write(file, file.name)

    def run(*words: str) -> list[str]:
        return subprocess.run(
            [sys.executable, *flags, *words, *way, "a", "-b"],
            cwd=home if way[0] == "-m" else tmp_path,
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            check=True,
        ).stdout.splitlines()

    expected = run()
    assert run(green.__file__, "gevent") == expected
    assert "__main__" in expected[0]


def test_the_launcher_patches_first(tmp_path: Path) -> None:
    pytest.importorskip("gevent")
    program = tmp_path / "program.py"
    program.write_text(
        "from gevent.monkey import is_module_patched as is_; print(is_('socket'))"
    )
    words = [sys.executable, green.__file__, "gevent", str(program)]
    done = subprocess.run(
        words, capture_output=True, text=True, timeout=DEADLINE, check=True
    )
    assert done.stdout == "True\n"


@pytest.mark.parametrize("given", ["/given", ""])
def test_the_program_has_the_path_that_was_given(given: str, tmp_path: Path) -> None:
    pytest.importorskip("gevent")
    program = tmp_path / "program.py"
    program.write_text(
        "import os; print({k: v for k, v in os.environ.items() if 'PYTHONPATH' in k})"
    )
    done = subprocess.run(
        [sys.executable, green.__file__, "gevent", str(program)],
        env={**os.environ, "PYTHONPATH": "/more", restart.PATH_GIVEN: given},
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=True,
    )
    assert literal_eval(done.stdout) == ({"PYTHONPATH": given} if given else {})


class MadeError(Exception):
    """The app is made, and Django need not go on."""


@pytest.fixture
def early(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the libraries for which a restart is asked while Django is set up."""
    patched: list[str] = []

    def setup() -> None:
        AppConfig.create("prodserver_celery5")
        raise MadeError

    monkeypatch.setattr(green, "find_spec", lambda name: name)
    monkeypatch.setattr(green, "restart", patched.append)
    monkeypatch.setattr(django, "setup", setup)
    monkeypatch.delenv("CELERY_WORKER_POOL", raising=False)
    return patched


OURS = "prodserver_celery5.backends.CeleryWorker"
GREEN = {"BACKEND": OURS, "ARGS": {"pool": "gevent"}}

since_3 = pytest.mark.skipif(
    not find_spec("django_prodserver.management.commands.worker"),
    reason="django-prodserver 2 has one command",
)


@pytest.mark.parametrize(
    ("line", "entry", "library"),
    [
        ("prodserver tasks", GREEN, "gevent"),
        pytest.param("server tasks --traceback", GREEN, "gevent", marks=since_3),
        pytest.param("worker tasks", GREEN, "gevent", marks=since_3),
        ("prodserver tasks --pool=eventlet", GREEN, "eventlet"),
        ("prodserver tasks -P solo", GREEN, None),
        ("prodserver tasks", {"BACKEND": OURS, "ARGS": ("-P", "gevent")}, "gevent"),
        ("prodserver tasks", {"BACKEND": OURS}, None),
        ("prodserver tasks", {**GREEN, "BACKEND": "shop.Worker"}, None),
        ("prodserver tasks", {"ARGS": {"pool": "gevent"}}, None),
        ("prodserver other", GREEN, None),
        ("prodserver", GREEN, None),
        ("prodserver --list tasks", GREEN, None),
        ("prodserver tasks --list", GREEN, None),
        ("prodserver tasks --help", GREEN, None),
        ("devserver tasks", GREEN, None),
        ("check tasks", GREEN, None),
        ("help prodserver tasks", GREEN, None),
    ],
)
def test_a_named_pool_is_patched_when_the_app_is_made(
    early: list[str], settings: Any, line: str, entry: object, library: str | None
) -> None:
    settings.PRODUCTION_PROCESSES = {"tasks": entry}
    with pytest.raises(MadeError):
        ManagementUtility(["manage.py", *line.split()]).execute()
    assert early == ([library] if library else [])


@pytest.mark.parametrize("how", ["missing", "lazy"])
def test_settings_that_fail_go_on(early: list[str], settings: Any, how: str) -> None:
    def fail() -> None:
        early.append("asked")
        raise RuntimeError

    if how == "lazy":
        settings.PRODUCTION_PROCESSES = {"tasks": SimpleLazyObject(fail)}
    else:
        del settings.PRODUCTION_PROCESSES
    with pytest.raises(MadeError):
        ManagementUtility(["manage.py", "prodserver", "tasks"]).execute()
    assert early == {"missing": [], "lazy": ["asked"]}[how]


def test_a_program_that_cannot_restart_goes_on(
    early: list[str], settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(library: str) -> None:
        early.append(library)
        raise restart.RestartError

    monkeypatch.setattr(green, "restart", refuse)
    settings.PRODUCTION_PROCESSES = {"tasks": GREEN}
    with pytest.raises(MadeError):
        ManagementUtility(["manage.py", "prodserver", "tasks"]).execute()
    assert early == ["gevent"]


def test_another_program_is_left_alone(
    early: list[str], settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that sets Django up by itself, whatever its words."""
    settings.PRODUCTION_PROCESSES = {"tasks": GREEN}
    monkeypatch.setattr(sys, "argv", ["manage.py", "prodserver", "tasks"])
    AppConfig.create("prodserver_celery5")
    assert not early


@pytest.mark.parametrize(
    ("apps", "library"),
    [
        (["django_prodserver", "shop"], "gevent"),
        (["shop", "django_prodserver"], None),
        (["contenttypes"], None),  # ours comes before django_prodserver
    ],
)
def test_a_command_of_another_app_is_left_alone(
    early: list[str],
    settings: Any,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    apps: list[str],
    library: str | None,
) -> None:
    settings.PRODUCTION_PROCESSES = {"tasks": GREEN}
    commands = tmp_path / "management" / "commands"
    commands.mkdir(parents=True)
    (commands / "prodserver.py").write_text("")
    shop = SimpleNamespace(name="shop", path=str(tmp_path))
    known = {**registry.app_configs, "shop": shop}
    monkeypatch.setattr(registry, "app_configs", {name: known[name] for name in apps})
    with pytest.raises(MadeError):
        ManagementUtility(["manage.py", "prodserver", "tasks"]).execute()
    assert early == ([library] if library else [])
