"""Values that cannot be compared, shown or resolved."""

from __future__ import annotations

from typing import NoReturn

import pytest

from prodserver_celery5 import values


class Hostile:
    """Fails as an array does when it is compared, and also when it is shown."""

    def __eq__(self, other: object) -> NoReturn:
        raise ValueError("the truth of an array is ambiguous")

    __hash__ = object.__hash__

    def __repr__(self) -> str:
        raise RuntimeError("not today")


class MuteError(Exception):
    """An error that fails when it is shown."""

    def __str__(self) -> str:
        raise RuntimeError("not today")


def test_what_cannot_be_compared_is_the_same_as_itself_alone() -> None:
    hostile = Hostile()
    assert values.same(hostile, hostile)
    assert not values.same(hostile, Hostile())
    assert not values.same({"queues": hostile}, {"queues": Hostile()})


def test_what_looks_alike_is_not_the_same() -> None:
    class Alike:
        def __repr__(self) -> str:
            return "Alike"

    assert not values.same(Alike(), Alike())
    assert not values.same(1, True)


def test_what_cannot_be_shown_is_named_by_its_type() -> None:
    assert values.shown(Hostile()) == "<Hostile>"
    assert values.reason(MuteError()) == "MuteError"
    assert values.reason(ValueError()) == "ValueError"
    assert values.reason(ValueError("no")) == "ValueError: no"


def test_a_stand_in_of_an_unknown_kind() -> None:
    class Proxy:
        __class__ = int  # type: ignore[assignment]

    with pytest.raises(TypeError, match="a Proxy stands here for another value"):
        values.resolved(Proxy())
    _, why = values.told(Proxy())
    assert why == (
        "cannot be evaluated: TypeError: a Proxy stands here for another value."
    )
