"""One process entry → a running Celery program → its exit status."""

from __future__ import annotations

import os
import sys
from typing import Any, ClassVar

from django.core.checks.registry import registry
from django.core.management import CommandError
from django_prodserver.backends.base import BaseServerBackend

from . import green, options, prefork
from .checks import check_processes
from .entries import Entry, Finding

try:
    from django_prodserver.backends.base import BaseWorkerBackend
except ImportError:

    class BaseWorkerBackend(BaseServerBackend):  # type: ignore[no-redef] # as in 3
        """django-prodserver 2 has one kind of backend."""


__all__ = ("CeleryBackend", "CeleryBeat", "CeleryWorker")


# `prodserver` and `server` of django-prodserver 3 take servers, `worker` workers.
class CeleryBackend(BaseWorkerBackend, BaseServerBackend):
    """A process entry that runs a program of Celery's.

    Args:
        server_config: the entry: ``APP``, what ``celery -A`` takes, and ``ARGS``,
            the options of the program.
    """

    program: ClassVar[str]

    def __init__(self, **server_config: Any) -> None:
        super().__init__()
        self.entry = Entry(self.program, server_config)

    def prep_server_args(self) -> list[str]:
        """Return ARGS as the words of Celery's command line.

        Raises:
            CommandError: something is wrong with the entry.
        """
        for finding in self.entry.findings():
            raise CommandError(str(finding)) from finding
        return options.argument_list(self.program, self.entry.app(), self.entry.args)

    def start_server(self, *args: str) -> None:
        """Run the program, and exit with its status.

        Args:
            args: what `prep_server_args` returned.

        Raises:
            CommandError: Celery cannot read the arguments.
            SystemExit: always, when the program ends.
        """
        try:
            context = options.parse(self.program, self.entry.app(), args)
        except Finding as exc:
            raise CommandError(str(exc)) from exc
        except options.OptionError as exc:
            message = f"{self.entry.names}: {exc.where}: {exc}"
            raise CommandError(message) from exc
        library = green.needed_by(context.params.get("pool"))
        if library:
            green.restart(library)
        words = options.command_line(str(self.entry.config["APP"]), context)
        if not context.obj.quiet:
            # Flushed, or each forked child would print it once more.
            print(options.shown(words), flush=True)
        home = _make_restartable()
        if self.program == "worker":
            if context.params["detach"]:
                # Celery makes `python -m celery …` of it, from the words that it finds.
                path = os.environ.get("PYTHONPATH")
                os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (home, path)))
                sys.argv[:] = words
            prefork.share_memory()
        # Celery's Django fixup would run it again, and discard what it finds.
        registry.registered_checks.discard(check_processes)
        sys.exit(options.run(context))


class CeleryWorker(CeleryBackend):
    """Runs ``celery worker``."""

    program = "worker"


class CeleryBeat(CeleryBackend):
    """Runs ``celery beat``."""

    program = "beat"


def _make_restartable() -> str:
    """Let `sys.argv` start the program again from any folder, as Celery does on SIGHUP.

    Returns:
        The folder that the program's own modules are found in.
    """
    spec = sys.modules["__main__"].__spec__
    if spec is None:
        sys.argv[0] = os.path.abspath(sys.argv[0])
        return os.path.dirname(sys.argv[0])
    # `python -m`: the file of the module alone would not find what it imports.
    sys.argv[:1] = ["-m", spec.name.removesuffix(".__main__")]
    return os.getcwd()
