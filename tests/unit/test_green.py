"""The launcher's command line; tests/behaviour starts workers behind it."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from ast import literal_eval
from pathlib import Path
from types import SimpleNamespace

import pytest
from django.core.management import CommandError

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
