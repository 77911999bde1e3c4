"""An entry of PRODUCTION_PROCESSES, whose parts are made once."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.core.management import get_commands

from .findings import COMMAND_LINE, Where
from .values import resolved, same, told

if TYPE_CHECKING:
    import click
    from celery import Celery

    from .options.command import Command

__all__ = ("Entry", "is_typed", "names_of")


class Entry:
    """A process entry with one of this package's backends.

    Its parts raise what is wrong with them; the rules put that into words.
    """

    # Whether this process has become the program of an entry.
    running = False
    # Whether this entry is only checked. A check must not configure the app: that would
    # run the project's own code.
    checked = False
    # Words of the command line that follow those of ARGS.
    extra: tuple[str, ...] = ()

    def __init__(
        self, program: str, config: Mapping[str, Any], names: Sequence[str] = ()
    ) -> None:
        self.program = program
        self.config = config
        self.names = tuple(names) or (program,)

    def __str__(self) -> str:
        return ", ".join(self.names)

    def gives(self, key: str) -> bool:
        """Whether the entry gives a key; with the value None it does not."""
        return told(self.config.get(key))[0] is not None

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

        from .options.errors import private
        from .process import picture

        if not self.checked:
            picture.redo()
        import_from_cwd = private("celery.utils.imports", "import_from_cwd")
        find_app = private("celery.app.utils", "find_app")
        module, colon, _ = str(self.app_name).partition(":")
        try:
            _import(import_from_cwd, module)
            try:
                if colon:
                    app: Celery = symbol_by_name(self.app_name, imp=import_from_cwd)
                else:
                    app = find_app(self.app_name, symbol_by_name, import_from_cwd)
            except AttributeError:
                # Celery has looked there, too, and swallowed the reason.
                _import(import_from_cwd, f"{module}.celery")
                raise
        except SystemExit as exc:
            raise ImportError(f"it ends the program ({exc!r})") from exc
        return app

    @cached_property
    def command(self) -> Command:
        """Celery's own command, with the options that an app adds, if there is one."""
        from celery import Celery

        from .options.command import Command, Unconfigured

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

    def setting(self, name: str) -> Any:
        """Return a setting of the app's, such as ``"broker_url"``, or None.

        While the entry is checked, it is what Django's settings have of it.
        """
        if not self.checked:
            return getattr(self.app.conf, name)
        prefix = f"{self.command.app.namespace or ''}".rstrip("_")
        return getattr(settings, f"{prefix}_{name}".lstrip("_").upper(), None)

    @cached_property
    def own_words(self) -> list[str]:
        """ARGS as words of the command line; raises `OptionError`."""
        from .options.spelling import spell

        return spell(self.command, self.config.get("ARGS"))

    @cached_property
    def words(self) -> list[str]:
        """ARGS and what follows them, as words of the command line."""
        from .options.spelling import followed

        return followed(self.own_words, self.extra)

    @cached_property
    def own_context(self) -> click.Context:
        """ARGS as Celery reads them, the pool still a name; raises `OptionError`."""
        return self.command.parse(self.own_words)

    @cached_property
    def context(self) -> click.Context:
        """ARGS and what follows them, as Celery reads them; raises `OptionError`."""
        return self._parse(self.words) if self.extra else self.own_context

    def where(self, option: str) -> Where | None:
        """Tell that an option's value comes from the command line, if it does."""
        if not self.extra:
            return None
        own, both = (
            {**context.meta["celery"], **context.params}.get(option)
            for context in (self.own_context, self.context)
        )
        return None if own == both else Where(COMMAND_LINE)

    def parsed(self, words: Sequence[str]) -> click.Context:
        """Return words as Celery reads them; it reads the entry's own only once."""
        return self.context if list(words) == self.words else self._parse(words)

    def _parse(self, words: Sequence[str]) -> click.Context:
        from .options.errors import OptionError

        try:
            return self.command.parse(words)
        except OptionError as exc:
            self.own_context  # noqa: B018 - their own mistake is that of ARGS
            exc.where = exc.where._replace(place=COMMAND_LINE)
            raise


def _import(import_from_cwd: Callable[[str], Any], module: str) -> None:
    """Import a module as Celery does, if there is one of that name."""
    try:
        import_from_cwd(module)
    except ModuleNotFoundError as exc:
        # Else it lacks another one.
        if not f"{module}.".startswith(f"{exc.name}."):
            raise


def names_of(config: Mapping[str, Any], is_backend: Callable[[str], bool]) -> list[str]:
    """Name the process that is starting with an entry.

    It is the word that was typed, such as the last one of ``manage.py prodserver
    beat``. Where nothing was typed, as with `call_command`, each process has the name
    whose entry is the same.
    """
    try:
        given = dict(settings.PRODUCTION_PROCESSES)
    except Exception:
        given = {}
    told_of = ((str(name), told(entry)[0]) for name, entry in given.items())
    processes = {
        name: dict(entry) for name, entry in told_of if isinstance(entry, Mapping)
    }
    for word in sys.argv[2:]:  # behind the program and its command
        path = told(processes.get(word, {}).get("BACKEND"))[0]
        if isinstance(path, str) and is_backend(path):
            return [word]
    return [
        name
        for name, entry in processes.items()
        if all(
            same(entry.get(key), config.get(key))
            for key in {"BACKEND", "APP", "ARGS", *config}
        )
    ]


def is_typed() -> bool:
    """Whether a command of django-prodserver was typed, which starts a process."""
    (command,) = sys.argv[1:2] or [""]
    return get_commands().get(command) == "django_prodserver"
