"""Measures one camera's pictures for the watch: light, detail, sharpness, whether they repeat, whether they moved."""

from dataclasses import dataclass, field

import agent as _agent  # noqa: F401  # sets the limits of the picture decoder before cv2 is imported
from agent.camera.luma import Luma, luma_of
from agent.camera.mask import hidden
from agent.camera.sight import sight_of
from agent.camera.view import View, compare_luma
from agent.core.watching import LEARNED_LOOKS, MOVED_AGREED, MOVED_BAD, Look
from agent.core.zones import Zone
from agent.ports import Picture

import cv2  # isort: skip
import numpy as np
import numpy.typing as npt

TILES = (16, 9)
"""Tiles across and down in which detail and change are looked for."""
TILE_PX = 10
"""Side of a tile in the copy on which detail is measured: 160 x 90, so that noise is gone and focus does not count."""
DETAIL_LEAST = 3.0
"""Standard deviation of a tile's grey levels: with less it has no detail."""
DETAIL_LEFT = 0.35
"""Part of its normal detail, as much darker as the picture is, that a tile must have for it to be there."""

SAMPLE_STEP = 4
"""Every fourth pixel and line are compared with the last look's, as they came: averaging would hide small noise."""
OVERLAY_TILES = 12
"""Tiles of 144 that may change in a picture that repeats itself: a clock, a name, a blinking light."""

COMPARE_EVERY = 10
"""Looks from one comparison of the view to the next: it takes longer than a look."""
SURE = 0.5
"""Part of the commissioned view that must agree for its word to stand against the recent view's."""
REFRESH_EVERY = 12
"""Comparisons after which a good view that is in place becomes the new one to compare with: two minutes."""
FORGET_AFTER = 60
"""Comparisons after which a view of which nothing was found again is given up: ten minutes."""

Tiles = npt.NDArray[np.float32]


@dataclass(slots=True)
class Eye:
    """What is remembered of one camera between looks."""

    zones: tuple[Zone, ...] = ()
    normal_detail: Tiles | None = None
    """Each tile's detail when nothing is wrong: (9, 16), standard deviations."""
    taught: int = 0
    recent: Luma | None = None
    """The view not long ago."""
    commissioned: Luma | None = None
    """The view as it was set up, if there is a picture of it."""
    _sample: npt.NDArray[np.uint8] | None = None
    _changed: npt.NDArray[np.bool_] = field(default_factory=lambda: np.zeros(TILES[::-1], bool))
    _looks: int = 0
    _in_place: int = 0
    _lost: int = 0
    _detail: Tiles | None = None
    _luma: Luma | None = None

    def look(self, picture: Picture, normal_brightness: float) -> Look:
        """Measure a picture. `normal_brightness` is 0 while it is not known."""
        luma = self._luma = luma_of(picture)
        seen = sight_of(luma, self.zones)
        self._detail = _details(luma)
        view = self._compare(luma)
        tells = view is not None and max(view.in_place, view.overlap) >= MOVED_AGREED
        light = min(1.0, seen.brightness / normal_brightness) if normal_brightness else 1.0
        return Look(
            brightness=seen.brightness,
            contrast=seen.contrast,
            sharpness=seen.sharpness,
            dark=seen.dark,
            bright=seen.bright,
            detail=self._detail_left(light),
            repeated=self._repeats(picture),
            shift=view.shift if view is not None and tells else None,
            turn_deg=view.turn_deg if view is not None else 0.0,
        )

    def set_up(self, picture: Picture | None) -> Look | None:
        """Take up the picture of how the camera was set up, or None when there is none; gives what it is like."""
        if picture is None:
            self.commissioned = None
            return None
        self.commissioned = self.recent = luma_of(picture)
        self.normal_detail, self.taught = _details(self.commissioned), LEARNED_LOOKS
        seen = sight_of(self.commissioned, self.zones)
        return Look(seen.brightness, seen.contrast, seen.sharpness, seen.dark, seen.bright, detail=1.0)

    def remember(self, detail: list[list[float]] | None, looks: int) -> None:
        """Take up what the last run learned. Raises ValueError when it does not fit."""
        if detail is not None:
            self.normal_detail, self.taught = np.array(detail, np.float32).reshape(TILES[::-1]), looks

    def teach(self, looks: int) -> None:
        """Take the last picture for a good one; `looks` is over how many of them the normal is taken."""
        assert self._detail is not None, "a look comes first"
        self.taught += 1
        if self.normal_detail is None:
            self.normal_detail = self._detail.copy()
        else:
            self.normal_detail += (self._detail - self.normal_detail) / min(self.taught, looks)
        if self.recent is None or self._in_place >= REFRESH_EVERY or self._lost >= FORGET_AFTER:
            # Shelves change: what is in place is compared with what was there some minutes ago.
            self.recent, self._in_place, self._lost = self._luma, 0, 0

    def _detail_left(self, light: float) -> float:
        """Give the part of the tiles with detail that have it still, in a light so many times weaker than normal."""
        assert self._detail is not None
        shown = ~_hidden_tiles(self.zones)
        if self.normal_detail is None:
            return float(np.mean(self._detail[shown] >= DETAIL_LEAST)) if shown.any() else 1.0
        counted = shown & (self.normal_detail >= 2 * DETAIL_LEAST)
        if counted.sum() < 4:
            return 1.0
        least = np.maximum(DETAIL_LEAST * light, DETAIL_LEFT * light * self.normal_detail[counted])
        return float(np.mean(self._detail[counted] >= least))

    def _repeats(self, picture: Picture) -> bool:
        """Tell whether nothing but a small part has changed since a look at which more had."""
        sample = np.ascontiguousarray(picture[::SAMPLE_STEP, ::SAMPLE_STEP, 1])
        before, self._sample = self._sample, sample
        if before is None or before.shape != sample.shape:
            self._changed[:] = False
            return False
        differs = np.asarray(cv2.absdiff(sample, before), np.uint8)
        if differs.any():
            self._changed |= _any_by_tile(differs)
        if self._changed.sum() <= OVERLAY_TILES:
            return True
        self._changed[:] = False
        return False

    def _compare(self, luma: Luma) -> View | None:
        """Compare the view now and then: with the commissioned one and with the recent one; gives what tells more."""
        self._looks += 1
        if self._looks % COMPARE_EVERY:
            return None
        views = [compare_luma(luma, reference, self.zones) for reference in (self.commissioned, self.recent)
                 if reference is not None]  # fmt: skip
        if not views:
            return None
        first = views[0]
        if self.commissioned is not None and (
            first.in_place >= SURE or (first.shift >= MOVED_BAD and first.overlap >= SURE)
        ):
            view = first
        else:
            view = max(views, key=lambda v: v.overlap)
        found = max(view.in_place, view.overlap) >= MOVED_AGREED
        self._in_place = self._in_place + 1 if found and view.shift == 0 else 0
        self._lost = 0 if found else self._lost + 1
        return view


def _details(luma: Luma) -> Tiles:
    """Give the standard deviation of the grey levels in each tile."""
    across, down = TILES
    small = cv2.resize(luma, (across * TILE_PX, down * TILE_PX), interpolation=cv2.INTER_AREA)
    tiles = small.reshape(down, TILE_PX, across, TILE_PX).astype(np.float32)
    return np.asarray(tiles.std(axis=(1, 3)), np.float32)


def _any_by_tile(differs: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    """Tell for each tile whether anything in it differs; the last rows and columns count to the last tiles."""
    across, down = TILES
    rows = np.linspace(0, differs.shape[0], down + 1).astype(int)[:-1]
    columns = np.linspace(0, differs.shape[1], across + 1).astype(int)[:-1]
    return np.asarray(np.maximum.reduceat(np.maximum.reduceat(differs, rows, axis=0), columns, axis=1) > 0)


def _hidden_tiles(zones: tuple[Zone, ...]) -> npt.NDArray[np.bool_]:
    """Tell for each tile whether a zone touches it."""
    across, down = TILES
    if not zones:
        return np.zeros((down, across), bool)
    painted = hidden(zones, across * TILE_PX, down * TILE_PX).reshape(down, TILE_PX, across, TILE_PX)
    return np.asarray(painted.any(axis=(1, 3)))
