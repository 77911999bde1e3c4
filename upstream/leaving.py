"""The project on the patched django-prodserver, without the shim.

UPSTREAM.md shows which lines of the settings change; they are read from there, and
the project's process tests are run with them changed.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from .edits import EditError
from .source import ROOT

__all__ = ("leave", "run_processes")

NEEDED = (
    "Procfile",
    "dev",
    "manage.py",
    "prayer_room_api",
    "prodserver_celery5",
    "pyproject.toml",
    "tests",
)
# What of the package is the shim; the rest of it helps to test.
SHIM = ("apps", "backends", "checks", "entries", "green", "options")
SETTINGS = "prayer_room_api/settings.py"
TESTS = "tests/processes/test_procfile.py"


def leave(project: Path, patched: Path) -> None:
    """Copy the project, change its settings as UPSTREAM.md says, add the patches.

    Args:
        project: where the copy goes.
        patched: the patched tree of django-prodserver.
    """
    shutil.rmtree(project, ignore_errors=True)
    project.mkdir(parents=True)
    for name in NEEDED:
        source = ROOT / name
        if source.is_dir():
            unwanted = shutil.ignore_patterns("__pycache__")
            shutil.copytree(source, project / name, ignore=unwanted)
        else:
            shutil.copy(source, project / name)
    for name in SHIM:
        (project / f"prodserver_celery5/{name}.py").unlink()
    # Beside manage.py it comes before any that is installed.
    package = "django_prodserver"
    shutil.copytree(patched / "src" / package, project / package)
    settings = project / SETTINGS
    settings.write_text(
        changed((ROOT / "UPSTREAM.md").read_text(), settings.read_text())
    )


def changed(document: str, settings: str) -> str:
    """Change settings as the document's diff says.

    Args:
        document: has one block of a diff, with ``-`` lines and ``+`` lines.
        settings: where each of the ``-`` lines stands once.

    Raises:
        EditError: it has none, or does not fit.
    """
    block = re.search(r"^```diff\n(.*?)^```$", document, re.M | re.S)
    if not block:
        raise EditError("UPSTREAM.md does not show how to leave the shim.")
    lines = settings.splitlines()
    at = -1
    for line in block[1].splitlines():
        if line.startswith("-"):
            if lines.count(line[1:]) != 1:
                raise EditError(
                    f"UPSTREAM.md: {line[1:]!r} is not in the settings once."
                )
            at = lines.index(line[1:])
            del lines[at]
        elif line.startswith("+"):
            lines.insert(at, line[1:])
            at += 1
    return "\n".join(lines) + "\n"


def run_processes(project: Path) -> str:
    """Run the project's process tests on the copy, and return pytest's last line.

    Raises:
        RuntimeError: they do not all pass, or the shim is within reach.
    """
    # What is set for this project is not for the copy.
    env = {
        k: v for k, v in os.environ.items() if not k.startswith(("DJANGO_", "PYTHON"))
    }

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *words], cwd=project, env=env,
            text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
        )  # fmt: skip

    found = run(
        "-c",
        "import django_prodserver, importlib.util as u;"
        "print(django_prodserver.__file__, u.find_spec('prodserver_celery5.backends'))",
    ).stdout
    expected = f"{project / 'django_prodserver/__init__.py'} None"
    if found.strip() != expected:
        raise RuntimeError(f"expected {expected}, found {found}")
    # Those on a server that is not installed are skipped, and counted.
    done = run("-m", "pytest", "-q", "-p", "no:cacheprovider", TESTS)
    if done.returncode:
        raise RuntimeError(done.stdout)
    return done.stdout.splitlines()[-1].strip("= ")
