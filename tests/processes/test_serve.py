"""`nox -s serve`, as somebody sees it who has just cloned the project."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from dev.procfile import ROOT, free_port
from dev.serve import Output, nox_here, short, where_the_data_is
from dev.waiting import wait_until
from prodserver_celery5.pytest_plugin.process import DEADLINE, StartedProcess
from tests.services import Services

pytestmark = pytest.mark.once


def run(module: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", module],
        cwd=ROOT, env=env, capture_output=True, text=True, check=False,
        timeout=DEADLINE,
    )  # fmt: skip


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    folder, port = str(tmp_path / "data"), str(free_port())
    return {"DATA_DIR": folder, "DEBUG": "on", "PATH": path, "PORT": port}


@pytest.fixture
def serve(
    tmp_path: Path, env: dict[str, str], all_services: Services
) -> Iterator[StartedProcess]:
    # Not the file system: kombu's transport raises, and ends the worker, if it reads a
    # half-written message.
    env["REDIS_URL"] = all_services.server("redis").url()
    command = [sys.executable, "-m", "dev.serve"]
    with ExitStack() as stack:
        serve = StartedProcess(command, log=tmp_path / "log", cwd=ROOT, env=env)
        stack.enter_context(serve)
        # Stops it before its group is killed: its children are in other groups.
        stack.callback(serve.stop, timeout=DEADLINE)
        yield serve


def test_a_newcomer_s_first_minute(serve: StartedProcess, env: dict[str, str]) -> None:
    base = f"http://127.0.0.1:{env['PORT']}"
    serve.wait_for(f"{base}/ +what runs here")
    # The site answers by the time this is printed.
    with urllib.request.urlopen(f"{base}/healthz", timeout=DEADLINE) as answer:
        assert answer.status == 200

    # The processes are seen at work, and a visitor can post.
    def page() -> str:
        with urllib.request.urlopen(f"{base}/", timeout=60) as answer:
            return str(answer.read().decode())

    wait_until(lambda: page().count('<p class="state good">Running</p>') == 3)
    assert "Next run: moderator-digest-hourly, due at" in page()
    assert '<form method="post"' in page()

    for line in ("release | ", "web     | ", "worker  | ", "beat    | "):
        assert f"\n{line}" in f"\n{serve.output}"
    assert "DeprecationWarning: The `prodserver`" not in serve.output
    assert "\x1b[" not in serve.output

    # Its suggestions can be typed as printed.
    typed = {"PATH": os.environ["PATH"], "DJANGO_SUPERUSER_PASSWORD": "amen"}
    for command, answers in (
        (
            r"\S.* manage\.py createsuperuser",
            " --noinput --username=miriam --email=miriam@example.org",
        ),
        (r"\S.* -m dev\.digest", ""),
        (r"curl -H .*\\\n.*/api/requests/", " --silent --show-error --fail"),
    ):
        line = serve.wait_for(command) + answers
        done = subprocess.run(
            line, shell=True, cwd=ROOT, env=typed, timeout=DEADLINE, check=False
        )
        assert done.returncode == 0, line
    serve.wait_for(r"mail    \|   <http://\S+/1/change/>")
    for line in (
        "Subject: Prayer room: 1 request to look at",
        "- Prayer request 1 from Ruth, ",
    ):
        assert f"mail    | {line}" in serve.output

    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"{base}/nothing", timeout=DEADLINE)
    refused.value.close()
    serve.wait_for(r"web     \| \[[-0-9]+ [:,0-9]+: WARNING\] Not Found: /nothing")

    again = run("dev.serve", env)
    assert again.returncode == 1
    assert again.stdout == ""
    (line,) = again.stderr.splitlines()
    assert line.startswith(f"Port {env['PORT']} on 127.0.0.1: Address already in use.")

    assert serve.stop() == 0
    serve.wait_for("web ended with 0, worker ended with 0, beat ended with 0")


@pytest.mark.parametrize("port", ["http", "0", "65536", ""])
def test_a_port_that_is_none_is_one_line(env: dict[str, str], port: str) -> None:
    done = run("dev.serve", {**env, "PORT": port})
    assert done.returncode == 1
    assert done.stderr == f"PORT={port}: a port is a number from 1 to 65535.\n"


def test_a_digest_of_nothing_is_one_line(env: dict[str, str]) -> None:
    done = run("dev.digest", env)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("No data yet; start `serve` first: ")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_each_has_a_colour_of_its_own_on_a_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    terminal = Terminal()
    output = Output(["web", "worker"], terminal)
    logs = {name: tmp_path / name for name in ("web", "worker")}
    for name, log in logs.items():
        log.write_text(f"{name} is\nhalf a li")
        output.follow(name, log)
    output.update()
    with logs["web"].open("a") as log:
        log.write("ne\n")
    output.update()
    output.close()
    assert terminal.getvalue().splitlines() == [
        "\x1b[36mweb    |\x1b[0m web is",
        "\x1b[33mworker |\x1b[0m worker is",
        "\x1b[36mweb    |\x1b[0m half a line",
        "\x1b[33mworker |\x1b[0m half a li",
    ]
    monkeypatch.setenv("NO_COLOR", "1")
    Output(["web", "worker"], plain := Terminal()).write("web", "x")
    assert plain.getvalue() == "web    | x\n"


@pytest.mark.parametrize(
    ("typed", "runs"),
    [
        (".venv/bin/nox", ".venv/bin/nox"),
        (f"{ROOT}/.venv/bin/nox", ".venv/bin/nox"),
        ("/opt/nox/bin/nox", "nox"),  # on the PATH
        ("/srv/nox/bin/nox", "/srv/nox/bin/nox"),
        ("noxfile.py", "pipx run noxfile.py"),
        ("/usr/lib/python3/dist-packages/nox/__main__.py", "python -m nox"),
    ],
)
def test_nox_is_named_as_this_reader_has_it(
    monkeypatch: pytest.MonkeyPatch, typed: str, runs: str
) -> None:
    monkeypatch.delenv("UV", raising=False)
    monkeypatch.setattr("shutil.which", lambda name: "/opt/nox/bin/nox")
    monkeypatch.setenv("NOX_TYPED", typed)
    assert nox_here() == runs
    monkeypatch.setenv("UV", "/usr/bin/uv")
    assert nox_here() == runs.replace("pipx", "uv")


def test_python_is_named_without_a_way_up() -> None:
    assert short(ROOT / ".nox/serve/bin/python") == ".nox/serve/bin/python"
    assert short(Path("/srv/venv/bin/python")) == "/srv/venv/bin/python"


def test_no_password_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DATA_DIR", "DATABASE_URL", "REDIS_URL", "RABBITMQ_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DATA_DIR", "/srv/prayer room")
    monkeypatch.setenv("REDIS_URL", "redis://:secret@r/0")
    expected = ["DATA_DIR='/srv/prayer room'", 'REDIS_URL="$REDIS_URL"']
    assert list(where_the_data_is()) == expected
