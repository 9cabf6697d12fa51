"""What all kinds of camera that OpenCV reads have in common."""

from abc import ABC, abstractmethod

import cv2
import numpy as np

from agent.config import Camera
from agent.errors import Rejected, Retryable
from agent.ports import Clock, Picture, Shot

MAX_PIXELS = 25_000_000
"""Larger pictures are refused: at 3 bytes a pixel, one would take more memory than the rest of the device."""


def quiet() -> None:
    """Silence OpenCV's own warnings: a camera that is away would write some on every try."""
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)


def check_size(camera: Camera, capture: cv2.VideoCapture) -> None:
    """Refuse a video whose pictures are too large. Raises `Rejected` (``camera-codec``)."""
    width, height = capture.get(cv2.CAP_PROP_FRAME_WIDTH), capture.get(cv2.CAP_PROP_FRAME_HEIGHT)
    if width * height > MAX_PIXELS:
        raise Rejected(
            "camera-codec",
            f"camera {camera.name}: its pictures have {width:.0f} x {height:.0f} pixels; the limit is {MAX_PIXELS}",
            "choose a smaller resolution or the sub-stream in the camera's settings",
        )


def picture_of(camera: Camera, capture: cv2.VideoCapture) -> Picture:
    """Decode the picture grabbed last. Raises `Retryable` (``camera-codec``) when it cannot be decoded."""
    check_size(camera, capture)  # a stream may change its size at any time
    try:
        good, picture = capture.retrieve()
    except cv2.error:
        good, picture = False, None
    if not good or picture is None or picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
        raise Retryable(
            "camera-codec",
            f"camera {camera.name}: a picture of its stream cannot be decoded",
            "set the camera to H.264 or MJPEG; if it comes seldom, look at the cable and the network",
        )
    return np.asarray(picture, dtype=np.uint8)


class Capture(ABC):
    """A camera that OpenCV holds open. A `Stream` with `open` and `grab`: grab all, retrieve what is used."""

    live = True

    def __init__(self, camera: Camera, clock: Clock) -> None:
        self._camera = camera
        self._clock = clock
        self._capture: cv2.VideoCapture | None = None

    @abstractmethod
    def grab(self) -> None:
        """Wait for the next picture."""

    def retrieve(self) -> Shot:
        """Decode the picture grabbed last. Raises ``camera-codec``."""
        assert self._capture is not None, "open comes first"
        return Shot(picture_of(self._camera, self._capture))

    def read(self) -> Shot:
        """Grab and retrieve; never ends."""
        self.grab()
        return self.retrieve()

    def close(self) -> None:
        """Let go of the camera."""
        if self._capture is not None:
            self._capture.release()
            self._capture = None
