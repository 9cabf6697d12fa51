"""From a camera's frame to the bytes a model looks at: cut, resize, and nothing else.

Colour order, mean, scale and layout belong to the graph (or, for a runtime that cannot, to its adapter), so
that only bytes are moved here: a resize of bytes costs a third of one of floats.
"""

import cv2
import numpy as np
import numpy.typing as npt

from models.errors import PictureError
from models.inputs import Input

__all__ = ["Input", "Pixels", "Preparer", "arithmetic", "check_frame"]

Pixels = npt.NDArray[np.uint8]
MOST_STEP = 6
"""A single linear resize may skip this many source pixels per output pixel; beyond, it goes through a larger
picture that is averaged down. Averaging the whole source costs ten times as much and gained nothing."""


def check_frame(frame: object) -> Pixels:
    """`frame` if it is (H, W, 3) uint8 with at least one pixel. Raises PictureError picture-shape."""
    hint = "give a BGR picture of bytes, as decode_picture returns it"
    if not isinstance(frame, np.ndarray):
        raise PictureError("picture-shape", f"a picture is a numpy array, not {type(frame).__name__}", hint)
    if frame.dtype != np.uint8:
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

    def fill(self, frame: Pixels) -> None:
        """Write `frame` (H, W, 3), already checked, into the buffer."""
        spec = self._spec
        part = _middle(frame, spec.width, spec.height) if spec.fit == "crop" else frame
        step = max(part.shape[0] / spec.height, part.shape[1] / spec.width)
        if step <= MOST_STEP:
            self._resize(part, self._buffer, cv2.INTER_LINEAR)
            return
        times = min(4, int(np.ceil(step / MOST_STEP)))
        larger = self._larger.setdefault(times, np.empty((spec.height * times, spec.width * times, 3), np.uint8))
        self._resize(part, larger, cv2.INTER_LINEAR)
        self._resize(larger, self._buffer, cv2.INTER_AREA)

    @staticmethod
    def _resize(source: Pixels, target: Pixels, interpolation: int) -> None:
        size = (target.shape[1], target.shape[0])
        written = cv2.resize(source, size, dst=target, interpolation=interpolation)
        if not np.shares_memory(written, target):  # OpenCV takes another array when it dislikes ours
            np.copyto(target, written)


def _middle(frame: Pixels, width: int, height: int) -> Pixels:
    """The largest part around the middle with the shape width : height; a view, no copy."""
    rows, columns = frame.shape[:2]
    wide = min(columns, max(1, rows * width // height))
    high = min(rows, max(1, columns * height // width))
    top, left = (rows - high) // 2, (columns - wide) // 2
    return frame[top : top + high, left : left + wide]


def arithmetic(buffer: Pixels, spec: Input) -> npt.NDArray[np.generic]:
    """What the model takes, (1, ...), from the bytes in `buffer`, for a runtime whose graph does not do it."""
    picture: npt.NDArray[np.generic] = buffer if spec.colour == "bgr" else buffer[..., ::-1]
    if spec.dtype == "float32":
        mean, scale = np.array(spec.mean, np.float32), np.array(spec.scale, np.float32)
        picture = (picture.astype(np.float32) - mean) / scale
    if spec.layout == "nchw":
        picture = picture.transpose(2, 0, 1)
    return np.ascontiguousarray(picture)[None]
