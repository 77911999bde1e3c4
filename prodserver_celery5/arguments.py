"""The spelling of ARGS as words of a command line."""

from __future__ import annotations

import logging
import os
import shlex
from collections.abc import Mapping, Sequence, Set
from contextlib import suppress
from datetime import timedelta

import click
from click.types import FloatParamType, IntParamType

from . import redaction
from .command import Command, OptionError, UnknownOptionError, normal, private

__all__ = ("spell", "where_is")


def spell(command: Command, args: object) -> list[str]:
    """Spell ARGS as they would stand on the command line.

    Args:
        command: the subcommand that is to read them.
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
        return [_word(word) for word in args]
    if not isinstance(args, Mapping):
        raise OptionError("it takes a dict, a string or a list of words.")

    given: dict[click.Option, str] = {}
    words: list[str] = []
    for key, value in args.items():
        where = where_is(key, value)
        if not isinstance(key, str) or not key:
            raise UnknownOptionError("a key must be an option's long name.", "", where)
        if normal(key) not in command.keys:
            raise command.unknown(key, where)
        option, spelling = command.keys[normal(key)]
        if option in given:
            raise OptionError(
                f"this is the same option as {given[option]!r}.", "", where
            )
        given[option] = key
        try:
            words += _spell_option(option, spelling, value)
        except OptionError as exc:
            exc.where = where
            raise
    return words


def where_is(key: object, value: object) -> str:
    """Show a key of ARGS with its value, without passwords.

    Args:
        key: as it stands in ARGS.
        value: as it stands in ARGS.
    """
    text = _shown(value)
    text = "**" if redaction.name_is_secret(_shown(key)) else redaction.word(text)
    text = text if len(text) < 100 else text[:99] + "…"
    return f"ARGS[{redaction.text(_shown(key))}] = {text}"


def _shown(value: object) -> str:
    try:
        return repr(value)
    except Exception:
        return f"<{type(value).__name__}>"


def _spell_option(option: click.Option, spelling: str, value: object) -> list[str]:
    """Write one option and its value as words of the command line."""
    if option.is_flag or option.count:
        if value is False:
            # Of a pair such as --color/--no-color, the other one.
            pair = (option.opts, option.secondary_opts)
            return pair[spelling in option.opts][:1]
        # None is how django-prodserver 3 writes a bare flag.
        if value is not True and value is not None:
            raise OptionError("a flag takes True, False or None.")
        return [spelling]
    if value is None:
        return []
    if isinstance(value, (list, tuple, Set)):
        return _spell_list(option, spelling, value)
    return _attach(spelling, _word(value, option))


def _spell_list(
    option: click.Option, spelling: str, value: Sequence[object] | Set[object]
) -> list[str]:
    words = [_word(element, option) for element in value]
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
        raise OptionError(
            "an element cannot contain a comma: Celery would split it in two."
        )
    return _attach(spelling, ",".join(words))


def _attach(spelling: str, word: str) -> list[str]:
    # Attached to its option, a value may begin with a hyphen.
    return [f"{spelling}={word}"] if spelling.startswith("--") else [spelling, word]


def _word(value: object, option: click.Option | None = None) -> str:
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
        if option and _is_log_level(option):
            return logging.getLevelName(int(value)).removeprefix("Level ")
        with suppress(ValueError):  # of an int of more digits than Python writes
            return int.__repr__(value)
    raise OptionError(
        _takes(option) if option else "each word must be a string or number."
    )


def _is_number(option: click.Option) -> bool:
    return isinstance(option.type, (IntParamType, FloatParamType))


def _is_log_level(option: click.Option) -> bool:
    return not _is_number(option) and isinstance(
        option.type, private("celery.bin.base", "LogLevel")
    )


def _is_list(option: click.Option) -> bool:
    if isinstance(option.type, private("celery.bin.base", "CommaSeparatedList")):
        return True
    return isinstance(option.type, private("celery.bin.worker", "Autoscale"))


def _takes(option: click.Option) -> str:
    """What an option takes, by the type that Celery gave it, for an error message."""
    if isinstance(option.type, click.Choice):
        return f"it takes one of {', '.join(map(str, option.type.choices))}."
    if _is_number(option):
        return f"it takes one {option.type.name}, or a timedelta."
    if _is_list(option) or option.multiple or option.nargs != 1:
        return "it takes a string, or a list of strings or numbers."
    return "it takes one string, path or number."
