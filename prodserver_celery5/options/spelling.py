"""The spelling of ARGS as words of a command line."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Mapping, Sequence, Set
from contextlib import suppress
from datetime import timedelta
from decimal import Decimal
from typing import Any

import click

from .. import values
from ..findings import Where
from .command import Command
from .declared import is_list, is_log_level, is_number, normal, takes
from .errors import OptionError, UnknownOptionError
from .pasted import joined

__all__ = ("followed", "spell", "where_is")

_FLAG = "a flag takes True, False or None."


def spell(command: Command, args: object) -> list[str]:
    """Spell ARGS as they would stand on the command line; raises `OptionError`.

    Args:
        command: the subcommand that is to read them.
        args: a mapping of long option names, with hyphens or underscores, to values; a
            string, split as a shell would; a list of words; or ``None``, as if empty.
    """
    args = _resolved(args)
    if args is None:
        return []
    if isinstance(args, str):
        try:
            return shlex.split(joined(args))
        except ValueError as exc:
            raise OptionError(f"a shell could not split it: {exc}.") from exc
    if isinstance(args, (list, tuple)):
        return [_word(word) for word in args]
    if not isinstance(args, Mapping):
        raise OptionError("it takes a dict, a string or a list of words.")

    given: dict[click.Option, str] = {}
    words: list[str] = []
    for key, value in args.items():
        try:
            name, value = _resolved(key), _resolved(value)
            if not isinstance(name, str) or not name:
                raise UnknownOptionError("a key must be an option's long name.")
            if normal(name) not in command.keys:
                raise command.unknown(name)
            option, spelling = command.keys[normal(name)]
            if option in given:
                raise OptionError(f"this is the same option as {given[option]!r}.")
            given[option] = name
            words += _spell_option(option, spelling, value)
        except OptionError as exc:
            exc.where = where_is(key, value)
            raise
    return words


def followed(words: Sequence[str], others: Sequence[str]) -> list[str]:
    """Join the words of a command line and others, with all options before a ``--``."""
    options: list[str] = []
    rest: list[str] = []
    for part in (words, others):
        end = part.index("--") if "--" in part else len(part)
        options += part[:end]
        rest += part[end + 1 :]
    return [*options, "--", *rest] if rest else options


def where_is(key: object, value: object) -> Where:
    """Show a key and its value as they stand in ARGS."""
    return Where("ARGS", f"[{values.shown(key)}] = {values.shown(value)}")


def _resolved(value: Any) -> Any:
    try:
        return values.resolved(value)
    except Exception as exc:
        raise OptionError(f"it cannot be evaluated: {values.reason(exc)}") from exc


def _spell_option(option: click.Option, spelling: str, value: object) -> list[str]:
    """Write one option and its value as words of the command line."""
    if option.is_flag or option.count:
        if isinstance(value, str):
            value = _truth(value)
        if value is False:
            # The other one of a pair such as --color/--no-color.
            pair = (option.opts, option.secondary_opts)
            return pair[spelling in option.opts][:1]
        # None is how django-prodserver 3 writes a bare flag.
        if value is not True and value is not None:
            raise OptionError(_FLAG)
        return [spelling]
    if value is None:
        return []
    if isinstance(value, (list, tuple, Set)):
        return _spell_list(option, spelling, value)
    return _attach(spelling, _word(value, option))


def _truth(word: str) -> bool:
    """Read the value of a flag from a command line, which has only words."""
    try:
        if word.strip():
            return bool(click.BOOL.convert(word, None, None))
    except click.BadParameter:
        pass
    hint = 'On a command line, write "=true" or "=false" after its name.'
    raise OptionError(_FLAG, hint if word.startswith("-") else "")


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
    if not is_list(option):
        raise OptionError(takes(option))
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
    if isinstance(value, timedelta) and option and is_number(option):
        seconds = value.total_seconds()
        value = int(seconds) if seconds.is_integer() else seconds
    if isinstance(value, Decimal):
        value = Decimal.__str__(value)
    # The methods of the plain types, because subclasses may override them.
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, float):
        return float.__repr__(value)
    if isinstance(value, int) and not isinstance(value, bool):
        if option and is_log_level(option):
            return logging.getLevelName(int(value)).removeprefix("Level ")
        with suppress(ValueError):  # an int with more digits than Python writes
            return int.__repr__(value)
    raise OptionError(
        takes(option)
        if option
        else f"each word must be a string or number, not {values.shown(value)}."
    )
