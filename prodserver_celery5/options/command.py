"""Celery's own command, as the installed Celery parses and runs it."""

from __future__ import annotations

import copy
import difflib
import os
from collections.abc import Sequence
from functools import cached_property
from importlib import import_module
from typing import Any

import celery
import click

from ..findings import Where
from . import pasted
from .declared import GLOBAL, SHORT, envvars, named, normal, refuse, without_code
from .errors import OptionError, UnknownOptionError, private

__all__ = ("Command", "Unconfigured", "command_line", "import_pool", "run")


class _NoSettings:
    def __getattr__(self, name: str) -> None:
        return None


class Unconfigured:
    """Stands for an app whose configuration must not be read: each setting is None.

    The first to read it lets the project's own code run: `on_after_configure`. The app
    answers for everything else.
    """

    conf = _NoSettings()

    def __init__(self, app: celery.Celery) -> None:
        self._app = app

    def __getattr__(self, name: str) -> Any:
        return getattr(self._app, name)


class Command:
    """A subcommand of ``celery``, with the options that an app adds to it."""

    def __init__(self, name: str, app: celery.Celery | Unconfigured) -> None:
        self.name = name
        self.app = app
        # Copies, so that Celery's own declarations stay as they are.
        self._command = copy.copy(getattr(import_module(f"celery.bin.{name}"), name))
        own = [*app.user_options.get(name, ()), *app.user_options.get("preload", ())]
        if isinstance(app, Unconfigured):
            own = [without_code(param) for param in own]
        params = [*self._command.params, *own]
        # Celery 5.0 to 5.2 declare --uid twice; click 8.2 and newer warn of that.
        params = list({(*p.opts, *p.secondary_opts): p for p in params}.values())
        self._command.params = [named(param) for param in params]
        # It is refused above; the variable CELERY_WORKER_HELP would still print it.
        self._command.add_help_option = False
        self._above = copy.copy(GLOBAL)
        taken = {spelling for param in params for spelling in param.opts}
        self._above.params = [
            named(param) for param in self._above.params if taken.isdisjoint(param.opts)
        ]
        self._short = {
            short: long for short, long in SHORT.items() if not taken & {short, long}
        }

    @cached_property
    def keys(self) -> dict[str, tuple[click.Option, str]]:
        """Each key that ARGS may have, with its option and Celery's spelling."""
        keys: dict[str, tuple[click.Option, str]] = {}
        for param in (*self._above.params, *self._command.params):
            if isinstance(param, click.Option):
                spellings = [*param.opts, *param.secondary_opts]
                long = [name for name in spellings if name.startswith("--")]
                keys.update({normal(name[2:]): (param, name) for name in long})
                if not long and param.name:
                    keys[normal(param.name)] = param, spellings[0]
        return keys | {short[1:]: keys[long[2:]] for short, long in self._short.items()}

    def variable(self, param: click.Parameter) -> str:
        """Name the variable that gives an option its value."""
        own = "" if param in self._above.params else f"{self.name}_"
        default = f"CELERY_{own}{param.name}".upper()
        names = [*envvars(param), default]
        is_set = [name for name in names if os.environ.get(name)]
        return (is_set or names)[0]

    def unknown(self, key: str) -> UnknownOptionError:
        """Make the error that names Celery's version and the nearest option."""
        bare = normal(self._short.get(key, key).lstrip("-"))
        near = [name for name, (opt, _) in self.keys.items() if f"-{bare}" in opt.opts]
        near += difflib.get_close_matches(bare, self.keys, n=1)
        hint = f"Did you mean {near[0]!r}?" if near else ""
        if bare.isupper():  # as the keys of an entry are, and no option of Celery's
            hint = "A key of the entry stands beside ARGS, not in it."
        return UnknownOptionError(
            f"Celery {celery.__version__}'s {self.name} has no such option.",
            hint,
            Where("ARGS", key),
            spellings=(key,),
        )

    def parse(self, words: Sequence[str]) -> click.Context:
        """Let the installed Celery turn a command line into keyword arguments.

        This starts nothing and imports no pool: `import_pool` does that.

        Returns:
            A click context. Its ``params`` are the keyword arguments, its ``obj`` is
            Celery's ``CLIContext``; its ``meta`` has the options of ``celery`` itself
            as ``"celery"`` and the words left for the subcommand as ``"words"``.
        """
        if hint := pasted.whole_line(words, self.name):
            raise OptionError(
                f"only what follows `celery {self.name}` belongs here.",
                hint,
                Where("ARGS", f"word {words[0]!r}"),
            )
        end = words.index("--") if "--" in words else len(words)
        make_obj = private("celery.bin.base", "CLIContext")
        try:
            outer = self._above.make_context(
                "celery",
                [*map(self._long, words[:end])],
                obj=self.app,
                auto_envvar_prefix="CELERY",
            )
            above = outer.params
            refuse(above, self.app.namespace)
            rest = [*outer.args, *words[end:]]
            context: click.Context = self._command.make_context(
                self.name,
                list(rest),
                obj=make_obj(
                    self.app,
                    no_color=above.get("no_color", False),
                    workdir=above.get("workdir"),
                    quiet=above.get("quiet", False),
                ),
                auto_envvar_prefix=f"CELERY_{self.name}".upper(),
            )
        except click.NoSuchOption as exc:
            raise self.unknown(exc.option_name) from exc
        except click.ClickException as exc:
            raise OptionError(exc.message or exc.format_message()) from exc
        for word in context.args:
            self._check_setting(rest, word)
        context.meta.update(celery=above, words=rest)
        return context

    def _long(self, word: str) -> str:
        """Spell a word of an option of `celery` itself with the option's long name."""
        if not (long := self._short.get(word[:2])):
            return word
        return f"{long}={word[2:]}" if word[2:] else long

    def _check_setting(self, words: Sequence[str], word: str) -> None:
        """Read a word that belongs to no option as the command's body will."""
        try:
            self.app.loader.cmdline_config_parser([word])
        except Exception as exc:
            hint = pasted.stray_word(words, word)
            raise OptionError(
                "it is not a setting such as worker.prefetch_multiplier=1."
                if "=" in word and not hint
                else "it belongs to no option.",
                hint,
                Where("ARGS", f"word {word!r}"),
            ) from exc


def import_pool(context: click.Context) -> None:
    """Let Celery replace the pool's name in the keyword arguments with its class."""
    for param in context.command.params:
        if make := getattr(param, "imported_by", None):
            try:
                with context.scope(cleanup=False):
                    name = context.params["pool"]
                    context.params["pool"] = make(name, param, context)
            except Exception as exc:
                raise OptionError(
                    f"Celery cannot read it: {type(exc).__name__}: {exc}",
                    "",
                    Where("ARGS", f"--pool={name}"),
                ) from exc


def run(context: click.Context) -> int | None:
    """Run the body of Celery's own command, and return the exit status.

    Celery 5.0 to 5.2 return the status from the body; newer ones raise it. After a
    remote shutdown the old ones return the text that they log; newer ones end with 0.
    """
    if context.obj.workdir:
        os.chdir(context.obj.workdir)
    if context.meta["celery"].get("skip_checks"):
        os.environ["CELERY_SKIP_CHECKS"] = "true"
    try:
        with context:
            status: int | str | None = context.command.invoke(context)
    except click.exceptions.Exit as exc:
        return exc.exit_code
    except click.ClickException as exc:
        exc.show()
        return exc.exit_code
    except KeyboardInterrupt:
        # As click ends the `celery` command, before the program has its handlers.
        click.echo("Aborted!", err=True)
        return 1
    return 0 if isinstance(status, str) else status


def command_line(app_name: str, context: click.Context) -> list[str]:
    """Return the ``celery`` command line that does the same, as words."""
    options = context.meta["celery"]
    flags = ("no_color", "quiet", "skip_checks")
    return [
        "celery",
        f"--app={app_name}",
        *([f"--workdir={options['workdir']}"] if options.get("workdir") else []),
        *(f"--{normal(flag)}" for flag in flags if options.get(flag)),
        str(context.info_name),
        *context.meta["words"],
    ]
