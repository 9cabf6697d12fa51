"""Whether a new model does as well on this device as the device itself did in its 24 hours before. Pure."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from agent.core.gates import Terms

STEP = 1.1
"""Latencies are counted in steps of 10 %: what is read from them is that exact."""

MOST_LABELS = 200

UNKNOWN_MORE = 0.3
"""By how much the part of unknown answers may grow."""
ERRORS_MORE = 0.02
LEAST_ERRORS = 3
RATE_PART = 0.8
"""What part of the former rate (frames answered of frames captured) must be kept."""
SLOWER = 1.5
SLOWER_MS = 20.0
"""How much slower 95 of 100 answers may be: the larger of a factor and a few milliseconds."""
STRANGE = 0.5
"""What part of the answers may carry labels that were hardly seen before."""
RARE = 0.005
"""A label with less than this part of the answers was hardly seen."""
BEFORE_FRAMES = 200
"""Answers that the time before must have, for its unknown part to count."""
BEFORE_MIX_S = 3600.0
BEFORE_MIX_FRAMES = 1000
"""What the time before must have, for its mix of labels to count."""


@dataclass(slots=True)
class Tally:
    """What a device did in some time. `labels` counts known answers only; `took` answers by step of their latency."""

    seconds: float = 0.0
    captured: int = 0
    answered: int = 0
    failed: int = 0
    unknown: int = 0
    labels: Counter[str] = field(default_factory=Counter)
    took: Counter[int] = field(default_factory=Counter)

    def add(self, label: str | None, took_ms: float) -> None:
        """Count an answer; `label` is None for one below the threshold. `took_ms` is from capture to answer."""
        self.answered += 1
        if label is None:
            self.unknown += 1
        else:
            self.labels[label] += 1
        self.took[round(math.log(max(took_ms, 0.01), STEP))] += 1

    def merge(self, other: "Tally") -> None:
        """Take another time into this one."""
        self.seconds += other.seconds
        self.captured += other.captured
        self.answered += other.answered
        self.failed += other.failed
        self.unknown += other.unknown
        self.labels.update(other.labels)
        self.took.update(other.took)

    @property
    def p95_ms(self) -> float:
        """What 95 of 100 answers did not exceed, in steps of 10 %; 0 without any."""
        left = math.ceil(0.95 * self.answered)
        for step in sorted(self.took):
            left -= self.took[step]
            if left <= 0:
                return float(STEP**step)
        return 0.0

    @property
    def unknown_part(self) -> float:
        """The part of the answers that were unknown."""
        return self.unknown / self.answered if self.answered else 0.0

    @property
    def failed_part(self) -> float:
        """The part of the frames worked on that could not be classified."""
        tried = self.answered + self.failed
        return self.failed / tried if tried else 0.0

    @property
    def answered_part(self) -> float:
        """The part of the captured frames that were answered here."""
        return min(1.0, self.answered / self.captured) if self.captured else 0.0

    def dump(self) -> dict[str, Any]:
        """Write it as JSON values."""
        return {
            "seconds": round(self.seconds, 3), "captured": self.captured, "answered": self.answered,
            "failed": self.failed, "unknown": self.unknown, "labels": dict(self.labels.most_common(MOST_LABELS)),
            "took": {str(step): n for step, n in self.took.items()},
        }  # fmt: skip

    @classmethod
    def load(cls, told: Mapping[str, Any]) -> "Tally":
        """Read it back. Raises KeyError, TypeError and ValueError for what is none."""
        took = Counter({int(step): int(n) for step, n in told["took"].items()})
        labels = Counter({str(label): int(n) for label, n in told["labels"].items()})
        counts = {name: int(told[name]) for name in ("captured", "answered", "failed", "unknown")}
        return cls(seconds=float(told["seconds"]), labels=labels, took=took, **counts)


def total(tallies: Iterable[Tally]) -> Tally:
    """Add times up."""
    whole = Tally()
    for tally in tallies:
        whole.merge(tally)
    return whole


@dataclass(frozen=True, slots=True)
class Complaint:
    """One thing that became worse, with the numbers that say so."""

    text: str
    numbers: Mapping[str, float]


def complaints(before: Tally, now: Tally, terms: Terms) -> Sequence[Complaint]:
    """List what is worse now than before, the worst kind first; none while too few frames came to say."""
    if now.answered + now.failed < terms.trial_frames and now.failed < LEAST_ERRORS * 3:
        return ()
    found = (_errors(before, now), _rate(before, now, terms), _latency(before, now, terms), _unknown(before, now),
             _mix(before, now))  # fmt: skip
    return [complaint for complaint in found if complaint is not None]


def _errors(before: Tally, now: Tally) -> Complaint | None:
    allowed = before.failed_part + ERRORS_MORE
    if now.failed < LEAST_ERRORS or now.failed_part <= allowed:
        return None
    text = f"{now.failed} of {now.failed + now.answered} frames could not be classified"
    return Complaint(text, {"failed_part": now.failed_part, "limit_failed_part": allowed})


def _rate(before: Tally, now: Tally, terms: Terms) -> Complaint | None:
    """Of the captured frames as many must be answered as before: the cameras' own rate is not the model's doing."""
    if now.captured < terms.trial_frames or not before.captured:
        return None
    least = RATE_PART * before.answered_part
    if now.answered_part >= least:
        return None
    text = f"only {now.answered_part:.0%} of the captured frames are answered, it was {before.answered_part:.0%}"
    return Complaint(text, {"answered_part": now.answered_part, "limit_answered_part": least})


def _latency(before: Tally, now: Tally, terms: Terms) -> Complaint | None:
    known = before.answered >= BEFORE_FRAMES / 2
    limit_ms = max(SLOWER * before.p95_ms, before.p95_ms + SLOWER_MS) if known else terms.deadline_ms
    if now.p95_ms <= limit_ms:
        return None
    text = f"95 of 100 answers take up to {now.p95_ms:.0f} ms, allowed are {limit_ms:.0f} ms"
    return Complaint(text, {"p95_ms": now.p95_ms, "limit_p95_ms": limit_ms})


def _unknown(before: Tally, now: Tally) -> Complaint | None:
    if before.answered < BEFORE_FRAMES:
        return None
    limit = before.unknown_part + UNKNOWN_MORE
    if now.unknown_part <= limit:
        return None
    text = f"{now.unknown_part:.0%} of the answers are unknown, it was {before.unknown_part:.0%}"
    return Complaint(text, {"unknown_part": now.unknown_part, "limit_unknown_part": limit})


def _mix(before: Tally, now: Tally) -> Complaint | None:
    """A shelf shows one product for hours, so few labels prove nothing; labels never seen here before do."""
    known = now.labels.total()
    if before.answered < BEFORE_MIX_FRAMES or before.seconds < BEFORE_MIX_S or not known:
        return None
    rare = RARE * before.labels.total()
    strange = Counter({label: n for label, n in now.labels.items() if before.labels[label] < rare})
    part = strange.total() / known
    if part <= STRANGE:
        return None
    text = f"{part:.0%} of the answers carry labels that were hardly seen before: {_first(strange)}"
    return Complaint(text, {"strange_part": part, "limit_strange_part": STRANGE})


def _first(labels: Counter[str]) -> str:
    return ", ".join(label for label, _ in labels.most_common(3))


def summary(before: Tally, now: Tally) -> dict[str, float]:
    """Give the figures of both times, for the report of a trial that ended well or badly."""
    figures = {
        "trial_s": round(now.seconds, 1), "frames": float(now.answered), "failed": float(now.failed),
        "answered_part": now.answered_part, "before_answered_part": before.answered_part,
        "p95_ms": now.p95_ms, "before_p95_ms": before.p95_ms,
        "unknown_part": now.unknown_part, "before_unknown_part": before.unknown_part,
        "before_frames": float(before.answered),
    }  # fmt: skip
    return {name: round(value, 4) for name, value in figures.items()}
