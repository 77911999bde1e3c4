"""The values of the settings: what each stands for, and how it is shown."""

from __future__ import annotations

import os
from collections.abc import Set
from contextlib import suppress
from enum import Enum
from typing import Any

from django.utils.functional import LazyObject, Promise

__all__ = ("reason", "resolved", "same", "shown", "told")


def resolved(value: Any) -> Any:
    """Return what a lazy value, a member of an Enum or a path stands for.

    Args:
        value: the value, such as one of gettext_lazy, a SimpleLazyObject, or a list
            with some.

    Raises:
        TypeError: it stands for another value in an unknown way.
        Exception: whatever a lazy value fails with.
    """
    kind = type(value)
    if issubclass(kind, Promise):
        return resolved(value._proxy____cast())
    if issubclass(kind, LazyObject):
        value.__class__  # noqa: B018 - asking for it evaluates the value
        return resolved(value._wrapped)
    if issubclass(kind, Enum):
        return resolved(value.value)
    if issubclass(kind, os.PathLike):
        return os.fspath(value)
    if issubclass(kind, (list, tuple)):
        plain = list if issubclass(kind, list) else tuple
        return plain(resolved(element) for element in value)
    if issubclass(kind, Set):
        return {resolved(element) for element in value}
    if value.__class__ is not kind:
        raise TypeError(f"a {kind.__name__} stands here for another value.")
    return value


def same(one: object, other: object) -> bool:
    """Whether two values of the settings are equal, as far as they can be compared."""
    try:
        # 1 and True are equal, and not the same value of a flag.
        return one is other or bool(one == other and repr(one) == repr(other))
    except Exception:
        return False


def shown(value: object) -> str:
    """Return what a message shows for a value of the settings: its repr or type."""
    with suppress(Exception):
        value = resolved(value)
    with suppress(Exception):
        return repr(value)
    return f"<{type(value).__name__}>"


def told(value: Any) -> tuple[Any, str]:
    """Return what a value of the settings stands for, and a phrase that says so.

    If that fails, return an empty object and a phrase that says why.
    """
    try:
        value = resolved(value)
    except Exception as exc:
        return object(), f"cannot be evaluated: {reason(exc)}"
    return value, f"is {shown(value)}."


def reason(error: BaseException) -> str:
    """Return the type of an error and what it says, if anything."""
    name = type(error).__name__
    with suppress(Exception):
        return f"{name}: {error}".removesuffix(": ")
    return name
