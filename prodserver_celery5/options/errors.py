"""What is wrong with ARGS, or with a Celery that lacks an undocumented name."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from operator import attrgetter
from typing import Any

import celery
import click

from ..findings import Where

__all__ = ("OptionError", "PrivateNameError", "UnknownOptionError", "private")


class OptionError(ValueError):
    """A mistake in ARGS, with what to write instead, and where it is.

    Args:
        absent: the option or argument that is wrong without being in ARGS: it is
            required, or a variable or its own default gives it a wrong value.
        spellings: how a command line spells the option or word that is wrong.
    """

    def __init__(
        self,
        message: str,
        hint: str = "",
        where: Where = Where(),  # noqa: B008 - it cannot change
        absent: click.Parameter | None = None,
        spellings: Sequence[str] = (),
    ) -> None:
        super().__init__(message)
        self.hint = hint
        self.where = where
        self.absent = absent
        self.spellings = tuple(spellings)


class UnknownOptionError(OptionError):
    """An option that the installed Celery does not have, or that ARGS cannot take."""


class PrivateNameError(OptionError):
    """The installed Celery lacks a name that it never promised."""


def private(module: str, name: str) -> Any:
    """Import a name that Celery does not document, at the place that uses it."""
    try:
        return attrgetter(name)(import_module(module))
    except (AttributeError, ImportError) as exc:
        raise PrivateNameError(
            f"Celery {celery.__version__} has no {module}.{name}, which"
            " prodserver-celery5 needs.",
            "Upgrade prodserver-celery5, or install an older Celery.",
        ) from exc
