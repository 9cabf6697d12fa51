"""From a camera's frame to the bytes a model looks at: cut, resize, and nothing else.

Colour order, mean, scale and layout belong to the graph (or, for a runtime that cannot, to its adapter), so
that only bytes are moved here: a resize of bytes costs a third of one of floats.
"""

import math

import cv2
import numpy as np
import numpy.typing as npt

from models.errors import PictureError
from models.inputs import Input

__all__ = ["Input", "Pixels", "Preparer", "arithmetic", "check_frame"]

Pixels = npt.NDArray[np.uint8]
BYTE = np.dtype(np.uint8)
MOST_STEP = 6
"""A single linear resize may skip this many source pixels per output pixel; beyond, it goes through a larger
picture that is averaged down. Averaging the whole source costs ten times as much and gained nothing."""


def check_frame(frame: object) -> Pixels:
    """`frame` if it is (H, W, 3) uint8 with at least one pixel. Raises PictureError picture-shape."""
    hint = "give a BGR picture of bytes, as decode_picture returns it"
    if not isinstance(frame, np.ndarray):
        raise PictureError("picture-shape", f"a picture is a numpy array, not {type(frame).__name__}", hint)
    if frame.dtype != BYTE:
        raise PictureError("picture-shape", f"a picture holds uint8, not {frame.dtype}", hint)
    if frame.ndim != 3 or frame.shape[2] != 3 or frame.size == 0:
        raise PictureError("picture-shape", f"a picture is (height, width, 3), not {frame.shape}", hint)
    return frame


class Preparer:
    """Cuts and resizes frames into one reused buffer. Serves one thread."""

    def __init__(self, spec: Input, buffer: Pixels) -> None:
        """`buffer` is (height, width, 3) of `spec`, contiguous; BGR bytes are written there."""
        self._spec = spec
        self._buffer = buffer
        self._larger: dict[int, Pixels] = {}
        self._way = _Way((0, 0, 0), spec)

    def fill(self, frame: Pixels) -> None:
        """Write `frame` (H, W, 3) into the buffer. Raises PictureError picture-shape."""
        way = self._way
        if not (isinstance(frame, np.ndarray) and frame.shape == way.shape and frame.dtype == BYTE):
            frame = check_frame(frame)
            way = self._way = _Way(frame.shape, self._spec)
        part = frame[way.part]
        if way.times == 1:
            self._resize(part, self._buffer, cv2.INTER_LINEAR)
            return
        spec, times = self._spec, way.times
        larger = self._larger.setdefault(times, np.empty((spec.height * times, spec.width * times, 3), np.uint8))
        self._resize(part, larger, cv2.INTER_LINEAR)
        self._resize(larger, self._buffer, cv2.INTER_AREA)

    @staticmethod
    def _resize(source: Pixels, target: Pixels, interpolation: int) -> None:
        size = (target.shape[1], target.shape[0])
        written = cv2.resize(source, size, dst=target, interpolation=interpolation)
        if written is not target:  # OpenCV takes another array when it dislikes ours
            np.copyto(target, written)


class _Way:
    """How frames of one `shape` (height, width, 3) become the model's picture: the part that is looked at, and by how
    many `times` the picture is larger that it goes through."""

    def __init__(self, shape: tuple[int, ...], spec: Input) -> None:
        rows, columns, _ = self.shape = shape
        self.part = _middle(rows, columns, spec) if spec.fit == "crop" else (slice(0, rows), slice(0, columns))
        high, wide = (part.stop - part.start for part in self.part)
        step = max(high / spec.height, wide / spec.width)
        self.times = 1 if step <= MOST_STEP else min(4, math.ceil(step / MOST_STEP))


def _middle(rows: int, columns: int, spec: Input) -> tuple[slice, slice]:
    """The largest part around the middle with the shape of the model's picture."""
    wide = min(columns, max(1, rows * spec.width // spec.height))
    high = min(rows, max(1, columns * spec.height // spec.width))
    top, left = (rows - high) // 2, (columns - wide) // 2
    return slice(top, top + high), slice(left, left + wide)


def arithmetic(buffer: Pixels, spec: Input) -> npt.NDArray[np.generic]:
    """What the model takes, (1, ...), from the bytes in `buffer`, for a runtime whose graph does not do it."""
    picture: npt.NDArray[np.generic] = buffer if spec.colour == "bgr" else buffer[..., ::-1]
    if spec.dtype == "float32":
        mean, scale = np.array(spec.mean, np.float32), np.array(spec.scale, np.float32)
        picture = (picture.astype(np.float32) - mean) / scale
    if spec.layout == "nchw":
        picture = picture.transpose(2, 0, 1)
    return np.ascontiguousarray(picture)[None]
