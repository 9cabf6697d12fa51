"""Counts what one or many files of answers say, and keeps the frames most worth a person's label. Pure."""

import heapq
import itertools
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Literal

from cloud.batch.scores import Scored
from models.bundle import UNKNOWN

MOST_FRAMES: Final = 12
"""Frames kept for each reason."""
WIDE: Final = 0.5
"""A frame whose two best scores are this far apart is no close call."""

Why = Literal["disagreement", "close", "unreadable"]


@dataclass(frozen=True, slots=True)
class Frame:
    """A frame worth a label, and where its picture lies: the row `row`, from 0, of the shard with this digest.

    `margin` is the distance of the two best scores, those of `best_label` and `second_label`; `label` is "unknown"
    where the best was not good enough. `local_*` is what the device had said.
    """

    why: Why
    shard_sha256: str
    row: int
    device: str
    run: str
    seq: int
    store: str
    camera: str
    captured_at: datetime
    local_label: str | None
    local_score: float | None
    label: str | None
    score: float | None
    best_label: str | None
    second_label: str | None
    margin: float | None
    truth: str | None
    error: str | None


@dataclass(slots=True)
class Count:
    """Frames; how many of them were answered, could not be read, could be compared with the device's answer, agreed."""

    frames: int = 0
    answered: int = 0
    unreadable: int = 0
    compared: int = 0
    agreed: int = 0

    def see(self, one: Scored) -> None:
        """Count one frame."""
        self.frames += 1
        self.answered += one.label is not None
        self.unreadable += one.error is not None
        self.compared += one.agrees is not None
        self.agreed += one.agrees is True

    def add(self, other: "Count") -> None:
        """Count what another has counted."""
        for name in Count.__dataclass_fields__:
            setattr(self, name, getattr(self, name) + getattr(other, name))


class Best:
    """The `MOST_FRAMES` frames with the largest weights, of any number."""

    def __init__(self, weight: Callable[[Frame], float]) -> None:
        self._weight = weight
        self._heap: list[tuple[float, int, Frame]] = []
        self._order = itertools.count(0, -1)  # of two with one weight, the first stays

    def see(self, frame: Frame) -> None:
        """Keep it when it is one of the best."""
        entry = (self._weight(frame), next(self._order), frame)
        if len(self._heap) < MOST_FRAMES:
            heapq.heappush(self._heap, entry)
        else:
            heapq.heappushpop(self._heap, entry)

    def frames(self) -> tuple[Frame, ...]:
        """The best, the best first."""
        return tuple(frame for _, _, frame in sorted(self._heap, reverse=True))


@dataclass(slots=True)
class Tally:
    """What was counted. `pairs` counts (the device's label, the batch's) of every frame that could be compared."""

    total: Count = field(default_factory=Count)
    cameras: defaultdict[tuple[str, str, str], Count] = field(default_factory=lambda: defaultdict(Count))
    pairs: Counter[tuple[str, str]] = field(default_factory=Counter)
    local_models: defaultdict[str, Count] = field(default_factory=lambda: defaultdict(Count))
    known: int = 0
    device_right: int = 0
    batch_right: int = 0
    disagreements: Best = field(default_factory=lambda: Best(_confidence))
    close: Best = field(default_factory=lambda: Best(lambda frame: -(frame.margin or 0.0)))
    unreadable: Best = field(default_factory=lambda: Best(lambda _: 0.0))

    def see(self, one: Scored, shard_sha256: str) -> None:
        """Count one frame."""
        self.total.see(one)
        self.cameras[one.store, one.device, one.camera].see(one)
        if one.agrees is not None:
            self.pairs[one.local_label or "", one.label or ""] += 1
            self.local_models[one.local_model or "not named"].see(one)
            if one.truth is not None:
                self.known += 1
                self.device_right += one.local_label == one.truth
                self.batch_right += one.label == one.truth
        self._pick(_frame(one, shard_sha256))

    def add(self, other: "Tally") -> None:
        """Count what another has counted."""
        self.total.add(other.total)
        for key, count in other.cameras.items():
            self.cameras[key].add(count)
        self.pairs.update(other.pairs)
        for model, count in other.local_models.items():
            self.local_models[model].add(count)
        self.known += other.known
        self.device_right += other.device_right
        self.batch_right += other.batch_right
        for frame in other.frames():
            self._pick(frame)

    def frames(self) -> Iterable[Frame]:
        """The frames most worth a label: first where both were sure and do not agree."""
        return (*self.disagreements.frames(), *self.close.frames(), *self.unreadable.frames())

    def _pick(self, frame: Frame) -> None:
        if frame.why == "close" and (frame.margin is None or frame.margin >= WIDE):
            return
        kinds = {"disagreement": self.disagreements, "close": self.close, "unreadable": self.unreadable}
        kinds[frame.why].see(frame)


def _confidence(frame: Frame) -> float:
    """How sure the less sure of the two was; "unknown" is no claim."""
    if UNKNOWN in (frame.label, frame.local_label):
        return 0.0
    return min(frame.score or 0.0, frame.local_score or 0.0)


def _frame(one: Scored, shard_sha256: str) -> Frame:
    best = one.labels[0] if one.labels else None
    second = one.labels[1] if len(one.labels) > 1 else None
    return Frame(
        why="unreadable" if one.error is not None else "disagreement" if one.agrees is False else "close",
        shard_sha256=shard_sha256,
        row=one.row,
        device=one.device,
        run=one.run,
        seq=one.seq,
        store=one.store,
        camera=one.camera,
        captured_at=one.captured_at,
        local_label=one.local_label,
        local_score=one.local_score,
        label=one.label,
        score=one.score,
        best_label=best[0] if best else None,
        second_label=second[0] if second else None,
        margin=best[1] - (second[1] if second else 0.0) if best else None,
        truth=one.truth,
        error=one.error,
    )
