"""What came of a day: agreement of the batch with the devices, the day before, and the frames most worth a label.

Made of the files of answers, one after the other; what one file says is kept in memory, so that the next look is quick.
"""

from collections import Counter, defaultdict
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import lru_cache
from typing import Final

from cloud.batch import scores
from cloud.batch.rows import DayRow, Nights, ScoredRow
from cloud.batch.tally import Count, Frame, Tally
from cloud.errors import Rejected
from cloud.objects import Objects

TALLIES_KEPT: Final = 512
"""Files of answers whose counts stay in memory."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """Counted frames. `agreement` is the share of the compared ones that agreed, 0 to 1; None when none was."""

    frames: int
    answered: int
    unreadable: int
    compared: int
    agreed: int
    agreement: float | None

    @classmethod
    def of(cls, count: Count) -> "Agreement":
        """Write down what was counted."""
        share = count.agreed / count.compared if count.compared else None
        return cls(count.frames, count.answered, count.unreadable, count.compared, count.agreed, share)


@dataclass(frozen=True, slots=True)
class OfCamera:
    """One camera; `before` is its agreement on the day before."""

    store: str
    device: str
    camera: str
    counts: Agreement
    before: float | None


@dataclass(frozen=True, slots=True)
class OfClass:
    """Frames of which the device said `label`; where the batch did not agree, it said `instead` most often."""

    label: str
    compared: int
    agreed: int
    agreement: float
    instead: str | None
    instead_frames: int


@dataclass(frozen=True, slots=True)
class OfModel:
    """Frames that a device's model had answered."""

    model: str
    compared: int
    agreed: int
    agreement: float


@dataclass(frozen=True, slots=True)
class Truth:
    """Frames whose content is known, and who named it rightly."""

    frames: int
    device_right: int
    batch_right: int


@dataclass(frozen=True, slots=True)
class Before:
    """The day before, scored by the same model."""

    day: date
    counts: Agreement


@dataclass(frozen=True, slots=True)
class Report:
    """One day as one model sees it. Without `model`, the day was not scored yet; `models` are all that scored it."""

    day: date
    shards: int
    expected: int
    bad: int
    devices: int
    frames: int
    model: str | None
    model_digest: str | None
    shards_scored: int
    finished_at: datetime | None
    models: tuple[ScoredRow, ...]
    counts: Agreement
    before: Before | None
    truth: Truth | None
    cameras: tuple[OfCamera, ...]
    classes: tuple[OfClass, ...]
    local_models: tuple[OfModel, ...]
    worth: tuple[Frame, ...]


@dataclass(frozen=True, slots=True)
class _Seen:
    """The counts of one day by one model."""

    tally: Tally
    model: str | None
    shards: int
    finished_at: datetime | None


class Reports:
    """Makes reports. Serves any number of threads."""

    def __init__(self, nights: Nights, objects: Objects) -> None:
        self._nights = nights
        self._objects = objects
        self._tally = lru_cache(maxsize=TALLIES_KEPT)(self._count)

    def report(self, day: date, model: str | None = None) -> Report:
        """Report a day, by the model whose digest begins with `model` or the one that scored it last.

        Raises `Rejected` (``no-such-day``, ``no-such-model``) and what `Objects` raises.
        """
        row = self._nights.day(day)
        if row is None:
            raise no_such_day(day)
        models = tuple(self._nights.scored([day]))
        chosen = _choose(models, day, model)
        seen = self._see(day, chosen.model_digest) if chosen else _Seen(Tally(), None, 0, None)
        before = self._see(day - timedelta(days=1), chosen.model_digest) if chosen else None
        return _report(row, models, chosen, seen, before if before is not None and before.shards else None)

    def _see(self, day: date, model_digest: str) -> _Seen:
        whole, model, finished = Tally(), None, None
        outputs = self._nights.outputs(day, model_digest)
        for one in outputs:
            model, tally = self._tally(one.output, one.sha256, one.finished_at)
            whole.add(tally)
            finished = max(finished or one.finished_at, one.finished_at)
        return _Seen(whole, model, len(outputs), finished)

    def _count(self, output: str, shard_sha256: str, _finished_at: datetime) -> tuple[str, Tally]:
        """Count one file; scored anew, it is another one."""
        summary, rows = scores.read(b"".join(self._objects.get(output)))
        tally = Tally()
        for one in rows:
            tally.see(one, shard_sha256)
        return f"{summary.model.name} {summary.model.version}", tally


def no_such_day(day: date) -> Rejected:
    """Nothing has come in for this day."""
    return Rejected("no-such-day", f"no shards have come in for {day}", "see which days there are: batch list")


def _choose(models: tuple[ScoredRow, ...], day: date, model: str | None) -> ScoredRow | None:
    if model is None:
        return models[0] if models else None
    for one in models:
        if one.model_digest.startswith(model):
            return one
    known = ", ".join(one.model_digest[:8] for one in models) or "none"
    raise Rejected("no-such-model", f"no model {model[:80]!r} has scored {day}", f"models that have: {known}")


def _report(
    row: DayRow, models: tuple[ScoredRow, ...], chosen: ScoredRow | None, seen: _Seen, before: _Seen | None
) -> Report:
    tally = seen.tally
    return Report(
        day=row.day,
        shards=row.shards,
        expected=row.expected,
        bad=row.bad,
        devices=row.devices,
        frames=row.frames,
        model=seen.model,
        model_digest=chosen.model_digest if chosen else None,
        shards_scored=seen.shards,
        finished_at=seen.finished_at,
        models=models,
        counts=Agreement.of(tally.total),
        before=Before(row.day - timedelta(days=1), Agreement.of(before.tally.total)) if before else None,
        truth=Truth(tally.known, tally.device_right, tally.batch_right) if tally.known else None,
        cameras=_cameras(tally, before.tally if before else None),
        classes=_classes(tally.pairs),
        local_models=tuple(
            OfModel(model, count.compared, count.agreed, count.agreed / count.compared)
            for model, count in sorted(tally.local_models.items())
        ),
        worth=tuple(tally.frames()),
    )


def _cameras(tally: Tally, before: Tally | None) -> tuple[OfCamera, ...]:
    """Every camera, the least agreement first."""
    made = []
    for (store, device, camera), count in tally.cameras.items():
        then = before.cameras.get((store, device, camera)) if before else None
        was = Agreement.of(then).agreement if then else None
        made.append(OfCamera(store, device, camera, Agreement.of(count), was))
    return tuple(sorted(made, key=lambda one: (_least_first(one.counts.agreement), one.device, one.camera)))


def _classes(pairs: Counter[tuple[str, str]]) -> tuple[OfClass, ...]:
    """Every label that devices gave, the least agreement first."""
    said: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for (local, label), n in pairs.items():
        said[local][label] += n
    made = []
    for local, labels in said.items():
        compared, agreed = labels.total(), labels[local]
        others = sorted(
            ((n, label) for label, n in labels.items() if label != local and n), key=lambda o: (-o[0], o[1])
        )
        n, instead = others[0] if others else (0, None)
        made.append(OfClass(local, compared, agreed, agreed / compared, instead, n))
    return tuple(sorted(made, key=lambda one: (one.agreement, -one.compared, one.label)))


def _least_first(agreement: float | None) -> float:
    return 2.0 if agreement is None else agreement  # what cannot be compared comes last
