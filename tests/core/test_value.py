"""Values of a frame: made in one go, equal by what they hold, without a dictionary each."""

import pytest

from agent.core.value import value


@value
class Place:
    row: int
    column: int = 0


def test_they_are_equal_by_what_they_hold_and_may_be_keys() -> None:
    assert Place(1) == Place(1, 0) != Place(1, 2)
    assert {Place(1), Place(1, 0)} == {Place(1)}
    assert repr(Place(1)) == "Place(row=1, column=0)"


def test_they_take_no_other_field() -> None:
    with pytest.raises(AttributeError):
        Place(1).colour = "red"  # type: ignore[attr-defined]
