"""Each documented command exists; the quick ones are run."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from importlib import import_module
from operator import attrgetter

import pytest
from django.core.management import get_commands
from django.utils.module_loading import import_string
from packaging.requirements import Requirement

from dev.procfile import ROOT, commands
from prodserver_celery5 import probe
from prodserver_celery5.backends import CeleryBeat, CeleryWorker

from .blocks import BLOCKS, PAGES, of, sessions
from .metadata import PROJECT

EVERY_PAGE = (*PAGES, ROOT / "UPSTREAM.md", ROOT / "CHANGELOG.md")

PYTHON = re.compile(r"(\.venv/bin/|venv/bin/)?python3?$")


def documented() -> list[tuple[str, str]]:
    """Return each command of each shell block, with its place."""
    found = []
    for block in BLOCKS:
        if block.language not in ("sh", "console"):
            continue
        for line in block.text.splitlines():
            # In a `console`, `$` marks what you type; the rest is output.
            if block.language == "console" and not line.startswith("$ "):
                continue
            for command in line.removeprefix("$ ").split(" && "):
                words = command.partition(" #")[0].strip()
                if words:
                    found.append((str(block), words))
    return found


def starts(words: list[str]) -> str:
    """Return the entry that a command of django-prodserver starts."""
    command, name = words
    # 3.x has `server` for its servers and `worker` for ours; both have `prodserver`.
    assert command in {"prodserver", "server" if name == "web" else "worker"}
    return name


def exists(words: list[str]) -> bool:
    """Whether a command, and what it names, exists here."""
    while "=" in words[0]:  # variables
        words = words[1:]
    program, *rest = words
    name = program.rpartition("/")[2]
    if name == "nox":
        rest = [word for word in rest if word not in ("-r", "-R")]
        return not rest or (
            rest[0] == "-l" or (rest[0] == "-s" and rest[1] in sessions())
        )
    if name == "pip":
        wanted = [Requirement(word) for word in rest[1:]]
        known = {"nox", "gunicorn", PROJECT["name"]}
        extras = PROJECT["optional-dependencies"].keys() | {"uv"}
        return rest[0] == "install" and all(
            one.name in known and one.extras <= extras for one in wanted
        )
    if name == "django-admin":
        return rest[0] in get_commands()
    if name == "docker":
        return (ROOT / rest[rest.index("-f") + 1]).is_file()
    if PYTHON.match(program) and rest[0] == "manage.py":
        if rest[1] in ("prodserver", "server", "worker"):
            return starts(rest[1:]) in commands()
        return rest[1] in get_commands()
    return bool(PYTHON.match(program)) and rest[:2] == ["-m", "venv"]


@pytest.mark.parametrize(("place", "command"), documented())
def test_a_command_exists(place: str, command: str) -> None:
    assert exists(shlex.split(command)), f"{place}: {command}"


@pytest.mark.parametrize(
    "command",
    sorted(
        {
            command
            for _, command in documented()
            if re.match(r"\S*python manage.py check", command)
        }
    ),
)
def test_a_quick_command_runs(command: str) -> None:
    _, *rest = shlex.split(command)
    done = subprocess.run(
        [sys.executable, *rest], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_a_session_that_a_page_names_exists() -> None:
    missing = {
        f"{page.name}: {name}"
        for page in EVERY_PAGE
        for name in re.findall(r"nox -s (\w+)", page.read_text())
        if name not in sessions()
    }
    assert missing == set()


def test_contributing_has_each_session() -> None:
    table = (ROOT / "CONTRIBUTING.md").read_text().partition("| Session |")[2]
    assert set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == sessions()


def test_inside_has_each_module() -> None:
    text = (ROOT / "docs/inside.md").read_text()
    rows = re.findall(r"^\| (`\w+`(?:, `\w+`)*) \|", text, re.MULTILINE)
    package = ROOT / "prodserver_celery5"
    modules = {path.stem for path in package.glob("*.py")}
    rooms = {path.parent.name for path in package.glob("*/*.py")}
    assert {name.strip("`") for row in rows for name in row.split(", ")} == (
        (modules | rooms) - {"__init__"}
    )
    inside = {path.stem for path in package.glob("*/*.py")} - {"__init__", "process"}
    assert [name for name in inside if f"`{name}`" not in text] == []


def test_the_picture_of_a_settings_way_names_what_exists() -> None:
    texts = re.findall(
        r">([^<]+)<", (ROOT / "docs/_static/way-of-a-setting.svg").read_text()
    )
    named = re.findall(r"(\w+\.(?:spell|parse|run))\b", " ".join(texts))
    assert named == ["spelling.spell", "Command.parse", "command.run"]
    for path in ("spelling.spell", "command.Command.parse", "command.run"):
        module, _, name = path.partition(".")
        found = import_module(f"prodserver_celery5.options.{module}")
        assert callable(attrgetter(name)(found))


def test_what_is_promised_exists() -> None:
    text = (ROOT / "docs/api.md").read_text()
    own = {key.name for key in (*CeleryWorker.keys, *CeleryBeat.keys)}
    keys = {"BACKEND", "APP", "ARGS", *own}
    (row,) = re.findall(r"^\| Keys of an entry \| (.*?), and", text, re.MULTILINE)
    assert set(re.findall(r"`(\w+)`", row)) == keys
    assert probe.USAGE.removeprefix("usage: ") in text
    for path in re.findall(r"`(prodserver_celery5\.\w+\.\w+)`", text):
        assert import_string(path)


def test_the_procfile_is_the_one_of_the_repository() -> None:
    (block,) = of("procfile", page="docs/deploy-example.md")
    assert block.text == (ROOT / "Procfile").read_text()
    for block in of("procfile"):
        for line in block.text.splitlines():
            name, _, command = line.partition(": ")
            python, manage, *words = command.split()
            assert [python, manage] == ["python", "manage.py"], str(block)
            if name == "release":
                assert words == ["migrate", "--noinput"]
            else:
                assert starts(words) == name, str(block)


def test_a_procfile_of_the_documentation_has_each_process() -> None:
    for page in ("README.md", "docs/deploy.md"):
        (block,) = of("procfile", page=page)
        names = [line.partition(":")[0] for line in block.text.splitlines()]
        assert names == list(commands())


def test_ci_runs_the_commands_of_the_readme() -> None:
    script = (ROOT / ".ci/run").read_text()
    (block,) = of("sh", ".venv/bin/nox", "README.md")
    one, other = block.text.strip().splitlines()
    setup, _, demo = one.rpartition(" && ")
    assert setup in script.splitlines()
    for session in (demo, other):
        assert f'    "{session}' in script


def test_the_noxfile_runs_alone() -> None:
    """As `uv run` and `pipx run` run it: they read its inline metadata."""
    text = (ROOT / "noxfile.py").read_text()
    assert text.startswith('# /// script\n# dependencies = ["nox"]\n# ///\n')
    done = subprocess.run(
        [sys.executable, "noxfile.py", "--list"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "demo -> Show" in done.stdout


def test_links_lead_to_files() -> None:
    missing = [
        f"{page.relative_to(ROOT)}: {link}"
        for page in PAGES
        for link in re.findall(r"\]\((?!https?:)([^)#\s]+)", page.read_text())
        if not (page.parent / link).exists()
    ]
    assert missing == []


def test_the_index_lists_each_page() -> None:
    text = (ROOT / "docs/index.md").read_text().partition("## Pages")[2]
    listed = set(re.findall(r"\]\((\S+\.md)\)", text))
    pages = {path.name for path in ROOT.glob("docs/*.md")}
    # It is an index of the operations itself.
    assert listed == pages - {"index.md", "operations.md"}


def test_links_lead_to_headings() -> None:
    """By GitHub's anchors; Sphinx makes some differently."""

    def anchors(text: str) -> set[str]:
        headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
        kept = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings)
        return {heading.replace(" ", "-") for heading in kept}

    missing = [
        f"{page.name}: {link}#{anchor}"
        for page in EVERY_PAGE
        for link, anchor in re.findall(
            r"\]\((?!https?:)([^)#\s]*)#([^)]+)\)", page.read_text()
        )
        if anchor not in anchors((page.parent / link if link else page).read_text())
    ]
    assert missing == []


def test_files_that_a_page_names_exist() -> None:
    tops = {path.name for path in ROOT.iterdir()} - {".nox"}
    tests = {path.name for path in ROOT.glob("tests/**/test_*.py")}
    missing = [
        f"{page.name}: {name}"
        for page in EVERY_PAGE
        for name in re.findall(r"`([\w./-]+)`", page.read_text())
        if (
            "/" in name
            and name.partition("/")[0] in tops
            and not (ROOT / name).exists()
        )
        or (re.fullmatch(r"test_\w+\.py", name) and name not in tests)
    ]
    # In django-prodserver's repository.
    assert set(missing) <= {
        "UPSTREAM.md: tests/backends/", "UPSTREAM.md: docs/backends/celery.md",
    }  # fmt: skip


def test_each_check_is_documented() -> None:
    text = (ROOT / "docs/checks.md").read_text()
    package = (ROOT / "prodserver_celery5").rglob("*.py")
    code = "".join(path.read_text() for path in package)
    known = set(re.findall(r"\b[EW]\d{3}\b", code))
    assert set(re.findall(r"^\| `prodserver_celery5\.(\w+)`", text, re.M)) == known
