"""Fixed random crops of a photo, so that what a teacher said about a crop can be looked up later."""

from dataclasses import dataclass

import models  # noqa: F401  # sets the limits of the picture decoder before cv2 is imported

import cv2  # isort: skip
import numpy as np
import numpy.typing as npt

Picture = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Crop:
    """A rectangle of a picture in pixels, and whether it is mirrored."""

    left: int
    top: int
    width: int
    height: int
    mirrored: bool


def plan(seed: int, photo: int, view: int, side_px: int, least_area: float = 0.25) -> Crop:
    """View `view` of photo `photo`: the same for the same numbers. View 0 is the whole photo."""
    if view == 0:
        return Crop(0, 0, side_px, side_px, mirrored=False)
    rng = np.random.default_rng((seed, photo, view))
    area = rng.uniform(least_area, 1.0) * side_px * side_px
    ratio = float(np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3))))
    width = min(side_px, round((area * ratio) ** 0.5))
    height = min(side_px, round((area / ratio) ** 0.5))
    left = int(rng.integers(0, side_px - width + 1))
    top = int(rng.integers(0, side_px - height + 1))
    return Crop(left, top, width, height, mirrored=bool(rng.random() < 0.5))


def cut(picture: Picture, crop: Crop, size_px: int, interpolation: int = cv2.INTER_LINEAR) -> Picture:
    """The crop of `picture` (H, W, 3), resized to (size_px, size_px, 3)."""
    part = picture[crop.top : crop.top + crop.height, crop.left : crop.left + crop.width]
    small = np.asarray(cv2.resize(part, (size_px, size_px), interpolation=interpolation), np.uint8)
    return np.ascontiguousarray(small[:, ::-1]) if crop.mirrored else small
