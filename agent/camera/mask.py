"""Privacy masks: zones of a camera's picture that nobody may see. They are painted over before anything else happens.

Every source that `agent.camera.sources.open_source` gives paints them, so a picture that was not painted does not
exist outside a source: none can be classified, encoded, stored or shown.
"""

from functools import lru_cache

import agent as _agent  # noqa: F401  # sets the limits of the picture decoder before cv2 is imported
from agent.core.zones import Zone
from agent.ports import Picture, Shot, Source, Stream

import cv2  # isort: skip
import numpy as np
import numpy.typing as npt

FILL = 128
"""The grey of a zone, in all three colours: neither a dark picture nor a bright one by itself."""

GROWN_PX = 2
"""How far a zone is painted over its edge: a camera's own compression smears colours that far across it."""

Corners = npt.NDArray[np.int32]


def masked(picture: Picture, zones: tuple[Zone, ...]) -> Picture:
    """Paint `zones` over, in place; gives the picture, or a painted copy when it may not be written into.

    The zones are parts of width and height, so a camera that changes its size keeps them.
    """
    if not zones:
        return picture
    if not picture.flags.writeable:
        picture = picture.copy()
    height, width = picture.shape[:2]
    # One by one: painted together, zones that overlap would leave a hole where they do.
    for corners in _corners(zones, width, height):
        cv2.fillPoly(picture, [corners], (FILL, FILL, FILL))
        cv2.polylines(picture, [corners], True, (FILL, FILL, FILL), 2 * GROWN_PX + 1)
    return picture


def hidden(zones: tuple[Zone, ...], width: int, height: int) -> npt.NDArray[np.uint8]:
    """Give a map (height, width) of a picture, 255 where a zone hides it, else 0."""
    found = np.zeros((height, width), np.uint8)
    for corners in _corners(zones, width, height):
        cv2.fillPoly(found, [corners], (255,))
        cv2.polylines(found, [corners], True, (255,), 2 * GROWN_PX + 1)
    return found


@lru_cache(maxsize=64)
def _corners(zones: tuple[Zone, ...], width: int, height: int) -> tuple[Corners, ...]:
    """The zones' corners in pixels of a picture of this size."""
    size = np.array([width - 1, height - 1])
    return tuple(np.rint(np.array(zone) * size).astype(np.int32) for zone in zones)


def hide(source: Source, zones: tuple[Zone, ...]) -> Source:
    """Give a source whose pictures come painted; `source` itself when there is nothing to hide."""
    if not zones:
        return source
    return _MaskedStream(source, zones) if isinstance(source, Stream) else _Masked(source, zones)


class _Masked:
    """A source whose pictures come painted. What it wraps opens, reads and raises as ever."""

    def __init__(self, source: Source, zones: tuple[Zone, ...]) -> None:
        self._source = source
        self._zones = zones
        self.live = source.live

    def open(self) -> None:
        self._source.open()

    def read(self) -> Shot | None:
        shot = self._source.read()
        return None if shot is None else self._paint(shot)

    def close(self) -> None:
        self._source.close()

    def _paint(self, shot: Shot) -> Shot:
        return Shot(masked(shot.picture, self._zones), shot.truth)


class _MaskedStream(_Masked):
    def __init__(self, source: Stream, zones: tuple[Zone, ...]) -> None:
        super().__init__(source, zones)
        self._stream = source

    def grab(self) -> None:
        self._stream.grab()

    def retrieve(self) -> Shot:
        return self._paint(self._stream.retrieve())
