"""What a camera is doing, as a value that pages, logs and alerts share. One log line per change, never per frame."""

import logging
import threading
from collections import deque
from dataclasses import dataclass
from typing import Literal

from agent.config import Camera
from agent.core.pace import interval_ns
from agent.errors import Retryable, ShelfwireError
from agent.ports import Clock, Stamp

log = logging.getLogger(__name__)

Phase = Literal["opening", "streaming", "stalled", "failed", "ended"]

STALLED = "camera-stalled"
_RATE_FRAMES = 32  # frames that the measured rate looks back on


def stalled(name: str, silent_s: float) -> Retryable:
    """Make the error for a camera that is connected and has sent no picture for `silent_s`."""
    return Retryable(
        STALLED,
        f"camera {name} has sent no new picture for {silent_s:.1f} s",
        "the device reconnects by itself; if it stays, look at the camera's power, cable and network load",
    )


@dataclass(frozen=True, slots=True)
class CameraState:
    """One camera at one moment. `code`, `message` and `hint` are None unless it is stalled or failed."""

    name: str
    kind: str
    phase: Phase
    code: str | None
    message: str | None
    hint: str | None
    captured: int
    last_frame_age_s: float | None
    rate_fps: float
    width: int | None
    height: int | None
    reconnects: int
    hung: int
    """Native reads given up because they never came back; they end with the process at the latest."""


class Health:
    """Keeps one camera's state; the reading thread writes, any thread asks. Thread safe."""

    def __init__(self, camera: Camera, clock: Clock) -> None:
        self._name = camera.name
        self._kind = camera.kind_of()
        self._stall_ns = round(camera.stall_timeout * 1e9)
        self._pause_ns = interval_ns(camera.rate_fps)  # a camera asked for a picture a minute is not stalled between
        self._clock = clock
        self._lock = threading.Lock()
        self._phase: Phase = "opening"
        self._error: ShelfwireError | None = None
        self._seen: Stamp | None = None  # when the camera last showed life, be it a frame that was not used
        self._used: deque[int] = deque(maxlen=_RATE_FRAMES)
        self._last_ns: int | None = None
        self._size: tuple[int, int] | None = None
        self._captured = 0
        self._opened = 0
        self.live = True

    def opened(self) -> None:
        """The source has opened; its first picture is still to come, and the stall timeout runs."""
        with self._lock:
            self._opened += 1
            self._seen = self._clock.now()
            self._used.clear()

    def alive(self, seen: Stamp) -> None:
        """The source has given a picture, used or not."""
        with self._lock:
            self._seen = seen

    def frame(self, captured: Stamp, width: int, height: int) -> int:
        """Count a frame that is used; give its number, from 1."""
        with self._lock:
            self._seen = captured
            self._used.append(captured.boot_ns)
            self._last_ns = captured.boot_ns
            self._size = (width, height)
            self._captured += 1
            self._enter("streaming", None)
            return self._captured

    def failed(self, error: ShelfwireError) -> None:
        """The source could not be opened or read."""
        with self._lock:
            self._enter("stalled" if error.code == STALLED else "failed", error)

    def ended(self) -> None:
        """A source that ends has ended."""
        with self._lock:
            self._enter("ended", None)

    def look(self) -> None:
        """See whether the camera has stalled, and log it; called from another thread than the reading one."""
        with self._lock:
            self._notice_stall(self._clock.now().boot_ns)

    def state(self, hung: int = 0) -> CameraState:
        """Give the state now; a stall shows at once, also while the read call hangs."""
        with self._lock:
            now_ns = self._clock.now().boot_ns
            self._notice_stall(now_ns)
            width, height = self._size or (None, None)
            code, message, hint = _parts(self._error)
            return CameraState(
                name=self._name, kind=self._kind, phase=self._phase, code=code, message=message, hint=hint,
                captured=self._captured,
                last_frame_age_s=None if self._last_ns is None else (now_ns - self._last_ns) / 1e9,
                rate_fps=self._rate_fps(now_ns),
                width=width, height=height, reconnects=max(0, self._opened - 1), hung=hung,
            )  # fmt: skip

    def _notice_stall(self, now_ns: int) -> None:
        if self._phase not in ("opening", "streaming") or self._seen is None or not self.live:
            return
        silent_ns = now_ns - self._seen.boot_ns
        if silent_ns > self._stall_ns + self._pause_ns:
            self._enter("stalled", stalled(self._name, silent_ns / 1e9))

    def _rate_fps(self, now_ns: int) -> float:
        if self._phase != "streaming" or len(self._used) < 2:
            return 0.0
        mean_ns = (self._used[-1] - self._used[0]) / (len(self._used) - 1)
        silent_ns = now_ns - self._used[-1]
        span_ns = self._used[-1] - self._used[0] + (silent_ns if silent_ns > 2 * mean_ns else 0)
        rate_fps = (len(self._used) - 1) * 1e9 / span_ns if span_ns > 0 else 0.0
        return min(rate_fps, 1e9 / self._pause_ns)  # two frames that came close together are no rate

    def _enter(self, phase: Phase, error: ShelfwireError | None) -> None:
        changed = phase != self._phase or _parts(error)[0] != _parts(self._error)[0]
        self._phase, self._error = phase, error
        if not changed:
            return
        if error is not None:
            log.warning("camera %s: %s [%s]: %s. Cure: %s", self._name, phase, error.code, error, error.hint)
        elif self._size is not None and phase == "streaming":
            log.info("camera %s: streaming, %d x %d pixels", self._name, *self._size)
        else:
            log.info("camera %s: %s", self._name, phase)


def _parts(error: ShelfwireError | None) -> tuple[str, str, str] | tuple[None, None, None]:
    return (None, None, None) if error is None else (error.code, str(error), error.hint)
