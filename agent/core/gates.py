"""What a new model is measured against before it answers anything: limits, and the test of its disagreement."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

RUNNING_FACTOR = 1.5
"""A model may be slower than half of the deadline when it is no slower than this times the running one."""

PROCESS_BYTES = 256 << 20
"""What a process takes that holds no model yet, runtime included."""


@dataclass(frozen=True, slots=True)
class Terms:
    """The limits of gates, shadow and trial, as configured. `deadline_ms` is the shortest of the cameras."""

    deadline_ms: float = 250.0
    memory_bytes: int = 1 << 30
    compile_s: float = 120.0
    golden_s: float = 120.0
    answer_s: float = 10.0
    disagreement: float = 0.1
    shadow_frames: int = 100
    shadow_every_s: float = 1.0
    shadow_limit_s: float = 1800.0
    trial_s: float = 900.0
    trial_limit_s: float = 7200.0
    trial_frames: int = 50


def p95(values: Iterable[float]) -> float:
    """Give the value that 95 in 100 do not exceed (nearest rank); 0 for none."""
    ordered = sorted(values)
    return ordered[math.ceil(0.95 * len(ordered)) - 1] if ordered else 0.0


def latency_limit_ms(deadline_ms: float, running_p95_ms: float) -> float:
    """Give what the new model may take for 95 of 100 frames, measured side by side with the running one.

    Half of the deadline leaves room for reading, waiting and recording. A device that is slower than that already is
    not worse off with a model that is about as slow.
    """
    return max(0.5 * deadline_ms, RUNNING_FACTOR * running_p95_ms)


def memory_limit_bytes(allowed_bytes: int, declared_bytes: int) -> int:
    """Give what the process that tries the model may take: never more than allowed, and by what its bundle declares.

    Beside the model the process holds Python and the runtime, and a compilation takes more for a moment than the
    model that comes of it.
    """
    return min(allowed_bytes, PROCESS_BYTES + 2 * declared_bytes) if declared_bytes else allowed_bytes


Verdict = Literal["agrees", "differs", "open"]


@dataclass(slots=True)
class Disagreement:
    """A sequential probability ratio test of how often two models differ: it ends as soon as the frames suffice.

    A. Wald, "Sequential Tests of Statistical Hypotheses", Annals of Mathematical Statistics 16 (1945), section 5.3:
    the hypothesis p = limit / 2 against p = 2 limit, each wrongly taken in at most `error` of the cases. Frames of one
    scene resemble each other, so that at least `least` of them, picked apart in time, stand behind a verdict that the
    models agree, and a fifth of that behind one that they differ.
    """

    limit: float
    least: int
    error: float = 0.01
    frames: int = 0
    differ: int = 0
    seen: Counter[str] = field(default_factory=Counter)
    differing: Counter[str] = field(default_factory=Counter)

    def add(self, running: str, new: str) -> None:
        """Count one frame: what the running model named it, and the new one."""
        self.frames += 1
        self.seen[running] += 1
        if running != new:
            self.differ += 1
            self.differing[running] += 1

    @property
    def ratio(self) -> float:
        """The logarithm of the likelihood ratio: above 0 speaks for too much disagreement."""
        low, high = self.limit / 2, min(0.99, self.limit * 2)
        agree = self.frames - self.differ
        return self.differ * math.log(high / low) + agree * math.log((1 - high) / (1 - low))

    def verdict(self) -> Verdict:
        """Say what the frames so far have shown."""
        bound = math.log((1 - self.error) / self.error)
        if self.ratio >= bound and self.frames >= self.least / 5:
            return "differs"
        if self.ratio <= -bound and self.frames >= self.least:
            return "agrees"
        return "open"

    def final(self) -> Verdict:
        """Decide when the time is over: by the part that differs; open when too few frames came."""
        decided = self.verdict()
        if decided != "open" or self.frames < self.least:
            return decided
        return "differs" if self.differ > self.limit * self.frames else "agrees"

    def worst(self, most: int) -> Sequence[tuple[str, int, int]]:
        """List labels of the running model with (label, frames, of these differing), most differing first."""
        return [(label, self.seen[label], n) for label, n in self.differing.most_common(most)]
