"""What importing a project's modules changes in this process, undone and done again.

A check imports each app. That makes it the current one, connects its handlers, and does
whatever else its modules do. They stay imported, so nothing of that would happen once
more if this process became the program of an entry: `redo` is for that.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from ..options.errors import private

__all__ = ("redo", "unchanged")

# An object and the name of an attribute; or the name of a group, and a key of it.
_Place = tuple[Any, Any]

# Known to all threads; each may have a current one beside it.
_DEFAULT_APP = ("default app", "")

# Each place that was put back, with what was there before and after.
_undone: dict[_Place, tuple[Any, Any]] = {}


@contextmanager
def unchanged() -> Iterator[None]:
    """Put back at the end what has changed since; what is imported stays imported.

    Raises:
        PrivateNameError: this Celery does not tell which app is current.
    """
    active_apps = private("celery._state", "_get_active_apps")
    private("celery._state", "set_default_app")
    before = _picture()
    try:
        yield
    finally:
        after = _picture()
        for place in {**before, **after}:
            old, new = before.get(place), after.get(place)
            is_only_app = (place, old) == (_DEFAULT_APP, None) and sum(
                app.set_as_current for app in active_apps()
            ) == 1
            # A project that imports its only app later would have none otherwise. And
            # a logger that is new belongs to its module.
            stays = is_only_app or (
                old is None and isinstance(place[0], logging.Logger)
            )
            if old == new or stays:
                continue
            _put(place, old)
            _undone[place] = _undone.get(place, (old,))[0], new


def redo() -> None:
    """Change again what was put back, unless something else has changed it since."""
    now = _picture() if _undone else {}
    for place, (old, new) in _undone.items():
        here: Any = now.get(place)
        if here == old:
            _put(place, new)
        elif isinstance(new, list):
            _put(place, [*here, *(item for item in new if item not in [*old, *here])])
    _undone.clear()


def _picture() -> dict[_Place, Any]:
    """Return what there is in each place that a module can change."""
    from celery import signals

    places: dict[_Place, Any] = {
        ("environ", key): os.environ[key] for key in os.environ
    }
    with suppress(OSError):  # the folder may be gone
        places["folder", ""] = os.getcwd()
    for number in signal.valid_signals():
        places["signal", number] = signal.getsignal(number)
    places[_DEFAULT_APP] = private("celery._state", "default_app")
    attributes = [(private("celery._state", "_tls"), "current_app")]
    attributes += [(sys, "argv"), (sys, "path")]
    for each in vars(signals).values():
        if isinstance(getattr(each, "receivers", None), list):
            attributes.append((each, "receivers"))
    loggers: list[Any] = [logging.root, *logging.root.manager.loggerDict.values()]
    for logger in loggers:
        if isinstance(logger, logging.Logger):
            names = ("level", "disabled", "propagate", "handlers", "filters")
            attributes += [(logger, name) for name in names]
    for thing, name in attributes:
        value = getattr(thing, name)
        places[thing, name] = [*value] if isinstance(value, list) else value
    return places


def _put(place: _Place, value: Any) -> None:
    thing, name = place
    if thing == "environ":
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value
    elif place == _DEFAULT_APP:
        private("celery._state", "set_default_app")(value)
    elif thing == "folder":
        os.chdir(value)
    elif thing == "signal":
        with suppress(TypeError, ValueError):  # not Python's, or not the main thread
            signal.signal(name, value)
    elif isinstance(value, list):
        getattr(thing, name)[:] = value
    else:
        setattr(thing, name, value)
