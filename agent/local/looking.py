"""What the cameras see now, for whoever looks: answers are noted, pictures are encoded only while somebody asks."""

import threading
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass

from agent.core.decide import Conclusion
from agent.ports import Clock, Frame, Picture
from models import Answer

Encode = Callable[[Picture, int], tuple[bytes, int, int] | None]
"""Makes a JPEG at most so many pixels wide; gives it with width and height, None when it cannot."""

WIDTH = 640
WIDE = 1280
"""Widths of pictures, in pixels: among others, and alone."""
EVERY_NS = 80_000_000
"""At most one picture is encoded in this time, all cameras and viewers together: some 5 % of a core."""


@dataclass(frozen=True, slots=True)
class Seen:
    """The newest answer of a camera."""

    number: int
    captured_ns: int
    """On the boot clock."""
    label: str
    state: str
    reason: str
    top: tuple[tuple[str, float], ...]
    total_ms: float


@dataclass(frozen=True, slots=True)
class Shown:
    """An encoded picture of a camera. `captured_ns` is on the boot clock."""

    number: int
    captured_ns: int
    jpeg: bytes
    width: int
    height: int


class Looking:
    """Shared by the threads that answer frames and those that answer viewers."""

    def __init__(self, cameras: Collection[str], encode: Encode, clock: Clock) -> None:
        self._cameras = frozenset(cameras)
        self._encode = encode
        self._clock = clock
        self._changed = threading.Condition()
        self._seen: dict[str, Seen] = {}
        self._waiting: Counter[str] = Counter()  # viewers per camera
        self._frames: dict[str, Frame] = {}  # the newest of cameras that viewers wait for: its pixels are megabytes
        self._shown: dict[tuple[str, int], Shown] = {}
        self._encoding = threading.Lock()
        self._next_ns = 0
        self._closed = threading.Event()

    def saw(self, frame: Frame, answer: Answer, conclusion: Conclusion, total_ms: float) -> None:
        """Note a frame that was answered; a thread of the pipeline calls it. Never waits, keeps what is wanted."""
        self._seen[frame.camera] = Seen(
            frame.number,
            frame.captured.boot_ns,
            conclusion.label,
            conclusion.state,
            conclusion.reason,
            answer.top,
            total_ms,
        )
        if self._waiting[frame.camera]:
            with self._changed:
                if self._waiting[frame.camera]:
                    self._frames[frame.camera] = frame
                    self._changed.notify_all()

    def seen(self, camera: str) -> Seen | None:
        """Give the newest answer of a camera, None before the first."""
        return self._seen.get(camera)

    def knows(self, camera: str) -> bool:
        """Whether there is a camera of this name."""
        return camera in self._cameras

    def picture(self, camera: str, after: int, width: int, wait_s: float) -> Shown | None:
        """Give a picture of another frame than number `after`, waiting for one up to `wait_s`; None when none came."""
        shown = self._shown.get((camera, width))
        if shown is not None and shown.number != after and self._clock.now().boot_ns - shown.captured_ns < EVERY_NS:
            return shown
        with self._changed:
            self._waiting[camera] += 1
        try:
            with self._changed:
                came = self._changed.wait_for(lambda: self._has_other(camera, after) or self._closed.is_set(), wait_s)
            if came and not self._closed.is_set():
                self._make(camera, width)
        finally:
            with self._changed:
                self._waiting[camera] -= 1
                if not self._waiting[camera]:
                    self._frames.pop(camera, None)
        shown = self._shown.get((camera, width))
        return shown if shown is not None and shown.number != after else None

    def close(self) -> None:
        """Let nobody wait any more."""
        self._closed.set()
        with self._changed:
            self._changed.notify_all()

    def _has_other(self, camera: str, after: int) -> bool:
        frame = self._frames.get(camera)
        return frame is not None and frame.number != after

    def _make(self, camera: str, width: int) -> None:
        """Encode the frame that came, unless another viewer's thread just did."""
        with self._encoding:
            self._clock.wait(self._closed, max(0, self._next_ns - self._clock.now().boot_ns) / 1e9)
            frame = self._frames.get(camera)
            last = self._shown.get((camera, width))
            if frame is None or (last is not None and last.number == frame.number):
                return
            made = self._encode(frame.picture, width)
            self._next_ns = self._clock.now().boot_ns + EVERY_NS
            if made is not None:
                self._shown[camera, width] = Shown(frame.number, frame.captured.boot_ns, *made)
