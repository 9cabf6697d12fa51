"""How good a classifier is, in numbers: accuracy, calibration, confusion. Pure: scores and truths come in as arrays."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

BINS: Final = 15
"""Bins of the calibration error, as in Guo et al., On Calibration of Modern Neural Networks (ICML 2017)."""

ScoreTable = npt.NDArray[np.floating]
Indices = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class LabelFigures:
    """One label: how many pictures show it, which share of them was recognised, and how often it was answered."""

    label: str
    pictures: int
    accuracy: float | None
    answered: int


@dataclass(frozen=True, slots=True)
class Confused:
    """How many pictures of `truth` were taken for `answer`."""

    truth: str
    answer: str
    pictures: int


@dataclass(frozen=True, slots=True)
class Bin:
    """Pictures whose best score lies between two bounds: how many, their mean score, the share that is right."""

    above: float
    up_to: float
    pictures: int
    score: float | None
    accuracy: float | None


@dataclass(frozen=True, slots=True)
class Figures:
    """What labelled pictures say of a classifier. Shares are 0..1; None where there is nothing to divide by.

    `accuracy` is the share of pictures whose best label is the true one, `accuracy_low` and `accuracy_high` the bounds
    of its 95 % interval (Wilson 1927), `top5` the share whose true label is among the best five, `mean_label_accuracy`
    the mean over labels, each counted once. `coarse_accuracy` is the share whose best label has the true coarse class.
    `accepted` is the share whose best score reaches `threshold`, `accepted_accuracy` the share of those that is right.
    `calibration_error` is the mean distance between score and accuracy over 15 bins of equal width, weighted by
    pictures (ECE, Naeini et al. 2015); `brier` the mean over pictures of the squared distance between all scores and
    the truth, 0 best, 2 worst (Brier 1950).
    """

    pictures: int
    accuracy: float
    accuracy_low: float
    accuracy_high: float
    top5: float
    mean_label_accuracy: float
    coarse_accuracy: float | None
    threshold: float
    accepted: float
    accepted_accuracy: float | None
    calibration_error: float
    brier: float
    bins: tuple[Bin, ...]
    by_label: tuple[LabelFigures, ...]
    confusion: Indices
    """(labels, labels): rows are truths, columns answers, both in the order of the labels."""


def figures(
    scores: ScoreTable,
    truths: Indices,
    labels: Sequence[str],
    threshold: float,
    coarse: Mapping[str, str] | None = None,
) -> Figures:
    """The figures for `scores` (pictures, labels), 0..1 with rows that sum to 1, and `truths` (pictures,), indices.

    `coarse` gives each label its coarse class; a label that it leaves out is a class of its own. Of equal scores the
    first counts as best, as in the classifier. Raises ValueError for arrays that do not fit, or no pictures.
    """
    scores, truths = np.asarray(scores, np.float64), np.asarray(truths, np.int64)
    if scores.ndim != 2 or scores.shape != (len(truths), len(labels)) or not len(truths):
        raise ValueError(f"scores are {scores.shape}, not ({len(truths)} pictures, {len(labels)} labels)")
    if truths.min() < 0 or truths.max() >= len(labels):
        raise ValueError("a truth is no index of a label")
    answers = scores.argmax(axis=1)
    best = scores.max(axis=1)
    right = answers == truths
    accepted = best >= threshold
    confusion = confusion_of(truths, answers, len(labels))
    by_label = _by_label(confusion, labels)
    low, high = interval(int(right.sum()), len(right))
    return Figures(
        pictures=len(truths),
        accuracy=float(right.mean()),
        accuracy_low=low,
        accuracy_high=high,
        top5=float(_among_best(scores, truths, 5).mean()),
        mean_label_accuracy=float(np.mean([item.accuracy for item in by_label if item.accuracy is not None])),
        coarse_accuracy=None if coarse is None else _coarse_accuracy(answers, truths, labels, coarse),
        threshold=threshold,
        accepted=float(accepted.mean()),
        accepted_accuracy=float(right[accepted].mean()) if accepted.any() else None,
        calibration_error=calibration_error(best, right),
        brier=brier(scores, truths),
        bins=bins_of(best, right),
        by_label=by_label,
        confusion=confusion,
    )


def interval(right: int, pictures: int) -> tuple[float, float]:
    """Bounds of the 95 % interval of a share (Wilson's score interval, 1927)."""
    z = 1.959964
    share, spread = right / pictures, z * z / pictures
    middle = (share + spread / 2) / (1 + spread)
    half = float(z / (1 + spread) * np.sqrt(share * (1 - share) / pictures + spread / (4 * pictures)))
    return max(0.0, middle - half), min(1.0, middle + half)


def calibration_error(best: ScoreTable, right: npt.NDArray[np.bool_]) -> float:
    """Expected calibration error over 15 bins: sum of share of pictures x |accuracy - mean score| per bin."""
    filled = [item for item in bins_of(best, right) if item.accuracy is not None and item.score is not None]
    gaps = [item.pictures * abs((item.accuracy or 0.0) - (item.score or 0.0)) for item in filled]
    return float(sum(gaps)) / len(best)


def bins_of(best: ScoreTable, right: npt.NDArray[np.bool_]) -> tuple[Bin, ...]:
    """Sort pictures into 15 bins (above, up_to] by their best score; a score of 0 is in the first."""
    edges = np.linspace(0.0, 1.0, BINS + 1)
    places = np.clip(np.ceil(np.asarray(best, np.float64) * BINS).astype(int) - 1, 0, BINS - 1)
    made = []
    for place in range(BINS):
        inside = places == place
        count = int(inside.sum())
        score = float(best[inside].mean()) if count else None
        accuracy = float(right[inside].mean()) if count else None
        made.append(Bin(float(edges[place]), float(edges[place + 1]), count, score, accuracy))
    return tuple(made)


def brier(scores: ScoreTable, truths: Indices) -> float:
    """Mean over pictures of sum over labels of (score - truth)^2, truth being 1 for the true label and 0 else."""
    rows = np.arange(len(truths))
    of_truth = scores[rows, truths]
    return float(((scores**2).sum(axis=1) - 2 * of_truth + 1).mean())


def confusion_of(truths: Indices, answers: Indices, labels: int) -> Indices:
    """(labels, labels) counts: rows are truths, columns answers."""
    counts = np.bincount(truths * labels + answers, minlength=labels * labels)
    return np.asarray(counts.reshape(labels, labels), np.int64)


def most_confused(confusion: Indices, labels: Sequence[str], most: int = 10) -> tuple[Confused, ...]:
    """The pairs of different labels that were confused most often, the most frequent first."""
    wrong = confusion.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:most]
    pairs = [divmod(int(place), len(labels)) for place in order]
    return tuple(Confused(labels[t], labels[a], int(wrong[t, a])) for t, a in pairs if wrong[t, a])


def _among_best(scores: ScoreTable, truths: Indices, count: int) -> npt.NDArray[np.bool_]:
    """Whether fewer than `count` labels are ranked before the true one; of equal scores the first is ranked first."""
    of_truth = scores[np.arange(len(truths)), truths][:, None]
    earlier = np.arange(scores.shape[1])[None] < truths[:, None]
    before = (scores > of_truth) | ((scores == of_truth) & earlier)
    return np.asarray(before.sum(axis=1) < count)


def _by_label(confusion: Indices, labels: Sequence[str]) -> tuple[LabelFigures, ...]:
    shown, answered = confusion.sum(axis=1), confusion.sum(axis=0)
    return tuple(
        LabelFigures(
            label,
            int(shown[i]),
            float(confusion[i, i] / shown[i]) if shown[i] else None,
            int(answered[i]),
        )
        for i, label in enumerate(labels)
    )


def _coarse_accuracy(answers: Indices, truths: Indices, labels: Sequence[str], coarse: Mapping[str, str]) -> float:
    names = [("coarse", coarse[label]) if label in coarse else ("own", label) for label in labels]
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    of_label = np.array([numbers[name] for name in names])
    return float((of_label[answers] == of_label[truths]).mean())
