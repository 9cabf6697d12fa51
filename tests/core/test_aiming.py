"""What somebody who turns a lens is told."""

import pytest

from agent.core.aiming import HINTS, Aim, bar, light_word


def told(*sharpness: float, brightness: float = 110) -> str:
    aim = Aim()
    for value in sharpness:
        aim.take(value)
    return aim.hint(brightness)


@pytest.mark.parametrize(
    ("sharpness", "hint"),
    [
        ((0.4,) * 5, "turn"),
        ((0.4, 0.41, 0.4, 0.42, 0.4), "turn"),
        ((0.3, 0.35, 0.4, 0.5, 0.6, 0.7), "growing"),
        ((0.3, 0.4, 0.5, 0.7, 0.7, 0.7, 0.6, 0.5, 0.45), "past"),
        ((0.3, 0.4, 0.5, 0.7, 0.7, 0.7, 0.7, 0.7, 0.7, 0.7), "there"),
        ((0.3, 0.5, 0.7, 0.7, 0.7, 0.4, 0.4, 0.4, 0.4, 0.4, 0.5, 0.6, 0.6), "growing"),
        ((0.0,) * 5, "nothing"),
    ],
)
def test_a_hint_for_each_turn_of_the_ring(sharpness: tuple[float, ...], hint: str) -> None:
    assert told(*sharpness) == hint
    assert hint in HINTS


def test_in_the_dark_nothing_is_said_of_the_focus() -> None:
    assert told(0.3, 0.5, 0.7, brightness=3) == "dark"


def test_one_passer_by_is_neither_the_best_nor_the_worst() -> None:
    aim = Aim()
    for value in (0.5, 0.5, 0.5, 0.95, 0.5, 0.02, 0.5, 0.5):
        aim.take(value)
    assert (aim.best, aim.worst, aim.sharpness) == (0.5, 0.5, 0.5)


@pytest.mark.parametrize(
    ("brightness", "bright", "word"),
    [(3, 0, "black"), (30, 0, "too dark"), (110, 0, "good"), (110, 0.4, "too bright"), (210, 0, "too bright"),
     (250, 0.9, "white")],
)  # fmt: skip
def test_the_light_in_a_word(brightness: float, bright: float, word: str) -> None:
    assert light_word(brightness, bright) == word


def test_the_bar_shows_the_value_and_the_best() -> None:
    assert bar(0.5, 0.8, 10) == "█████░░┃░░"
    assert bar(0.8, 0.8, 10) == "███████┃░░"
    assert bar(0.0, 0.0, 4) == "░░░░"
    assert bar(2.0, 2.0, 4) == "███┃"
