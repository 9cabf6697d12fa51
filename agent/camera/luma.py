"""The small grey copy of a picture on which everything about a camera is measured."""

import agent as _agent  # noqa: F401  # sets the limits of the picture decoder before cv2 is imported
from agent.ports import Picture

import cv2  # isort: skip
import numpy as np
import numpy.typing as npt

Luma = npt.NDArray[np.uint8]
"""Height x width, 8 bits."""

LUMA_LEAST_WIDTH = 480
"""Pictures are halved as often as this width allows: noise and a camera's own sharpening count for less then."""


def luma_of(picture: Picture) -> Luma:
    """Give a picture's luma, 480 to 959 pixels wide: halved as often as that allows, or as it is when it is smaller."""
    luma = np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY), np.uint8)
    while luma.shape[1] >= 2 * LUMA_LEAST_WIDTH:
        height, width = luma.shape[0] // 2, luma.shape[1] // 2
        even = luma[: 2 * height, : 2 * width]  # an exact half is many times quicker
        luma = np.asarray(cv2.resize(even, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
    return luma
