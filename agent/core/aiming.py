"""What to tell somebody who turns a lens: how sharp it is against the best so far, and whether the light is right."""

from collections import deque
from dataclasses import dataclass, field
from typing import Literal

Hint = Literal["nothing", "dark", "turn", "growing", "past", "there"]

HINTS: dict[Hint, str] = {
    "nothing": "no edge in sight: take the cap off, switch the light on, or aim at the shelf",
    "dark": "too dark to judge the focus: switch the light on",
    "turn": "turn the focus ring slowly until the bar stops growing",
    "growing": "it gets sharper: go on turning the same way",
    "past": "that was too far: turn back until the bar reaches the mark",
    "there": "as sharp as it was at best: fix the ring, and look whether it stays",
}

DARK, DIM, LIGHT, GLARING = 12.0, 45.0, 200.0, 235.0
"""Mean luma, 0 to 255."""
CLIPPED = 0.25
"""Part of a picture that may be white before something in it is lost."""

NEAR = 0.95
"""Part of the best sharpness that counts as having reached it."""
GROWN = 1.03
"""How much sharper than a moment ago counts as growing."""
SPREAD = 1.1
"""The best must be so much sharper than the worst before anybody can tell that the ring was turned through it."""
SMOOTH = 3
TREND = 4


@dataclass(slots=True)
class Aim:
    """Remembers what one camera showed. `sharpness` is the median of the last three pictures: people walk by."""

    best: float = 0.0
    worst: float = 0.0
    sharpness: float = 0.0
    pictures: int = 0
    _last: deque[float] = field(default_factory=lambda: deque(maxlen=SMOOTH))
    _before: deque[float] = field(default_factory=lambda: deque(maxlen=TREND))

    def take(self, sharpness: float) -> None:
        """Take one more picture's sharpness, 0 to 1."""
        self.pictures += 1
        self._before.append(self.sharpness)
        self._last.append(sharpness)
        self.sharpness = sorted(self._last)[len(self._last) // 2]
        if len(self._last) == SMOOTH:
            self.best = max(self.best, self.sharpness)
            self.worst = min(self.worst or self.sharpness, self.sharpness)

    def hint(self, brightness: float) -> Hint:
        """Say what to do next. `brightness` is the mean luma of the picture."""
        if brightness < DARK:
            return "dark"
        if self.sharpness == 0:
            return "nothing"
        if self.best < self.worst * SPREAD or not self.best:
            return "turn"
        if self._grows():
            return "growing"
        return "there" if self.sharpness >= NEAR * self.best else "past"

    def _grows(self) -> bool:
        return bool(self._before) and self.sharpness > GROWN * self._before[0]


def light_word(brightness: float, bright: float) -> str:
    """Say in a word or two how the picture is lit. `bright` is the part of it that is white."""
    if brightness < DARK:
        return "black"
    if brightness < DIM:
        return "too dark"
    if brightness > GLARING:
        return "white"
    return "too bright" if brightness > LIGHT or bright > CLIPPED else "good"


def bar(value: float, best: float, width: int) -> str:
    """Draw a value of 0 to 1 as so many characters, with the best so far marked on it."""
    filled = round(max(0.0, min(1.0, value)) * width)
    cells = ["█"] * filled + ["░"] * (width - filled)
    if best > 0:
        cells[min(width - 1, max(0, round(min(1.0, best) * width) - 1))] = "┃"
    return "".join(cells)
