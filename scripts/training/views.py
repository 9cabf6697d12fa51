"""Views of a photo: cut, turned, lit, blurred and covered at random, the same for the same random numbers."""

from dataclasses import dataclass

import models  # noqa: F401  # sets the limits of the picture decoder before cv2 is imported

import cv2  # isort: skip
import numpy as np
import numpy.typing as npt

Picture = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Taste:
    """How far views go from the photo: least part of the area, most turn in degrees, and how often what happens."""

    least_area: float = 0.2
    most_turn: float = 20.0
    whole: float = 0.15
    """Share of views that show the middle square nearly as the device would."""
    blur: float = 0.12
    noise: float = 0.12
    cover: float = 0.25


PHOTOS = Taste()
SCENES = Taste(least_area=0.4, most_turn=6.0, whole=0.3)


def view(rng: np.random.Generator, picture: Picture, side_px: int, taste: Taste = PHOTOS) -> Picture:
    """A view (side_px, side_px, 3) of `picture` (H, W, 3) BGR."""
    cut = _cut(rng, picture, side_px, taste)
    cut = _light(rng, cut)
    if rng.random() < taste.blur:
        cut = _blur(rng, cut)
    if rng.random() < taste.noise:
        cut = _noise(rng, cut)
    if rng.random() < taste.cover:
        _cover(rng, cut)
    return cut


def middle(picture: Picture, side_px: int) -> Picture:
    """The middle square of `picture`, resized as the device does it."""
    height, width = picture.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = picture[top : top + side, left : left + side]
    return np.asarray(cv2.resize(square, (side_px, side_px), interpolation=cv2.INTER_LINEAR), np.uint8)


def resized(pictures: npt.NDArray[np.uint8], side_px: int, how: int = cv2.INTER_LINEAR) -> npt.NDArray[np.uint8]:
    """`pictures` (N, S, S, 3) as (N, side_px, side_px, 3)."""
    if pictures.shape[1] == side_px:
        return pictures
    return np.stack([np.asarray(cv2.resize(picture, (side_px, side_px), interpolation=how)) for picture in pictures])


def _cut(rng: np.random.Generator, picture: Picture, side_px: int, taste: Taste) -> Picture:
    """A rectangle of random size, shape and place, turned and mirrored at random, in one resampling."""
    height, width = picture.shape[:2]
    side = min(height, width)
    if rng.random() < taste.whole:
        share, ratio, turn = rng.uniform(0.85, 1.0), 1.0, rng.uniform(-3, 3)
        reach = 0.08
    else:
        share = np.sqrt(rng.uniform(taste.least_area, 1.0))
        ratio = np.exp(rng.uniform(-0.29, 0.29))
        turn = rng.uniform(-1, 1) * taste.most_turn * (rng.random() < 0.5)
        reach = 1.0
    wide, high = min(width, side * share * np.sqrt(ratio)), min(height, side * share / np.sqrt(ratio))
    x = width / 2 + rng.uniform(-1, 1) * reach * (width - wide) / 2
    y = height / 2 + rng.uniform(-1, 1) * reach * (height - high) / 2
    mirror = -1.0 if rng.random() < 0.5 else 1.0
    cos, sin = np.cos(np.deg2rad(turn)), np.sin(np.deg2rad(turn))
    # from a pixel of the view, counted from its middle, to one of the photo
    a, b = mirror * wide / side_px * cos, -high / side_px * sin
    c, d = mirror * wide / side_px * sin, high / side_px * cos
    half = (side_px - 1) / 2
    matrix = np.array([[a, b, x - a * half - b * half], [c, d, y - c * half - d * half]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    turned = cv2.warpAffine(picture, matrix, (side_px, side_px), flags=flags, borderMode=cv2.BORDER_REFLECT_101)
    return np.asarray(turned, np.uint8)


def _light(rng: np.random.Generator, picture: Picture) -> Picture:
    """Another exposure, contrast, white balance and saturation."""
    gains = rng.uniform(0.7, 1.3) * rng.uniform(0.92, 1.08, 3)
    contrast, centre, gamma = rng.uniform(0.8, 1.2), 118.0, rng.uniform(0.85, 1.18)
    ramp = 255 * (np.arange(256)[:, None] / 255) ** gamma * gains
    table = np.clip((ramp - centre) * contrast + centre, 0, 255).astype(np.uint8)
    lit = np.asarray(cv2.LUT(picture, table[None]), np.uint8)
    if rng.random() < 0.4:
        grey = cv2.cvtColor(cv2.cvtColor(lit, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
        colour = rng.uniform(0.6, 1.4)
        lit = np.asarray(cv2.addWeighted(lit, colour, grey, 1 - colour, 0), np.uint8)
    return lit


def _blur(rng: np.random.Generator, picture: Picture) -> Picture:
    """Out of focus, or moved while the shutter was open."""
    if rng.random() < 0.5:
        return np.asarray(cv2.GaussianBlur(picture, (0, 0), float(rng.uniform(0.4, 1.8))), np.uint8)
    length = int(rng.integers(3, 8))
    kernel = np.zeros((length, length), np.float32)
    kernel[length // 2] = 1 / length
    return np.asarray(cv2.filter2D(picture, -1, kernel if rng.random() < 0.5 else kernel.T), np.uint8)


def _noise(rng: np.random.Generator, picture: Picture) -> Picture:
    grain = rng.normal(0, rng.uniform(2, 10), picture.shape).astype(np.float32)
    return np.clip(picture + grain, 0, 255).astype(np.uint8)


def _cover(rng: np.random.Generator, picture: Picture) -> None:
    """Hide a part behind one colour, in place."""
    side = picture.shape[0]
    rows, columns = rng.integers(side // 8, side // 3, 2)
    y, x = int(rng.integers(side - rows)), int(rng.integers(side - columns))
    picture[y : y + rows, x : x + columns] = rng.integers(40, 200, 3)


def mix(
    rng: np.random.Generator, pictures: npt.NDArray[np.uint8], count: int
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.intp], npt.NDArray[np.float32]]:
    """Mix the first `count` of `pictures` (N, S, S, 3) with others of them.

    Gives the pictures, each one's partner and how much of itself it is: laid over each other (Zhang et al. 2018, mixup)
    or a square of one put into the other (Yun et al. 2019, CutMix), drawn for each.
    """
    partner = np.arange(len(pictures))
    share = np.ones(len(pictures), np.float32)
    if count < 2:
        return pictures, partner, share
    partner[:count] = rng.permutation(count)
    mixed = pictures.copy()
    for number in range(count):
        blend = _laid_over if rng.random() < 0.5 else _put_into
        share[number] = blend(rng, mixed[number], pictures[partner[number]])
    return mixed, partner, share


def _laid_over(rng: np.random.Generator, picture: Picture, other: Picture) -> float:
    """`picture` and `other` through each other, in place; gives what is left of the first."""
    left = float(rng.beta(1.0, 1.0))
    cv2.addWeighted(picture, left, other, 1 - left, 0, dst=picture)
    return left


def _put_into(rng: np.random.Generator, picture: Picture, other: Picture) -> float:
    """A square of `other` in the same place of `picture`, in place; gives what is left of the first."""
    side = picture.shape[0]
    rows = columns = int(side * np.sqrt(1 - rng.beta(1.0, 1.0)))
    y, x = int(rng.integers(side - rows + 1)), int(rng.integers(side - columns + 1))
    picture[y : y + rows, x : x + columns] = other[y : y + rows, x : x + columns]
    return 1 - rows * columns / side**2
