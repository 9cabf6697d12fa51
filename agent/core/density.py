"""How many cameras a device holds: the rule by which a number of streams passes, and the search for the largest.

The rule is the one of Intel's retail tools (intel-retail/performance-tools, stream density): cameras at 15 frames a
second, a target of 14.95, 95 of 100 samples must reach it, and a number passes or fails by two windows in a row.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

RATE_FPS = 15.0
TARGET_FPS = 14.95
PASS_RATIO = 0.95
MOST_STREAMS = 256
CLEARLY = 0.5
"""Where so few samples reach the target, a second window is not needed to say that it fails."""


@dataclass(frozen=True, slots=True)
class Window:
    """What each stream got in a window: `rates_fps` has a row for each stream, with a sample for each second of it."""

    rates_fps: Sequence[Sequence[float]]

    @property
    def reached(self) -> float:
        """The part of all samples that reach the target."""
        samples = [rate for stream in self.rates_fps for rate in stream]
        return sum(rate >= TARGET_FPS for rate in samples) / max(1, len(samples))

    @property
    def slowest_fps(self) -> float:
        """The mean rate of the stream that got least."""
        return min((sum(stream) / max(1, len(stream)) for stream in self.rates_fps), default=0.0)

    @property
    def passes(self) -> bool:
        """Whether enough samples reach the target, and no stream pays for the others."""
        return self.reached >= PASS_RATIO and self.slowest_fps >= PASS_RATIO * TARGET_FPS

    @property
    def is_clear(self) -> bool:
        """Whether one window is enough to say so."""
        return self.reached < CLEARLY


@dataclass(slots=True)
class Search:
    """Finds the largest number of streams that passes. `first` is the number to begin with."""

    first: int
    seen: dict[int, list[bool]] = field(default_factory=dict)

    def add(self, streams: int, *, passed: bool, clear: bool = False) -> None:
        """Count a window; one that is `clear` stands for two in a row."""
        self.seen.setdefault(streams, []).extend([passed] * (1 + clear))

    def next(self) -> int | None:
        """Give the number of streams for the next window; None when the answer is sure."""
        low, high = self.density, self._lowest_failing()
        if high is None:
            return self._up(low)
        if not _is_sure(self.seen[high]):
            return high
        if low == 0 and high > 1:
            return max(1, high - max(1, high // 4))
        if high - low > 1:
            return (low + high) // 2
        return low if low and not _is_sure(self.seen[low]) else None

    def _up(self, low: int) -> int | None:
        if low == 0:
            return max(1, min(self.first, MOST_STREAMS))
        if low >= MOST_STREAMS:
            return None
        return min(MOST_STREAMS, low + max(1, low // 4))

    @property
    def density(self) -> int:
        """The largest number that passes, as far as is known; 0 when none does."""
        high = self._lowest_failing()
        held = [streams for streams, windows in self.seen.items() if _passes(windows)]
        return max((streams for streams in held if high is None or streams < high), default=0)

    def _lowest_failing(self) -> int | None:
        return min((streams for streams, windows in self.seen.items() if not _passes(windows)), default=None)


def _passes(windows: Sequence[bool]) -> bool:
    """What most windows say; the last one where they are divided."""
    ayes = sum(windows)
    return windows[-1] if 2 * ayes == len(windows) else 2 * ayes > len(windows)


def _is_sure(windows: Sequence[bool]) -> bool:
    """Two in a row are sure; of windows that contradict each other the third decides."""
    return len(windows) >= 3 or (len(windows) == 2 and windows[0] == windows[1])


def first_guess(cores: int, cpu_ms_per_frame: float) -> int:
    """How many streams the processor time should suffice for."""
    frames_per_s = 1000.0 * cores / max(0.01, cpu_ms_per_frame)
    return max(1, min(MOST_STREAMS, int(frames_per_s / RATE_FPS)))


@dataclass(frozen=True, slots=True)
class Ages:
    """How old frames were when their answer stood, in milliseconds, at a load; `answered` is the part of all frames."""

    load: float
    streams: int
    p50_ms: float
    p95_ms: float
    answered: float


@dataclass(frozen=True, slots=True)
class Density:
    """The whole finding. `sure` is False where the time was over before it was confirmed."""

    streams: int
    sure: bool
    windows: Mapping[int, Sequence[Window]]
    ages: Sequence[Ages]
    cpu_ms_per_frame: float
    others: float
    """The part of the processor that other programs took meanwhile: with those gone it may hold more."""
