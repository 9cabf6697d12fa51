"""Give a bundle an INT8 model beside its FP32 one: calibrate, hold both against each other, write what came out."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from models import calibration, pack
from models.bundle import INT8_TOLERANCE, Bundle, GoldenInput
from models.classifier import Classifier
from models.errors import BundleError, PictureError
from models.evaluate import Figures, figures
from models.examine import BrokenPicture, read_picture, scores_of
from models.inputs import Input
from models.labelled import Labelled
from models.loading import read_model
from models.picture import decode_picture
from models.prepare import Pixels
from models.quantise import MOST_PICTURES, leaves_room, need_packages, quantise, simplified
from models.setup import Setup

FILE: Final = "model-int8.onnx"
_WORTH_WRITING: Final = 5e-4
_MOST_DIFFERENCE: Final = 0.3
"""Between runtimes, on golden pictures; beyond, one of them must be computing something else."""

Scores = npt.NDArray[np.float32]
Step = Callable[[], object]


@dataclass(frozen=True, slots=True)
class Sample:
    """Pictures, prepared as the bundle says, with their labels; None where nothing is known of them."""

    frames: tuple[Pixels, ...]
    labels: tuple[str, ...] | None
    broken: tuple[BrokenPicture, ...]


@dataclass(frozen=True, slots=True)
class Compared:
    """What the INT8 model does beside the FP32 one in one runtime, on pictures that it was not calibrated with.

    With labels `before` and `after` are shares of right answers; without, `before` is 1 and `after` the share of
    pictures with the same best label, of those that FP32 accepts where there are at least 20 of them. `times_faster`
    is the ratio of median inference times, both asked in turn.
    """

    runtime: str
    pictures: int
    before: float
    after: float
    times_faster: float

    @property
    def lost_points(self) -> float:
        """Points of a hundred that are lost; below 0 gained."""
        return 100 * (self.before - self.after)


@dataclass(frozen=True, slots=True)
class Narrowed:
    """An INT8 model that was tried. `ratio` is how large inner values were beside usual ones."""

    content: bytes
    labelled: bool
    compared: tuple[Compared, ...]
    ratio: float
    notes: tuple[str, ...]

    @property
    def worst(self) -> Compared:
        """The runtime in which most is lost."""
        return max(self.compared, key=lambda item: item.lost_points)


def read_sample(pictures: Sequence[Labelled], spec: Input, *, labelled: bool, step: Step = lambda: None) -> Sample:
    """Decode and prepare `pictures`; those that cannot be are named in `broken`.

    What is prepared already is prepared to itself, so a classifier answers as for the whole picture.
    """
    frames, labels, broken = [], [], []
    for picture in pictures:
        try:
            frames.extend(calibration.prepared(spec, [read_picture(picture.path)[0]]))
            labels.append(picture.label)
        except PictureError as wrong:
            broken.append(BrokenPicture(picture.path, wrong.code, str(wrong), wrong.hint))
        step()
    return Sample(tuple(frames), tuple(labels) if labelled else None, tuple(broken))


def divide(pictures: Sequence[Labelled]) -> tuple[tuple[Labelled, ...], tuple[Labelled, ...]]:
    """Pictures to calibrate with, at most 300 and at most two thirds, and the others to check with; evenly spread."""
    take = min(MOST_PICTURES, math.ceil(len(pictures) * 2 / 3))
    chosen = {number * len(pictures) // take for number in range(take)} if take else set()
    inside = tuple(picture for number, picture in enumerate(pictures) if number in chosen)
    return inside, tuple(picture for number, picture in enumerate(pictures) if number not in chosen)


def narrow(
    bundle: Bundle, sample: Sample, held_out: Sample, known: Sequence[Pixels], folder: Path, *, anyway: bool = False
) -> Narrowed:
    """Quantise the FP32 model of `bundle` and try it in `folder`, which is empty.

    `known` are pictures on which the network's inner values are usual: the golden or rendered ones. Raises BundleError:
    quantise-missing, quantise-model, quantise-check (nothing to check with), and what is wrong with the pictures:
    calibration-few, -flat, -alike, -labels, and -range unless `anyway`.
    """
    need_packages()
    content, spec = _fp32(bundle), bundle.manifest.input
    if not held_out.frames:
        raise BundleError("quantise-check", "there are no pictures to check with", "give more, or others with --check")
    pictures = sample.frames[:MOST_PICTURES]
    notes = calibration.check_pictures(pictures)
    _check_labels(bundle, sample)
    simple = simplified(content)
    try:
        ratio = calibration.check_ranges(simple, spec, pictures, calibration.prepared(spec, known))
    except BundleError as error:
        if not anyway:
            raise
        ratio, notes = math.nan, (*notes, f"{error}: taken anyway")
    if not leaves_room(simple):
        notes = (*notes, "on processors without VNNI this kind of network may answer a little otherwise in INT8")
    made = quantise(content, spec, pictures)
    trial = _trial(bundle, made, folder)
    compared = tuple(_compare(trial, runtime, held_out) for runtime in bundle.manifest.limits.runtimes)
    return Narrowed(made, held_out.labels is not None, compared, ratio, notes)


def _fp32(bundle: Bundle) -> bytes:
    """The FP32 model as one ONNX file."""
    file = bundle.manifest.models.get("fp32")
    if file is None or file.is_ir:
        hint = "quantise a bundle whose FP32 model is ONNX; OpenVINO's own format is quantised with OpenVINO's tools"
        raise BundleError("quantise-model", "the bundle has no FP32 model in ONNX", hint)
    model = read_model(bundle, "fp32")
    if model.path is None:
        return model.content
    import onnx

    whole: bytes = onnx.load(str(model.path)).SerializeToString()
    return whole


def _check_labels(bundle: Bundle, sample: Sample) -> None:
    """Ask the FP32 model about the pictures that it is to be calibrated with."""
    if sample.labels is None:
        return
    with Classifier.open(bundle, Setup(precision="fp32"), strict=True) as classifier:
        worker = classifier.worker()
        scores = np.stack([worker.scores(frame) for frame in sample.frames])
    calibration.check_accuracy(_figures(bundle, scores, sample.labels))


def _figures(bundle: Bundle, scores: Scores, labels: Sequence[str]) -> Figures:
    number_of = {label: number for number, label in enumerate(bundle.manifest.labels)}
    truths = np.array([number_of[label] for label in labels], np.int64)
    return figures(scores, truths, bundle.manifest.labels, bundle.manifest.threshold)


def _trial(bundle: Bundle, int8: bytes, folder: Path) -> Bundle:
    """A bundle with both models and no golden pictures: INT8 has no expectations yet."""
    listed = [file for file in bundle.manifest.files if file.role == "weights" or file.precision != "int8"]
    listed = [file for file in listed if file.role in ("model", "weights")]
    for file in listed:
        (folder / file.path).parent.mkdir(parents=True, exist_ok=True)
        (folder / file.path).write_bytes(bundle.read(file.path))
    (folder / FILE).write_bytes(int8)
    files = (*listed, pack.describe(folder, FILE, "model", "int8"))
    changes = {"files": files, "golden": bundle.manifest.golden.model_copy(update={"inputs": ()})}
    return pack.write(folder, bundle.manifest.model_copy(update=changes))


def _compare(bundle: Bundle, runtime: str, sample: Sample) -> Compared:
    given: dict[str, list[Scores]] = {"fp32": [], "int8": []}
    times: dict[str, list[float]] = {"fp32": [], "int8": []}
    opened = {name: _open(bundle, runtime, name) for name in ("fp32", "int8")}
    workers = {name: classifier.worker() for name, classifier in opened.items()}
    labels = bundle.manifest.labels
    number_of = {label: number for number, label in enumerate(labels)}
    for frame in sample.frames:
        for name, worker in workers.items():
            answer = worker.classify(frame, len(labels))
            times[name].append(answer.inference_ms)
            given[name].append(scores_of(answer, number_of))
    for classifier in opened.values():
        classifier.close()
    before, after = (np.stack(given[name]) for name in ("fp32", "int8"))
    faster = float(np.median(times["fp32"]) / np.median(times["int8"]))
    shares = _shares(bundle, before, after, sample.labels)
    return Compared(runtime, len(sample.frames), *shares, faster)


def _open(bundle: Bundle, runtime: str, precision: str) -> Classifier:
    setup = Setup(runtime=runtime, precision=precision)  # type: ignore[arg-type]  # words of the bundle
    return Classifier.open(bundle, setup, strict=True)


def _shares(bundle: Bundle, before: Scores, after: Scores, labels: Sequence[str] | None) -> tuple[float, float]:
    """See Compared."""
    if labels is not None:
        return _figures(bundle, before, labels).accuracy, _figures(bundle, after, labels).accuracy
    accepted = before.max(axis=1) >= bundle.manifest.threshold
    counted = accepted if accepted.sum() >= 20 else np.ones(len(before), bool)
    return 1.0, float((before.argmax(axis=1) == after.argmax(axis=1))[counted].mean())


def too_much_lost(narrowed: Narrowed, most_points: float) -> bool:
    """Whether more than `most_points` are lost in any runtime, and that by more than one picture."""
    worst = narrowed.worst
    return worst.lost_points > most_points + 1e-9 and (worst.before - worst.after) * worst.pictures > 1.5


def write(bundle: Bundle, narrowed: Narrowed, folder: Path, release: int, version: str) -> Bundle:
    """Make `folder`, which is empty, the bundle with both models, INT8's golden expectations and figures.

    Raises BundleError quantise-differs when the runtimes disagree about the golden pictures.
    """
    manifest = bundle.manifest
    replaced = manifest.models.get("int8")
    files = [file for file in manifest.files if file is not replaced]
    for file in files:
        (folder / file.path).parent.mkdir(parents=True, exist_ok=True)
        (folder / file.path).write_bytes(bundle.read(file.path))
    (folder / FILE).write_bytes(narrowed.content)
    files.append(pack.describe(folder, FILE, "model", "int8"))
    plain = manifest.golden.model_copy(update={"inputs": ()})
    bare = manifest.model_copy(update={"files": tuple(files), "golden": plain, "release": release, "version": version})
    opened = pack.write(folder, bare)
    inputs, difference = _golden(bundle, opened)
    allowed = {} if difference <= INT8_TOLERANCE else {"tolerance_int8": {"cpu": round(1.5 * difference, 3)}}
    golden = manifest.golden.model_copy(update={"inputs": inputs, **allowed})
    told = manifest.provenance.model_copy(update={"metrics": {**manifest.provenance.metrics, **metrics(narrowed)}})
    return pack.write(folder, bare.model_copy(update={"golden": golden, "provenance": told}))


def metrics(narrowed: Narrowed) -> Mapping[str, float]:
    """What the bundle keeps of the comparison."""
    worst = narrowed.worst
    kind = "accuracy" if narrowed.labelled else "agreement"
    return {
        f"int8_{kind}": round(worst.after, 6),
        f"fp32_{kind}_beside_int8": round(worst.before, 6),
        "int8_pictures": float(worst.pictures),
    }


def _golden(bundle: Bundle, opened: Bundle) -> tuple[tuple[GoldenInput, ...], float]:
    """Golden inputs with what the first runtime's INT8 says of them, and how far another one is from that."""
    given: list[list[Scores]] = []
    pictures = [decode_picture(bundle.read(item.path)) for item in bundle.manifest.golden.inputs]
    for runtime in opened.manifest.limits.runtimes:
        with _open(opened, runtime, "int8") as classifier:
            worker = classifier.worker()
            given.append([worker.scores(picture) for picture in pictures])
    difference = max(
        (float(np.abs(np.subtract(given[0], other)).max()) for other in given[1:] if pictures), default=0.0
    )
    if difference > _MOST_DIFFERENCE:
        text = f"the runtimes differ by {difference:.2f} about the golden pictures"
        raise BundleError("quantise-differs", text, "use the bundle as FP32, or allow one runtime only")
    said = zip(bundle.manifest.golden.inputs, given[0], strict=True)
    return tuple(_expecting(item, scores, opened.manifest.labels) for item, scores in said), difference


def _expecting(item: GoldenInput, scores: Scores, labels: Sequence[str]) -> GoldenInput:
    named = {label: round(float(score), 6) for label, score in zip(labels, scores, strict=True)}
    expected = {label: score for label, score in named.items() if score >= _WORTH_WRITING}
    return item.model_copy(update={"expected_int8": expected or dict([max(named.items(), key=lambda pair: pair[1])])})
