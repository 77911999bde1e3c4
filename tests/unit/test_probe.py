"""The probe: what it says about a record, and how little it imports."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from prodserver_celery5 import probe
from prodserver_celery5.probe import (
    MAGIC,
    SIZE,
    checksum,
    judge,
    main,
    process_start,
)

START = process_start("self")


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=-1) as process:
        yield process
        process.kill()


def record(path: Path, **changes: object) -> str:
    fields = {
        "version": 1,
        "pid": os.getpid(),
        "start": START[1] if START else 0,
        "at": time.monotonic(),
        "silence": 30,
        **changes,
    }
    state = fields.pop("state", "ready")
    pairs = (f"{key}={value}" for key, value in fields.items() if value is not None)
    head, end = " ".join([MAGIC, *pairs]), f"state={state}"
    whole = f"{head} sum={checksum(f'{head} {end}')} {end}"
    path.write_text(f"{whole:<{SIZE - 1}}\n")
    return str(path)


@pytest.mark.parametrize("state", ["ready", "leading", "standing by"])
def test_at_work(
    state: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = record(tmp_path / "file", state=state)
    assert main([file]) == 0
    assert main([file, "--ready"]) == 0
    assert f"alive: process {os.getpid()}, {state}" in capsys.readouterr().out


@pytest.mark.parametrize("state", ["starting", "connecting", "stopping"])
def test_alive_and_not_ready(
    state: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = record(tmp_path / "file", state=state)
    assert main([file]) == 0
    assert judge(file)[0]
    assert main(["--ready", file]) == 1
    assert "alive, but not ready: process" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "alive"),
    [
        ([], False),
        (["--max-age", "60"], True),
        (["--max-age=60"], True),
        (["--max-age=39.5"], False),
    ],
)
def test_silence(words: list[str], alive: bool, tmp_path: Path) -> None:
    file = record(tmp_path / "file", at=time.monotonic() - 40)
    assert main([file, *words]) == (0 if alive else 1)


def test_a_process_may_be_silent_as_long_as_it_said(tmp_path: Path) -> None:
    then = time.monotonic() - 600
    assert main([record(tmp_path / "file", at=then, silence=630)]) == 0
    # A probe may be stricter than the process.
    assert main([str(tmp_path / "file"), "--max-age=60"]) == 1


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"version": 2}, "is of version 2; this reads 1"),
        ({"at": None}, "is damaged"),
        ({"pid": "none"}, "is damaged"),
        ({"state": "stopped"}, "stopped"),
        ({"start": 7}, "ready: another process has its number now"),
        ({"pid": 2**22 + 1}, "ready: there is no such process"),
        ({"pid": 2**70}, "there is no such process"),
        ({"at": time.monotonic() + 9999}, "before this machine was started"),
    ],
)
def test_not_alive(
    changes: dict[str, object],
    why: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main([record(tmp_path / "file", **changes)]) == 1
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("not alive: ")
    assert why in line


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("", " is empty: nothing has been written to it yet"),
        ("something else\n", " is not the file of a heartbeat"),
    ],
)
def test_another_file(
    content: str, why: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text(content)
    file = str(tmp_path / "file")
    assert main([file]) == 1
    assert capsys.readouterr().out == f"not alive: {file}{why}\n"


def test_a_line_that_is_just_being_written_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    at = time.monotonic()
    old = Path(record(tmp_path / "old", at=at, state="standing by")).read_text()
    new = Path(record(tmp_path / "new", at=at, state="ready")).read_text()
    end = new.index("ready ") + len("ready ")
    file = tmp_path / "file"
    file.write_text(new[:end] + old[end:])
    assert "state=ready ng by" in file.read_text()
    assert main([str(file)]) == 1
    assert capsys.readouterr().out == f"not alive: {file} is damaged\n"
    monkeypatch.setattr(time, "sleep", lambda pause: file.write_text(new))
    assert main([str(file), "--ready"]) == 0


def test_the_checksum_is_fletchers() -> None:
    assert checksum("abcde") == "c8f0"
    # A character that is not ASCII is damage; it must not be an error.
    assert checksum("abcd\ufffd") != checksum("abcde")


def test_no_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "none"
    assert main([str(file)]) == 1
    line = f"not alive: {file}: No such file or directory\n"
    assert capsys.readouterr().out == line


def test_a_pipe_that_nobody_writes_to(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert main([str(tmp_path / "pipe")]) == 1


def test_a_process_that_nobody_has_waited_for_has_ended(
    tmp_path: Path,
    sleeper: subprocess.Popen[bytes],
    capsys: pytest.CaptureFixture[str],
) -> None:
    start = process_start(sleeper.pid)
    assert start
    file = record(tmp_path / "file", pid=sleeper.pid, start=start[1])
    assert main([file]) == 0
    sleeper.kill()
    os.waitid(os.P_PID, sleeper.pid, os.WEXITED | os.WNOWAIT)
    assert main([file]) == 1
    assert "it has ended" in capsys.readouterr().out


def test_without_proc(
    tmp_path: Path, sleeper: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe, "process_start", lambda pid: None)
    file = record(tmp_path / "file", pid=sleeper.pid, start=0)
    assert main([file]) == 0
    # Nothing has happened to it: it reads to the end of its input.
    sleeper.communicate(b"\n")
    assert sleeper.returncode == 0
    assert main([file]) == 1


def test_a_record_of_a_system_without_proc(tmp_path: Path) -> None:
    assert main([record(tmp_path / "file", start=0)]) == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_of_another_user_without_proc(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe, "process_start", lambda pid: None)
    file = record(tmp_path / "file", pid=os.getppid(), start=0)
    os.seteuid(65534)
    try:
        # Only this runs as another user, who could not read the folder.
        assert probe._gone(os.getppid(), 0) == ""
    finally:
        os.seteuid(0)
    assert main([file]) == 0


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ([], "takes one FILE, not 0"),
        (["a", "b"], "takes one FILE, not 2"),
        (["a", "--raedy"], "no such option: --raedy"),
        (["a", "--max-age"], "--max-age takes seconds above 0, not ''"),
        (["a", "--max-age", "soon"], "not 'soon'"),
        (["a", "--max-age=0"], "not '0'"),
        (["a", "--max-age=nan"], "not 'nan'"),
        (["a", "--max-age=inf"], "not 'inf'"),
    ],
)
def test_misuse(words: list[str], why: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    said = capsys.readouterr().err
    assert why in said
    assert "usage: " in said


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-h"]) == 0
    assert main(["--help"]) == 0
    assert capsys.readouterr().out.startswith("usage: ")


def run(*words: str) -> subprocess.CompletedProcess[str]:
    # A bare environment: coverage and the tests' settings would import more.
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": os.getcwd()}
    return subprocess.run(
        [sys.executable, *words], env=env, capture_output=True, text=True, check=False
    )


def test_as_a_program(tmp_path: Path) -> None:
    done = run("-m", "prodserver_celery5.probe", record(tmp_path / "file"), "--ready")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("alive: ")
    assert run("-m", "prodserver_celery5.probe").returncode == 2


def test_it_imports_next_to_nothing(tmp_path: Path) -> None:
    file = record(tmp_path / "file")
    module = (
        f"import runpy, sys; before = set(sys.modules); sys.argv[1:] = [{file!r}]\n"
        "try: runpy.run_module('prodserver_celery5.probe', None, '__main__', True)\n"
        "except SystemExit: print(*sorted(set(sys.modules) - before))"
    )
    imported = run("-c", module).stdout.splitlines()[-1].split()
    assert imported == ["prodserver_celery5"]
