# /// script
# dependencies = ["nox"]
# ///
"""Everything you run by hand; `nox -l` lists it."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nox

nox.needs_version = ">=2025.2.9"
nox.options.sessions = ["lint", "tests"]
# Without uv, as after a plain `pip install nox`, nox uses virtualenv.
nox.options.default_venv_backend = "uv|virtualenv"

PYPROJECT = nox.project.load_toml("pyproject.toml")

# Add a new Celery minor here, and nowhere else.
CELERIES = ("5.0", "5.1", "5.2", "5.3", "5.4", "5.5", "5.6", "5.7")
PRODSERVERS = ("2.2", "2.4", "3.0")
DJANGOS = ("4.2", "5.2", "6.0", "6.1")

# Most tests wait for a process, so twice as many run as there are cores: one by one,
# those with processes first, and all of a heavy server's in turn (tests/conftest.py).
AT_ONCE = ("-n", str(2 * (os.cpu_count() or 1)), "--dist=loadscope")
# nox would kill a program within half a second of Ctrl-C; let it end what it started.
PATIENT: dict[str, Any] = {"interrupt_timeout": 60, "terminate_timeout": 60}


def is_installed(python: str) -> bool:
    """Whether the machine has that Python; a pyenv shim alone does not count."""
    path = shutil.which(f"python{python}")
    return (
        path is not None
        and not subprocess.run(
            [path, "--version"], capture_output=True, check=False
        ).returncode
    )


# The classifiers list the tested versions.
PYTHONS = tuple(filter(is_installed, nox.project.python_versions(PYPROJECT)))
# Debian sid has these; few machines do.
SID_PYTHONS = ("3.14", "3.15")


def is_installable(celery: str, django: str, python: str) -> bool:
    """Whether these versions can be installed together."""
    minor = int(python.partition(".")[2])
    return not (
        # They use logging._acquireLock, which Python 3.13 removed.
        (celery in ("5.0", "5.1") and minor >= 13)
        # Its beat reads entry points in a way that Python 3.12 no longer supports.
        or (celery == "5.2" and minor >= 12)
        # According to Django's release notes.
        or (django == "4.2" and minor >= 13)
        or (django in ("6.0", "6.1") and minor < 12)
        # django-celery-beat 2.9 excludes it, so 2.1 is installed, and its scheduler
        # runs only on Celery 5.0 and 5.1. `dist` runs it without that scheduler.
        or (django == "6.1" and celery not in ("5.0", "5.1"))
    )


def combinations() -> Iterator[Any]:
    """Yield each Celery with one of everything else; with `--full`, with each.

    django-prodserver, Django and Python rotate, so that each version occurs. The first
    and the last Celery have the lowest and the newest of all, and run all that versions
    can change.
    """
    is_full = "--full" in sys.argv
    turns = [PRODSERVERS[-n % len(PRODSERVERS)] for n in range(len(CELERIES))]
    turns[-1] = PRODSERVERS[-1]
    each = [
        (celery, prodserver, [*environments(celery)])
        for celery, turn in zip(CELERIES, turns, strict=True)
        for prodserver in (PRODSERVERS if is_full else [turn])
    ]
    each = [(*pair, rest) for *pair, rest in each if rest]
    for number, (celery, prodserver, rest) in enumerate(each):
        ends = {0: ("lowest", rest[0]), len(each) - 1: ("newest", rest[-1])}
        end, environment = ends.get(number, ("between", None))
        if not is_full:
            # 7 shares no factor with the number of choices, so each has its turn.
            rest = [environment or rest[number * 7 % len(rest)]]
        for django, python in rest:
            is_end = (django, python) == environment
            yield nox.param(
                python, celery, prodserver, django, is_end,
                id=f"py{python}-celery{celery}-prodserver{prodserver}-django{django}",
                tags=[
                    f"celery{celery}", f"py{python}", f"django{django}",
                    end if is_end else "between",
                ],
            )  # fmt: skip


def environments(celery: str) -> Iterator[tuple[str, str]]:
    """Yield each Django and Python that can be installed with a Celery."""
    for python, django in itertools.product(PYTHONS, DJANGOS):
        if is_installable(celery, django, python):
            yield django, python


def install(
    session: nox.Session, group: str, *requirements: str, aloud: bool = False
) -> None:
    """Install the package, a dependency group, and further requirements."""
    groups = nox.project.dependency_groups(PYPROJECT, group)
    if aloud:
        session.log("Installing what the example project needs.")
    session.install("-e.", *groups, *requirements, silent=not aloud)


def unpack_prodservers(session: nox.Session) -> Path:
    """Unpack each supported django-prodserver, beside the installed one."""
    folder = Path(session.create_tmp(), "django-prodserver").resolve()
    for version in ("2.2.0", "2.3.0", "2.4.0", "3.0.0"):
        if not (folder / version).exists():
            session.install(
                "--no-deps", "--target", str(folder / version),
                f"django-prodserver=={version}",
            )  # fmt: skip
    return folder


@nox.session
def demo(session: nox.Session) -> None:
    """Show everything at work, in under two minutes, without any service."""
    install(session, "dev", *session.posargs, aloud=True)
    session.run("python", "-m", "dev.demo")


@nox.session
def serve(session: nox.Session) -> None:
    """Run the Procfile's web, worker and beat until Ctrl-C."""
    install(session, "dev", *session.posargs, aloud=True)
    session.run(
        "python", "-m", "dev.serve",
        env={"DEBUG": "on", "NOX_TYPED": sys.argv[0]},
        **PATIENT,
    )  # fmt: skip


@nox.session
def manage(session: nox.Session) -> None:
    """Run manage.py on the data of `serve`: `nox -s manage -- createsuperuser`."""
    install(session, "project")
    session.run("python", "manage.py", *session.posargs, env={"DEBUG": "on"})


def install_wheel(
    session: nox.Session, group: str, *requirements: str, lowest: bool = False
) -> Path:
    """Install the built package; return a folder with everything but its source."""
    folder = Path(session.create_tmp()).resolve()
    shutil.rmtree(folder / "dist", ignore_errors=True)
    # Not by `uv build`: a newcomer has no uv.
    session.install(*PYPROJECT["build-system"]["requires"])
    built = session.run_install(
        "python", "-m", "hatchling", "build", "--target", "wheel",
        "--directory", str(folder / "dist"), silent=True,
    )  # fmt: skip
    if built is None:
        session.error("-R would test the package of the last time; use -r")
    (wheel,) = folder.glob("dist/*.whl")
    if lowest:
        session.install(
            "--resolution=lowest-direct", *PYPROJECT["project"]["dependencies"]
        )
    # Keeps whatever is installed and allowed.
    session.install(
        str(wheel), *nox.project.dependency_groups(PYPROJECT, group), *requirements
    )
    # With -r, the version is the same, and the package is not.
    session.install("--no-deps", "--force-reinstall", str(wheel))
    away = folder / "project"
    shutil.rmtree(away, ignore_errors=True)
    away.mkdir()
    for name in ("Procfile", "manage.py", "pyproject.toml", "UPSTREAM.md"):
        shutil.copy(name, away)
    for name in ("dev", "docs", "prayer_room_api", "tests", "upstream"):
        # Other sessions write there at the same time.
        shutil.copytree(name, away / name, ignore=shutil.ignore_patterns("__pycache__"))
    return away


@nox.session
def tests(session: nox.Session) -> None:
    """Run what needs only Python, in three minutes; words after `--` go to pytest."""
    install(session, "tests")
    if session.posargs:
        session.run("python", "-m", "pytest", *session.posargs)
        return
    session.run(
        "python", "-m", "pytest", *AT_ONCE,
        "tests/processes/test_procfile.py", "tests/unit", "tests/differential",
        "-k", "not redis-postgresql and not rabbitmq-sqlite", **PATIENT,
    )  # fmt: skip
    session.log(
        "Left out: brokers, databases, `celery` beside `prodserver`, and coverage."
        " `nox -s everything` runs them."
    )


# On the newest Python, it is the newest end of the matrix as well.
@nox.session(python=PYTHONS[-1:], default=False)
def everything(session: nox.Session) -> None:
    """Run all tests on the built package, with coverage; words after `--` as above."""
    # mysqlclient has no wheels, so it needs a compiler and MariaDB's headers.
    mysqlclient = ["mysqlclient"] * bool(shutil.which("mariadb_config"))
    away = install_wheel(session, "behaviour", *mysqlclient)
    env = {"PRODSERVER_VERSIONS": str(unpack_prodservers(session))}
    with session.chdir(away):
        if session.posargs:
            session.run("python", "-m", "pytest", *session.posargs, env=env)
            return
        session.run("coverage", "erase")
        session.run(
            "coverage", "run", "-m", "pytest", *AT_ONCE, "--durations=30",
            env=env, **PATIENT,
        )  # fmt: skip
        session.run("coverage", "combine", "--quiet")
        session.run("coverage", "report")


@nox.session(venv_backend="uv", default=False)
@nox.parametrize("python,celery,prodserver,django,whole", list(combinations()))
def matrix(
    session: nox.Session, celery: str, prodserver: str, django: str, whole: bool
) -> None:
    """Run a worker and beat on each Celery, django-prodserver, Django and Python."""
    away = install_wheel(
        session, "behaviour" if whole else "tests",
        f"celery~={celery}.0", f"django-prodserver~={prodserver}.0",
        f"django~={django}.0",
        # So that Celery 5.3 and 5.4 get a kombu that accepts their redis.
        "kombu[redis]",
        # Their `celery` command, which ours is compared with, imports pkg_resources.
        *(["setuptools<81"] if celery in ("5.0", "5.1") else []),
    )  # fmt: skip
    with session.chdir(away):
        session.run("python", "-m", "pytest", "-q", "tests/differential")
        if not whole:
            session.run(
                "python", "-m", "pytest", "-q", "-m", "smoke",
                "-k", "filesystem or broker_goes_away", "tests/processes",
            )  # fmt: skip
            return
        words = [arg for arg in session.posargs if arg != "--full"]
        session.run(
            "python", "-m", "pytest", *AT_ONCE,
            "-m", "not once and not deploys and not long",
            "tests/behaviour", "tests/processes", "tests/unit",
            "--ignore=tests/unit/prayer_room", *words, **PATIENT,
        )  # fmt: skip


@nox.session(venv_backend="uv", python=PYTHONS[:1], default=False)
def minimums(session: nox.Session) -> None:
    """Run the tests on the lowest versions that the metadata allows."""
    # Celery 5.0 imports pkg_resources to find schedulers, and needs click 7 without
    # declaring it.
    away = install_wheel(session, "tests", "setuptools<81", "click<8", lowest=True)
    with session.chdir(away):
        session.run(
            "python", "-m", "pytest", *AT_ONCE,
            "tests/processes", "tests/unit/test_app.py",
        )  # fmt: skip


@nox.session(python=PYTHONS[-1:], default=False)
def prereleases(session: nox.Session) -> None:
    """Follow the README with pre-releases of Celery and Django; may fail."""
    install(session, "dist")
    # Alone: whatever else the tests install would hold them back.
    session.run(
        "python", "-m", "pytest", "-rP", "-k", "readme_alone",
        "tests/docs/test_dist.py", env={"PIP_PRE": "1"},
    )  # fmt: skip


@nox.session(default=False)
def blows(session: nox.Session) -> None:
    """Strike the leader of three beats at random, and count what is sent."""
    install(session, "tests")
    if session.posargs:
        session.run("python", "-m", "tests.blows", *session.posargs)
        return
    for database, count in (("postgresql", 60), ("mariadb", 60), ("sqlite", 20)):
        session.run(
            "python", "-m", "tests.blows", "--database", database,
            "--blows", str(count),
        )  # fmt: skip
    for scheduler in ("derived", "redbeat"):
        session.run(
            "python", "-m", "tests.blows", "--database", "sqlite",
            "--scheduler", scheduler, "--blows", "20",
        )  # fmt: skip
    session.run(
        "python", "-m", "tests.blows", "--blows", "100",
        "--kind", "SIGKILL before it sends", "--kind", "SIGKILL once it has sent",
    )  # fmt: skip


@nox.session(venv_backend="uv", default=False)
@nox.parametrize("version", [nox.param(name, id=name) for name in SID_PYTHONS])
def pythons(session: nox.Session, version: str) -> None:
    """Test what a new Python can break, on Debian sid's, in a chroot; needs root."""
    session.install("uv")
    names = (f"python{name}" for name in SID_PYTHONS)
    session.run(
        "tests/pythons/sid.sh", ",".join(["postgresql", "redis-server", *names]),
        "tests/pythons/tests.sh", version, external=True,
    )  # fmt: skip


@nox.session(default=False)
def soak(session: nox.Session) -> None:
    """Kill children and restart Redis for ten minutes, beside `celery`."""
    install(session, "tests")
    session.run("python", "-m", "tests.soak", *session.posargs)


@nox.session(default=False)
def docker(session: nox.Session) -> None:
    """Run the worker and beat in containers, with pytest-celery's brokers."""
    install(session, "docker")
    # celery.contrib.pytest has fixtures with the same names as pytest-celery's.
    session.run(
        "python", "-m", "pytest", "-p", "no:celery.contrib.pytest", "tests/docker",
        *session.posargs,
    )  # fmt: skip


@nox.session(default=False)
def browser(session: nox.Session) -> None:
    """Use the example project in Chromium; `-- --pictures` updates the docs."""
    install(session, "browser")
    session.run("python", "-m", "pytest", "tests/browser", *session.posargs)


@nox.session(default=False)
def compared(session: nox.Session) -> None:
    """Compare each way to start a program, and each APM agent, with `celery`."""
    away = install_wheel(session, "compared")
    with session.chdir(away):
        session.run(
            "python", "-m", "pytest", "-m", "long", "tests/behaviour", *session.posargs
        )


@nox.session(default=False)
def liveness(session: nox.Session) -> None:
    """Try the probe and `celery inspect ping` on workers in trouble."""
    away = install_wheel(session, "behaviour")
    with session.chdir(away):
        session.run(
            "python", "-m", "pytest", "-m", "long", "-s",
            "tests/processes/test_liveness.py", *session.posargs,
        )  # fmt: skip


@nox.session(default=False)
def deploys(session: nox.Session) -> None:
    """Deploy under load beside `celery`: count what is lost and what runs twice."""
    away = install_wheel(session, "behaviour", *session.posargs)
    with session.chdir(away):
        session.run(
            "python", "-m", "pytest", "-m", "deploys", "tests/behaviour/test_grace.py",
            "tests/behaviour/test_deploys.py",
        )  # fmt: skip


@nox.session(default=False)
def docs(session: nox.Session) -> None:
    """Build and test the documentation; `-- --capture` draws the README's terminal."""
    install(session, "docs")
    if session.posargs == ["--capture"]:
        session.run("python", "-m", "tests.docs.capture")
        return
    session.run(
        "sphinx-build", "--fail-on-warning", "--builder", "html", "docs", "dist/docs"
    )
    session.run(
        "python", "-m", "pytest", "tests/docs", "--ignore=tests/docs/test_dist.py"
    )


# As in a new image, so that the README's commands install the newest of everything.
@nox.session(python=PYTHONS[-1:], default=False)
def dist(session: nox.Session) -> None:
    """Build the distribution, check it, and start a worker and beat from it."""
    install(session, "dist")
    session.run("python", "-m", "pytest", "tests/docs/test_dist.py")


@nox.session(default=False)
def upstream(session: nox.Session) -> None:
    """Make and prove the patches for django-prodserver; `-- PATH`: in a clone."""
    session.install(*nox.project.dependency_groups(PYPROJECT, "upstream"))
    for path in session.posargs:
        # A clone's tests skip a backend whose packages are not installed.
        project = nox.project.load_toml(f"{path}/pyproject.toml")["project"]
        session.install(*itertools.chain(*project["optional-dependencies"].values()))
    module = "upstream" if session.posargs else "tests.upstream.trial"
    session.run("python", "-m", module, *session.posargs)


@nox.session(default=False)
def bench(session: nox.Session) -> None:
    """Compare time and memory with `celery`, and write docs/benchmarks.md."""
    install(session, "bench")
    session.run("python", "-m", "bench", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style, format and types."""
    install(session, "lint")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("mypy")


@nox.session(default=False)
def messages(session: nox.Session) -> None:
    """List each message of the package, with its hint, as the unit tests meet it."""
    install(session, "behaviour")
    session.run(
        "python", "-m", "pytest", "-q", "-p", "dev.messages", "tests/unit",
        "--ignore=tests/unit/prayer_room", *session.posargs,
    )  # fmt: skip


@nox.session(default=False)
def mutants(session: nox.Session) -> None:
    """Break the package in many places, and see which tests notice."""
    install(session, "behaviour")
    session.run("python", "-m", "dev.mutants", *session.posargs)


if __name__ == "__main__":
    nox.main()
