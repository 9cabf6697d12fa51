"""Measures setups of a model side by side: their answers once, their speed in rounds in which each has its turn.

Whatever else the device does in a round weighs on all setups alike, so that their ratios hold where figures wander. A
model is opened anew for each turn, from its compiled form: only one is in memory at a time.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from agent.core.setups import FAIR_ROUNDS, Agreement, Figures, faults, is_hopeless
from agent.ports import Picture
from models import Bundle, BundleError, Classifier, Worker, decode_picture
from models.labelled import Labelled
from models.setup import Setup

import cv2  # isort: skip - after models, which sets the decoder's limits

ROUNDS = 12
OVERTIME = 1.5
"""On a device where opening takes long, rounds beyond the fair share are left out after this many times the time."""
WARM_FRAMES = 3
LEAST_FRAMES = 5
"""Of each worker in each turn, however slow the model is."""
LATENCY_PART = 0.25
"""Part of a turn in which one picture at a time is classified."""
MOST_TURN_S = 3.0
SIZE = (1280, 720)
PICTURES = 8

Scores = np.ndarray[tuple[int, ...], np.dtype[np.float32]]
Tell = Callable[[float, Setup], None]
"""Is told how far the measuring is, 0 to 1, and of the setup whose turn it is."""


class Bench:
    """Measures one bundle. `seconds` is the time for all turns together, opening the model not counted."""

    def __init__(
        self, bundle: Bundle, workers: int, seconds: float, cache: Path, labelled: Sequence[Labelled], tell: Tell
    ) -> None:
        self._bundle = bundle
        self._workers = workers
        self._seconds = seconds
        self._cache = cache
        self._labelled = labelled
        self._tell = tell
        self._golden = [decode_picture(bundle.read(item.path)) for item in bundle.manifest.golden.inputs]
        self._answers: dict[Setup, tuple[list[Scores], list[Scores]] | str] = {}

    def measure(self, setups: Sequence[Setup]) -> list[Figures]:
        """Measure the setups, the first of which is what the others' answers are compared with."""
        figures = [self._compare(setup, setups) for setup in setups]
        left_s, until_s = self._seconds, time.monotonic() + OVERTIME * self._seconds
        for n in range(ROUNDS):
            if n >= FAIR_ROUNDS and time.monotonic() > until_s:
                break
            alive = [i for i, each in enumerate(figures) if _has_turn(each, n, figures)]
            turn_s = min(MOST_TURN_S, left_s / max(1, (ROUNDS - n) * len(alive)))
            for k, i in enumerate(alive if n % 2 == 0 else alive[::-1]):
                self._tell((n + k / len(alive)) / ROUNDS, figures[i].setup)
                figures[i] = self._take_turn(figures[i], turn_s)
                left_s -= turn_s
        return figures

    # Answers.

    def _compare(self, setup: Setup, setups: Sequence[Setup]) -> Figures:
        """Have a setup answer the golden pictures, and the labelled ones."""
        self._tell(0.0, setup)
        own = self._answers_of(setup)
        if isinstance(own, str):
            return Figures(setup, trouble=own)
        reference = self._answers_of(_reference(setups))
        if isinstance(reference, str):
            return Figures(setup)
        figures = Figures(setup, golden=_agreement(own[0], reference[0]) if self._golden else None)
        if self._labelled:
            figures = replace(figures, pictures=self._count_right(own[1], reference[1]))
        return replace(figures, trouble=faults(figures))

    def _answers_of(self, setup: Setup) -> tuple[list[Scores], list[Scores]] | str:
        """The scores of the golden and the labelled pictures; or why there are none, in words."""
        setup = replace(setup, streams=1)  # how many pictures are computed at once changes no answer
        if setup not in self._answers:
            try:
                self._answers[setup] = self._ask(setup)
            except (BundleError, RuntimeError) as error:
                self._answers[setup] = _words(error)
        return self._answers[setup]

    def _ask(self, setup: Setup) -> tuple[list[Scores], list[Scores]]:
        with self._open(setup, 1) as classifier:
            classifier.check_golden()
            worker = classifier.worker()
            golden = [worker.scores(picture) for picture in self._golden]
            return golden, [worker.scores(decode_picture(each.path.read_bytes())) for each in self._labelled]

    def _count_right(self, own: Sequence[Scores], reference: Sequence[Scores]) -> Agreement:
        labels = self._bundle.manifest.labels
        wanted = [labels.index(each.label) if each.label in labels else -1 for each in self._labelled]
        right, fp32_right = (
            sum(int(scores.argmax()) == want for scores, want in zip(answers, wanted, strict=True))
            for answers in (own, reference)
        )
        return replace(_agreement(own, reference), right=right, fp32_right=fp32_right)

    def _open(self, setup: Setup, workers: int) -> Classifier:
        """Open the model in exactly this setup. Raises BundleError."""
        classifier = Classifier.open(self._bundle, setup, workers, self._cache, strict=True)
        if classifier.setup != setup:
            used = classifier.setup
            classifier.close()
            raise BundleError("model-setup", f"it runs as {used}", "")
        return classifier

    # Speed.

    def _take_turn(self, figures: Figures, turn_s: float) -> Figures:
        try:
            with self._open(figures.setup, self._workers) as classifier:
                pictures = self._pictures()
                speed = throughput(classifier, self._workers, pictures, turn_s * (1 - LATENCY_PART))
                latency_ms = latency_of_one_ms(classifier.worker(), pictures, turn_s * LATENCY_PART)
        except (BundleError, RuntimeError) as error:
            return replace(figures, trouble=figures.trouble or _words(error))
        return replace(
            figures,
            rounds_fps=(*figures.rounds_fps, speed.fps),
            rounds_ms=(*figures.rounds_ms, latency_ms),
            rounds_cpu_ms=(*figures.rounds_cpu_ms, speed.cpu_ms),
        )

    def _pictures(self) -> list[Picture]:
        """Frames in the size of a camera's: the golden pictures, or noise."""
        if self._golden:
            return [np.asarray(cv2.resize(picture, SIZE), np.uint8) for picture in self._golden[:PICTURES]]
        rng = np.random.default_rng(1)
        return [rng.integers(0, 256, (SIZE[1], SIZE[0], 3), np.uint8) for _ in range(3)]


def _reference(setups: Sequence[Setup]) -> Setup:
    return next((setup for setup in setups if setup.precision == "fp32"), setups[0])


def _has_turn(figures: Figures, done: int, all_of_them: Sequence[Figures]) -> bool:
    """Whether a setup has another turn. One with a fault has its first ones, so that it can be said what it'd give."""
    if done < FAIR_ROUNDS:
        return figures.golden is not None or not figures.trouble
    return bool(figures.rounds_fps) and not is_hopeless(figures, all_of_them)


def _agreement(own: Sequence[Scores], reference: Sequence[Scores]) -> Agreement:
    pairs = list(zip(own, reference, strict=True))
    same = sum(int(a.argmax()) == int(b.argmax()) for a, b in pairs)
    return Agreement(same, len(pairs), round(max((float(np.abs(a - b).max()) for a, b in pairs), default=0.0), 6))


def _words(error: Exception) -> str:
    text = str(error).strip().splitlines()[-1][:300] if str(error).strip() else "it failed without a word"
    return f"{text} [{error.code}]" if isinstance(error, BundleError) else text


@dataclass(frozen=True, slots=True)
class Speed:
    """Pictures a second, and the processor time of one in milliseconds, preparation included in both."""

    fps: float
    cpu_ms: float


def throughput(classifier: Classifier, workers: int, pictures: Sequence[Picture], seconds: float) -> Speed:
    """Have so many threads classify, each with its own way to the model, all at once."""
    ways = [classifier.worker() for _ in range(workers)]

    def work(worker: Worker) -> tuple[int, float]:
        for picture in pictures[:WARM_FRAMES]:
            worker.classify(picture)
        began_s, done = time.monotonic(), 0
        while _goes_on(time.monotonic() - began_s, seconds, done):
            worker.classify(pictures[done % len(pictures)])
            done += 1
        return done, done / (time.monotonic() - began_s)

    began_s = time.process_time()
    with ThreadPoolExecutor(workers) as threads:
        told = list(threads.map(work, ways))
    frames = sum(done for done, _ in told) + workers * min(WARM_FRAMES, len(pictures))
    return Speed(sum(fps for _, fps in told), 1000 * (time.process_time() - began_s) / frames)


def latency_of_one_ms(worker: Worker, pictures: Sequence[Picture], seconds: float) -> float:
    """What one picture takes while there is no other, preparation included; the median in milliseconds."""
    took_ms: list[float] = []
    began_s = time.monotonic()
    while _goes_on(time.monotonic() - began_s, seconds, len(took_ms)):
        answer = worker.classify(pictures[len(took_ms) % len(pictures)])
        took_ms.append(answer.prepare_ms + answer.inference_ms)
    return statistics.median(took_ms)


def _goes_on(gone_s: float, seconds: float, done: int) -> bool:
    """Whether another picture belongs to a turn of `seconds`. A slow model has a few, a very slow one at least one."""
    return gone_s < seconds or done == 0 or (done < LEAST_FRAMES and gone_s < MOST_TURN_S)
