"""The values of the package's own keys."""

from __future__ import annotations

import os
import tempfile
from datetime import timedelta
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from django.core import checks
from django.utils.functional import SimpleLazyObject, lazystr

from prodserver_celery5.backends import CeleryBeat, CeleryWorker

from .entries import BEAT, HOST, LED, WORKER, failing, failing_in_silence, found


@pytest.mark.usefixtures("shop")
def test_a_lazy_heartbeat_file_that_says_nothing(settings: Any) -> None:
    file = SimpleLazyObject(failing_in_silence)
    (message,) = found(settings, shop={**WORKER, "HEARTBEAT_FILE": file})
    assert message.id == "prodserver_celery5.E011"
    assert message.msg.endswith(": KeyError.")


@pytest.mark.usefixtures("shop")
def test_processes_that_share_an_entry_share_its_file(settings: Any) -> None:
    entry = {**WORKER, "HEARTBEAT_FILE": "/tmp/hb"}
    (message,) = found(settings, one=entry, other=dict(entry))
    assert message == checks.Warning(
        "HEARTBEAT_FILE = '/tmp/hb' is that of each process with this entry (one,"
        " other): on one machine only one would start.",
        hint="Give each a file of its own.",
        obj="PRODUCTION_PROCESSES['one'], PRODUCTION_PROCESSES['other']",
        id="prodserver_celery5.W007",
    )


@pytest.mark.usefixtures("shop")
def test_a_lock_that_cannot_be_evaluated(settings: Any) -> None:
    lock = SimpleLazyObject(failing)
    (message,) = found(settings, beat={**LED, "LEADER_LOCK": lock})
    assert message.id == "prodserver_celery5.E013"
    assert message.msg.endswith("it cannot be evaluated: RuntimeError: not today")


@pytest.mark.usefixtures("shop")
def test_no_password_of_a_database_in_place_of_its_alias(settings: Any) -> None:
    lock = {"NAME": "x", "PASSWORD": "s3cret"}
    (message,) = found(settings, beat={**LED, "LEADER_LOCK": lock})
    assert message.id == "prodserver_celery5.E013"
    assert "s3cret" not in message.msg


@pytest.mark.usefixtures("shop")
@pytest.mark.parametrize(
    "value", [25, 2.5, Decimal(25), Fraction(5, 2), timedelta(seconds=25)]
)
def test_a_time_to_end_in(settings: Any, value: Any) -> None:
    assert found(settings, shop={**WORKER, "GRACE_SECONDS": value}) == []


@pytest.mark.parametrize("mapped", ["SIGQUIT", "SIGTERM", ""])
def test_grace_and_a_sigterm_that_waits_for_nothing(
    settings: Any, shop: Celery, monkeypatch: pytest.MonkeyPatch, mapped: str
) -> None:
    monkeypatch.setenv("REMAP_SIGTERM", mapped)
    entry = {**WORKER, "GRACE_SECONDS": 25}
    expected = checks.Warning(
        "GRACE_SECONDS has no effect with REMAP_SIGTERM=SIGQUIT, which makes SIGTERM a"
        " cold shutdown.",
        hint="Remove the variable, or set it to SIGTERM.",
        obj="PRODUCTION_PROCESSES['shop']",
        id="prodserver_celery5.W010",
    )
    assert found(settings, shop=entry) == [expected] * (mapped == "SIGQUIT")
    assert CeleryWorker(**entry).prep_server_args() == []


@pytest.mark.usefixtures("shop")
def test_two_processes_with_one_heartbeat_file(settings: Any) -> None:
    entry = {**WORKER, "HEARTBEAT_FILE": "/tmp/%n"}
    same = {**WORKER, "ARGS": {"queues": ["mail"]}, "HEARTBEAT_FILE": "/tmp/celery"}
    expected = [
        checks.Warning(
            f"HEARTBEAT_FILE = {path!r} is also that of the process {other}: on one"
            " machine only one of the two would start.",
            hint="Give each a file of its own.",
            obj=f"PRODUCTION_PROCESSES[{name!r}]",
            id="prodserver_celery5.W007",
        )
        for name, other, path in (("a", "b", "/tmp/%n"), ("b", "a", "/tmp/celery"))
    ]
    assert found(settings, a=entry, b=same) == expected
    for other in (
        {**entry, "ARGS": {"hostname": "mail@%h"}},
        {**entry, "HEARTBEAT_FILE": "/tmp/other"},
        {**BEAT, "HEARTBEAT_FILE": "/tmp/%n"},
        WORKER,
    ):
        assert found(settings, a=entry, b=other) == []


@pytest.mark.usefixtures("shop")
def test_entries_that_differ_in_their_heartbeat_file_have_their_own_names(
    settings: Any,
) -> None:
    reported = found(
        settings,
        a={**WORKER, "HEARTBEAT_FILE": "/no/a"},
        b={**WORKER, "HEARTBEAT_FILE": "/no/b"},
        c=WORKER,
    )
    assert [message.obj for message in reported] == [
        "PRODUCTION_PROCESSES['a']",
        "PRODUCTION_PROCESSES['b']",
    ]


@pytest.mark.usefixtures("shop")
@pytest.mark.parametrize(
    ("mode", "message"),
    [
        (0o300, ""),
        (0o500, "no file can be made in the folder {folder!r} here."),
        (0o600, "no file can be made in the folder {folder!r} here."),
    ],
)
def test_a_heartbeat_needs_a_folder_that_can_be_written_to(
    mode: int, message: str
) -> None:
    # Not in one of pytest's, which another user cannot enter.
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        backend = CeleryWorker(**WORKER, HEARTBEAT_FILE=f"{folder}/%n")
        assert [*backend.findings()] == []
        os.chmod(folder, mode)
        if root := os.getuid() == 0:  # who always may
            os.chown(folder, 65534, -1)
            os.setresuid(65534, 65534, 0)
        try:
            found = [*backend.findings()]
        finally:
            if root:
                os.setresuid(0, 0, 0)
            os.chmod(folder, 0o700)
    assert [finding.id for finding in found] == ["W006"] * bool(message)
    assert all(message.format(folder=folder) in finding.message for finding in found)


@pytest.mark.usefixtures("shop")
def test_a_heartbeat_needs_a_file_that_is_no_link(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("file")
    assert not [*CeleryWorker(**WORKER, HEARTBEAT_FILE=tmp_path / "file").findings()]
    link = CeleryWorker(**WORKER, HEARTBEAT_FILE=tmp_path / "link")
    (finding,) = link.findings()
    assert finding.id == "W006"


@pytest.mark.usefixtures("shop")
def test_a_heartbeat_needs_posix(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = CeleryWorker(**WORKER, HEARTBEAT_FILE="/tmp/w")
    assert [*backend.findings()] == []
    monkeypatch.setattr(os, "name", "nt")
    (finding,) = backend.findings()
    assert finding.id == "E012"
    assert finding.message.endswith(": it needs a POSIX system.")


@pytest.mark.usefixtures("shop")
@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({**WORKER, "HEARTBEAT_FILE": "run/%n"}, f"{os.getcwd()}/run/celery"),
        ({**WORKER, "HEARTBEAT_FILE": Path("/run/%n@%h")}, f"/run/celery@{HOST}"),
        (
            {
                **WORKER,
                "ARGS": {"hostname": "mail@shop"},
                "HEARTBEAT_FILE": lazystr("/run/%n-%h"),
            },
            "/run/mail-shop",
        ),
        (
            {**BEAT, "HEARTBEAT_FILE": SimpleLazyObject(lambda: Path("/run/%n-%h"))},
            f"/run/celerybeat-{HOST}",
        ),
    ],
)
def test_the_path_of_a_heartbeat(entry: dict[str, Any], expected: str) -> None:
    program = CeleryBeat if "Beat" in entry["BACKEND"] else CeleryWorker
    (key,) = (key for key in program.keys if key.name == "HEARTBEAT_FILE")
    assert key.read(program(**entry).entry) == expected
