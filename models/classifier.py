"""The classifier: pictures in, labels with scores out, the same whichever runtime does the arithmetic."""

import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt

from models import onnx_file
from models.bundle import UNKNOWN, Bundle, ModelRef
from models.errors import BundleError
from models.picture import decode_picture
from models.prepare import Preparer, check_frame
from models.runtimes import Engine, Model, Request, Scores, choose, open_engine

__all__ = ["UNKNOWN", "Answer", "Classifier", "Worker"]

_MS_PER_NS = 1e-6


@dataclass(frozen=True, slots=True)
class Answer:
    """What the model says about one picture.

    `top` is the raw ranking, best first; `label` is its first, or "unknown" when that scores below the
    bundle's threshold (`known` is False then); `score` is the best score, 0..1, in both cases.
    """

    top: tuple[tuple[str, float], ...]
    label: str
    score: float
    known: bool
    inference_ms: float
    prepare_ms: float


class Worker:
    """One thread's way to the model: its own request and its own reused buffer."""

    def __init__(self, request: Request, bundle: Bundle) -> None:
        self._request = request
        self._labels = bundle.manifest.labels
        self._threshold = bundle.manifest.threshold
        self._logits = bundle.manifest.output == "logits"
        self._preparer = Preparer(bundle.manifest.input, request.buffer)

    def classify(self, bgr: npt.NDArray[np.uint8], k: int = 5) -> Answer:
        """The `k` best labels for `bgr`, (H, W, 3) uint8 of any size, which is not kept.

        Raises PictureError picture-shape for another array, BundleError model-output when the model gives
        numbers that are no scores, ValueError for k < 1.
        """
        if k < 1:
            raise ValueError("k is at least 1")
        began_ns = time.perf_counter_ns()
        self._preparer.fill(check_frame(bgr))
        prepared_ns = time.perf_counter_ns()
        scores = self._request.run()
        done_ns = time.perf_counter_ns()
        return self._answer(scores, k, (prepared_ns - began_ns) * _MS_PER_NS, (done_ns - prepared_ns) * _MS_PER_NS)

    def scores(self, bgr: npt.NDArray[np.uint8]) -> Scores:
        """The score of every label for `bgr`, (classes,) in the order of the labels; the caller's own array.

        Raises as `classify` does.
        """
        self._preparer.fill(check_frame(bgr))
        return _checked(self._probabilities(self._request.run())).clip(0.0, 1.0)

    def _probabilities(self, scores: Scores) -> Scores:
        if not self._logits:
            return scores
        powers = np.exp(scores - scores.max())
        return np.asarray(powers / powers.sum(), np.float32)

    def _answer(self, scores: Scores, k: int, prepare_ms: float, inference_ms: float) -> Answer:
        scores = self._probabilities(scores)
        order = np.argsort(-scores, kind="stable")[:k]
        top = tuple((self._labels[i], min(1.0, float(scores[i]))) for i in order)
        label, score = top[0]
        _checked(scores)
        known = score >= self._threshold
        return Answer(top, label if known else UNKNOWN, score, known, inference_ms, prepare_ms)


def _checked(scores: Scores) -> Scores:
    """`scores` when the model gave such. Raises BundleError model-output."""
    best = min(1.0, float(scores.max()))
    if not (0.0 <= best <= 1.0 and np.isfinite(scores).all()):
        raise BundleError("model-output", "the model gives numbers that are no scores", "roll the model back")
    return scores


class Classifier:
    """An opened bundle. Share it between threads; give each thread a `worker()` of its own."""

    def __init__(self, bundle: Bundle, runtime: str, engine: Engine) -> None:
        """Use `Classifier.open`."""
        self.bundle = bundle
        self.runtime = runtime
        self._engine = engine

    @classmethod
    def open(
        cls, bundle: Bundle | Path | str, runtime: str = "auto", workers: int = 1, cache_dir: Path | None = None
    ) -> "Classifier":
        """Open a bundle with "openvino", "onnxruntime", or the better one present ("auto").

        `workers` threads will classify at once. Compiled models are kept in `cache_dir`. Raises BundleError:
        what Bundle.load raises, bundle-runtime, bundle-input, bundle-label-count, model-load.
        """
        if workers < 1:
            raise ValueError("workers is at least 1")
        checked = bundle if isinstance(bundle, Bundle) else Bundle.load(bundle)
        chosen = choose(runtime, checked.manifest)
        engine = open_engine(chosen, _model(checked), workers, cache_dir)
        labels = len(checked.manifest.labels)
        if engine.outputs != labels:
            engine.close()
            raise BundleError(
                "bundle-label-count",
                f"the model gives {engine.outputs} scores, the bundle names {labels} labels",
                "list the labels the model was trained with, in its order, and pack the bundle again",
            )
        return cls(checked, chosen, engine)

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
        return Worker(self._engine.request(), self.bundle)

    def check_golden(self, device: str = "cpu") -> None:
        """Classify the bundle's golden inputs. Raises BundleError bundle-golden at the first wrong score."""
        golden = self.bundle.manifest.golden
        tolerance = {str(kind): value for kind, value in golden.tolerance.items()}.get(device, 1e-3)
        worker = self.worker()
        for item in golden.inputs:
            answer = worker.classify(decode_picture(self.bundle.read(item.path)), k=len(self.labels))
            for label, score in answer.top:
                allowed = tolerance if label in item.expected else max(tolerance, 1e-3)
                if abs(score - item.expected.get(label, 0.0)) > allowed:
                    raise BundleError(
                        "bundle-golden",
                        f"{item.path}: {label} scores {score:.4f}, not {item.expected.get(label, 0.0):.4f}",
                        "this model does not run as it did where it was made: try the other runtime, or roll back",
                    )

    def close(self) -> None:
        """Let go of the model. Workers must not be used any more."""
        self._engine.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _model(bundle: Bundle) -> Model:
    """The model's bytes, after a look whether they name files that the bundle does not list."""
    file = bundle.file("model")
    content = bundle.read(file.path)
    try:
        outside = onnx_file.external_files(content)
    except ValueError as wrong:
        raise BundleError("model-load", f"{file.path} is no ONNX file: {wrong}", "pack the bundle again") from None
    listed = {weights.path for weights in bundle.manifest.files if weights.role == "weights"}
    beside = Path(file.path).parent
    strange = sorted(name for name in outside if (beside / name).as_posix() not in listed)
    if strange:
        raise BundleError(
            "bundle-path",
            f"the model reads {strange[0]!r}, which the bundle does not list",
            "export the model with its weights inside, or list the file with the role weights",
        )
    return Model(content, bundle.folder / file.path if outside else None, bundle.manifest.input)
