"""The source distribution of django-prodserver, fetched, as a git repository."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

__all__ = ("NAME", "Repository", "fetch")

NAME = "django-prodserver"
ROOT = Path(__file__).resolve().parent.parent


def fetch(folder: Path, version: str = "") -> tuple[str, Path]:
    """Fetch a source distribution from the package index, and unpack it.

    Args:
        folder: where it is put.
        version: the version; the newest without one.

    Returns:
        The version, and the folder of the source.
    """
    requirement = f"{NAME}=={version}" if version else NAME
    download = folder / f"download-{version or 'newest'}"
    shutil.rmtree(download, ignore_errors=True)
    subprocess.run(
        [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps",
         "--no-binary", NAME, "--dest", str(download), requirement],
        check=True,
    )  # fmt: skip
    (archive,) = download.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        tar.extractall(download, filter="data")
    (source,) = (path for path in download.iterdir() if path.is_dir())
    return source.name.rpartition("-")[2], source


class Repository:
    """A temporary git repository, made of a source distribution.

    Args:
        folder: the unpacked source.
        version: its version, for the first commit.
    """

    def __init__(self, folder: Path, version: str) -> None:
        self.folder = folder
        shutil.rmtree(folder / ".git", ignore_errors=True)
        self.env = {**os.environ, **_identity()}
        self.git("init", "--quiet", "--initial-branch=main")
        # What the distribution has been given and the repository does not have.
        (folder / ".git/info/exclude").write_text(
            "*.egg-info/\nPKG-INFO\nsetup.cfg\n*.pyc\n.*_cache/\n"
        )
        self.commit(f"chore: {NAME} {version}, as distributed")

    def git(self, *words: str) -> str:
        """Run git, and return what it printed."""
        done = subprocess.run(
            ["git", "-c", "core.hooksPath=/dev/null", "-c", "commit.gpgSign=false",
             "-c", "core.autocrlf=false", *words],
            cwd=self.folder, env=self.env, check=True, text=True,
            stdout=subprocess.PIPE,
        )  # fmt: skip
        return done.stdout

    def ignore(self, *paths: str) -> None:
        """Keep files of ours, which the tests need, out of the commits."""
        with (self.folder / ".git/info/exclude").open("a") as exclude:
            exclude.writelines(f"/{path}\n" for path in paths)

    def commit(self, message: str) -> None:
        """Commit all that has changed."""
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", message)

    def changed(self, revision: str) -> list[str]:
        """Name the files that a commit has changed."""
        words = ("diff", "--name-only", "--diff-filter=d", f"{revision}~", revision)
        return self.git(*words).split()


def _identity() -> dict[str, str]:
    """The author and date of this project's last commit, for those made here."""
    words = ["git", "log", "-1", "--format=%an%n%ae%n%aI"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    name, email, date = done.stdout.splitlines() or (
        "prodserver-celery5", "prodserver-celery5@localhost", "2026-01-01T00:00:00Z",
    )  # fmt: skip
    return {
        f"GIT_{role}_{key}": value
        for role in ("AUTHOR", "COMMITTER")
        for key, value in (("NAME", name), ("EMAIL", email), ("DATE", date))
    }
