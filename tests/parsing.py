"""ARGS as words and as keyword arguments, made as the backends make them."""

from __future__ import annotations

from typing import Any

import click
from celery import Celery

from prodserver_celery5.options.command import Command, import_pool
from prodserver_celery5.options.errors import OptionError
from prodserver_celery5.options.rules import mistakes as each_mistake
from prodserver_celery5.options.spelling import spell

__all__ = ("mistakes", "parse", "words")


def words(program: str, app: Celery, args: Any) -> list[str]:
    """Spell ARGS as words of the command line."""
    return spell(Command(program, app), args)


def parse(program: str, app: Celery, args: Any) -> click.Context:
    """Parse ARGS as a start does: the pool is a class, not its name."""
    command = Command(program, app)
    context = command.parse(spell(command, args))
    import_pool(context)
    return context


def mistakes(program: str, app: Celery, args: Any) -> list[OptionError]:
    """Return each mistake in ARGS, as the checks report it."""
    command = Command(program, app)
    try:
        command.parse(spell(command, args))
    except OptionError as exc:
        return list(each_mistake(command, args, exc))
    return []
