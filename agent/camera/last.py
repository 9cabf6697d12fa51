"""Last pictures of the cameras, for the Live page: finished messages in a folder that may vanish; newest wins.

Vision writes them here; sync reads them with `agent.link.pictures`.
"""

import base64
import contextlib
import json
import logging
import threading
from pathlib import Path
from typing import Any

import cv2

from agent.camera.encode import lower_priority
from agent.core.records import moment
from agent.ports import Frame, Picture
from wire import bounds

log = logging.getLogger(__name__)

PICTURE_WIDTH = 480
THUMBNAIL_WIDTH = 320
QUALITIES = (80, 60, 40)
"""JPEG qualities, tried in turn until the picture fits its limit."""


def small_jpeg(picture: Picture, width: int, limit_bytes: int) -> tuple[bytes, int, int] | None:
    """Scale a picture down to `width` pixels and encode it; gives (JPEG, width, height), None if it cannot fit."""
    height, full_width = picture.shape[:2]
    scale = min(1.0, width / full_width, width / height)
    size = (max(1, round(full_width * scale)), max(1, round(height * scale)))
    small = cv2.resize(picture, size, interpolation=cv2.INTER_LINEAR)
    for quality in QUALITIES:
        ok, jpeg = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, quality])
        if ok and len(jpeg) <= limit_bytes:
            return jpeg.tobytes(), size[0], size[1]
    return None


class LastPictures:
    """Writes one message per camera into a folder. Nothing is kept: no fsync, and sync may miss one.

    A thread of its own does it, behind everything else: encoding a picture takes as long as half an answer.
    """

    def __init__(self, folder: Path, interval_s: float, *, allowed: bool) -> None:
        self._folder = folder
        self._interval_ns = int(interval_s * 1e9)
        self._allowed = allowed
        self._shown_ns: dict[str, int] = {}
        self._waiting: dict[str, Frame] = {}
        self._changed = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._work, name="pictures", daemon=True)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for old in folder.iterdir():
            old.unlink()

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def stop(self, timeout_s: float = 2.0) -> None:
        """End the thread; what waits is not written."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._thread.join(timeout_s)

    def show(self, frame: Frame) -> None:
        """Leave a frame to be shown when the camera's last one is old enough. Never waits."""
        last_ns = self._shown_ns.get(frame.camera)
        if not self._allowed or (last_ns is not None and frame.captured.boot_ns - last_ns < self._interval_ns):
            return
        self._shown_ns[frame.camera] = frame.captured.boot_ns
        with self._changed:
            self._waiting[frame.camera] = frame
            self._changed.notify()

    def _work(self) -> None:
        lower_priority()
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._stopping)
                if self._stopping:
                    return
                frame = self._waiting.pop(next(iter(self._waiting)))
            try:
                self._write(frame)
            except Exception:
                # A picture is never worth an answer: the next one may fare better.
                log.exception("camera %s: its last picture could not be made", frame.camera)

    def _write(self, frame: Frame) -> None:
        small = small_jpeg(frame.picture, PICTURE_WIDTH, bounds.PICTURE_BYTES)
        if small is None:
            return
        jpeg, width, height = small
        message: dict[str, Any] = {
            "camera": frame.camera,
            "frame": frame.number,
            "captured_at": moment(frame.captured.wall_ns),
            "width": width,
            "height": height,
            "jpeg": base64.b64encode(jpeg).decode(),
        }
        target = self._folder / f"{frame.camera}.json"
        fresh = target.with_suffix(".new")
        # A full or vanished runtime folder costs pictures, never answers.
        with contextlib.suppress(OSError):
            fresh.write_text(json.dumps(message), encoding="ascii")
            fresh.replace(target)

    def thumbnail(self, frame: Frame) -> str | None:
        """Make the small picture that goes with an alert."""
        small = small_jpeg(frame.picture, THUMBNAIL_WIDTH, bounds.THUMBNAIL_BYTES) if self._allowed else None
        return base64.b64encode(small[0]).decode() if small else None
