"""The documentation's versions and figures agree with their sources."""

from __future__ import annotations

import re

from packaging.requirements import Requirement

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


def test_the_classifiers_have_them() -> None:
    classifiers = PROJECT["classifiers"]
    pythons = [
        name.rpartition(" ")[2]
        for name in classifiers
        if re.match(r"Programming Language :: Python :: 3\.", name)
    ]
    assert row("Python") == f"{pythons[0]} to {pythons[-1]}"
    assert f">={pythons[0]}" == PROJECT["requires-python"]
    for django in constants()["DJANGOS"]:
        assert f"Framework :: Django :: {django}" in classifiers


def test_the_changelog_has_this_version() -> None:
    text = (ROOT / "CHANGELOG.md").read_text()
    heading = "Unreleased" if "dev" in __version__ else __version__
    _, found, rest = text.partition(f"\n## {heading}")
    assert found
    section = rest.partition("\n## ")[0]
    # Every change adds a line, so a section without one has lost them.
    assert re.search(r"^- \w", section, re.MULTILINE)


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
    (row,) = re.findall(r"^\| 8 children after 2,000 tasks .*$", README, re.MULTILINE)
    assert re.findall(r"\d+ MiB", row) == [figures[1], figures[0]]
