"""A ceiling on what an upload takes of the shop's line: a token bucket, with the time passed in."""


class Bandwidth:
    """Lets `bytes_per_second` through in the long run, and no burst larger than `burst_bytes`.

    Pieces are paid for after they were sent: the bucket may go into debt, and the next piece waits until it is paid.
    """

    def __init__(self, bytes_per_second: int, burst_bytes: int) -> None:
        if bytes_per_second <= 0 or burst_bytes <= 0:
            raise ValueError(f"need a rate and a burst above 0, got {bytes_per_second} and {burst_bytes}")
        self._bytes_per_ns = bytes_per_second / 1e9
        self._burst_bytes = burst_bytes
        self._level_bytes = float(burst_bytes)
        self._filled_ns: int | None = None

    def take(self, size_bytes: int, now_ns: int) -> float:
        """Pay for a piece at `now_ns` (a clock that never goes back); gives the seconds to wait before the next."""
        if self._filled_ns is not None:
            gained = (now_ns - self._filled_ns) * self._bytes_per_ns
            self._level_bytes = min(float(self._burst_bytes), self._level_bytes + gained)
        self._filled_ns = now_ns
        self._level_bytes -= size_bytes
        return max(0.0, -self._level_bytes / (self._bytes_per_ns * 1e9))
