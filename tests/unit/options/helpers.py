"""ARGS, what becomes of them, and what their mistakes say."""

from __future__ import annotations

from typing import Any

import click
import pytest
from celery import Celery

from prodserver_celery5.findings import Finding
from prodserver_celery5.options.errors import OptionError
from tests import parsing


def parse(app: Celery, args: Any, program: str = "worker") -> click.Context:
    return parsing.parse(program, app, args)


def error(app: Celery, args: Any, program: str = "worker") -> OptionError:
    """Return the only mistake."""
    (found,) = parsing.mistakes(program, app, args)
    return found


def shown(found: OptionError) -> str:
    """Return the mistake as a finding shows it."""
    return str(Finding("E007", (), str(found), found.hint, where=found.where))


def invalid(kind: click.ParamType, value: str) -> str:
    """Return what the installed click says about an invalid value."""
    with pytest.raises(click.BadParameter) as caught:
        kind.convert(value, None, None)
    return caught.value.message


class Unshowable:
    def __repr__(self) -> str:
        raise RuntimeError

    __str__ = __repr__
