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

# Each place that was put back, with what was there before and after.
_undone: dict[_Place, tuple[Any, Any]] = {}


@contextmanager
def unchanged() -> Iterator[None]:
    """Put back at the end what has changed since; what is imported stays imported.

    Raises:
        PrivateNameError: this Celery does not tell which app is current.
    """
    before = _picture()
    try:
        yield
    finally:
        after = _picture()
        for place in {**before, **after}:
            old, new = before.get(place), after.get(place)
            if old == new or old is None and _stays(place):
                continue
            _put(place, old)
            _undone[place] = _undone.get(place, (old,))[0], new


def redo() -> None:
    """Change again what was put back, unless something else has changed it since."""
    now = _picture()
    for place, (old, new) in _undone.items():
        here = now.get(place)
        if here == old:
            _put(place, new)
        elif isinstance(new, list):
            _put(place, [*here, *(item for item in new if item not in [*old, *here])])
    _undone.clear()


def _picture() -> dict[_Place, Any]:
    """Return what there is in each place that a module can change."""
    from celery import signals
    from celery.utils.dispatch import Signal

    places: dict[_Place, Any] = {("environ", key): os.environ[key] for key in os.environ}
    with suppress(OSError):  # the folder may be gone
        places["folder", ""] = os.getcwd()
    for number in signal.valid_signals():
        places["signal", number] = signal.getsignal(number)
    local = private("celery._state", "_tls")
    private("celery._state", "default_app")
    attributes = [(sys.modules["celery._state"], "default_app"), (local, "current_app")]
    attributes += [(sys, "argv"), (sys, "path")]
    for each in vars(signals).values():
        if isinstance(each, Signal):
            attributes.append((each, "receivers"))
    for logger in (logging.root, *logging.root.manager.loggerDict.values()):
        if isinstance(logger, logging.Logger):
            names = ("level", "disabled", "propagate", "handlers", "filters")
            attributes += [(logger, name) for name in names]
    for thing, name in attributes:
        value = getattr(thing, name)
        places[thing, name] = [*value] if isinstance(value, list) else value
    return places


def _stays(place: _Place) -> bool:
    """Whether a place that was empty keeps what is there now."""
    thing, name = place
    if name == "default_app":
        # A project that imports its only app later would have none: other threads than
        # the one that imports it know the default app alone.
        apps = private("celery._state", "_get_active_apps")()
        return sum(app.set_as_current for app in apps) == 1
    # A logger that is new belongs to its module.
    return isinstance(thing, logging.Logger)


def _put(place: _Place, value: Any) -> None:
    thing, name = place
    if thing == "environ":
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value
    elif thing == "folder":
        os.chdir(value)
    elif thing == "signal":
        with suppress(TypeError, ValueError):  # not Python's, or not the main thread
            signal.signal(name, value)
    elif isinstance(value, list):
        getattr(thing, name)[:] = value
    else:
        setattr(thing, name, value)
