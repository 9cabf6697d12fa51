"""A network stream (RTSP, MJPEG over HTTP, and whatever else FFmpeg reads), through OpenCV."""

import cv2

from agent.camera.address import address_of
from agent.camera.causes import Causes
from agent.camera.diagnose import diagnose
from agent.camera.health import stalled
from agent.camera.sources.capture import Capture, check_size, quiet
from agent.config import Camera
from agent.errors import ShelfwireError
from agent.ports import Clock

_WAITED_S = 0.01  # a grab that took this long waited for the camera, so what it brought is new
_BACKLOG_MAX_FRAMES = 300  # five seconds, as long as FFmpeg looks at a stream, of 60 frames a second
_SILENT_SHARE = 0.9  # a failed grab that took this share of the stall timeout failed because nothing came


class StreamSource(Capture):
    """Reads a stream with FFmpeg; RTSP over TCP."""

    def __init__(self, camera: Camera, clock: Clock) -> None:
        super().__init__(camera, clock)
        self._address = address_of(camera)
        self._grabbed = 0
        self._backlog = 0  # pictures that may have piled up while FFmpeg looked at the stream: old, thrown away

    def open(self) -> None:
        """Connect within the camera's open timeout. Raises the cause, found by asking the camera ourselves."""
        self.close()
        quiet()
        began_ns = self._clock.now().boot_ns
        capture = cv2.VideoCapture(self._address.with_login(), cv2.CAP_FFMPEG, [
            cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, _ms(self._camera.open_timeout),
            cv2.CAP_PROP_READ_TIMEOUT_MSEC, _ms(self._camera.stall_timeout),
            cv2.CAP_PROP_N_THREADS, 1,  # a decoder with n threads holds back n - 1 frames
        ])  # fmt: skip
        if not capture.isOpened():
            capture.release()
            took_s = (self._clock.now().boot_ns - began_ns) / 1e9
            raise diagnose(self._camera, self._address, self._clock, took_s)
        self._capture = capture
        self._grabbed = 0
        self._backlog = _BACKLOG_MAX_FRAMES
        check_size(self._camera, capture)

    def grab(self) -> None:
        """Wait for the next picture. Raises `Retryable`: ``camera-stalled`` or ``camera-lost``."""
        took_s = self._grab()
        while took_s < _WAITED_S and self._backlog > 0:
            self._backlog -= 1
            took_s = self._grab()
        self._backlog = 0

    def _grab(self) -> float:
        """Grab one picture; give the seconds that took."""
        assert self._capture is not None, "open comes first"
        began_ns = self._clock.now().boot_ns
        good = self._capture.grab()
        took_s = (self._clock.now().boot_ns - began_ns) / 1e9
        if not good:
            raise self._why_no_picture(took_s)
        self._grabbed += 1
        return took_s

    def _why_no_picture(self, took_s: float) -> ShelfwireError:
        if took_s >= _SILENT_SHARE * self._camera.stall_timeout:
            return stalled(self._camera.name, took_s)
        single = self._grabbed <= 1 and self._address.scheme in ("http", "https")
        hint = 'this address gives single pictures, it seems: set kind = "snapshot" for this camera' if single else ""
        what = "the stream broke off: the camera closed it, or sent what cannot be decoded"
        return Causes(self._camera.name, self._address).lost(what, hint)


def _ms(seconds: float) -> int:
    return max(1, round(1000 * seconds))
