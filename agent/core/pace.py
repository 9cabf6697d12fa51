"""When the next frame of a camera is due."""


def interval_ns(rate_fps: float) -> int:
    """Give the nanoseconds between two frames at `rate_fps`."""
    return round(1e9 / rate_fps)


class Pace:
    """A grid of moments, `rate_fps` apart, that a camera's frames are taken on.

    A frame that comes a little late does not delay those after it, so a 25 fps camera read at 25 fps loses none to
    jitter; one that comes more than an interval late is not made up for by a burst.
    """

    def __init__(self, rate_fps: float) -> None:
        self._interval_ns = interval_ns(rate_fps)
        self._due_ns: int | None = None

    def wait_s(self, now_ns: int) -> float:
        """Give the seconds from `now_ns` until the next frame is due; 0 when it is."""
        return 0.0 if self._due_ns is None else max(0, self._due_ns - now_ns) / 1e9

    def take(self, now_ns: int) -> bool:
        """Take the frame that came at `now_ns` if one is due, and move on to the next moment."""
        if self._due_ns is not None and now_ns < self._due_ns:
            return False
        self._due_ns = max((now_ns if self._due_ns is None else self._due_ns) + self._interval_ns, now_ns)
        return True
