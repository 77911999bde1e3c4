"""The words that start a program again; tests/behaviour runs them."""

from __future__ import annotations

import multiprocessing.process
import os
import re
import runpy
import site
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

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


@pytest.mark.parametrize(
    ("argv", "flags", "program"),
    [
        ("manage.py prodserver worker", "", "manage.py prodserver worker"),
        ("-m django prodserver worker", "", "-m django prodserver worker"),
        ("-u -X dev manage.py -u x", "-u -Xdev", "manage.py -u x"),
        ("-Wd -X utf8 -OO -m a.b -m c", "-Wd -Xutf8 -OO", "-m a.b -m c"),
        ("-W error manage.py", "-Werror", "manage.py"),
        ("-IEs manage.py", "-IEs", "manage.py"),
        ("-- manage.py --", "", "manage.py --"),
        (
            "--check-hash-based-pycs never manage.py --x",
            "--check-hash-based-pycs never",
            "manage.py --x",
        ),
        ("-um manage prodserver", "-u", "-m manage prodserver"),
        ("-uXdev -mmanage -x", "-uXdev", "-m manage -x"),
        ("-m debugpy --listen 1 manage.py", "", "-m debugpy --listen 1 manage.py"),
        ("-uc pass worker", "-u", "-c pass worker"),
        ("-Xdev -cpass -m", "-Xdev", "-c pass -m"),
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

    restart.prepare()
    absolute = [str(Path.cwd() / w) if w == program.split()[0] else w for w in words]
    assert sys.argv == (list(words) if program.startswith("-") else absolute)


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
    restart.prepare()
    assert sys.argv == [restart.__file__, str(tmp_path), "-O", script, "x"]
    with pytest.raises(Executed) as executed:
        restart.again()
    assert executed.value.args == ("-O", script, "x")
    assert Path.cwd() == tmp_path


def test_a_folder_that_is_about_to_be_left(started: pytest.MonkeyPatch) -> None:
    started.setattr(sys, "orig_argv", ["python", "-m", "proj", "x"])
    restart.prepare(moves=True)
    assert sys.argv == [restart.__file__, os.getcwd(), "-m", "proj", "x"]


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
    """PYTHONPATH changes only if it must: tasks see the environment, too."""
    started.setattr(sys, "orig_argv", ["python", "-m", "proj"])
    started.setattr(sys, "path", ["", str(tmp_path), os.path.dirname(os.__file__)])
    started.setenv("PYTHONPATH", "/given")
    restart.prepare()
    assert os.environ["PYTHONPATH"] == "/given"
    (tmp_path / "elsewhere").mkdir()
    os.chdir("elsewhere")
    restart.prepare()
    assert os.environ["PYTHONPATH"] == f"{tmp_path}{os.pathsep}/given"


def test_a_relative_pythonpath_holds_in_another_folder(
    started: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    script = str(tmp_path / "manage.py")
    started.setattr(sys, "orig_argv", ["python", script])
    started.setattr(sys, "path", [str(tmp_path), f"{tmp_path}/lib"])
    (tmp_path / "elsewhere").mkdir()
    os.chdir("elsewhere")
    started.setenv("PYTHONPATH", "/given")
    restart.prepare()
    assert os.environ["PYTHONPATH"] == "/given"
    started.setenv("PYTHONPATH", "lib")
    restart.prepare()
    assert f"{tmp_path}/lib" in os.environ["PYTHONPATH"].split(os.pathsep)


def test_a_detached_worker_imports_from_where_the_program_does(
    started: pytest.MonkeyPatch,
) -> None:
    """`manage.py --pythonpath DIR` puts it on `sys.path` and nowhere else."""
    sys.path.insert(0, "/given/by/an/option")
    restart.as_python_m(["celery", "worker"])
    assert sys.argv == ["celery", "worker"]
    kept = os.environ["PYTHONPATH"].split(os.pathsep)
    assert kept[0] == "/given/by/an/option"
    # This Python's own folders would break a task that runs another Python.
    assert not any("site-packages" in entry or "lib/python" in entry for entry in kept)


@pytest.mark.parametrize("argv", ["", "- prodserver worker", "-u -"])
def test_standard_input_is_read_once(started: pytest.MonkeyPatch, argv: str) -> None:
    started.setattr(sys, "orig_argv", ["python", *argv.split()])
    with pytest.raises(restart.RestartError) as error:
        restart.again()
    assert str(error.value) == (
        "Python reads a program from its standard input once, so it cannot be started"
        " again. Start it from a file, such as: python manage.py …"
    )


def test_a_function_of_another_program(started: pytest.MonkeyPatch) -> None:
    started.setattr(sys, "argv", ["manage.main", "prodserver", "worker"])
    started.setattr(multiprocessing.process, "parent_process", lambda: "a process")
    with pytest.raises(restart.RestartError) as error:
        green.restart("gevent")
    assert "a function of another program" in str(error.value)
    assert "watchfiles 'python manage.py prodserver worker'" in str(error.value)
    # SIGHUP says so, too, and fails.
    restart.prepare()
    words = list(sys.argv)
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


def test_a_pipe_is_read_once(started: pytest.MonkeyPatch, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in ("pipe", str(tmp_path / "pipe")):
        started.setattr(sys, "orig_argv", ["python", path, "prodserver", "worker"])
        with pytest.raises(restart.RestartError, match=r"pipe once, .* from a file"):
            restart.again()


def test_the_folder_that_is_a_program(
    started: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As `python .` in it, whose path has a dot too many or none."""
    for file in ("./__main__.py", "__main__.py"):
        sys.modules["__main__"].__file__ = os.path.join(tmp_path, file)
        started.chdir("/")
        started.setattr(sys, "orig_argv", ["python", ".", "prodserver"])
        restart.prepare()
        assert sys.argv == [restart.__file__, str(tmp_path), ".", "prodserver"]


def test_a_module_whose_folder_only_the_path_knows(
    started: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    started.setattr(sys, "orig_argv", ["python", "-E", "-m", "manage", "x"])
    started.setattr(sys, "flags", SimpleNamespace(
        isolated=0, safe_path=False, ignore_environment=1, no_site=0
    ))  # fmt: skip
    started.syspath_prepend(tmp_path)
    with pytest.raises(Executed):
        restart.again()
    started.chdir("/")
    with pytest.raises(restart.RestartError) as error:
        restart.again()
    assert str(error.value) == (
        "Python's -E hides the folder that it was started in, which it has left for /,"
        " so it cannot be started again. Start it by its path, such as: python -E"
        " …/manage.py"
    )


def test_a_launcher_has_no_first_line_to_skip(started: pytest.MonkeyPatch) -> None:
    started.setattr(sys, "orig_argv", ["python", "-ux", "-Xx", "manage.py", "-x"])
    with pytest.raises(restart.RestartError, match="Python's -x would skip"):
        green.restart("gevent")
    with pytest.raises(Executed):
        restart.again()
    started.setattr(sys, "orig_argv", ["python", "-Xx", "-Wx", "manage.py", "-x"])
    with pytest.raises(Executed):
        green.restart("gevent")


def test_a_python_that_does_not_know_itself(started: pytest.MonkeyPatch) -> None:
    started.setattr(sys, "orig_argv", ["python", "manage.py"])
    started.setattr(sys, "executable", "")
    with pytest.raises(restart.RestartError, match=r"does not .* without `exec -a`\.$"):
        green.restart("gevent")


def test_what_runs_the_program_puts_no_word_back(
    started: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As `runpy.run_path` in a wrapper does, before Celery reads the words."""
    started.setattr(sys, "orig_argv", ["python", "wrapper.py", "manage.py", "x"])
    (tmp_path / "wrapper.py").touch()
    (tmp_path / "manage.py").write_text(
        "from prodserver_celery5.process import restart; restart.prepare()"
    )
    runpy.run_path(str(tmp_path / "manage.py"), run_name="__main__")
    assert sys.argv == [str(tmp_path / "wrapper.py"), "manage.py", "x"]


def test_the_launcher_gets_the_path_that_was_given(
    started: pytest.MonkeyPatch,
) -> None:
    started.setattr(sys, "orig_argv", ["python", "manage.py"])
    for given in ("/somewhere", None):
        if given:
            started.setenv("PYTHONPATH", given)
        else:
            started.delenv("PYTHONPATH")
        # What the program has found by itself, the launcher's imports need, too.
        started.setattr(sys, "path", ["/found/by/itself", *sys.path])
        with pytest.raises(Executed):
            green.restart("gevent")
        assert os.environ[restart.PATH_GIVEN] == (given or "")
        kept = os.environ["PYTHONPATH"].split(os.pathsep)
        assert kept[0] == "/found/by/itself"
        assert given is None or kept[-1] == given


def test_no_path_is_kept_that_python_finds_by_itself(
    started: pytest.MonkeyPatch,
) -> None:
    started.delenv("PYTHONPATH", raising=False)
    own = [*site.getsitepackages(), site.getusersitepackages(), os.getcwd()]
    started.setattr(sys, "path", own)
    restart.as_python_m(["worker"])
    assert "PYTHONPATH" not in os.environ
    started.setattr(sys, "path", [*own, "/found/by/itself"])
    restart.as_python_m(["worker"])
    assert os.environ["PYTHONPATH"] == "/found/by/itself"


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
