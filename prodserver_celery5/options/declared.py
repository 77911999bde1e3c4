"""The options of Celery's commands, declared for ARGS.

Celery's own declarations are copied and stay as they are. What a copy changes: it runs
no code of the app and imports no pool, and its errors say which option it is.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import celery
import click
from click.types import FloatParamType, IntParamType

from ..findings import Where
from ..redaction import is_secret
from .errors import OptionError, UnknownOptionError, private

__all__ = (
    "GLOBAL", "SHORT", "envvars", "is_list", "is_log_level", "is_number", "named",
    "normal", "refuse", "takes", "without_code",
)  # fmt: skip


def normal(key: str) -> str:
    """Return an option's name with hyphens for underscores."""
    return key.replace("_", "-")


_OF_CELERY: Final = (
    "this is an option of `celery` itself.",
    "Set {} in the settings instead.",
)
_NEW_APP: Final = "this is for an app that `celery` creates; APP has one.", "Remove it."
_ONLY_PRINTS: Final = "this prints a text and starts nothing.", "Remove it."

# What has no place in ARGS: why, what to do instead, and the setting for it.
_REFUSED: Final[Mapping[str, Sequence[str]]] = {
    "broker": (*_OF_CELERY, "broker_url"),
    "result_backend": (*_OF_CELERY, "result_backend"),
    "loader": _NEW_APP,
    "config": _NEW_APP,
    "app": ("this has no place in ARGS.", "Use the key APP instead."),
    "help": _ONLY_PRINTS,
    "version": _ONLY_PRINTS,
}

# The options of the `celery` command itself, which stand before `worker` on its command
# line. Celery declares them in celery.bin.celery, whose import brings every other
# subcommand: 0.3 s and 9 MiB. Refused ones are not read from variables.
GLOBAL: Final = click.Command(
    "celery",
    add_help_option=False,
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
    params=[
        click.Option(["--workdir"], type=Path),
        click.Option(["--no-color"], is_flag=True, envvar="NO_COLOR"),
        click.Option(["--quiet"], is_flag=True),
        *([click.Option(["--skip-checks"], is_flag=True)] * (celery.VERSION >= (5, 3))),
        *(
            click.Option(
                [f"--{normal(name)}"],
                is_flag=text is _ONLY_PRINTS,
                allow_from_autoenv=False,
            )
            for name, text in _REFUSED.items()
        ),
    ],
)

# Their short names. The command above ignores what it does not know; if it knew these,
# it would take the letters of `-Qbeat` for options.
SHORT: Final = {"-A": "--app", "-b": "--broker", "-C": "--no-color", "-q": "--quiet"}


def refuse(options: Mapping[str, Any], namespace: str | None) -> None:
    """Raise what is wrong with options of `celery` that have no place in ARGS."""
    for name, (reason, hint, *settings) in _REFUSED.items():
        if options.get(name):
            hint = hint.format(*(_spelt(each, namespace) for each in settings))
            raise UnknownOptionError(reason, hint, Where("ARGS", f"--{normal(name)}"))


def _spelt(setting: str, namespace: str | None) -> str:
    """Spell a setting of Celery's as Django's settings have it."""
    if namespace:
        return f"{namespace.rstrip('_')}_{setting}".upper()
    # Without a namespace, Celery reads Django's settings by its old names.
    old: str = private("celery.app.defaults", "_TO_OLD_KEY").get(setting, setting)
    return old.upper()


# Types of click's that convert a value by themselves, and open nothing.
_PLAIN_TYPES: Final = (
    *{type(kind) for kind in (click.BOOL, click.FLOAT, click.INT, click.STRING)},
    click.Choice, click.DateTime, click.FloatRange, click.IntRange,
)  # fmt: skip


def without_code(param: click.Parameter) -> click.Parameter:
    """Declare one of the app's own options so that none of the app's code runs."""
    declared = copy.copy(param)
    # A class of the app's own may override what click calls.
    is_option = isinstance(param, click.Option)
    declared.__class__ = click.Option if is_option else click.Argument
    declared.callback = None
    if callable(declared.default):
        declared.default = None
    if isinstance(declared, click.Option):
        declared.prompt = None
    if type(param.type) not in _PLAIN_TYPES:
        declared.type = click.STRING
    return declared


def _without_import(pool: click.Parameter) -> click.Parameter:
    """Declare ``--pool`` so that its value stays a name: Celery's type imports it."""
    named = copy.copy(pool)
    names = getattr(pool.type, "choices", ())
    # Celery 5.0 takes more than it names, paths of classes among them.
    named.type = click.Choice(names) if celery.VERSION >= (5, 1) else click.STRING
    named.imported_by = pool.type  # type: ignore[attr-defined] # for `import_pool`
    return named


def named(param: click.Parameter) -> click.Parameter:
    """Declare a parameter so that its errors say which it is, and if ARGS have it."""
    declared = _without_import(param) if param.name == "pool" else copy.copy(param)
    parse = declared.handle_parse_result

    def handle_parse_result(ctx: click.Context, opts: Any, args: Any) -> Any:
        try:
            return parse(ctx, opts, args)
        except OptionError:
            raise
        except Exception as exc:
            given = opts.get(param.name)
            if isinstance(exc, click.ClickException):
                message = exc.message or exc.format_message()
            else:
                what = repr(given) if isinstance(given, str) else "it"
                message = f"Celery cannot read {what} ({type(exc).__name__}: {exc})."
                if type(param.type).__module__.startswith("celery."):
                    message = takes(param)  # Celery's own error is one of its inside
            if _has_secret(param) and not isinstance(exc, click.MissingParameter):
                message = "it does not take this value."
            absent = declared if given is None else None
            where = Where("ARGS", param.opts[-1])
            spellings = (*param.opts, *param.secondary_opts)
            raise OptionError(message, "", where, absent, spellings) from exc

    declared.handle_parse_result = handle_parse_result  # type: ignore[method-assign] # of a copy
    return declared


def _has_secret(param: click.Parameter) -> bool:
    """Whether a value of this parameter must not be shown."""
    names = (str(param.name), *param.opts, *param.secondary_opts, *envvars(param))
    return any(map(is_secret, names))


def envvars(param: click.Parameter) -> Sequence[str]:
    """Name the variables that a parameter is declared to read."""
    return [param.envvar] if isinstance(param.envvar, str) else param.envvar or ()


def is_number(option: click.Parameter) -> bool:
    """Whether an option takes a number."""
    return isinstance(option.type, (IntParamType, FloatParamType))


def is_log_level(option: click.Parameter) -> bool:
    """Whether an option takes the name of a level of logging."""
    # The first question spares the import: only a choice can be one.
    return isinstance(option.type, click.Choice) and isinstance(
        option.type, private("celery.bin.base", "LogLevel")
    )


def is_list(option: click.Parameter) -> bool:
    """Whether an option takes a list, its elements joined by commas."""
    comma_separated = private("celery.bin.base", "CommaSeparatedList")
    return isinstance(option.type, comma_separated) or _is_autoscale(option)


def _is_autoscale(option: click.Parameter) -> bool:
    return isinstance(option.type, private("celery.bin.worker", "Autoscale"))


def takes(option: click.Parameter) -> str:
    """Say what an option takes, by the type that Celery gave it."""
    if isinstance(option.type, click.Choice):
        return f"it takes one of {', '.join(map(str, option.type.choices))}."
    if is_number(option):
        return f"it takes one {option.type.name}, or a timedelta."
    if _is_autoscale(option):
        return "it takes one or two numbers, the maximum first, such as 10,3."
    if is_list(option) or getattr(option, "multiple", False) or option.nargs != 1:
        return "it takes a string, or a list of strings or numbers."
    return "it takes one string, path or number."
