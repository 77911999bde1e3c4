"""An entry of PRODUCTION_PROCESSES, whose parts are made once."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from django.conf import settings

from .values import resolved, same, told

if TYPE_CHECKING:
    import click
    from celery import Celery

    from .command import Command

__all__ = ("Entry",)


class Entry:
    """A process entry with one of this package's backends.

    Its parts raise what is wrong with them; `findings` puts that into words.

    Args:
        program: the subcommand of ``celery`` that the entry runs.
        config: the entry, as it stands in PRODUCTION_PROCESSES.
    """

    # Whether this process has become the program of an entry.
    running = False
    # Whether this entry is only checked. A check must not configure the app: that would
    # run the project's own code.
    checked = False
    # Words of the command line that follow those of ARGS.
    extra: tuple[str, ...] = ()

    def __init__(self, program: str, config: Mapping[str, Any]) -> None:
        self.program = program
        self.config = config

    def __str__(self) -> str:
        return ", ".join(self.names)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The names of the processes with this entry, which no backend is told."""
        # A backend derived from ours, or a command line, may have changed ARGS.
        for keys in ({"BACKEND", "APP", "ARGS", *self.config}, ("BACKEND", "APP")):
            if names := processes_with({key: self.config.get(key) for key in keys}):
                return names
        return (self.program,)

    @cached_property
    def args(self) -> Any:
        """ARGS with their lazy values resolved."""
        args = resolved(self.config.get("ARGS"))
        if not isinstance(args, Mapping):
            return args
        return {resolved(key): resolved(value) for key, value in args.items()}

    @cached_property
    def app_name(self) -> Any:
        """What ``celery -A`` is to find, a lazy value resolved."""
        return resolved(self.config.get("APP"))

    @cached_property
    def app(self) -> Celery:
        """The app that ``celery -A`` finds: ``APP`` has to be a string."""
        from celery.utils.imports import symbol_by_name

        from .command import private

        import_from_cwd = private("celery.utils.imports", "import_from_cwd")
        failed: list[Exception] = []

        def importing(module: str, **kwargs: Any) -> Any:
            try:
                try:
                    return import_from_cwd(module, **kwargs)
                except SystemExit as exc:
                    raise ImportError(f"it ends the program ({exc!r})") from exc
            except Exception as exc:
                # If there is no such module, there may be an attribute of that name.
                if not (isinstance(exc, ModuleNotFoundError) and exc.name == module):
                    failed.append(exc)
                raise

        find_app = private("celery.app.utils", "find_app")
        try:
            app: Celery = find_app(self.app_name, symbol_by_name, importing)
        except Exception as exc:
            # Celery looks further after a failed import, and raises what came last.
            reason = failed[0] if failed else exc
            if isinstance(exc, ModuleNotFoundError) and not failed:
                while isinstance(reason.__context__, AttributeError):
                    reason = reason.__context__
            raise reason from None
        return app

    @cached_property
    def command(self) -> Command:
        """Celery's own command, with the options that an app adds, if there is one."""
        from celery import Celery

        from .command import Command, Unconfigured

        try:
            app = self.app
        except Exception:
            app = None
        if not isinstance(app, Celery):
            # ARGS can be checked all the same. The namespace is the one of Celery's
            # documentation for Django.
            app = Celery("nowhere", namespace="CELERY", set_as_current=False)
        return Command(self.program, Unconfigured(app) if self.checked else app)

    @property
    def conf(self) -> Any:
        """The app's configuration; while the entry is checked, each setting is None."""
        return self.command.app.conf

    @cached_property
    def words(self) -> list[str]:
        """ARGS as words of the command line; raises `OptionError`."""
        from .arguments import followed, spell

        return followed(spell(self.command, self.config.get("ARGS")), self.extra)

    @cached_property
    def context(self) -> click.Context:
        """ARGS as Celery reads them, the pool still a name; raises `OptionError`."""
        return self.command.parse(self.words)

    @cached_property
    def heartbeat_file(self) -> str:
        """HEARTBEAT_FILE, absolute; raises `TypeError` or `ValueError`.

        %n, %h and their like mean what they do in a worker's pidfile.
        """
        from .command import private

        value = resolved(self.config["HEARTBEAT_FILE"])
        if not isinstance(value, str):
            raise TypeError("it is no path")
        if not value or "\0" in value:
            raise ValueError("it is not the path of a file")
        node = self.context.params.get("hostname") or ""
        if "@" not in node:  # as Celery 5.7 names a beat; older ones have no name
            node = f"celery{self.program}@{node}"
        host_format = private("celery.utils.nodenames", "host_format")
        node_format = private("celery.utils.nodenames", "node_format")
        path: str = node_format(value, host_format(node))
        return os.path.abspath(path)

    def parsed(self, words: Sequence[str]) -> click.Context:
        """Return words as Celery reads them; it reads the entry's own only once.

        Args:
            words: what a backend made of the entry's own.

        Raises:
            OptionError: Celery cannot read them.
        """
        if list(words) == self.words:
            return self.context
        return self.command.parse(words)


def processes_with(part: Mapping[str, Any]) -> tuple[str, ...]:
    """Name the processes whose entries have the same values as a part of an entry."""
    try:
        processes = dict(settings.PRODUCTION_PROCESSES)
    except Exception:
        return ()
    entries = {str(name): told(entry)[0] for name, entry in processes.items()}
    return tuple(
        name
        for name, entry in entries.items()
        if isinstance(entry, Mapping)
        and all(same(entry.get(key), value) for key, value in part.items())
    )
