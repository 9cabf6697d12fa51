"""Ask a classifier about labelled pictures, through the same door that users take, and keep what it says."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from models.classifier import Answer, Classifier
from models.errors import DataError, PictureError
from models.evaluate import Figures, Indices, figures
from models.labelled import Labelled
from models.picture import decode_picture
from models.prepare import Pixels

_MS_PER_NS = 1e-6

Step = Callable[[], object]


@dataclass(frozen=True, slots=True)
class BrokenPicture:
    """A file that could not be classified, why, and the cure."""

    path: Path
    code: str
    message: str
    hint: str


@dataclass(frozen=True, slots=True)
class Timing:
    """Milliseconds per picture in one thread, median and 95th percentile; pictures a second, decoding included."""

    decode_ms: tuple[float, float]
    prepare_ms: tuple[float, float]
    inference_ms: tuple[float, float]
    pictures_per_s: float


@dataclass(frozen=True, slots=True)
class Examined:
    """What a classifier answered: `scores` (pictures, labels), `truths` (pictures,), for `pictures` in this order."""

    pictures: tuple[Labelled, ...]
    scores: npt.NDArray[np.float32]
    truths: Indices
    broken: tuple[BrokenPicture, ...]
    timing: Timing

    def figures(self, labels: Sequence[str], threshold: float, coarse: Mapping[str, str] | None = None) -> Figures:
        """The figures of these answers; see `models.evaluate.figures`."""
        return figures(self.scores, self.truths, labels, threshold, coarse)


def examine(classifier: Classifier, pictures: Iterable[Labelled], step: Step = lambda: None) -> Examined:
    """Classify `pictures` one after another in this thread; `step` is called after each.

    A picture that cannot be read or decoded is named in `broken` and counts for nothing else. Raises DataError
    data-unreadable when that holds for all of them.
    """
    worker, labels = classifier.worker(), classifier.labels
    number_of = {label: number for number, label in enumerate(labels)}
    taken, rows, times, broken = [], [], [], []
    began_ns = time.perf_counter_ns()
    for picture in pictures:
        try:
            frame, decode_ms = read_picture(picture.path)
            answer = worker.classify(frame, k=len(labels))
        except PictureError as wrong:
            broken.append(BrokenPicture(picture.path, wrong.code, str(wrong), wrong.hint))
        else:
            taken.append(picture)
            rows.append(scores_of(answer, number_of))
            times.append((decode_ms, answer.prepare_ms, answer.inference_ms))
        step()
    wall_s = (time.perf_counter_ns() - began_ns) * 1e-9
    if not rows:
        raise _all_broken(broken)
    truths = np.array([number_of[picture.label] for picture in taken], np.int64)
    return Examined(tuple(taken), np.stack(rows), truths, tuple(broken), _timing(times, len(rows) / wall_s))


def read_picture(path: Path) -> tuple[Pixels, float]:
    """The picture in the file `path`, BGR, and how long that took, ms.

    Raises PictureError: what `decode_picture` raises, and picture-unreadable for a file that cannot be read.
    """
    began_ns = time.perf_counter_ns()
    try:
        content = path.read_bytes()
    except OSError as error:
        hint = "correct the path, or let this user read the file"
        raise PictureError("picture-unreadable", str(error.strerror), hint) from None
    frame = decode_picture(content)
    return frame, (time.perf_counter_ns() - began_ns) * _MS_PER_NS


def scores_of(answer: Answer, number_of: Mapping[str, int]) -> npt.NDArray[np.float32]:
    """The scores of an answer that ranks all labels, in the labels' own order."""
    row = np.empty(len(number_of), np.float32)
    row[[number_of[label] for label, _ in answer.top]] = [score for _, score in answer.top]
    return row


def _timing(times: list[tuple[float, float, float]], pictures_per_s: float) -> Timing:
    columns = np.array(times).T
    middle, high = np.percentile(columns, 50, axis=1), np.percentile(columns, 95, axis=1)
    decode, prepare, inference = ((float(middle[i]), float(high[i])) for i in range(3))
    return Timing(decode, prepare, inference, pictures_per_s)


def _all_broken(broken: Sequence[BrokenPicture]) -> DataError:
    if not broken:
        return DataError("data-empty", "there are no pictures", "give some")
    first = broken[0]
    text = f"none of {len(broken)} pictures can be read; the first, {first.path}: {first.message}"
    return DataError("data-unreadable", text, first.hint)
