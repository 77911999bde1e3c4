"""The patches: what each is for, and the edits that make it."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from . import shared
from .edits import (
    Append,
    Body,
    Edit,
    Import,
    Insert,
    NewFile,
    Remove,
    Substitute,
    fingerprint,
)

__all__ = ("BACKPORT", "BACKPORT_VERSION", "SERIES", "Patch")

FILES = Path(__file__).parent / "files"
SOURCE = "src/django_prodserver"
WORKER = f"{SOURCE}/backends/workers/celery.py"
FLOWER = f"{SOURCE}/backends/servers/flower.py"
ALIAS = f"{SOURCE}/management/commands/prodserver.py"
SERVER = f"{SOURCE}/management/commands/server.py"
OPTIONS = f"{SOURCE}/backends/workers/_celery_options.py"

BACKPORT_VERSION = "2.4.0"


@dataclass(frozen=True)
class Patch:
    """One commit.

    Args:
        title: its name in the session's table.
        message: the commit message.
        edits: makes its changes; a function, because the modules shared with the
            package are read when the session runs.
    """

    title: str
    message: str
    edits: Callable[[], Sequence[Edit]]


def _file(path: str, name: str = "") -> NewFile:
    return NewFile(path, (FILES / (name or path)).read_text())


def _alias() -> Sequence[Edit]:
    base = "from ...backends.base import BaseProcessBackend"
    tests = "tests/test_prodserver_command.py"
    either = r"`python manage.py server` or `python manage.py worker`"
    return [
        # For mypy: the alias accepts more than the command it derives from.
        Import(SERVER, base),
        Substitute(SERVER, "backend_base_class", r"\g<0>: type[BaseProcessBackend]"),
        Import(ALIAS, base),
        Substitute(
            ALIAS,
            r'(?<=server`) (?=instead\."$)',
            ' or "\n    "`python manage.py worker` ',
        ),
        Insert(
            ALIAS,
            "Command",
            "# Until it is removed it starts all that it ever did: workers as well.\n"
            "backend_base_class = BaseProcessBackend\n",
        ),
        Substitute("README.md", r"`python manage\.py server`(?= instead)", either),
        Import(
            tests,
            "import pytest\n"
            "from django_prodserver.backends.base import BaseWorkerBackend",
        ),
        Append(tests, (FILES / "tests/prodserver_workers.py").read_text()),
    ]


def _run(program: str) -> str:
    return (
        f'"""Run ``celery {program}`` on the app, and exit with its status."""\n'
        f'run_celery(self.app, "{program}", *args)\n'
    )


def _run_celery(path: str, module: str, *, worker: str, beat: str) -> list[Edit]:
    """Let worker and beat run Celery's command.

    Args:
        path: their module.
        module: what runs the command, as that module imports it.
        worker: the fingerprint of the worker's `start_server`.
        beat: that of beat's.
    """
    return [
        _file(f"{SOURCE}/backends/_celery_command.py", "celery_command.py"),
        Import(path, f"from {module} import run_celery"),
        Body(path, "CeleryWorker.start_server", was=worker, text=_run("worker")),
        Body(path, "CeleryBeat.start_server", was=beat, text=_run("beat")),
        _file("tests/celery_project.py"),
    ]


def _exit_status() -> Sequence[Edit]:
    return [
        *_run_celery(
            WORKER, ".._celery_command", worker="f898c32e689a", beat="fba651b34399"
        ),
        Import(FLOWER, "from .._celery_command import run_celery"),
        Body(
            FLOWER, "CeleryFlower.start_server", was="324ee40afe77", text=_run("flower")
        ),
        _file("tests/test_celery_exit_status.py"),
    ]


_START_BY_COMMAND = '''\
"""Run Celery's command for the program, and exit with its status."""
words = options.command_line(str(self.config["APP"]), self._parse(args))
run_celery(self.app, *words[1:])
'''

_FORMAT = '''\
def _find_app(self, name: Any) -> Celery:
    """Find the app as ``celery --app`` does."""
    if not name:
        raise self._error(
            "the key APP is missing. It takes what `celery --app` takes, such as "
            "'myproject.celery.app'."
        )
    try:
        app = find_app(name)
    except Exception as e:
        raise self._error(
            f"APP = {name!r} cannot be imported: {type(e).__name__}: {e}"
        ) from e
    if not isinstance(app, Celery):
        raise self._error(
            f"APP = {name!r} is a {type(app).__name__}, not a Celery app."
        )
    return app

def _format_server_args_from_dict(self, args: Any) -> list[str]:
    """
    Formatting ARGS as the words of Celery's command line.

    Celery's own declarations of the options say what a value may be, and how it
    is written: ``True``, ``None``, lists, numbers, and underscores in the keys.
    """
    for error in options.mistakes(self.program, self.app, args):
        raise self._error(f"{error.where}: {error}") from error
    return options.argument_list(self.program, self.app, args)

def _parse(self, args: tuple[str, ...]) -> click.Context:
    try:
        return options.parse(self.program, self.app, args)
    except options.OptionError as e:
        raise self._error(f"{e.where}: {e}") from e

def _error(self, message: str) -> CommandError:
    """Name the process in a message of one line."""
    names = [
        name
        for name, config in app_settings.PRODUCTION_PROCESSES.items()
        if config == self.config
    ]
    text = f"{', '.join(names) or self.program}: {message}"
    return CommandError(" ".join(text.split()))
'''

_README_ARGS = """\
The Celery backends take `ARGS` with the types of Python: `True` (or `None`) for a
flag, a list for an option that takes several values, numbers, paths and
`timedelta`s. A value of `None` or `False` leaves an option out. Keys are the long
names of the options, with hyphens or underscores:

```py
"ARGS": {"concurrency": 4, "queues": ["high", "low"], "without_gossip": True},
```

"""


def _args() -> Sequence[Edit]:
    return [
        NewFile(OPTIONS, shared.options("run")),
        Import(
            WORKER,
            "from typing import ClassVar\n"
            "import click\n"
            "from celery import Celery\n"
            "from celery.app.utils import find_app\n"
            "from django.core.management import CommandError\n"
            "from ...conf import app_settings\n"
            "from . import _celery_options as options",
        ),
        Substitute(WORKER, r"celery_app_str = .*", "self.config = server_config"),
        Substitute(
            WORKER,
            r"import_string\(celery_app_str\)",
            'self._find_app(server_config.get("APP"))',
        ),
        Body(
            WORKER,
            "CeleryWorker.start_server",
            was=fingerprint(_run("worker")),
            text=_START_BY_COMMAND,
        ),
        Insert(WORKER, "CeleryWorker", _FORMAT, last=True),
        Insert(WORKER, "CeleryWorker", 'program: ClassVar[str] = "worker"\n'),
        Remove(
            WORKER,
            "CeleryBeat.start_server",
            was=fingerprint(_run("beat")),
            text='program = "beat"\n',
        ),
        Substitute("README.md", r"^(?=## Usage$)", _README_ARGS),
        _file("tests/test_celery_args.py"),
    ]


_START_BY_BODY = '''\
"""Run the program as Celery's own command does, and exit with its status."""
context = self._parse(args)
if not context.obj.quiet:
    self._show(context)
sys.exit(options.run(context))
'''

_SHOW = '''\
def _show(self, context: click.Context) -> None:
    """Print the ``celery`` command line that does the same."""
    words = options.command_line(str(self.config["APP"]), context)
    # Flushed, or each forked child would print it once more.
    print(options.shown(words), flush=True)
'''


def _keywords() -> Sequence[Edit]:
    return [
        NewFile(OPTIONS, shared.options(), replaces=True),
        Import(WORKER, "import sys"),
        Body(
            WORKER,
            "CeleryWorker.start_server",
            was=fingerprint(_START_BY_COMMAND),
            text=_START_BY_BODY,
        ),
        Insert(WORKER, "CeleryWorker", _SHOW, last=True),
        _file("tests/test_celery_command.py"),
    ]


_START_PATCHED = '''\
"""Run the program as Celery's own command does, and exit with its status."""
context = self._parse(args)
library = green.needed_by(context.params.get("pool"))
if library:
    # Does not return, unless the process is patched already.
    green.restart(library)
if not context.obj.quiet:
    self._show(context)
sys.exit(options.run(context))
'''


def _green() -> Sequence[Edit]:
    return [
        NewFile(f"{SOURCE}/backends/workers/_celery_green.py", shared.green()),
        Import(WORKER, "from . import _celery_green as green"),
        Body(
            WORKER,
            "CeleryWorker.start_server",
            was=fingerprint(_START_BY_BODY),
            text=_START_PATCHED,
        ),
        _file("tests/test_celery_green_pools.py"),
    ]


def _backport() -> Sequence[Edit]:
    test = (FILES / "tests/test_celery_exit_status.py").read_text()
    return [
        *_run_celery(
            f"{SOURCE}/backends/celery.py", "._celery_command",
            worker="ed5c8fa67106", beat="355ac33ff254",
        ),
        NewFile("tests/test_celery_starts.py", _for_2_4(test)),
    ]  # fmt: skip


def _for_2_4(test: str) -> str:
    """The tests of the exit status, without flower, for the command of 2.4."""
    test = re.sub(r"^def test_flower.*?(?=^@pytest)", "", test, flags=re.M | re.S)
    test = re.sub(r"^from \S+flower import .*\n", "", test, flags=re.M)
    test = test.replace("commands.worker", "commands.prodserver")
    test = test.replace(".workers.celery", ".celery")
    return re.sub(r'"worker"(?=, "worker"[\])])', '"prodserver"', test)


SERIES = (
    Patch(
        "prodserver starts workers",
        """\
fix(prodserver): start worker backends with the deprecated alias again

Since 3.0.0 `prodserver` is an alias of `server`, which refuses worker
backends: `python manage.py prodserver worker`, which 2.x ran, ends with an
error although the command is promised until 4.0.0. The alias accepts every
process backend again, and its notice names both commands.
""",
        _alias,
    ),
    Patch(
        "exit status",
        """\
fix(celery): hand on the exit status of worker, beat and flower

`app.start()` drops the exit status of the command it runs, so a worker whose
pidfile is in use ended with 0 where `celery worker` ends with 73, and a
platform that restarts what has failed did not restart it. The backends run
the `celery` command itself, which exits with its status.
""",
        _exit_status,
    ),
    Patch(
        "types of ARGS",
        """\
fix(celery): keep the types of ARGS, and report mistakes in one line

A list for `queues` became the text of the list, `True` for a flag and an
underscore in a key ended in a traceback of click, and so did a misspelt
option. Celery's own declarations of the options now say how each value is
written, and what is wrong with it: a mistake is a CommandError of one line
that names the process and the key. APP takes what `celery --app` takes.
""",
        _args,
    ),
    Patch(
        "keyword arguments",
        """\
feat(celery): build worker and beat from Celery's own declarations

The arguments become keyword arguments by the declarations of Celery's worker
and beat commands, whose own bodies are then run. The other subcommands are no
longer imported, and the CELERY_WORKER_* and CELERY_BEAT_* variables are read
as `celery` reads them. The `celery` command line that does the same is shown.
""",
        _keywords,
    ),
    Patch(
        "gevent, eventlet",
        """\
fix(celery): patch gevent and eventlet in before anything else

Only Celery's own entry point patches for these pools, before anything is
imported; under manage.py Django is long imported by then, and the pool ran no
task and ignored SIGTERM. The process starts itself anew, under the same pid
and with the same interpreter flags, through a launcher that patches first.
""",
        _green,
    ),
)

BACKPORT = Patch(
    "2.4.0: worker and beat start",
    """\
fix(celery): start worker and beat with Celery 5

`app.Worker(*args)` and `app.Beat(*args)` were given the words of a command
line where keyword arguments are due, so neither started: "'str' object has no
attribute 'loader'". The backends run the `celery` command on the app, and exit
with its status.
""",
    _backport,
)
