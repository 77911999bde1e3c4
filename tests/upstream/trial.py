"""Sends the patches as UPSTREAM.md says, word by word, to a fork in a folder.

The fork is the source distribution with stand-ins for the files that it lacks.
`python -m tests.upstream.trial`, which `nox -s upstream` runs.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from upstream.__main__ import download
from upstream.series import PATCHES, branch, commit, git

ROOT = Path(__file__).parent.parent.parent
CONFIG = """
[user]
    name = You
    email = you@example.com
[init]
    defaultBranch = main
[url "{0}/"]
    insteadOf = git@github.com:
    insteadOf = https://github.com/
"""
# The session installs what its first line says, and does this.
NOX = 'nox() {{ (cd "{0}" && "{1}" -m upstream "${{@: -1}}"); }}\n'


def main() -> None:
    """Make the fork, run the commands, and look at what has arrived."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary).resolve()
        (folder / "config").write_text(CONFIG.format(folder))
        os.environ.update(GIT_CONFIG_GLOBAL=str(folder / "config"))
        source = download(folder)
        shutil.copytree(Path(__file__).parent / "fork", source, dirs_exist_ok=True)
        git(source, "init", "--quiet")
        commit(source, "3.0.0")
        for owner in ("nanorepublica", "YOU"):
            bare = folder / owner / "django-prodserver.git"
            git(folder, "clone", "--quiet", "--bare", str(source), str(bare))

        document = (ROOT / "UPSTREAM.md").read_text()
        found = re.search(
            r"^## Sending them\n.*?```sh\n(.*?)```", document, re.M | re.S
        )
        assert found
        script = NOX.format(ROOT, sys.executable) + found[1]
        subprocess.run(["bash", "-euxc", script], cwd=folder, check=True)

        before = "main"
        for patch in PATCHES:
            assert git(bare, "rev-parse", f"{branch(patch)}~") == git(
                bare, "rev-parse", before
            )
            before = branch(patch)
            author = git(bare, "log", "-1", "--format=%an <%ae>", before)
            assert author == "You <you@example.com>\n"
        changed = set(git(bare, "diff", "--name-only", "main", before).split())
        assert {"docs/usage.md", "docs/backends/celery.md"} < changed
        clone = folder / "django-prodserver"
        assert not git(clone, "status", "--porcelain")


if __name__ == "__main__":
    main()
