"""What can go wrong with a camera, done to a good picture: for the synthetic camera, measurements and practice."""

from collections.abc import Callable, Mapping

import agent as _agent  # noqa: F401  # sets the limits of the picture decoder before cv2 is imported
from agent.camera.synthetic_sprites import Pixels

import cv2  # isort: skip
import numpy as np


def darken(picture: Pixels, gain: float) -> Pixels:
    """Let less light in: each pixel times `gain`, below 1."""
    return np.asarray(cv2.convertScaleAbs(picture, alpha=gain), np.uint8)


def burn(picture: Pixels, gain: float) -> Pixels:
    """Let too much light in: each pixel times `gain`, above 1, and a veil that grows with it."""
    return np.asarray(cv2.convertScaleAbs(picture, alpha=gain, beta=10 * (gain - 1)), np.uint8)


def blur(picture: Pixels, sigma_px: float) -> Pixels:
    """Take the lens out of focus: a blur of this standard deviation, in pixels."""
    return np.asarray(cv2.GaussianBlur(picture, (0, 0), sigma_px), np.uint8)


def move(picture: Pixels, shift: float, turn_deg: float = 0.0) -> Pixels:
    """Knock the camera: shifted by a part of the width and turned; what comes into view is made up by mirroring."""
    height, width = picture.shape[:2]
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), turn_deg, 1.0)
    matrix[0, 2] += shift * width
    return np.asarray(cv2.warpAffine(picture, matrix, (width, height), borderMode=cv2.BORDER_REFLECT_101), np.uint8)


def cover(picture: Pixels, part: float, seed: int = 0) -> Pixels:
    """Hold something before the lens: it covers this part of the picture from one side, smooth, near and blurred."""
    height, width = picture.shape[:2]
    rng = np.random.default_rng((seed, 9))
    shade = rng.uniform(40, 150) * np.array([0.62, 0.76, 1.0]) ** rng.uniform(0, 1)  # from grey to skin
    light = cv2.resize(rng.uniform(0.8, 1.2, (3, 4)).astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
    edge_px = max(2.0, width / 40)
    reach = part * width + np.linspace(-0.1, 0.1, height) * width * (0 < part < 1)
    veil = np.clip((reach[:, None] - np.arange(width)[None]) / edge_px + 0.5, 0, 1)[..., None].astype(np.float32)
    thing = light[..., None] * shade.astype(np.float32)
    return np.asarray(picture * (1 - veil) + thing * veil, np.uint8)


FAULTS: Mapping[str, Callable[[Pixels], Pixels]] = {
    "black": lambda picture: darken(picture, 0.02),
    "blinded": lambda picture: burn(picture, 5.0),
    "blurred": lambda picture: blur(picture, picture.shape[1] / 160),
    "covered": lambda picture: cover(picture, 0.9),
    "moved": lambda picture: move(picture, 0.09, 2.0),
}
"""The faults of a synthetic camera, as strong as one sees them. `frozen` is the source's own."""
FROZEN = "frozen"
