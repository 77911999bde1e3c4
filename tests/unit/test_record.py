"""The heartbeat file: what is written to it, and what is left alone."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from prodserver_celery5.heartbeat import record as record_module
from prodserver_celery5.heartbeat.record import Record, RecordError
from prodserver_celery5.probe import MAGIC, SIZE, judge, process_start

# Prints "opened", keeps the file until its input ends, and exits without cleaning up.
KEEP = """
import os, sys
from prodserver_celery5.heartbeat.record import Record
record = Record(sys.argv[1])
record.open()
record.say("ready", 30, False)
print("opened", flush=True)
sys.stdin.read()
os._exit(0)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "file"


def test_one_line_of_a_fixed_size(path: Path) -> None:
    record = Record(str(path))
    record.open()
    for state in ("starting", "standing by", "ready"):
        record.say(state, 30, False)
        line = path.read_text()
        assert len(line) == SIZE
        assert line.count("\n") == 1
        assert f" pid={os.getpid()} " in line
        assert re.search(rf" silence=30 sum=[0-9a-f]{{4}} state={state} ", line)
        start = process_start("self")
        assert f" start={start[1] if start else 0} " in line
    assert judge(str(path), ready=True)[0]
    record.close()
    assert not path.exists()


def test_a_system_without_proc(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record_module, "process_start", lambda pid: None)
    record = Record(str(path))
    record.open()
    record.say("ready", 30, False)
    assert " start=0 " in path.read_text()
    record.close()


@pytest.mark.parametrize("umask", [0o077, 0])
def test_everybody_may_read_it_and_nobody_else_write(path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        Record(str(path)).open()
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o644


def test_silence_is_rounded_up_and_the_time_down(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "monotonic", lambda: 12345.6789)
    record = Record(str(path))
    record.open()
    record.say("ready", 630.2, False)
    assert " at=12345.678 silence=631 " in path.read_text()


@pytest.mark.parametrize("target", ["there", "nowhere"])
def test_a_symbolic_link_is_not_followed(path: Path, target: str) -> None:
    there = path.with_name("there")
    there.write_text("precious")
    path.symlink_to(path.with_name(target))
    with pytest.raises(RecordError, match=r"this is a symbolic link$"):
        Record(str(path)).open()
    assert there.read_text() == "precious"
    assert not path.with_name("nowhere").exists()


def test_a_link_that_comes_at_the_last_moment(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = path.with_name("there")
    there.write_text("")
    path.symlink_to(there)
    monkeypatch.setattr(os, "lstat", lambda path: there.stat())
    with pytest.raises(OSError, match="symbolic links"):
        Record(str(path)).open()


def test_what_is_not_ours_is_left_alone(path: Path) -> None:
    path.write_text("precious\n")
    with pytest.raises(RecordError, match=r"something in it that is not a heartbeat$"):
        Record(str(path)).open()
    assert path.read_text() == "precious\n"


def test_a_file_with_another_name_is_left_alone(path: Path) -> None:
    path.write_text("")
    path.with_name("precious").hardlink_to(path)
    with pytest.raises(RecordError, match=r"has another name as well$"):
        Record(str(path)).open()
    assert path.read_text() == ""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_file_of_another_user(path: Path) -> None:
    path.write_text("")
    os.chown(path, 65534, -1)
    with pytest.raises(RecordError, match=r"this belongs to another user$"):
        Record(str(path)).open()


def test_a_pipe(path: Path) -> None:
    os.mkfifo(path)
    with pytest.raises(RecordError, match=r"this is not a regular file$"):
        Record(str(path)).open()


def test_a_folder(path: Path) -> None:
    path.mkdir()
    with pytest.raises(IsADirectoryError):
        Record(str(path)).open()


def test_a_file_that_was_left_is_used_again(path: Path) -> None:
    # Such as by a later version.
    path.write_text(f"{MAGIC} version=2 {'x' * 300}\n")
    record = Record(str(path))
    record.open()
    record.say("ready", 30, False)
    assert path.stat().st_size == SIZE
    assert judge(str(path))[0]


def test_two_processes_with_one_path(path: Path) -> None:
    words = [sys.executable, "-c", KEEP, str(path)]
    with subprocess.Popen(words, stdin=-1, stdout=-1, text=True) as other:
        assert other.stdout
        assert other.stdout.readline() == "opened\n"
        for _ in range(2):
            with pytest.raises(RecordError, match=f"process {other.pid} writes to it"):
                Record(str(path)).open()
        assert judge(str(path))[0]
        other.communicate("")
    # It has left the file behind, but not the lock.
    assert f"pid={other.pid} " in path.read_text()
    Record(str(path)).open()


def test_a_child_does_not_keep_the_lock(path: Path) -> None:
    code = KEEP.replace("sys.stdin.read()", "os.fork() or __import__('time').sleep(60)")
    words = [sys.executable, "-c", code, str(path)]
    with subprocess.Popen(
        words, stdin=-1, stdout=-1, text=True, start_new_session=True
    ) as other:
        assert other.stdout
        assert other.stdout.readline() == "opened\n"
        try:
            assert os.waitpid(other.pid, 0)[1] == 0
            Record(str(path)).open()
        finally:
            os.killpg(other.pid, 9)


def test_only_the_own_file_is_removed(path: Path) -> None:
    record = Record(str(path))
    record.open()
    path.unlink()
    path.write_text("another one's")
    record.close()
    assert path.read_text() == "another one's"
    path.unlink()
    record = Record(str(path))
    record.open()
    path.unlink()
    record.close()


def test_a_file_that_somebody_removes_is_made_anew(path: Path) -> None:
    record = Record(str(path))
    record.open()
    for _ in range(2):
        path.unlink()
        record.say("ready", 30, False)
        assert judge(str(path), ready=True)[0]
    # By the rules of the start: what is not clearly ours is left alone.
    path.unlink()
    path.write_text("another one's")
    for _ in range(2):
        with pytest.raises(
            RecordError, match="something in it that is not a heartbeat"
        ):
            record.say("ready", 30, False)
    assert path.read_text() == "another one's"
    path.unlink()
    record.say("ready", 30, False)
    assert judge(str(path))[0]
    record.close()
    assert not path.exists()


def test_a_file_whose_name_another_process_has_taken(path: Path) -> None:
    record = Record(str(path))
    record.open()
    path.unlink()
    words = [sys.executable, "-c", KEEP, str(path)]
    with subprocess.Popen(words, stdin=-1, stdout=-1, text=True) as other:
        assert other.stdout
        assert other.stdout.readline() == "opened\n"
        with pytest.raises(RecordError, match=f"process {other.pid} writes to it"):
            record.say("ready", 30, False)
        assert f"process {other.pid}, " in judge(str(path))[1]
        other.communicate("")
    record.say("ready", 30, False)
    assert f"process {os.getpid()}, " in judge(str(path))[1]
    record.close()


def test_a_file_that_is_removed_as_it_is_opened(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The process that owned it ends between our opening and locking it.
    path.write_text("")
    fstat, removed = os.fstat, []

    def remove_first(fd: int) -> os.stat_result:
        if not removed:
            removed.append(path.unlink())
        return fstat(fd)

    monkeypatch.setattr(os, "fstat", remove_first)
    record = Record(str(path))
    record.open()
    record.say("ready", 30, False)
    assert judge(str(path))[0]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_where_it_cannot_be_removed_it_says_stopped(path: Path) -> None:
    path.parent.chmod(0o755)
    record = Record(str(path))
    record.open()
    record.say("stopping", 30, False)
    os.seteuid(65534)
    try:
        record.close()
    finally:
        os.seteuid(0)
    alive, why = judge(str(path))
    assert not alive
    assert "stopped" in why


def test_ten_thousand_reads_during_writes_and_none_torn(path: Path) -> None:
    code = KEEP.replace(
        "sys.stdin.read()",
        "while True:\n"
        "    for state, silence in (('ready', 30), ('standing by', 3600)):\n"
        "        record.say(state, silence, False)",
    )
    words = [sys.executable, "-c", code, str(path)]
    with subprocess.Popen(words, stdout=-1, text=True) as writer:
        assert writer.stdout
        assert writer.stdout.readline() == "opened\n"
        seen = set()
        try:
            for _ in range(10_000):
                alive, why = judge(str(path))
                assert alive, why
                said, _, silence = why.partition(": silent for ")
                seen.add((said.partition(", ")[2], silence.partition("allowed ")[2]))
        finally:
            writer.kill()
    assert seen == {("ready", "30 s"), ("standing by", "3600 s")}
