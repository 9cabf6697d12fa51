"""Pictures for the cloud: scaled down to what is allowed, and encoded as JPEG, behind everything else."""

import contextlib
import os
import threading

import cv2

from agent.ports import Picture

LOW_PRIORITY = 10
"""Niceness of a thread that encodes, on Linux, where each thread has its own."""


def lower_priority(niceness: int = LOW_PRIORITY) -> None:
    """Put the calling thread behind those that answer; a sandbox may forbid it, then it runs as they do."""
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), niceness)


def to_jpeg(picture: Picture, quality: int, max_side: int) -> tuple[bytes, int, int]:
    """Encode a picture whose longer side is then at most `max_side` pixels; gives (JPEG, width, height).

    Raises `cv2.error` for what cannot be encoded.
    """
    height, width = picture.shape[:2]
    scale = min(1.0, max_side / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    fitting = picture if scale == 1.0 else cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    ok, jpeg = cv2.imencode(".jpg", fitting, [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not ok:
        raise cv2.error("the picture could not be encoded")
    return jpeg.tobytes(), *size
