"""ARGS of a process entry → argument list → keyword arguments.

Knows Celery's own declarations of its ``worker`` and ``beat`` commands, and
nothing of Django. The declarations are asked, never repeated: what a key may
be, what its value may be and what becomes of both is Celery's to say.
"""

from __future__ import annotations

import copy
import difflib
import logging
import os
import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import suppress
from datetime import timedelta
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import celery
import click
from celery.app.defaults import _TO_OLD_KEY
from celery.app.utils import HIDDEN_SETTINGS
from celery.bin.base import CLIContext, CommaSeparatedList, LogLevel
from celery.bin.worker import Autoscale
from click.types import FloatParamType, IntParamType

__all__ = (
    "OptionError",
    "UnknownOptionError",
    "argument_list",
    "censored",
    "command_line",
    "mistakes",
    "parse",
    "run",
    "shown",
    "without_passwords",
)


class OptionError(ValueError):
    """A mistake in ARGS, in one line.

    Args:
        message: what is wrong, and what would be accepted.
        where: the key and value, word or variable that is wrong, as it was given.
    """

    def __init__(self, message: str, where: str = "ARGS") -> None:
        super().__init__(without_passwords(" ".join(message.split())))
        self.where = " ".join(where.split())


class UnknownOptionError(OptionError):
    """An option that the installed Celery does not have, or that is refused here."""


# What Celery declares


def _refused(reason: str, setting: str = "") -> Callable[..., None]:
    """Make the callback of an option of ``celery`` that has no place in ARGS."""

    def callback(ctx: click.Context, param: click.Parameter, value: Any) -> None:
        if value:
            namespace = ctx.obj.namespace
            # Without a namespace, Django's settings are read by Celery's old names.
            name = (
                f"{namespace.rstrip('_')}_{setting}".upper()
                if namespace
                else _TO_OLD_KEY.get(setting, setting)
            )
            raise UnknownOptionError(reason.format(setting=name), param.opts[0])

    return callback


_SET_INSTEAD: Final = "is an option of `celery` itself; set {setting} in the settings."
_HAS_ITS_OWN: Final = "is for an app yet to be made; the app of APP has its own."
_STARTS_NOTHING: Final = "would print a text and start nothing."

# The options of the `celery` command itself, which stand before `worker` on its
# command line. They are declared in celery.bin.celery, whose import brings every
# other subcommand: 0.3 s and 9 MiB. Of its variables only NO_COLOR is read here.
_GLOBAL: Final = click.Command(
    "celery",
    add_help_option=False,
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
    params=[
        click.Option(["--workdir"], type=Path),
        click.Option(["--no-color"], is_flag=True, envvar="NO_COLOR"),
        click.Option(["--quiet"], is_flag=True),
        *([click.Option(["--skip-checks"], is_flag=True)] * (celery.VERSION >= (5, 3))),
        click.Option(["--broker"], callback=_refused(_SET_INSTEAD, "broker_url")),
        click.Option(
            ["--result-backend"], callback=_refused(_SET_INSTEAD, "result_backend")
        ),
        click.Option(["--loader"], callback=_refused(_HAS_ITS_OWN)),
        click.Option(["--config"], callback=_refused(_HAS_ITS_OWN)),
        click.Option(["--app"], callback=_refused("is the entry's key APP.")),
        click.Option(["--help"], is_flag=True, callback=_refused(_STARTS_NOTHING)),
        click.Option(["--version"], is_flag=True, callback=_refused(_STARTS_NOTHING)),
    ],
)


def _declarations(name: str, app: celery.Celery) -> tuple[click.Command, click.Command]:
    """``celery`` and its own ``worker`` or ``beat``: copies, with the app's options."""
    command = copy.copy(getattr(import_module(f"celery.bin.{name}"), name))
    params = [
        *command.params,
        *app.user_options.get(name, ()),
        *app.user_options.get("preload", ()),
    ]
    # Celery 5.0 to 5.2 declare --uid twice, of which click 8.2 and newer warn.
    command.params = list({(*p.opts, *p.secondary_opts): p for p in params}.values())
    command.add_help_option = False
    above = copy.copy(_GLOBAL)
    taken = {spelling for param in params for spelling in param.opts}
    above.params = [param for param in above.params if taken.isdisjoint(param.opts)]
    return above, command


def _normal(key: str) -> str:
    return key.replace("_", "-")


def _where(key: object, value: object) -> str:
    text = "**" if HIDDEN_SETTINGS.search(_text(key)) else censored(_text(value))
    text = text if len(text) < 100 else text[:99] + "…"
    return f"ARGS[{without_passwords(_text(key))}] = {text}"


def _text(value: object) -> str:
    try:
        return repr(value)
    except Exception:
        return f"<{type(value).__name__}>"


def _keys(*commands: click.Command) -> dict[str, tuple[click.Option, str]]:
    """Each key that ARGS may have, with its option and how Celery spells it."""
    keys: dict[str, tuple[click.Option, str]] = {}
    for param in [param for command in commands for param in command.params]:
        if isinstance(param, click.Option):
            spellings = [*param.opts, *param.secondary_opts]
            long = [spelling for spelling in spellings if spelling.startswith("--")]
            keys.update({_normal(spelling[2:]): (param, spelling) for spelling in long})
            if not long and param.name:
                keys[_normal(param.name)] = param, spellings[0]
    return keys


def _unknown(
    above: click.Command, command: click.Command, key: str, where: str
) -> UnknownOptionError:
    """Make the error that names Celery's version and the nearest option."""
    keys, bare = _keys(above, command), _normal(key.lstrip("-"))
    near = [name for name, (option, _) in keys.items() if f"-{bare}" in option.opts]
    near += difflib.get_close_matches(bare, keys, n=1)
    return UnknownOptionError(
        f"the {command.name} of Celery {celery.__version__} has no such option"
        + (f"; the nearest that it has is {near[0]!r}." if near else "."),
        where,
    )


# ARGS → argument list


def argument_list(name: str, app: celery.Celery, args: object) -> list[str]:
    """Spell ARGS as they would stand on the command line.

    Args:
        name: ``"worker"`` or ``"beat"``.
        app: the Celery app, for the options that it adds.
        args: a mapping of long option names, with hyphens or underscores, to
            values; or a string, split as a shell would; or a list of words, as
            on the command line; or ``None``, as if empty.

    Raises:
        UnknownOptionError: the installed Celery has no such option.
        OptionError: a value that no option, or not this one, can take.
    """
    if args is None:
        return []
    if isinstance(args, str):
        try:
            return shlex.split(args)
        except ValueError as exc:
            raise OptionError(f"a shell could not split it: {exc}.") from exc
    if isinstance(args, (list, tuple)):
        return [_word(word, "takes a string or number for each word.") for word in args]
    if not isinstance(args, Mapping):
        raise OptionError("takes a dict, a string or a list of strings.")

    above, command = _declarations(name, app)
    keys = _keys(above, command)
    given: dict[click.Option, str] = {}
    words: list[str] = []
    for key, value in args.items():
        where = _where(key, value)
        if not isinstance(key, str) or not key:
            raise UnknownOptionError("a key is an option's long name.", where)
        if _normal(key) not in keys:
            raise _unknown(above, command, key, where)
        option, spelling = keys[_normal(key)]
        if option in given:
            raise OptionError(f"is the same option as {given[option]!r}.", where)
        given[option] = key
        try:
            words += _spell(option, spelling, value)
        except OptionError as exc:
            exc.where = where
            raise
    return words


def _spell(option: click.Option, spelling: str, value: object) -> list[str]:
    """Write one option and its value as words of the command line."""
    if option.is_flag or option.count:
        if value is False:
            # Of a pair such as --color/--no-color, the other one.
            pair = (option.opts, option.secondary_opts)
            return pair[spelling in option.opts][:1]
        # None is how django-prodserver 3 writes a bare flag.
        if value is not True and value is not None:
            raise OptionError("is a flag and takes True, False or None.")
        return [spelling]
    if value is None:
        return []
    if isinstance(value, (list, tuple, Set)):
        return _spell_list(option, spelling, value)
    return _attach(spelling, _word(value, _takes(option), option))


def _spell_list(
    option: click.Option, spelling: str, value: Sequence[object] | Set[object]
) -> list[str]:
    words = [_word(element, _takes(option), option) for element in value]
    if isinstance(value, Set):
        words.sort()
    if not words:
        return []
    if option.multiple:
        return [part for word in words for part in _attach(spelling, word)]
    if option.nargs != 1:
        return [spelling, *words]
    if not _is_list(option):
        raise OptionError(_takes(option))
    if any("," in word for word in words):
        raise OptionError("takes no element with a comma: Celery would make two of it.")
    return _attach(spelling, ",".join(words))


def _attach(spelling: str, word: str) -> list[str]:
    # Attached to its option, a value may begin with a hyphen.
    return [f"{spelling}={word}"] if spelling.startswith("--") else [spelling, word]


def _word(value: object, takes: str, option: click.Option | None = None) -> str:
    """Write a single value as it would stand on the command line."""
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if isinstance(value, timedelta) and option and _is_number(option):
        seconds = value.total_seconds()
        value = int(seconds) if seconds.is_integer() else seconds
    # The methods of the plain types: str() of an Enum's member is its name.
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, float):
        return float.__repr__(value)
    if isinstance(value, int) and not isinstance(value, bool):
        with suppress(ValueError):  # of an int of more digits than Python writes
            if option and isinstance(option.type, LogLevel):
                return logging.getLevelName(int(value)).removeprefix("Level ")
            return int.__repr__(value)
    raise OptionError(takes)


def _is_number(option: click.Option) -> bool:
    return isinstance(option.type, (IntParamType, FloatParamType))


def _is_list(option: click.Option) -> bool:
    return isinstance(option.type, (CommaSeparatedList, Autoscale))


def _takes(option: click.Option) -> str:
    """What an option takes, by the type that Celery gave it, for an error message."""
    if isinstance(option.type, click.Choice):
        return f"takes one of {', '.join(map(str, option.type.choices))}."
    if _is_number(option):
        return f"takes one {option.type.name}, or a timedelta."
    if _is_list(option) or option.multiple or option.nargs != 1:
        return "takes a string, or a list of strings or numbers."
    return "takes one string, path or number."


# Argument list → keyword arguments


def parse(
    name: str, app: celery.Celery, argv: Sequence[str], *, import_pool: bool = True
) -> click.Context:
    """Let the installed Celery turn an argument list into keyword arguments.

    Nothing is started. ``context.params`` are the keyword arguments; `run` hands
    them to the body of Celery's own command.

    Args:
        name: ``"worker"`` or ``"beat"``.
        app: the Celery app.
        argv: what `argument_list` gives, options of ``celery`` itself among them.
        import_pool: whether ``--pool`` becomes the pool's class, as for Celery,
            or remains its name, so that no pool is imported.

    Returns:
        A click context. Its ``obj`` is Celery's ``CLIContext``; its ``meta`` has
        the options of ``celery`` itself as ``"celery"`` and the words left for
        the command as ``"argv"``.

    Raises:
        UnknownOptionError: the installed Celery has no such option.
        OptionError: a value that Celery refuses.
    """
    above, command = _declarations(name, app)
    if not import_pool:
        command.params = [copy.copy(param) for param in command.params]
        for option in command.params:
            if option.name == "pool":
                names = getattr(option.type, "choices", ())
                # Celery 5.0 takes more than it names, paths of classes among them.
                strict = celery.VERSION >= (5, 1)
                option.type = click.Choice(names) if strict else click.STRING
    end = argv.index("--") if "--" in argv else len(argv)
    try:
        outer = above.make_context("celery", list(argv[:end]), obj=app)
        words = [*outer.args, *argv[end:]]
        context = command.make_context(
            name,
            list(words),
            obj=CLIContext(
                app,
                no_color=outer.params.get("no_color", False),
                workdir=outer.params.get("workdir"),
                quiet=outer.params.get("quiet", False),
            ),
            auto_envvar_prefix=f"CELERY_{name}".upper(),
        )
        # Celery's command reads its extra words when it runs: the namespaces are
        # those of config_from_cmdline() there.
        app.loader.cmdline_config_parser(
            context.args, namespace="worker" if name == "worker" else "celery"
        )
    except OptionError:
        raise
    except click.NoSuchOption as exc:
        word = exc.option_name
        raise _unknown(above, command, word, censored(word)) from exc
    except click.ClickException as exc:
        param = getattr(exc, "param", None)
        where = f"ARGS {param.opts[-1]}" if param else "ARGS"
        raise OptionError(exc.message or exc.format_message(), where) from exc
    except Exception as exc:
        raise OptionError(
            f"Celery cannot read it: {type(exc).__name__}: {exc}"
        ) from exc
    context.meta.update(celery=outer.params, argv=words)
    return context


def mistakes(name: str, app: celery.Celery, args: object) -> Iterator[OptionError]:
    """Find each thing that is wrong with ARGS, and where, without importing a pool.

    The parameters are those of `argument_list`.
    """

    def attempt(part: object) -> OptionError | None:
        try:
            parse(name, app, argument_list(name, app, part), import_pool=False)
        except OptionError as exc:
            return exc
        return None

    def is_missing(error: OptionError) -> bool:
        # Where the app has an option that has to be given, each part alone lacks it.
        return isinstance(error.__cause__, click.MissingParameter)

    whole = attempt(args)
    if whole is None:
        return
    environment = attempt(None)
    if environment and not is_missing(environment):
        # Which variable it is, Celery does not always say either.
        param = getattr(environment.__cause__, "param", None)
        known = getattr(param, "name", "…")
        variable = getattr(param, "envvar", None) or f"CELERY_{name}_{known}".upper()
        value = os.environ.get(variable)
        environment.where = variable + (f" = {censored(repr(value))}" if value else "")
        yield environment
        return
    found = False
    # Celery does not always say which option it was: each is tried alone.
    for key, value in args.items() if isinstance(args, Mapping) else ():
        error = attempt({key: value})
        if error and not is_missing(error):
            found = True
            error.where = _where(key, value)
            yield error
    if not found:
        yield whole


# Keyword arguments → a running program


def run(context: click.Context) -> int | None:
    """Run the body of Celery's own command, and return the exit status.

    Celery 5.0 to 5.2 return the status from the body, newer ones raise it. Of a remote
    shutdown they return the text that it logs, where newer ones end with 0.

    Args:
        context: what `parse` returned.
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
    """Return the ``celery`` command line that does the same, as words.

    Args:
        app_name: the app, as ``celery -A`` takes it.
        context: what `parse` returned.
    """
    options = context.meta["celery"]
    flags = ("no_color", "quiet", "skip_checks")
    return [
        "celery",
        f"--app={app_name}",
        *([f"--workdir={options['workdir']}"] if options.get("workdir") else []),
        *(f"--{_normal(flag)}" for flag in flags if options.get(flag)),
        str(context.info_name),
        *context.meta["argv"],
    ]


def shown(words: Sequence[str]) -> str:
    """Return a command line for printing, without the passwords in it.

    Args:
        words: what `command_line` returned.
    """
    return shlex.join(
        "**"
        if before.startswith("-")
        and "=" not in before
        and HIDDEN_SETTINGS.search(before)
        and not word.startswith("-")
        else censored(word)
        for before, word in pairwise(["", *words])
    )


def censored(text: str) -> str:
    """Return a text for printing, without the passwords in it.

    Args:
        text: a word of the command line, or a representation of a value.
    """
    text = without_passwords(text)
    name, equals, _ = text.partition("=")
    return f"{name}=**" if equals and HIDDEN_SETTINGS.search(name) else text


def without_passwords(text: str) -> str:
    """Return a text in which the addresses have no passwords.

    Args:
        text: a message, or part of one.
    """
    # All up to the last @: a password may have an unescaped @, / or space in it.
    return re.sub(r"(://[^\s:@/]*):.*@", r"\1:**@", text)
