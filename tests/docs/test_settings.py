"""Each settings block and Python block of the documentation works."""

from __future__ import annotations

import ast
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import celery
import pytest
from django.core.management import CommandError
from django.test import override_settings

from dev.procfile import ROOT
from prodserver_celery5.backends import CeleryBackend, CeleryWorker
from prodserver_celery5.checks import check_processes
from prodserver_celery5.entry import Entry
from prodserver_celery5.options.command import command_line
from prodserver_celery5.pytest_plugin.process import DEADLINE
from tests.deployment import Deployment
from tests.unit.options import test_pasted

from .blocks import BLOCKS, Block, of

PYTHON = of("python")
SETTINGS = [block for block in PYTHON if "PRODUCTION_PROCESSES = {" in block.text]
TESTS = [block for block in PYTHON if "def test_" in block.text]


def load(block: Block, folder: Path, text: str = "") -> dict[str, Any]:
    """Execute a settings block as if it ended a settings module."""
    settings: dict[str, Any] = {"INSTALLED_APPS": [], "BASE_DIR": folder}
    exec(compile(text or block.text, str(block), "exec"), settings)
    return settings


def entries(processes: dict[str, Any]) -> dict[str, Entry]:
    return {
        name: Entry("beat" if "Beat" in config["BACKEND"] else "worker", config)
        for name, config in processes.items()
    }


def test_there_is_no_block_of_an_unknown_kind() -> None:
    known = {"python", "diff", "sh", "console", "procfile", "text", "ini", "nginx"}
    known |= {"json", "yaml", "{include}", "{toctree}"}
    assert [str(block) for block in BLOCKS if block.language not in known] == []


@pytest.mark.parametrize("block", SETTINGS, ids=str)
def test_the_checks_find_nothing_in_a_settings_block(
    block: Block, proj: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(proj)
    settings = load(block, proj)
    with override_settings(PRODUCTION_PROCESSES=settings["PRODUCTION_PROCESSES"]):
        messages = [
            message
            for message in check_processes()
            # The tests also run without gevent.
            if "'gevent', not installed here" not in message.msg
        ]
    assert messages == []
    assert len(entries(settings["PRODUCTION_PROCESSES"])) > 0


def test_before_and_after_differ_in_what_the_readme_shows(proj: Path) -> None:
    (block,) = of("diff", page="README.md")
    sides = {}
    for side, other in (("before", "+"), ("after", "-")):
        lines = [line for line in block.text.splitlines() if not line.startswith(other)]
        sides[side] = load(block, proj, "\n".join(line[1:] for line in lines))
    before, after = sides["before"], sides["after"]
    assert "prodserver_celery5" in after["INSTALLED_APPS"]
    with override_settings(PRODUCTION_PROCESSES=after["PRODUCTION_PROCESSES"]):
        assert check_processes() == []
    for name, entry in before["PRODUCTION_PROCESSES"].items():
        changed = after["PRODUCTION_PROCESSES"][name]
        assert {**entry, "BACKEND": ""} == {**changed, "BACKEND": ""}
        assert entry["BACKEND"].startswith("django_prodserver.backends.workers.celery.")


def test_args_are_what_the_comment_has_as_a_command(proj: Path) -> None:
    (block,) = of("python", "# worker: celery -A", "README.md")
    found = entries(load(block, proj)["PRODUCTION_PROCESSES"])
    for name, entry in found.items():
        (command,) = re.findall(rf"^# {name}: (.*)$", block.text, re.MULTILINE)
        words = shlex.split(command)
        assert words[:4] == ["celery", "-A", entry.config["APP"], name]
        assert entry.words == words[4:]


def test_the_table_of_what_people_paste() -> None:
    """Each row is a case of test_pasted, with the same outcome."""
    text = (ROOT / "docs/procfile.md").read_text().partition("| In `ARGS` |")[2]
    table = text.partition("\n\n")[0]
    rows = re.findall(r"^\| `(.*?)` \| (works|[EW]\d{3})", table, re.MULTILINE)
    outcomes = {str(args): id_ or "works" for args, id_, _ in test_pasted.WORKER}
    assert len(rows) > 15
    for pasted, outcome in rows:
        assert outcomes[ast.literal_eval(pasted)] == outcome


def test_words_behind_two_hyphens_are_settings_of_celery(proj: Path) -> None:
    (block,) = of("python", "-- worker.", "docs/settings.md")
    entry = entries(load(block, proj)["PRODUCTION_PROCESSES"])["worker"]
    words = entry.context.args
    assert entry.app.loader.cmdline_config_parser(words, namespace="worker") == {
        "worker_prefetch_multiplier": 1
    }


def test_the_line_at_start(proj: Path) -> None:
    block = of("python", "PRODUCTION_PROCESSES", "docs/settings.md")[0]
    entry = entries(load(block, proj)["PRODUCTION_PROCESSES"])["worker"]
    words = command_line("proj", entry.context)
    (line,) = of("text", "celery --app", "docs/settings.md")
    assert shlex.join(words) == line.text.strip()


# Errors

ERRORS: dict[str, dict[str, Any]] = {
    "the key APP is missing": {"APP": ""},
    "cannot be imported": {"APP": "proj.nowhere:app"},
    "not a Celery app": {"APP": "proj.celery:os"},
    "has no such option": {"ARGS": {"concurency": 4}},
    "is an option of celery itself": {"ARGS": {"broker": "redis://"}},
    "a flag takes True, False or None": {"ARGS": {"without-gossip": "maybe"}},
    "is unknown": {"Args": {}},
    "does not exist here": {"ARGS": {"pidfile": "/nowhere/worker.pid"}},
}


def start(entry: dict[str, Any]) -> str:
    config = {
        "BACKEND": "prodserver_celery5.backends.CeleryWorker",
        "APP": "proj",
        **entry,
    }
    with (
        override_settings(PRODUCTION_PROCESSES={"worker": config}),
        pytest.raises(CommandError) as caught,
    ):
        CeleryWorker(**config).prep_server_args()
    return f"CommandError: {caught.value}"


@pytest.mark.parametrize("words", ERRORS)
def test_an_error_of_the_readme_is_what_the_start_says(words: str, proj: Path) -> None:
    page = (ROOT / "docs/troubleshooting.md").read_text()
    table = page.partition("| What it says")[2]
    assert words in table.replace("`", "")
    assert words in start(ERRORS[words]).replace("`", "")


def test_the_line_of_an_error(proj: Path) -> None:
    (block,) = of("text", "CommandError", "README.md")
    line = re.sub(r"Celery [\d.]+\d", f"Celery {celery.__version__}", block.text)
    assert start({"ARGS": {"concurency": 4}}) == line.strip()


# Variables


@pytest.mark.parametrize(
    ("variable", "value", "read"),
    [
        ("CELERY_WORKER_CONCURRENCY", "8", True),
        ("NO_COLOR", "1", True),
        ("APP", "nowhere", False),
        ("BROKER_URL", "redis://nowhere", False),
        ("RESULT_BACKEND", "redis://nowhere", False),
        ("LOADER", "nowhere", False),
        ("CONFIG_MODULE", "nowhere", False),
        ("SKIP_CHECKS", "1", False),
    ],
)
def test_variables_that_count(
    variable: str, value: str, read: bool, proj: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = "CELERY_WORKER_…" if variable.startswith("CELERY_WORKER_") else variable
    assert f"`{kind}`" in (ROOT / "docs/settings.md").read_text()

    def parsed() -> dict[str, Any]:
        context = Entry("worker", {"APP": "proj"}).context
        return {**context.params, **context.meta["celery"]}

    monkeypatch.delenv(variable, raising=False)
    before = parsed()
    monkeypatch.setenv(variable, value)
    assert (parsed() != before) is read


# Other Python


def test_a_backend_of_ones_own(proj: Path) -> None:
    (block,) = of("python", "(CeleryWorker)", "docs/examples.md")
    (proj / "proj/workers.py").write_text(block.text)
    entry = {"BACKEND": "proj.workers.MailWorker", "APP": "proj"}
    with override_settings(PRODUCTION_PROCESSES={"mail": entry}):
        assert check_processes() == []
    wrong = {**entry, "ARGS": {"concurency": 4}}
    with override_settings(PRODUCTION_PROCESSES={"mail": wrong}):
        (message,) = check_processes()
        assert message.msg.startswith("ARGS['concurency'] = 4: ")
        assert message.obj == "PRODUCTION_PROCESSES['mail']"
    space: dict[str, Any] = {}
    exec(block.text, space)
    backend = space["MailWorker"](**entry)
    assert isinstance(backend, CeleryBackend)
    assert backend.prep_server_args() == ["--loglevel=INFO", "--queues=mail"]


@pytest.mark.filterwarnings("ignore:The parameter -d is used")  # Celery's own
def test_a_third_program(proj: Path) -> None:
    (block,) = of("python", "(CeleryBackend)", "docs/inside.md")
    space: dict[str, Any] = {"CeleryBackend": CeleryBackend}
    exec(block.text, space)
    backend = space["CeleryEvents"](APP="proj", ARGS={"frequency": 2})
    assert backend.prep_server_args() == ["--frequency=2"]


@pytest.mark.parametrize(
    ("command", "runs"),
    [
        ("manage.py worker worker", True),
        ("manage.py worker beat", True),
        ("manage.py prodserver worker", True),
        ("/srv/venv/bin/celery -A proj worker -l INFO", True),
        ("/srv/venv/bin/celery --app=proj beat", True),
        ("manage.py server web", False),
        ("manage.py prodserver web", False),
        ("manage.py migrate", False),
        ("/srv/venv/bin/celery", False),
        ("gunicorn proj.wsgi", False),
    ],
)
def test_what_to_ask_instead_of_the_programs_name(
    command: str, runs: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    (block,) = of("python", "RUNS_CELERY", "docs/procfile.md")
    monkeypatch.setattr(sys, "argv", command.split())
    space: dict[str, Any] = {}
    exec(block.text, space)
    assert space["RUNS_CELERY"] is runs


def test_silenced_checks_exist(proj: Path) -> None:
    for block in of("python", "SILENCED_SYSTEM_CHECKS"):
        for name in load(block, proj)["SILENCED_SYSTEM_CHECKS"]:
            assert f"`{name}`" in (ROOT / "docs/checks.md").read_text()


def test_the_tests_of_the_documentation_pass(deployment: Deployment) -> None:
    """In the example project."""
    deployment.configure(
        "CELERY_BEAT_SCHEDULE = {'every second': {'task':"
        " 'tests.behaviour.tasks.write', 'schedule': 1, 'args': ['x']}}\n"
    )
    (plugins,) = of("python", "pytest_plugins", "docs/testing.md")
    source = "\n\n".join(block.text for block in [plugins, *TESTS])
    (deployment.folder / "test_documented.py").write_text(source)
    words = ["-c", os.devnull, f"--rootdir={ROOT}", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *words, str(deployment.folder)],
        cwd=ROOT, env=deployment.env, capture_output=True, text=True, timeout=DEADLINE,
        check=False,
    )  # fmt: skip
    count = len(re.findall(r"^def test_", source, re.MULTILINE))
    assert f"{count} passed" in done.stdout, done.stdout + done.stderr


def test_no_python_block_is_left_out() -> None:
    looked_at = [*SETTINGS, *TESTS]
    for words in (
        "app = Celery(", "import app", "@shared_task", "pytest_plugins", "(Celery",
        "SILENCED_", "RUNS_CELERY",
    ):  # fmt: skip
        looked_at += of("python", words)
    assert [str(block) for block in PYTHON if block not in looked_at] == []


def test_the_variables_are_those_that_celery_declares(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each variable of `celery` itself is read, or documented as not read."""
    from celery.bin.celery import celery as command

    page = (ROOT / "docs" / "settings.md").read_text()
    rows = page.partition("## Variables")[2].splitlines()
    declared = set()
    for param in command.params:
        names = [param.envvar] if isinstance(param.envvar, str) else param.envvar or []
        declared |= {*names, f"CELERY_{param.name}".upper()}
    # An older Celery has fewer options.
    assert declared <= set(re.findall(r"`([A-Z_]+)`", "\n".join(rows)))

    (unread,) = [row for row in rows if "**not read**" in row]
    for name in sorted(declared):
        if name in re.findall(r"`([A-Z_]+)`", unread):
            monkeypatch.setenv(name, "1")
    entry = Entry("worker", {"APP": "prayer_room_api"})
    read = {"workdir": None, "no_color": False, "quiet": False, "skip_checks": False}
    assert entry.context.meta["celery"].items() >= read.items()
    for key in read:
        monkeypatch.setenv(f"CELERY_{key}".upper(), "1")
    entry = Entry("worker", {"APP": "prayer_room_api"})
    set_ = {"workdir": Path("1"), "no_color": True, "quiet": True, "skip_checks": True}
    assert entry.context.meta["celery"].items() >= set_.items()
