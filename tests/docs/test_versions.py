"""The documentation's versions and figures agree with their sources."""

from __future__ import annotations

import json
import re
import shutil
import sys
from importlib.metadata import requires, version
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

import noxfile
from bench import report
from dev.procfile import ROOT
from prodserver_celery5 import __version__

from .blocks import constants
from .metadata import PROJECT

README = (ROOT / "README.md").read_text()
NAMES = {
    "Celery": "celery",
    "Django": "django",
    "django-prodserver": "django-prodserver",
}


def row(name: str) -> str:
    """Return a cell of the compatibility table."""
    (cell,) = re.findall(rf"^\| {name} \| ([^|]*\d) \|", README, re.MULTILINE)
    return str(cell)


def lowest() -> dict[str, str]:
    found = {}
    for text in PROJECT["dependencies"]:
        requirement = Requirement(text)
        (bound,) = requirement.specifier
        assert bound.operator == ">="
        found[requirement.name] = bound.version
    return found


def test_the_lowest_versions() -> None:
    python = PROJECT["requires-python"].removeprefix(">=")
    said = f"Python {python} and newer, " + ", ".join(
        f"{name} {lowest()[package]} and newer" for name, package in NAMES.items()
    )
    assert said in " ".join(README.split())


def test_the_table_has_what_the_matrix_runs() -> None:
    known = constants()
    for name, versions in (
        ("Celery", known["CELERIES"]),
        ("django-prodserver", known["PRODSERVERS"]),
    ):
        assert row(name) == f"{versions[0]} to {versions[-1]}"
        assert lowest()[NAMES[name]] == versions[0]
    assert row("Django") == ", ".join(known["DJANGOS"])
    assert lowest()["django"] == known["DJANGOS"][0]


def test_each_version_has_its_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    pythons = ("3.10", "3.11", "3.12", "3.13")  # SID_PYTHONS have their own session
    monkeypatch.setattr(noxfile, "PYTHONS", pythons)
    monkeypatch.setattr(sys, "argv", ["nox"])
    turns = [param.args for param in noxfile.combinations()]
    assert {turn[0] for turn in turns} == {*pythons}
    assert [turn[1] for turn in turns] == [*noxfile.CELERIES]
    assert {turn[2] for turn in turns} == {*noxfile.PRODSERVERS}
    assert {turn[3] for turn in turns} == {*noxfile.DJANGOS}
    assert turns[0][2:4] == (noxfile.PRODSERVERS[0], noxfile.DJANGOS[0])
    assert turns[-1][2] == noxfile.PRODSERVERS[-1]


def test_the_classifiers_have_them() -> None:
    classifiers = PROJECT["classifiers"]
    pythons = [
        name.rpartition(" ")[2]
        for name in classifiers
        if re.match(r"Programming Language :: Python :: 3\.", name)
    ]
    assert row("Python") == f"{pythons[0]} to {pythons[-1]}"
    assert f">={pythons[0]}" == PROJECT["requires-python"]
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())
    assert workflow["jobs"]["tests"]["strategy"]["matrix"]["python"] == pythons
    # Those that the machine of `.ci/run` lacks.
    assert list(constants()["SID_PYTHONS"]) == pythons[-2:]
    for django in constants()["DJANGOS"]:
        assert f"Framework :: Django :: {django}" in classifiers


def test_the_badges_say_the_same() -> None:
    said = dict(re.findall(r"/badge/(\w+)-([^-)]+)-", README))
    django = constants()["DJANGOS"]
    assert said.pop("licence") == PROJECT["license"]
    assert said == {
        "python": row("Python").replace(" ", "_"),
        "celery": row("Celery").replace(" ", "_"),
        "django": f"{django[0]}_to_{django[-1]}",
    }


def test_the_matrix_leaves_out_what_the_scheduler_does() -> None:
    """A django-celery-beat that allows a newer Django ends an exclusion."""
    allowed = {
        requirement.name.lower(): requirement.specifier
        for requirement in map(Requirement, requires("django-celery-beat") or [])
    }["django"]
    newest = constants()["CELERIES"][-1]
    for django in constants()["DJANGOS"]:
        runs = any(
            noxfile.is_installable(newest, django, f"3.{minor}")
            for minor in range(10, 16)
        )
        assert runs is allowed.contains(f"{django}.0"), (
            f"correct is_installable for Django {django}: django-celery-beat"
            f" {version('django-celery-beat')} takes {allowed}"
        )


def test_the_changelog_has_this_version() -> None:
    text = (ROOT / "CHANGELOG.md").read_text()
    heading = "Unreleased" if "dev" in __version__ else __version__
    _, found, rest = text.partition(f"\n## {heading}")
    assert found
    section = rest.partition("\n## ")[0]
    # Every change adds a line, so a section without one has lost them.
    assert re.search(r"^- \w", section, re.MULTILINE)


def test_the_status_goes_with_the_version() -> None:
    is_final = "dev" not in __version__ and not __version__.startswith("0.")
    stable = "Development Status :: 5 - Production/Stable"
    assert (stable in PROJECT["classifiers"]) is is_final


def test_the_readme_takes_a_minute() -> None:
    assert len(README.split()) <= 1200


def test_upstream_adds_its_patches_up() -> None:
    text = (ROOT / "UPSTREAM.md").read_text()
    rows = re.findall(r"^\| (\d) \| [^|]+ \| (\d+) \|", text, re.MULTILINE)
    patches = (ROOT / "upstream/patches").glob("*.md")
    assert [number for number, _ in rows] == sorted(path.name[0] for path in patches)
    assert f"{sum(int(lines) for _, lines in rows)} in all" in text


def test_the_changelog_has_the_last_checks() -> None:
    checks = (ROOT / "docs/checks.md").read_text()
    ids = sorted(re.findall(r"^\| `prodserver_celery5\.(\w+)`", checks, re.MULTILINE))
    errors, warnings = ([i for i in ids if i[0] == letter] for letter in "EW")
    said = (
        f"`prodserver_celery5.{errors[0]}` to `{errors[-1]}` and `{warnings[0]}` to"
        f" `{warnings[-1]}`"
    )
    assert said in " ".join((ROOT / "CHANGELOG.md").read_text().split())


def test_the_tables_are_those_of_the_figures(tmp_path: Path) -> None:
    known = json.loads((ROOT / "docs/benchmarks.json").read_text())
    page = tmp_path / "benchmarks.md"
    shutil.copy(ROOT / "docs/benchmarks.md", page)
    report.write(known, report.tables(known), tmp_path)
    assert page.read_text() == (ROOT / "docs/benchmarks.md").read_text()
    for image in (tmp_path / "images").iterdir():
        assert image.read_text() == (ROOT / "docs/images" / image.name).read_text()


def test_the_figures_are_those_of_the_benchmarks() -> None:
    page = (ROOT / "docs/benchmarks.md").read_text()
    figures = []
    for project in ("small", "larger"):
        title = f"<!-- bench: {project}: Whole worker, PSS after 2,000 tasks -->"
        _, _, tables = page.partition(title)
        (cells,) = re.findall(
            r"^\| 8 children \| (.*) \|$", tables.partition("<!-- end")[0], re.MULTILINE
        )
        celery, _, ours, _ = cells.split(" | ")
        figures += [ours, celery]
    said = README.partition("After 2,000 tasks")[2].partition("(PSS")[0]
    assert re.findall(r"\d+ MiB", said) == figures
