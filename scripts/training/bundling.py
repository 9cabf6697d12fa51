"""From ONNX files to a bundle: golden pictures, measured figures, a threshold with its reason, a card."""

import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from agent.camera.synthetic import PRODUCTS, Scene
from models import Bundle, Classifier, Manifest, decode_picture, pack
from models.bundle import Golden, GoldenInput, Limits, Provenance
from models.prepare import Input
from models.setup import Setup
from training import card
from training.photos import SIDE_PX

import cv2  # isort: skip

GOLDEN_SEED = 30_000
GOLDEN_SIZE = (320, 180)
GOLDEN_INPUTS = 6
WORTH_WRITING = 5e-4
EASY = "The rendered scenes are easy: their figure shows that the demonstration works, nothing about real shops."
FILES = {"fp32": "model.onnx", "int8": "model-int8.onnx"}

Progress = Callable[[int, int], None]
Pictures = Sequence[tuple[npt.NDArray[np.uint8], str]]


@dataclass(frozen=True, slots=True)
class Measured:
    """What a classifier answered for pictures with known labels: (count, classes), and the labels' numbers."""

    scores: npt.NDArray[np.float64]
    truths: npt.NDArray[np.int64]


@dataclass(slots=True)
class Story:
    """What the card says beyond the figures."""

    method: str
    data_set: str
    licence: str
    limits: str
    grocery: bool = False
    """Whether it is the Grocery Store Dataset that was learnt."""
    metrics: dict[str, float] = field(default_factory=dict)
    threshold: float = 0.5
    threshold_reason: str = "no photos were given, so the threshold is a guess"


@dataclass(frozen=True, slots=True)
class Parts:
    """What a bundle is made of: a model for each precision, and what they look at and say."""

    models: Mapping[str, bytes]
    labels: tuple[str, ...]
    size_px: int
    release: int
    coarse: Mapping[str, str] = field(default_factory=dict)
    """The class above a label, for labels that have another one than themselves."""


def bundle_of(parts: Parts, folder: Path, story: Story) -> Bundle:
    """Make `folder` the bundle of `parts`: models, golden pictures, card, bundle.json."""
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for precision, content in parts.models.items():
        (folder / FILES[precision]).write_bytes(content)
        described = pack.describe(folder, FILES[precision], "model")
        files.append(described.model_copy(update={"precision": precision}))
    golden_paths = _write_golden(folder)
    (folder / "CARD.md").write_text(_card(story, parts), encoding="utf-8")
    files.append(pack.describe(folder, "CARD.md", "card"))
    files += [pack.describe(folder, path, "golden") for path in golden_paths]
    manifest = Manifest(
        name=folder.name.lower(),
        version=f"1.0.{parts.release}",
        release=parts.release,
        minimum_agent="0.1.0",
        limits=Limits(
            runtimes=("openvino", "onnxruntime"), devices=("cpu", "gpu", "npu"), memory_bytes=_memory_bytes(parts)
        ),
        input=Input(width=parts.size_px, height=parts.size_px),
        labels=parts.labels,
        coarse=dict(parts.coarse) or None,
        threshold=story.threshold,
        files=tuple(files),
        provenance=Provenance(
            data_set=story.data_set,
            licence=story.licence,
            method=story.method,
            created=dt.datetime.now(dt.UTC).date().isoformat(),
            metrics=story.metrics,
            card="CARD.md",
        ),
    )
    bundle = pack.write(folder, manifest)
    return pack.write(folder, manifest.model_copy(update={"golden": _golden(bundle, golden_paths)}))


def _memory_bytes(parts: Parts) -> int:
    """At its peak: 200 MiB for a small network; a runtime holds the weights of a large one a few times as it loads."""
    return max(200 * 1024 * 1024, 4 * max(len(content) for content in parts.models.values()))


def measure(classifier: Classifier, pictures: Pictures, progress: Progress) -> Measured:
    """Classify pictures with known labels through the same door that users take."""
    worker = classifier.worker()
    scores = []
    for number, (picture, _) in enumerate(pictures):
        scores.append(np.asarray(worker.scores(picture), np.float64))
        progress(number + 1, len(pictures))
    labels = {label: number for number, label in enumerate(classifier.labels)}
    return Measured(np.stack(scores), np.array([labels[truth] for _, truth in pictures], np.int64))


def smaller(picture: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """`picture` with the shorter side that training knows, for what must not hold a thousand full frames."""
    part = SIDE_PX / min(picture.shape[:2])
    size = (round(picture.shape[1] * part), round(picture.shape[0] * part))
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)


def _write_golden(folder: Path) -> list[str]:
    """Rendered pictures, as PNG so that every decoder gives the same pixels."""
    (folder / "golden").mkdir(exist_ok=True)
    paths = []
    for number in range(GOLDEN_INPUTS):
        label = PRODUCTS[number * len(PRODUCTS) // GOLDEN_INPUTS]
        scene = Scene(GOLDEN_SEED + number, *GOLDEN_SIZE, labels=(label,))
        path = f"golden/{number + 1}-{label.lower()}.png"
        cv2.imwrite(str(folder / path), scene.render(1)[0], [cv2.IMWRITE_PNG_COMPRESSION, 9])
        paths.append(path)
    return paths


def _golden(bundle: Bundle, paths: list[str]) -> Golden:
    """What ONNX Runtime answers for the golden pictures, as far as it is worth writing down."""
    said = {precision: _expected(bundle, precision, paths) for precision in bundle.manifest.models}
    inputs = [
        GoldenInput(path=path, expected=said["fp32"][path], expected_int8=said.get("int8", {}).get(path))
        for path in paths
    ]
    return Golden(inputs=tuple(inputs), tolerance={"cpu": 1e-3, "gpu": 2e-2, "npu": 5e-2})


def _expected(bundle: Bundle, precision: str, paths: list[str]) -> dict[str, dict[str, float]]:
    setup = Setup.from_json({"runtime": "onnxruntime", "precision": precision})
    with Classifier.open(bundle, setup, strict=precision == "fp32") as classifier:
        worker = classifier.worker()
        found = {}
        for path in paths:
            scores = worker.scores(decode_picture(bundle.read(path)))
            pairs = zip(classifier.labels, map(float, scores), strict=True)
            found[path] = {label: round(score, 6) for label, score in pairs if score >= WORTH_WRITING}
    return found


def _card(story: Story, parts: Parts) -> str:
    sizes = {precision: len(content) for precision, content in parts.models.items()}
    interval = " In brackets: the 95 % interval (Wilson)." if "val_photos" in story.metrics else ""
    side = f"{parts.size_px} x {parts.size_px}"
    lines = [
        f"# {card.title(len(parts.labels), story.grocery)}",
        card.figures(story.metrics, sizes),
        "Measured by the script that made the bundle, through the product's own classifier (its resize, its runtime)."
        + interval,
        f"**Takes** a BGR picture, the middle square of it, at {side}. **Gives** a probability for each label.",
        f"**Threshold {story.threshold}**: {story.threshold_reason}. Below it an answer is called `unknown`.",
        f"**Data.** {story.data_set}",
        f"**Licence.** {story.licence}",
        f"**Method.** {story.method}",
        f"**Limits.** {story.limits} There is no class for anything else: a picture of something else gets one of "
        "these labels, and how often above the threshold was not measured."
        + (f" {EASY}" if "synthetic_frames" in story.metrics else "")
        + " Not to be used to charge customers without a person's check.",
    ]
    return "\n\n".join(lines) + "\n"
