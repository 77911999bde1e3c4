"""`nox -s upstream`: fetch, patch, prove. With `state`: measure each version."""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path

from . import leaving, make, proof, state
from .edits import EditError
from .series import BACKPORT, BACKPORT_VERSION, SERIES, Patch
from .source import NAME, ROOT, Repository, fetch

OUT = ROOT / "dist/upstream"
RELEASES = ("2.0.0", "2.1.0", "2.1.1", "2.2.0", "2.3.0", "2.4.0")


def patch(
    work: Path, patches: Sequence[Patch], out: Path, release: str = ""
) -> tuple[str, Repository, list[Path]]:
    """Fetch a source distribution, and make patches from it.

    Args:
        work: a temporary folder.
        patches: what to make.
        out: the folder of the patch files.
        release: the version to fetch; the newest without one.

    Returns:
        The version, the repository with the patches as commits, and the files.
    """
    number, source = fetch(work, release)
    repository = Repository(source, number)
    proof.supply(repository)
    first = repository.git("rev-parse", "HEAD").strip()
    for one in patches:
        make.commit(repository, one)
    files = make.write(repository, out, first)
    make.check(repository, files, first)
    return number, repository, files


def make_and_prove(work: Path, *, processes: bool) -> None:
    """Make all patches, prove them, and print what was found.

    Args:
        work: a temporary folder.
        processes: whether to run this project's process tests as well.
    """
    began = time.monotonic()
    shutil.rmtree(OUT, ignore_errors=True)
    newest, repository, files = patch(work, SERIES, OUT)
    old, backport, more = patch(
        work, [BACKPORT], OUT / BACKPORT_VERSION, BACKPORT_VERSION
    )
    with ThreadPoolExecutor(1) as pool:
        if processes:
            # They wait more than they work, so that the rest can go on beside them.
            project = work / "project"
            leaving.leave(project, repository.folder)
            result = pool.submit(leaving.run_processes, project)
        print(
            f"{NAME} {newest}, Celery {version('celery')}, Django {version('django')}"
        )
        print(f"\n{'':28}own tests  new tests  failed before  clean")
        for row in proof.prove(repository, [one.title for one in SERIES]):
            show(row)
        print(f"\n{NAME} {old}")
        for row in proof.prove(backport, [BACKPORT.title]):
            show(row)
        if processes:
            print(f"\nThis project on the patched {newest}, without the shim:", end=" ")
            print(result.result())
    print()
    for file in [*files, *more]:
        print(file.relative_to(ROOT))
    print(f"\nmade and proved in {time.monotonic() - began:.0f} s")


def show(row: proof.Row) -> None:
    """Print a line of the session's table."""
    new = f"{row.new:9}  {row.before:13}  {', '.join(row.clean)}" if row.new else ""
    print(f"{row.title:28}{row.own:9}  {new}".rstrip(), flush=True)


def measure(work: Path) -> None:
    """Print the table of UPSTREAM.md: every release, and the patched ones."""
    newest, repository, _ = patch(work, SERIES, work / "patches")
    _, backport, _ = patch(work, [BACKPORT], work / "patches", BACKPORT_VERSION)
    sources: dict[str, Path] = {}
    for release in (*RELEASES, newest):
        sources[release] = work / "releases" / release
        subprocess.run(
            [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps",
             "--target", str(sources[release]), f"{NAME}=={release}"],
            check=True,
        )  # fmt: skip
    sources[f"{newest}, series"] = repository.folder / "src"
    sources[f"{BACKPORT_VERSION}, backport"] = backport.folder / "src"
    print(state.table(sources))


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(prog="nox -s upstream --", description=__doc__)
    parser.add_argument(
        "what", nargs="?", choices=("patches", "quick", "state"), default="patches",
        help="patches: all of it (default); quick: without this project's process"
        " tests; state: the table of what each release does",
    )  # fmt: skip
    what = parser.parse_args().what
    with tempfile.TemporaryDirectory(prefix="upstream-") as folder:
        work = Path(folder).resolve()
        try:
            if what == "state":
                measure(work)
            else:
                make_and_prove(work, processes=what == "patches")
        except (
            EditError,
            proof.ProofError,
            RuntimeError,
            subprocess.CalledProcessError,
        ) as exc:
            sys.exit(f"\n{type(exc).__name__}: {exc}")


if __name__ == "__main__":
    main()
