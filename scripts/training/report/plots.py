"""The drawings of the report, as SVG text: curves, a reliability diagram, a confusion matrix. Pure: numbers come in."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
import numpy.typing as npt

from models.evaluate import Bin, Confused

WIDTH, HEIGHT = 360.0, 216.0
LEFT, RIGHT, TOP, BOTTOM = 42.0, 14.0, 12.0, 30.0
"""Pixels of a curve's drawing, and of the margins that its axes take."""

MOST_POINTS = 400
"""A line is thinned to this many points: more are not to be told apart."""

SQUARE = 300.0
COUNTS = 44.0
"""Pixels of the reliability diagram's side, and of the counts below it."""

NAMES_PX = 132.0
LETTER_PX = 6.2
"""Room for the names beside the confusion matrix, and the width that a letter of them takes at most."""

Text = Callable[[float], str]
Scale = Callable[[float], float]


@dataclass(frozen=True, slots=True)
class Line:
    """One curve: its name, its points (x, y), and which of the four colours and dashes it has."""

    name: str
    points: Sequence[tuple[float, float]]
    mark: int = 0
    stairs: bool = False


def percent(share: float, digits: int = 0) -> str:
    """0.874 as `87%`."""
    return f"{share:.{digits}%}"


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Round numbers between `low` and `high`, at most about `most` of them."""
    span = max(high - low, 1e-9)
    rough = span / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(number * step, 10) for number in range(first, math.floor(high / step + 1e-9) + 1)]


def curves(title: str, lines: Sequence[Line], low: float, high: float, text: Text) -> str:
    """`lines` over epochs in one drawing whose heights go from `low` to `high`; `text` writes a height."""
    last = max((x for line in lines for x, _ in line.points), default=1.0)
    marks = ticks(low, high)
    high = max(high, marks[-1] + marks[1] - marks[0]) if len(marks) > 1 and high > marks[-1] else high
    x = _scale(0.0, max(last, 1.0), LEFT, WIDTH - RIGHT)
    y = _scale(low, high, HEIGHT - BOTTOM, TOP)
    said = "; ".join(f"{line.name} ends at {text(line.points[-1][1])}" for line in lines if line.points)
    parts = [_svg(WIDTH, HEIGHT, f"{title}: {said}", "plot")]
    for height in ticks(low, high):
        parts.append(_path("grid", f"M{LEFT:g} {y(height):.1f}H{WIDTH - RIGHT:g}"))
        parts.append(_text("tick", LEFT - 6, y(height) + 4, text(height), "end"))
    parts += [_text("tick", x(at), HEIGHT - 10, f"{at:g}", "middle") for at in ticks(0.0, max(last, 1.0))]
    parts += [_line(line, x, y, text) for line in lines if line.points]
    return "".join([*parts, "</svg>"])


def reliability(title: str, bins: Sequence[Bin]) -> str:
    """How often answers with a score were right: a bar for each bin, the gap to its mean score, the counts below."""
    side = SQUARE - LEFT - RIGHT
    x, y = _scale(0, 1, LEFT, LEFT + side), _scale(0, 1, TOP + side, TOP)
    height = TOP + side + 24 + COUNTS
    filled = [item for item in bins if item.score is not None and item.accuracy is not None]
    said = "; ".join(f"scores about {item.score:.2f}: {item.accuracy:.0%} of {item.pictures} right" for item in filled)
    parts = [_svg(SQUARE, height, f"{title}. {said}", "plot square")]
    for share in (0, 0.2, 0.4, 0.6, 0.8, 1):
        parts.append(_path("grid", f"M{LEFT:g} {y(share):.1f}H{LEFT + side:g}"))
        parts.append(_text("tick", LEFT - 6, y(share) + 4, percent(share), "end"))
        parts.append(_text("tick", x(share), TOP + side + 17, f"{share:g}", "middle"))
    parts += [_bar(item, x, y) for item in filled]
    parts.append(_path("ideal", f"M{x(0):.1f} {y(0):.1f}L{x(1):.1f} {y(1):.1f}"))
    most = max((item.pictures for item in bins), default=0) or 1
    parts += [_count(item, x, height, most) for item in bins if item.pictures]
    return "".join([*parts, "</svg>"])


def matrix(confusion: npt.NDArray[np.int64], names: Sequence[str], groups: Sequence[str]) -> str:
    """Which label was taken for which: rows are truths, columns answers, neighbours of one group in one block.

    `confusion` (labels, labels) counts, `names` and `groups` are in its order. Only cells with pictures are drawn.
    """
    order = ordered(groups)
    place = {label: at for at, label in enumerate(order)}
    cell = max(11.0, min(34.0, 640 / len(names)))
    size = NAMES_PX + cell * len(names)
    said = "The confusion matrix; the worst pairs stand in the list beside it"
    parts = [_svg(size + 2, size + 2, said, "matrix", f"max-width:{1.2 * size:.0f}px;min-width:{min(size, 860):.0f}px")]
    parts += _blocks([groups[label] for label in order], cell)
    for at, label in enumerate(order):
        middle = NAMES_PX + (at + 0.68) * cell
        parts.append(_text("axis", NAMES_PX - 5, middle, short(names[label]), "end"))
        parts.append(
            f'<text class="axis" transform="translate({middle:.1f} {NAMES_PX - 5:g}) rotate(-90)">'
            f"{escape(short(names[label]))}</text>"
        )
    shown = confusion.sum(axis=1)
    for truth, answer in np.argwhere(confusion).tolist():
        pair = Confused(names[truth], names[answer], int(confusion[truth, answer]))
        kind = "right" if truth == answer else "near" if groups[truth] == groups[answer] else "far"
        parts.append(_cell(pair, int(shown[truth]), kind, (place[truth], place[answer]), cell))
    return "".join([*parts, "</svg>"])


def ordered(groups: Sequence[str]) -> list[int]:
    """The numbers of the labels with those of one group together, groups in the order in which they first come."""
    first = {group: at for at, group in reversed(list(enumerate(groups)))}
    return sorted(range(len(groups)), key=lambda label: (first[groups[label]], label))


def short(name: str) -> str:
    """`name` as far as there is room for it beside the matrix."""
    most = int((NAMES_PX - 8) / LETTER_PX)
    return name if len(name) <= most else name[: most - 1] + "…"


def _svg(width: float, height: float, said: str, kind: str, style: str = "") -> str:
    return (
        f'<svg class="{kind}" style="{style}" viewBox="0 0 {width:g} {height:g}" width="{width:g}" '
        f'height="{height:g}" role="img" aria-label="{escape(said)}">'
    )


def _scale(low: float, high: float, start: float, end: float) -> Scale:
    span = (high - low) or 1.0
    return lambda value: start + (value - low) / span * (end - start)


def _path(kind: str, way: str) -> str:
    return f'<path class="{kind}" d="{way}"/>'


def _text(kind: str, x: float, y: float, text: str, anchor: str = "start") -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _line(line: Line, x: Scale, y: Scale, text: Text) -> str:
    every = max(1, math.ceil(len(line.points) / MOST_POINTS))
    points = [*line.points[:-1:every], line.points[-1]]
    places = [(f"{x(at):.1f}", f"{y(value):.1f}") for at, value in points]
    step = "H{0}V{1}" if line.stairs else "L{0} {1}"
    way = f"M{places[0][0]} {places[0][1]}" + "".join(step.format(*place) for place in places[1:])
    end = f'<circle class="end" cx="{places[-1][0]}" cy="{places[-1][1]}" r="3.5"><title>{escape(line.name)}: '
    return f'<g class="mark{line.mark}">{_path("line", way)}{end}{escape(text(points[-1][1]))}</title></circle></g>'


def _bar(item: Bin, x: Scale, y: Scale) -> str:
    """A bar as high as the share that was right, and the gap to the mean score of the bin."""
    assert item.score is not None
    assert item.accuracy is not None
    left, width = x(item.above) + 1, x(item.up_to) - x(item.above) - 2
    low, high = sorted((item.accuracy, item.score))
    said = f"{item.pictures} pictures with scores about {item.score:.2f}: {percent(item.accuracy)} right"
    return (
        f'<g><title>{said}</title><rect class="bar" x="{left:.1f}" y="{y(item.accuracy):.1f}" width="{width:.1f}" '
        f'height="{y(0) - y(item.accuracy):.1f}"/><rect class="gap" x="{left:.1f}" y="{y(high):.1f}" '
        f'width="{width:.1f}" height="{y(low) - y(high):.1f}"/></g>'
    )


def _count(item: Bin, x: Scale, floor: float, most: int) -> str:
    tall = max(1.0, (COUNTS - 14) * item.pictures / most)
    left, width = x(item.above) + 1, x(item.up_to) - x(item.above) - 2
    return (
        f'<rect class="count" x="{left:.1f}" y="{floor - tall:.1f}" width="{width:.1f}" height="{tall:.1f}"/>'
        + _text("small", left + width / 2, floor - tall - 3, str(item.pictures), "middle")
    )


def _blocks(groups: Sequence[str], cell: float) -> list[str]:
    """The squares on the diagonal in which truth and answer are of one group, on the ground of all."""
    size = cell * len(groups)
    parts = [f'<rect class="ground" x="{NAMES_PX:g}" y="{NAMES_PX:g}" width="{size:g}" height="{size:g}"/>']
    for at in range(1, len(groups), 2):  # every other row, for the eye that goes from a name to a cell
        top = NAMES_PX + at * cell
        parts.append(f'<rect class="every" x="{NAMES_PX:g}" y="{top:.1f}" width="{size:g}" height="{cell:g}"/>')
    start = 0
    for at in range(1, len(groups) + 1):
        if at == len(groups) or groups[at] != groups[start]:
            corner, side = NAMES_PX + start * cell, (at - start) * cell
            parts.append(
                f'<rect class="block" x="{corner:.1f}" y="{corner:.1f}" width="{side:.1f}" height="{side:.1f}"/>'
            )
            start = at
    return parts


def _cell(pair: Confused, shown: int, kind: str, at: tuple[int, int], cell: float) -> str:
    x, y = NAMES_PX + at[1] * cell, NAMES_PX + at[0] * cell
    strength = 0.3 + 0.7 * pair.pictures / shown
    word = "recognised" if kind == "right" else f"taken for {pair.answer}"
    said = escape(f"{pair.truth}: {pair.pictures} of {shown} {word}")
    number = _text("number", x + cell / 2, y + cell / 2 + 4, str(pair.pictures), "middle") if cell >= 20 else ""
    return (
        f'<g class="cell {kind}" data-said="{said}"><title>{said}</title><rect x="{x + 0.5:.1f}" y="{y + 0.5:.1f}" '
        f'width="{cell - 1:.1f}" height="{cell - 1:.1f}" fill-opacity="{strength:.2f}"/>{number}</g>'
    )
