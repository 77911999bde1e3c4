"""An entry of PRODUCTION_PROCESSES, made once for whoever asks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.utils.functional import Promise

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

    def __init__(self, program: str, config: Mapping[str, Any]) -> None:
        self.program = program
        self.config = config

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The names of the processes whose entry this is: a backend never learns it."""
        processes = getattr(settings, "PRODUCTION_PROCESSES", None)
        if isinstance(processes, Mapping):
            # A backend derived from ours may have changed ARGS.
            for keys in (("BACKEND", "APP", "ARGS"), ("BACKEND", "APP")):
                names = tuple(
                    str(name)
                    for name, entry in processes.items()
                    if isinstance(entry, Mapping)
                    and all(entry.get(key) == self.config.get(key) for key in keys)
                )
                if names:
                    return names
        return (self.program,)

    @cached_property
    def args(self) -> Any:
        """ARGS, with the lazy strings of Django resolved."""
        return resolved(self.config.get("ARGS"))

    @cached_property
    def app(self) -> Celery:
        """The app that ``celery -A`` finds: ``APP`` has to be a string."""
        from .command import private

        app: Celery = private("celery.app.utils", "find_app")(str(self.config["APP"]))
        return app

    @cached_property
    def command(self) -> Command:
        """Celery's own command, with the options that the app adds, if there is one."""
        from celery import Celery

        from .command import Command

        try:
            app = self.app
        except Exception:
            app = None
        if not isinstance(app, Celery):
            # What is wrong with ARGS can be known all the same. The namespace is that
            # of Celery's documentation for Django.
            app = Celery("nowhere", namespace="CELERY", set_as_current=False)
        return Command(self.program, app)

    @cached_property
    def words(self) -> list[str]:
        """ARGS as words of the command line; raises `OptionError`."""
        from .arguments import spell

        return spell(self.command, self.args)

    @cached_property
    def context(self) -> click.Context:
        """ARGS as Celery reads them, the pool still a name; raises `OptionError`."""
        return self.command.parse(self.words)

    def parsed(self, words: Sequence[str]) -> click.Context:
        """Return words as Celery reads them: those of the entry are read only once.

        Args:
            words: what a backend made of the entry's own.

        Raises:
            OptionError: Celery cannot read them.
        """
        if list(words) == self.words:
            return self.context
        return self.command.parse(words)


def resolved(value: Any) -> Any:
    """Replace lazy strings, such as those of gettext_lazy, by strings.

    Args:
        value: a string, or a mapping or list in which there may be some.
    """
    if isinstance(value, Promise):
        return str(value)
    if isinstance(value, Mapping):
        return {resolved(key): resolved(element) for key, element in value.items()}
    if type(value) in (list, tuple, set, frozenset):
        return type(value)(resolved(element) for element in value)
    return value
