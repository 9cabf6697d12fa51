"""A picture with what is known of it written on a strip below, so that nothing of the picture is covered."""

from collections.abc import Sequence

import agent as _agent  # noqa: F401  # sets the limits of the picture decoder before cv2 is imported
from agent.core.zones import Zone
from agent.ports import Picture

import cv2  # isort: skip
import numpy as np

FONT = cv2.FONT_HERSHEY_SIMPLEX
INK, PAPER, ZONE = (235, 235, 235), (32, 32, 32), (90, 90, 90)
SMALLEST = 500
"""Width in pixels below which letters are not made smaller: nobody could read them."""


def overlaid(picture: Picture, lines: Sequence[str], zones: tuple[Zone, ...]) -> Picture:
    """Give a copy of a picture (height, width, 3) BGR, its hidden zones outlined and named, `lines` below it."""
    width = picture.shape[1]
    scale = max(width, SMALLEST) / 1000
    shown = np.array(picture)
    for zone in zones:
        _outline(shown, zone, scale)
    step = round(40 * scale)
    strip = np.full((step * len(lines) + step // 2, width, 3), PAPER, np.uint8)
    for n, line in enumerate(lines):
        place = (round(16 * scale), step * (n + 1) - step // 5)
        ascii_only = line.encode("ascii", "replace").decode()  # the drawn letters know no others
        cv2.putText(strip, ascii_only, place, FONT, 0.9 * scale, INK, max(1, round(1.6 * scale)), cv2.LINE_AA)
    return np.vstack([shown, strip])


def _outline(picture: Picture, zone: Zone, scale: float) -> None:
    height, width = picture.shape[:2]
    corners = np.rint(np.array(zone) * np.array([width - 1, height - 1])).astype(np.int32)
    cv2.polylines(picture, [corners], True, ZONE, max(1, round(2 * scale)), cv2.LINE_AA)
    x, y = corners.mean(axis=0).astype(int)
    place = (max(0, int(x) - round(40 * scale)), int(y))
    cv2.putText(picture, "hidden", place, FONT, 0.7 * scale, ZONE, max(1, round(1.4 * scale)), cv2.LINE_AA)
