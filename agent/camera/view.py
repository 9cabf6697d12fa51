"""Does a camera still look at what it looked at? Its picture is compared with a reference, tile by tile.

Tiles and not the whole, since shelves are restocked and people pass: what stays (the shelf's edges, rails, walls)
agrees on one movement, and what has changed agrees with nothing. Each tile is compared after its own mean and
contrast are taken out, so that light matters little.
"""

import math
from dataclasses import dataclass
from typing import Any

from agent.camera.luma import Luma, luma_of
from agent.camera.mask import hidden
from agent.core.zones import Zone
from agent.ports import Picture

import cv2  # isort: skip
import numpy as np
import numpy.typing as npt

WIDTH = 320
"""Both pictures are scaled to this width, in pixels."""
TILE_PX = 32
SEARCH_PX = 40
"""How far a tile is looked for: an eighth of the width, each way."""
TEXTURE_LEAST = 3.0
"""What a tile's slopes must reach in every direction, root mean square in grey levels per pixel. A tile that has
them in one direction only, like a shelf's edge, looks the same when it is moved along it."""
TILES_LEAST = 6
"""With fewer tiles that have texture, nothing is said of the view."""
ALIKE = 0.6
"""Correlation from which on a tile counts as found."""
IN_PLACE_PX = 4
"""A tile found this near to its old place has not moved: mounts tremble."""
PLAIN = 0.5
"""Part of the view that, found again near its place, spares a second search farther away."""
FAR_TIMES = 1.5
"""How many times more of the view must be found far away for that to count."""
AGREEING_LEAST = 5
"""Tiles that must agree on a movement: two alone always do, in any one."""
AGREE_PX = 4.0
"""How near found tiles must lie to where a common movement puts them."""

Vectors = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class View:
    """How a picture's view differs from a reference's."""

    shift: float
    """How far the view has moved, as the mean over the picture, in parts of its width; 0 when it is not known."""
    overlap: float
    """Part of the view that is found again at its place (or where the movement puts it), 0 to 1."""
    turn_deg: float = 0.0
    """By how much the view is turned, degrees."""
    in_place: float = 1.0
    """Part of the view that is found again at its very place, 0 to 1."""
    tiles: int = 0
    """Tiles that were compared; with fewer than 6 nothing is known, and the view counts as unchanged."""


def compare(picture: Picture, reference: Picture, zones: tuple[Zone, ...] = ()) -> View:
    """Compare two pictures (height, width, 3) BGR of one camera; they may differ in size, not in shape.

    What `zones` hide is left out. A picture of another shape (turned by a quarter) has no overlap.
    """
    return compare_luma(luma_of(picture), luma_of(reference), zones)


def compare_luma(picture: Luma, reference: Luma, zones: tuple[Zone, ...] = ()) -> View:
    """Compare two lumas, see `compare`."""
    now, before = _scaled(picture), _scaled(reference)
    if abs(now.shape[0] - before.shape[0]) > IN_PLACE_PX:
        return View(0.0, 0.0, in_place=0.0, tiles=TILES_LEAST)
    height = min(now.shape[0], before.shape[0])
    now, before = now[:height], before[:height]
    places = _places(before, hidden(zones, WIDTH, height) if zones else None)
    if len(places) < TILES_LEAST:
        return View(0.0, 1.0)
    view = _judge(places, *_search(now, before, places, (0, 0)), height)
    if max(view.overlap, view.in_place) >= PLAIN:
        return view
    far = _judge(places, *_search(now, before, places, _far_shift(now, before)), height)
    return far if far.shift > 0 and far.overlap >= FAR_TIMES * view.overlap else view


def _scaled(luma: Luma) -> Luma:
    height = max(TILE_PX, round(luma.shape[0] * WIDTH / luma.shape[1]))
    return np.asarray(cv2.resize(luma, (WIDTH, height), interpolation=cv2.INTER_AREA), np.uint8)


def _places(before: Luma, covered: Luma | None) -> Vectors:
    """Give the top left corners (n, 2) of the reference's tiles that have texture and that no zone hides."""
    height = before.shape[0]
    found = []
    for top in range(TILE_PX // 4, height - TILE_PX + 1, TILE_PX):
        for left in range(TILE_PX // 4, WIDTH - TILE_PX + 1, TILE_PX):
            tile = (slice(top, top + TILE_PX), slice(left, left + TILE_PX))
            if covered is not None and covered[tile].any():
                continue
            if _texture(before[tile]) >= TEXTURE_LEAST:
                found.append((left, top))
    return np.array(found, np.float64).reshape(-1, 2)


def _texture(tile: Luma) -> float:
    """The root mean square slope in the direction where it is least (Shi and Tomasi's measure of a corner)."""
    across, down = (cv2.Sobel(tile, cv2.CV_32F, *axes).ravel() / 8 for axes in ((1, 0), (0, 1)))
    tensor = np.array([[across @ across, across @ down], [across @ down, down @ down]]) / tile.size
    return float(max(0.0, np.linalg.eigvalsh(tensor)[0]) ** 0.5)


def _far_shift(now: Luma, before: Luma) -> tuple[int, int]:
    """Guess how far the whole view has moved, in pixels, from where both pictures' slopes fit best."""
    slopes = [_steepness(luma) for luma in (before, now)]
    window = cv2.createHanningWindow((WIDTH, now.shape[0]), cv2.CV_32F)
    (across, down), _ = cv2.phaseCorrelate(slopes[0], slopes[1], window)
    return round(across), round(down)


def _steepness(luma: Luma) -> npt.NDArray[np.float32]:
    across, down = (cv2.Sobel(luma, cv2.CV_32F, *axes) for axes in ((1, 0), (0, 1)))
    return np.asarray(cv2.magnitude(across, down), np.float32)


def _search(now: Luma, before: Luma, places: Vectors, ahead: tuple[int, int]) -> tuple[Vectors, Vectors, Vectors]:
    """Look for each tile around its place, moved `ahead`; gives its score, movement (dx, dy) and score in place."""
    scores, moves, still = [], [], []
    for left, top in places.astype(int):
        tile = before[top : top + TILE_PX, left : left + TILE_PX]
        score, move = _find(now, tile, left + ahead[0], top + ahead[1], SEARCH_PX)
        scores.append(score)
        moves.append((move[0] - left, move[1] - top))
        still.append(_find(now, tile, left, top, IN_PLACE_PX)[0])
    return np.array(scores), np.array(moves, np.float64), np.array(still)


def _find(now: Luma, tile: Luma, left: int, top: int, reach_px: int) -> tuple[float, tuple[int, int]]:
    """Look for a tile within so many pixels of a place; gives its best score and where that is, -1 outside."""
    x0, y0 = max(0, left - reach_px), max(0, top - reach_px)
    around = now[y0 : max(0, top + TILE_PX + reach_px), x0 : max(0, left + TILE_PX + reach_px)]
    if around.shape[0] < TILE_PX or around.shape[1] < TILE_PX:
        return -1.0, (left, top)
    _, score, _, (x, y) = cv2.minMaxLoc(cv2.matchTemplate(around, tile, cv2.TM_CCOEFF_NORMED))
    return float(score), (x + x0, y + y0)


def _judge(places: Vectors, scores: Vectors, moves: Vectors, still: Vectors, height: int) -> View:
    """Find the movement that most of the found tiles agree on; it counts when more agree on it than on none at all."""
    in_place = float(np.mean(still >= ALIKE))
    unmoved = View(0.0, in_place, in_place=in_place, tiles=len(places))
    found = scores >= ALIKE
    if np.count_nonzero(found) < AGREEING_LEAST:
        return unmoved
    centres = places[found] + TILE_PX / 2
    matrix, agreeing = _common_movement(centres, centres + moves[found])
    agreed = float(np.count_nonzero(agreeing)) / len(places)
    if matrix is None or np.count_nonzero(agreeing) < AGREEING_LEAST or agreed <= in_place:
        return unmoved
    grid = np.array([(x, y) for x in (0.0, WIDTH / 2, WIDTH) for y in (0.0, height / 2, height)])
    moved = grid @ matrix[:, :2].T + matrix[:, 2] - grid
    shift = float(np.hypot(moved[:, 0], moved[:, 1]).mean()) / WIDTH
    turn_deg = math.degrees(math.atan2(matrix[1, 0], matrix[0, 0]))
    return View(shift, agreed, turn_deg, in_place, len(places))


def _common_movement(before: Vectors, now: Vectors) -> tuple[Vectors | None, npt.NDArray[np.uint8]]:
    """Give the turn, zoom and shift (a 2 x 3 matrix) that most points agree on, and which do; None if there is none."""
    found: tuple[Any, Any] = cv2.estimateAffinePartial2D(before, now, method=cv2.RANSAC, ransacReprojThreshold=AGREE_PX)
    return found
