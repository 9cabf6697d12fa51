"""A video file. Every frame is given in turn, at the camera's rate; nothing is skipped."""

from pathlib import Path

import cv2

from agent.camera.sources.capture import check_size, picture_of, quiet
from agent.camera.sources.paths import existing_path
from agent.config import Camera
from agent.errors import Rejected
from agent.ports import Shot


class VideoSource:
    """Reads a video file with FFmpeg, from its start each time it is opened."""

    live = False

    def __init__(self, camera: Camera) -> None:
        self._camera = camera
        self._path = Path()
        self._capture: cv2.VideoCapture | None = None
        self._given = 0

    def open(self) -> None:
        """Open the file. Raises `Rejected` when it is not there, not readable or no video."""
        self._path = existing_path(self._camera)
        self._rewind()

    def read(self) -> Shot | None:
        """Give the next frame, or None at the end. Raises `Rejected` when the file holds no frame at all."""
        shot = self._next()
        if shot is not None:
            return shot
        if self._given == 0:
            raise self._no_video()
        if not self._camera.loop:
            return None
        self._rewind()
        shot = self._next()
        if shot is None:
            raise self._no_video()
        return shot

    def close(self) -> None:
        """Let go of the file."""
        if self._capture is not None:
            self._capture.release()
            self._capture = None

    def _rewind(self) -> None:
        # Opened anew: many formats seek to a frame near the first one instead of to the first.
        self.close()
        self._given = 0
        quiet()
        capture = cv2.VideoCapture(str(self._path), cv2.CAP_FFMPEG)
        if not capture.isOpened():
            raise self._no_video()
        self._capture = capture
        check_size(self._camera, capture)

    def _next(self) -> Shot | None:
        assert self._capture is not None, "open comes first"
        if not self._capture.grab():
            return None
        self._given += 1
        return Shot(picture_of(self._camera, self._capture))

    def _no_video(self) -> Rejected:
        return Rejected(
            "camera-codec",
            f"camera {self._camera.name}: {self._path} holds no video that this device can decode",
            "convert it to H.264 in an .mp4 file; for pictures give the folder they are in",
        )
