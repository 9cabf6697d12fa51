"""The classifier: pictures in, labels with scores out, the same whichever runtime does the arithmetic."""

import math
import threading
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self, cast

import numpy as np
import numpy.typing as npt

from models import golden
from models.bundle import UNKNOWN, Bundle, ModelRef
from models.choosing import FALLS_BACK, plan
from models.errors import BundleError
from models.loading import read_model
from models.prepare import Preparer
from models.runtimes import Engine, EngineFault, Scores, installed, open_engine
from models.setup import OPEN, Note, Runtime, Setup

__all__ = ["UNKNOWN", "Answer", "Classifier", "Worker"]

_MS_PER_NS = 1e-6
FEW = 8
"""So many labels of an answer are looked for one by one."""
FEW_LABELS = 200
"""Scores of so many labels are ranked as a list."""


@dataclass(slots=True)
class Answer:
    """What the model says about one picture. Nobody changes it; frozen, it would take four times as long to make.

    `top` is the raw ranking, best first; `label` is its first, or "unknown" when that scores below the
    bundle's threshold (`known` is False then); `score` is the best score, 0..1, in both cases. `runtime` is who did the
    arithmetic: another one, after a failure, than for the picture before.
    """

    top: tuple[tuple[str, float], ...]
    label: str
    score: float
    known: bool
    inference_ms: float
    prepare_ms: float
    runtime: str = ""


class Worker:
    """One thread's way to the model: its own request and its own reused buffer."""

    def __init__(self, engine: Engine, bundle: Bundle, opened: "Classifier | None" = None) -> None:
        """`opened` is asked for another engine when this one fails; without it the failure is the answer."""
        self._opened = opened
        self._labels = bundle.manifest.labels
        self._threshold = bundle.manifest.threshold
        self._logits = bundle.manifest.output == "logits"
        self._spec = bundle.manifest.input
        self._use(engine)

    def _use(self, engine: Engine) -> None:
        self._engine = engine
        self._request = engine.request()
        self._preparer = Preparer(self._spec, self._request.buffer)

    def classify(self, bgr: npt.NDArray[np.uint8], k: int = 5) -> Answer:
        """The `k` best labels for `bgr`, (H, W, 3) uint8 of any size, which is not kept.

        Raises PictureError picture-shape for another array, BundleError model-output when the model gives
        numbers that are no scores and model-run when it fails in every way, ValueError for k < 1.
        """
        if k < 1:
            raise ValueError("k is at least 1")
        began_ns = time.perf_counter_ns()
        self._preparer.fill(bgr)
        prepared_ns = time.perf_counter_ns()
        scores = self._run(bgr)
        done_ns = time.perf_counter_ns()
        return self._answer(scores, k, (prepared_ns - began_ns) * _MS_PER_NS, (done_ns - prepared_ns) * _MS_PER_NS)

    def scores(self, bgr: npt.NDArray[np.uint8]) -> Scores:
        """The score of every label for `bgr`, (classes,) in the order of the labels; the caller's own array.

        Raises as `classify` does.
        """
        self._preparer.fill(bgr)
        return _checked(self._probabilities(self._run(bgr))).clip(0.0, 1.0)

    def _run(self, bgr: npt.NDArray[np.uint8]) -> Scores:
        """Run what is in the buffer. Where the runtime fails, the same picture is answered in the next way."""
        while True:
            try:
                return self._request.run()
            except EngineFault as fault:
                if self._opened is None:
                    raise _failed(self._engine, fault) from None
                self._use(self._opened.after(self._engine, fault))
                self._preparer.fill(bgr)

    def _probabilities(self, scores: Scores) -> Scores:
        if not self._logits:
            return scores
        powers = np.exp(scores - scores.max())
        return np.asarray(powers / powers.sum(), np.float32)

    def _answer(self, scores: Scores, k: int, prepare_ms: float, inference_ms: float) -> Answer:
        scores = self._probabilities(scores)
        ranked = _best_of_few(scores, k) if scores.size <= FEW_LABELS else _best(_checked(scores), k)
        labels = self._labels
        top = tuple([(labels[place], min(1.0, value)) for place, value in ranked])
        label, score = top[0]
        known = score >= self._threshold
        runtime = self._engine.setup.runtime
        return Answer(top, label if known else UNKNOWN, score, known, inference_ms, prepare_ms, runtime)


def _best_of_few(scores: Scores, k: int) -> list[tuple[int, float]]:
    """As `_best` of `_checked` scores, without numpy. Hot it takes as long; between two pictures, when the model has
    filled the processor's caches, it saves a tenth of what a frame costs beside the model."""
    values: list[float] = scores.tolist()
    if not math.isfinite(sum(values)):
        raise _no_scores()
    if k > FEW:
        places = sorted(range(len(values)), key=values.__getitem__, reverse=True)[:k]
        found = [(place, values[place]) for place in places]
    else:
        found = []
        for _ in range(min(k, len(values))):
            best = max(values)
            found.append((place := values.index(best), best))
            values[place] = -math.inf
    if found[0][1] < 0:
        raise _no_scores()
    return found


def _best(scores: Scores, k: int) -> list[tuple[int, float]]:
    """The places of the `k` best scores with these, best first, of equals the earlier; a few are found sooner than all
    sorted."""
    if k > FEW:
        return [(int(place), float(scores[place])) for place in np.argsort(-scores, kind="stable")[:k]]
    left = scores.copy()
    found = []
    for _ in range(min(k, left.size)):
        place = int(left.argmax())
        found.append((place, float(left[place])))
        left[place] = -np.inf
    return found


def _checked(scores: Scores) -> Scores:
    """`scores` when the model gave such. Raises BundleError model-output."""
    best = min(1.0, float(scores.max()))
    if not (0.0 <= best <= 1.0 and np.isfinite(scores).all()):
        raise _no_scores()
    return scores


def _no_scores() -> BundleError:
    return BundleError("model-output", "the model gives numbers that are no scores", "roll the model back")


class Classifier:
    """An opened bundle. Share it between threads; give each thread a `worker()` of its own."""

    def __init__(self, bundle: Bundle, tries: tuple[Setup, ...], workers: int, cache_dir: Path | None) -> None:
        """Use `Classifier.open`."""
        self.bundle = bundle
        self._tries = deque(tries)
        self._workers = workers
        self._cache_dir = cache_dir
        self._notes: tuple[Note, ...] = ()
        self._lock = threading.Lock()
        self._closed = False
        self._engine = self._open_next(None)

    @classmethod
    def open(
        cls,
        bundle: Bundle | Path | str,
        setup: Setup | str = OPEN,
        workers: int = 1,
        cache_dir: Path | None = None,
        *,
        strict: bool = False,
        noted: tuple[Note, ...] = (),
    ) -> "Classifier":
        """Open a bundle as `setup` says, or with the runtime of that name; what is left open is chosen.

        `workers` threads will classify at once. Compiled models are kept in `cache_dir`. What cannot be had as asked
        falls back to the CPU, from INT8 to FP32, then to the other runtime, and `notes` tells it; golden inputs are
        answered before anything but FP32 on the CPU is taken. With `strict` nothing falls back; `noted` is what the
        caller has to say of the setup. Raises BundleError: what Bundle.load raises, bundle-runtime, bundle-input,
        bundle-label-count, model-setup, model-load; with `strict` also model-device and bundle-golden.
        """
        if workers < 1:
            raise ValueError("workers is at least 1")
        asked = (Setup(runtime=cast(Runtime, setup)) if isinstance(setup, str) else setup).checked()
        checked = bundle if isinstance(bundle, Bundle) else Bundle.load(bundle)
        planned = plan(asked, checked.manifest, installed)
        if strict and planned.notes:
            raise BundleError("model-device", planned.notes[0].message, planned.notes[0].hint)
        opened = cls(checked, planned.tries[:1] if strict else planned.tries, workers, cache_dir)
        opened._notes = (*noted, *planned.notes, *opened._notes)
        return opened

    @property
    def setup(self) -> Setup:
        """How the model is run now, nothing left open."""
        return self._engine.setup

    @property
    def runtime(self) -> str:
        """The runtime that does the arithmetic now."""
        return self._engine.setup.runtime

    @property
    def notes(self) -> tuple[Note, ...]:
        """Everything in which it runs otherwise than was asked for; it may grow while it runs."""
        return self._notes + self._engine.notes

    def after(self, failed: Engine, fault: EngineFault) -> Engine:
        """The engine to go on with when one has failed while it ran. Any thread. Raises BundleError model-run."""
        with self._lock:
            if self._closed:
                raise RuntimeError("the classifier is closed")
            if self._engine is failed:
                self._engine = self._open_next((failed.setup, _failed(failed, fault)))
            return self._engine

    def _open_next(self, failed: tuple[Setup, BundleError] | None) -> Engine:
        """Open the next way that works; `failed` says what the one before did. Raises the first error of all."""
        first = failed
        while self._tries:
            setup = self._tries.popleft()
            try:
                engine = self._open(setup, checked=first is not None)
            except BundleError as error:
                first = first or (setup, error)
                if error.code not in FALLS_BACK:
                    raise
                continue
            if first is not None:
                self._notes += (_fell_back(*first, engine.setup),)
            return engine
        assert first is not None
        raise first[1]

    def _open(self, setup: Setup, *, checked: bool) -> Engine:
        """Open one way. What is not plain, or comes after a failure, must answer the golden inputs first."""
        engine = open_engine(setup, read_model(self.bundle, setup.precision), self._workers, self._cache_dir)
        try:
            _check_outputs(engine, self.labels)
            if checked or (engine.setup.device, engine.setup.precision) != ("cpu", "fp32"):
                golden.check(self.bundle, engine.setup, Worker(engine, self.bundle).scores)
        except BundleError:
            engine.close()
            raise
        return engine

    @property
    def model(self) -> ModelRef:
        """Which model this is."""
        return self.bundle.ref

    @property
    def labels(self) -> tuple[str, ...]:
        """All labels in the order of the model's outputs."""
        return self.bundle.manifest.labels

    @property
    def threshold(self) -> float:
        """The least score of an answer that counts as known."""
        return self.bundle.manifest.threshold

    def worker(self) -> Worker:
        """A new worker, for one thread."""
        return Worker(self._engine, self.bundle, self)

    def check_golden(self) -> None:
        """Classify the bundle's golden inputs. Raises BundleError bundle-golden at the first wrong score."""
        golden.check(self.bundle, self.setup, self.worker().scores)

    def close(self) -> None:
        """Let go of the model. Workers must not be used any more."""
        with self._lock:
            self._closed = True
            self._engine.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _check_outputs(engine: Engine, labels: tuple[str, ...]) -> None:
    if engine.outputs != len(labels):
        raise BundleError(
            "bundle-label-count",
            f"the model gives {engine.outputs} scores, the bundle names {len(labels)} labels",
            "list the labels the model was trained with, in its order, and pack the bundle again",
        )


def _failed(engine: Engine, fault: EngineFault) -> BundleError:
    kind = engine.setup.device.upper()
    on_cpu = "try another version of the runtime, and send a support-bundle"
    hint = on_cpu if kind == "CPU" else f"look at the {kind} and its driver; after a restart it is tried again"
    return BundleError("model-run", f"it failed while it ran: {fault}", hint)


def _fell_back(asked: Setup, error: BundleError, used: Setup) -> Note:
    """Say that one way did not work, and which one is taken."""
    code = {"model-device": "device-missing", "model-run": "run-failed", "model-load": "runtime-failed"}
    text = f"{used.brief} runs the model, not {asked.brief}: {error}"
    return Note(code.get(error.code, "answers-wrong"), text, error.hint)
