"""The launcher's command line; that it patches is seen in tests/behaviour."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from prodserver_celery5 import green


@pytest.mark.parametrize(
    ("argv", "flags", "program"),
    [
        ("manage.py prodserver worker", "", "manage.py prodserver worker"),
        ("-m django prodserver worker", "", "-m django prodserver worker"),
        ("-u -X dev manage.py -u x", "-u -Xdev", "manage.py -u x"),
        ("-Wd -X utf8 -OO -m a.b -m c", "-Wd -Xutf8 -OO", "-m a.b -m c"),
        ("-W error manage.py", "-Werror", "manage.py"),
        ("-IEs manage.py", "-IEs", "manage.py"),
        (
            "--check-hash-based-pycs never manage.py --x",
            "--check-hash-based-pycs never",
            "manage.py --x",
        ),
        ("-um manage prodserver", "-u", "-m manage prodserver"),
        ("-uXdev -mmanage -x", "-uXdev", "-m manage -x"),
        ("-m debugpy --listen 1 manage.py", "", "-m debugpy --listen 1 manage.py"),
    ],
)
def test_the_program_starts_again_as_before(
    monkeypatch: pytest.MonkeyPatch, argv: str, flags: str, program: str
) -> None:
    executed: list[list[str]] = []
    monkeypatch.setattr(sys, "orig_argv", ["python", *argv.split()])
    monkeypatch.setattr(os, "execv", lambda path, words: executed.append(words))
    monkeypatch.setattr(green, "is_patched", lambda library: False)
    green.restart("gevent")
    assert executed == [
        [sys.executable, *flags.split(), green.__file__, "gevent", *program.split()]
    ]


@pytest.mark.parametrize("argv", ["-c pass worker", "-uc pass", "-Xdev -cpass x"])
def test_code_of_the_command_line_cannot_start_again(
    monkeypatch: pytest.MonkeyPatch, argv: str
) -> None:
    monkeypatch.setattr(sys, "orig_argv", ["python", *argv.split()])
    monkeypatch.setattr(green, "is_patched", lambda library: False)
    with pytest.raises(SystemExit, match="`python -c` cannot"):
        green.restart("gevent")


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


@pytest.mark.parametrize("way", [["program.py"], ["-m", "program"]])
def test_the_launcher_runs_a_program_as_python_does(
    tmp_path: Path, way: list[str]
) -> None:
    """With its name, arguments and folder, from a folder that may be another."""
    pytest.importorskip("gevent")
    (tmp_path / "beside.py").write_text("")
    (tmp_path / "program.py").write_text(
        "import sys, beside\n"
        "print(__name__, sys.argv, sys.path[0])\n"
        "print(sys.modules['__main__'].__dict__ is globals())\n"
    )
    cwd = tmp_path if way[0] == "-m" else tmp_path.parent
    program = way if way[0] == "-m" else [f"{tmp_path.name}/program.py"]

    def run(*words: str) -> list[str]:
        return subprocess.run(
            [sys.executable, *words, *program, "a", "-b"],
            cwd=cwd,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        ).stdout.splitlines()

    assert run(green.__file__, "gevent") == run()
    assert "__main__" in run()[0]
