"""The words that start a program again; tests/behaviour runs them."""

from __future__ import annotations

import atexit
import multiprocessing.process
import os
import re
import signal
import site
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from celery import Celery

from prodserver_celery5.process import green, restart
from prodserver_celery5.pytest_plugin.process import DEADLINE


class Executed(BaseException):
    """The process would have been replaced."""


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """Hide how pytest was started, and change to a folder with a manage.py."""

    def execute(path: str, words: list[str]) -> None:
        assert path == words[0] == sys.executable
        raise Executed(*words[1:])

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "execv", execute)
    monkeypatch.setattr(green, "is_patched", lambda library: False)
    monkeypatch.setattr(sys, "argv", ["changed", "by", "the program"])
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("PYTHONPATH", "")
    # Set, so that monkeypatch removes what a test puts there.
    monkeypatch.setenv(restart.PATH_GIVEN, "")
    main = ModuleType("__main__")
    main.__file__ = str(tmp_path / "manage.py")
    (tmp_path / "manage.py").touch()
    monkeypatch.setitem(sys.modules, "__main__", main)
    return monkeypatch


def hung_up() -> list[str]:
    """Hang up on a worker; return what Celery starts at the end."""
    app = Celery("shop", set_as_current=False)
    restart.on_sighup(app)
    (step,) = app.steps["worker"]
    called: list[Any] = []
    ends: list[Callable[[], None]] = []
    before = signal.signal(signal.SIGHUP, lambda *args: called.append(args))
    argv = sys.argv
    try:
        with pytest.MonkeyPatch.context() as patch:
            step(None).start(None)
            assert (type(sys.argv), sys.argv) == (list, argv)
            patch.setattr(atexit, "register", ends.append)
            signal.raise_signal(signal.SIGHUP)
            assert [number for number, _ in called] == [signal.SIGHUP]
    finally:
        signal.signal(signal.SIGHUP, before)
    assert sys.argv is argv
    (end,) = ends
    end()
    words, sys.argv = sys.argv, argv
    return words


def test_on_a_terminal_nothing_is_started_again() -> None:
    app = Celery("shop", set_as_current=False)
    restart.on_sighup(app)
    (step,) = app.steps["worker"]
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    try:
        step(None).start(None)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize(
    ("argv", "flags", "program"),
    [
        ("manage.py prodserver worker", "", "manage.py prodserver worker"),
        ("-m django prodserver worker", "", "-m django prodserver worker"),
        ("-u -X dev manage.py -u x", "-u -Xdev", "manage.py -u x"),
        ("-Wd -X utf8 -OO -m a.b -m c", "-Wd -Xutf8 -OO", "-m a.b -m c"),
        ("-W error manage.py", "-Werror", "manage.py"),
        ("-IEs manage.py", "-IEs", "manage.py"),
        ("-um manage prodserver", "-u", "-m manage prodserver"),
        ("-uXdev -mmanage -x", "-uXdev", "-m manage -x"),
        ("-m debugpy --listen 1 manage.py", "", "-m debugpy --listen 1 manage.py"),
    ],
)
def test_the_program_starts_again_as_before(
    started: pytest.MonkeyPatch, argv: str, flags: str, program: str
) -> None:
    started.setattr(sys, "orig_argv", ["python", *argv.split()])
    words = (*flags.split(), *program.split())
    with pytest.raises(Executed) as executed:
        restart.again()
    assert executed.value.args == words

    launcher = (green.__file__, "gevent")
    with pytest.raises(Executed) as executed:
        green.restart("gevent")
    behind = (*flags.split(), *launcher, *program.split())
    assert executed.value.args == behind

    # Behind the launcher, the program is the same.
    started.setattr(sys, "orig_argv", ["python", *behind])
    with pytest.raises(Executed) as executed:
        restart.again()
    assert executed.value.args == words

    assert hung_up() == [restart.__file__, str(Path.cwd()), *words]


@pytest.mark.parametrize("end", ["", "/__main__.py"])
@pytest.mark.parametrize("script", ["app/run", "./app/run", "../up/app/run"])
def test_it_starts_in_the_folder_that_it_was_started_in(
    started: pytest.MonkeyPatch, tmp_path: Path, script: str, end: str
) -> None:
    """Even after the program has changed to another."""
    sys.modules["__main__"].__file__ = f"{tmp_path}/{script}{end}"
    started.setattr(sys, "orig_argv", ["python", "-O", script, "x"])
    (tmp_path / "elsewhere").mkdir()
    os.chdir("elsewhere")
    assert hung_up() == [restart.__file__, str(tmp_path), "-O", script, "x"]
    with pytest.raises(Executed) as executed:
        restart.again()
    assert executed.value.args == ("-O", script, "x")
    assert Path.cwd() == tmp_path


def test_the_file_itself_starts_python_in_a_folder(tmp_path: Path) -> None:
    code = "import os, sys; print(os.getcwd(), sys.argv[1:], sys.flags.optimize)"
    words = [str(tmp_path), "-O", "-c", code, "-O"]
    done = subprocess.run(
        [sys.executable, restart.__file__, *words],
        capture_output=True, text=True, timeout=DEADLINE, check=True,
    )  # fmt: skip
    assert done.stdout == f"{tmp_path} ['-O'] 1\n"


def test_a_module_is_found_again_from_another_folder(
    started: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """PYTHONPATH changes at the end only: tasks see the environment, too."""
    started.setattr(sys, "orig_argv", ["python", "-m", "proj"])
    started.setattr(sys, "path", ["", str(tmp_path), os.path.dirname(os.__file__)])
    started.setenv("PYTHONPATH", "/given")
    hung_up()
    assert os.environ["PYTHONPATH"] == "/given"
    (tmp_path / "elsewhere").mkdir()
    os.chdir("elsewhere")
    hung_up()
    assert os.environ["PYTHONPATH"] == f"{tmp_path}{os.pathsep}/given"


def test_a_detached_worker_imports_from_where_the_program_does(
    started: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """`manage.py --pythonpath DIR` puts it on `sys.path` and nowhere else."""
    given = tmp_path / "given"
    given.mkdir()
    sys.path.insert(0, str(given))
    restart.as_python_m(["celery", "worker"])
    assert sys.argv == ["celery", "worker"]
    kept = os.environ["PYTHONPATH"].split(os.pathsep)
    assert kept[0] == str(given)
    # This Python's own folders would break a task that runs another Python.
    assert not any("site-packages" in entry or "lib/python" in entry for entry in kept)


@pytest.mark.parametrize("argv", ["", "- prodserver worker", "-u -", "-cpass worker"])
def test_what_python_read_from_no_file(started: pytest.MonkeyPatch, argv: str) -> None:
    started.setattr(sys, "orig_argv", ["python", *argv.split()])
    with pytest.raises(restart.RestartError) as error:
        restart.again()
    assert str(error.value) == (
        "Python has not read this program from a file, so it cannot be started again."
        " Start it from one, such as: python manage.py …"
    )


def test_a_function_of_another_program(started: pytest.MonkeyPatch) -> None:
    started.setattr(sys, "argv", ["manage.main", "prodserver", "worker"])
    started.setattr(multiprocessing.process, "parent_process", lambda: "a process")
    with pytest.raises(restart.RestartError) as error:
        green.restart("gevent")
    assert "a function of another program" in str(error.value)
    assert "watchfiles 'python manage.py prodserver worker'" in str(error.value)
    # SIGHUP says so, too, and fails.
    words = hung_up()
    started.undo()
    done = subprocess.run(
        [sys.executable, *words], capture_output=True, text=True, timeout=DEADLINE
    )
    assert (done.returncode, done.stderr) == (1, f"{error.value}\n")


def test_a_program_that_is_not_found_any_more(
    started: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Something has replaced `__main__`, so its folder is unknown."""
    sys.modules["__main__"].__file__ = "/elsewhere/other.py"
    started.setattr(sys, "orig_argv", ["python", "manage.py"])
    with pytest.raises(Executed):
        restart.again()  # its file is still here
    (tmp_path / "manage.py").unlink()
    with pytest.raises(
        restart.RestartError,
        match=rf"^manage.py is not in {re.escape(str(tmp_path))}, .*full path",
    ):
        restart.again()


def test_the_launcher_gets_the_path_that_was_given(
    started: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    started.setattr(sys, "orig_argv", ["python", "manage.py"])
    found = tmp_path / "found by itself"
    found.mkdir()
    for given in ("/somewhere", None):
        if given:
            started.setenv("PYTHONPATH", given)
        else:
            started.delenv("PYTHONPATH")
        # What the program has found by itself, the launcher's imports need, too.
        started.setattr(sys, "path", [str(found), *sys.path])
        with pytest.raises(Executed):
            green.restart("gevent")
        assert os.environ[restart.PATH_GIVEN] == (given or "")
        kept = os.environ["PYTHONPATH"].split(os.pathsep)
        assert kept[0] == str(found)
        assert given is None or kept[-1] == given


def test_no_path_is_kept_that_python_finds_by_itself(
    started: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    started.delenv("PYTHONPATH", raising=False)
    found = tmp_path / "found by itself"
    found.mkdir()
    own = [*site.getsitepackages(), site.getusersitepackages(), os.getcwd()]
    started.setattr(sys, "path", own)
    restart.as_python_m(["worker"])
    assert "PYTHONPATH" not in os.environ
    started.setattr(sys, "path", [*own, str(found)])
    restart.as_python_m(["worker"])
    assert os.environ["PYTHONPATH"] == str(found)


def test_a_process_without_multiprocessing(started: pytest.MonkeyPatch) -> None:
    started.setattr(sys, "orig_argv", ["python", "manage.py"])
    started.delitem(sys.modules, "multiprocessing.process")
    with pytest.raises(Executed):
        restart.again()


def test_closed_streams_are_no_hindrance(started: pytest.MonkeyPatch) -> None:
    started.setattr(sys, "orig_argv", ["python", "manage.py"])
    started.setattr(sys, "stdout", None)
    with pytest.raises(Executed):
        restart.again()
