"""What a picture is like, in a few numbers: light, contrast, sharpness. Whether it shows the same view, says `compare`.

Measured on small grey copies, so that it is cheap; what the numbers mean for a camera is said in
`agent.core.watching`. All functions leave out what `zones` hide: a painted zone is neither dark nor sharp.
"""

from dataclasses import dataclass
from functools import lru_cache

import agent as _agent  # noqa: F401  # sets the limits of the picture decoder before cv2 is imported
from agent.camera.luma import Luma, luma_of
from agent.camera.mask import hidden
from agent.camera.view import View, compare
from agent.core.zones import Zone
from agent.ports import Picture

import cv2  # isort: skip
import numpy as np
import numpy.typing as npt

__all__ = ["Sight", "View", "compare", "sight", "sight_of"]

DARK, BRIGHT = 16, 250
"""Grey levels: below the first a pixel counts as dark, above the second as bright."""

FINE_BOX, COARSE_BOX = 3, 7
"""Sides in luma pixels of the box blurs at whose two scales edges are compared; the coarse one is done twice."""
FINE_VARIANCE = (FINE_BOX**2 - 1) / 12
COARSE_VARIANCE = 2 * (COARSE_BOX**2 - 1) / 12
EDGE_MARGIN_PX = 2 * COARSE_BOX
"""How far from a painted zone edges are looked at: its own edge is always sharp."""
EDGE_PART = 0.03
"""The part of the pixels, those with the steepest slopes, that are looked at as edges."""
EDGE_LEAST = 10.0
"""Slope of the weakest edge, grey levels per 8 pixels: well above what noise leaves after the coarse blur."""
EDGES_LEAST = 40
"""With fewer edge pixels a picture has no sharpness."""
SHARPEST_QUARTER = 75
"""Percentile: a lens focuses at one distance, so the sharpest of the edges tell whether it does."""


@dataclass(frozen=True, slots=True)
class Sight:
    """What one picture is like."""

    brightness: float
    """Mean of the luma, 0 to 255."""
    contrast: float
    """Standard deviation of the luma, 0 to 127."""
    sharpness: float
    """How sharp the sharpest edges are: from 0 (there is no edge) to 1 (as sharp as a picture can be).

    It is one over the width of these edges, a standard deviation in pixels of a copy 480 to 959 wide, where the
    measuring itself adds some 0.8. A good camera has 0.5 to 1. Exposure and noise do not change it, for it compares
    the same edges at two scales.
    """
    dark: float
    """Part of the picture that is darker than 16."""
    bright: float
    """Part of the picture that is brighter than 250."""


def sight(picture: Picture, zones: tuple[Zone, ...] = ()) -> Sight:
    """Measure a picture (height, width, 3) BGR. All is 0 where the zones hide everything."""
    return sight_of(luma_of(picture), zones)


def sight_of(luma: Luma, zones: tuple[Zone, ...] = ()) -> Sight:
    """Measure a picture's small luma."""
    seen = _visible(zones, luma.shape[1], luma.shape[0], 0) if zones else None
    total = luma.size if seen is None else cv2.countNonZero(seen)
    if total == 0:
        return Sight(0.0, 0.0, 0.0, 0.0, 0.0)
    mean, deviation = cv2.meanStdDev(luma, mask=seen)
    return Sight(
        brightness=float(mean[0, 0]),
        contrast=float(deviation[0, 0]),
        sharpness=_sharpness(luma, zones),
        dark=_count(luma, seen, 0, DARK - 1) / total,
        bright=_count(luma, seen, BRIGHT + 1, 255) / total,
    )


def _count(luma: Luma, seen: Luma | None, least: int, most: int) -> int:
    """Count the visible pixels between two grey levels, both included."""
    within = cv2.inRange(luma, (least,), (most,))
    return cv2.countNonZero(within if seen is None else cv2.bitwise_and(within, seen))


def _sharpness(luma: Luma, zones: tuple[Zone, ...]) -> float:
    """Compare the slopes of the steepest edges at two scales.

    An edge of width s has the slope 1/sqrt(s^2 + f^2) after a blur of f, so the quotient r of its slopes after a fine
    and a coarse blur gives its width, whatever its height: s^2 + f^2 = (c^2 - f^2) / (r^2 - 1). (The re-blurring of
    Zhuo and Sim, "Defocus map estimation from a single image", Pattern Recognition 44, 2011.)
    """
    box = (COARSE_BOX, COARSE_BOX)
    fine = _slopes(cv2.boxFilter(luma, cv2.CV_32F, (FINE_BOX, FINE_BOX)))
    coarse = _slopes(cv2.boxFilter(cv2.boxFilter(luma, -1, box), cv2.CV_32F, box))
    if zones:
        inside = _visible(zones, luma.shape[1], luma.shape[0], EDGE_MARGIN_PX)[::2, ::2] > 0
        fine, coarse = fine[inside], coarse[inside]
    if coarse.size == 0:
        return 0.0
    fine, coarse = fine.ravel(), coarse.ravel()
    nth = min(coarse.size - 1, round(coarse.size * (1 - EDGE_PART)))
    edges = coarse >= max(EDGE_LEAST, float(np.partition(coarse, nth)[nth]))
    if np.count_nonzero(edges) < EDGES_LEAST:
        return 0.0
    quotient = float(np.percentile(fine[edges] / coarse[edges], SHARPEST_QUARTER))
    inverse = (quotient**2 - 1) / (COARSE_VARIANCE - FINE_VARIANCE)
    return float(min(1.0, max(0.0, inverse) ** 0.5))


@lru_cache(maxsize=64)
def _visible(zones: tuple[Zone, ...], width: int, height: int, grown_px: int) -> Luma:
    """A map of what no zone hides, 255 there; zones are grown by so many pixels. Kept, for it stays the same."""
    found = hidden(zones, width, height)
    if grown_px:
        found = np.asarray(cv2.dilate(found, np.ones((2 * grown_px + 1, 2 * grown_px + 1), np.uint8)), np.uint8)
    return np.asarray(255 - found, np.uint8)


def _slopes(blurred: cv2.typing.MatLike) -> npt.NDArray[np.float32]:
    """Give the steepness at every second pixel of every second line, in grey levels per 8 pixels."""
    across = cv2.Sobel(blurred, cv2.CV_32F, 1, 0)[::2, ::2]
    down = cv2.Sobel(blurred, cv2.CV_32F, 0, 1)[::2, ::2]
    return np.asarray(cv2.magnitude(np.ascontiguousarray(across), np.ascontiguousarray(down)), np.float32)
