"""From an ONNX file to a bundle: golden pictures, measured accuracy, a threshold with its reason, a card."""

import datetime as dt
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from agent.camera.synthetic import PRODUCTS, Scene
from models import Answer, Bundle, Classifier, Manifest, decode_picture, pack
from models.bundle import Golden, GoldenInput, Limits, Provenance
from models.prepare import Input

import cv2  # isort: skip

WANTED_PRECISION = 0.90
GOLDEN_SEED = 30_000
GOLDEN_SIZE = (320, 180)
GOLDEN_INPUTS = 6

Progress = Callable[[int, int], None]
Pictures = list[tuple[npt.NDArray[np.uint8], str]]


@dataclass(frozen=True, slots=True)
class Measured:
    """What a classifier answered for pictures with known labels: all counts, in the order of the pictures."""

    top1: npt.NDArray[np.bool_]
    top5: npt.NDArray[np.bool_]
    coarse: npt.NDArray[np.bool_]
    score: npt.NDArray[np.float64]


@dataclass(slots=True)
class Story:
    """What the card says beyond the figures."""

    method: str
    data_set: str
    licence: str
    limits: str
    metrics: dict[str, float] = field(default_factory=dict)
    threshold: float = 0.5
    threshold_reason: str = "no photos were given, so the threshold is a guess"


def bundle_of(
    onnx_path: Path, folder: Path, labels: tuple[str, ...], size_px: int, release: int, story: Story
) -> Bundle:
    """Make `folder` the bundle of `onnx_path`: model, golden pictures, card, bundle.json."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(onnx_path, folder / "model.onnx")
    golden_paths = _write_golden(folder)
    (folder / "CARD.md").write_text(_card(story, labels, size_px), encoding="utf-8")
    files = [pack.describe(folder, "model.onnx", "model"), pack.describe(folder, "CARD.md", "card")]
    files += [pack.describe(folder, path, "golden") for path in golden_paths]
    today = dt.datetime.now(dt.UTC).date().isoformat()
    manifest = Manifest(
        name=folder.name.lower(),
        version=f"1.0.{release}",
        release=release,
        minimum_agent="0.1.0",
        limits=Limits(runtimes=("openvino", "onnxruntime"), devices=("cpu",), memory_bytes=200 * 1024 * 1024),
        input=Input(width=size_px, height=size_px),
        labels=labels,
        threshold=story.threshold,
        files=tuple(files),
        provenance=Provenance(
            data_set=story.data_set,
            licence=story.licence,
            method=story.method,
            created=today,
            metrics=story.metrics,
            card="CARD.md",
        ),
    )
    bundle = pack.write(folder, manifest)
    return pack.write(folder, manifest.model_copy(update={"golden": _golden(bundle, golden_paths)}))


def measure(
    classifier: Classifier,
    pictures: Pictures,
    coarse: dict[str, int],
    progress: Progress,
) -> Measured:
    """Classify pictures with known labels through the same door that users take."""
    worker = classifier.worker()
    answers: list[tuple[Answer, str]] = []
    for number, (picture, truth) in enumerate(pictures):
        answers.append((worker.classify(picture), truth))
        progress(number + 1, len(pictures))
    return Measured(
        top1=np.array([answer.top[0][0] == truth for answer, truth in answers]),
        top5=np.array([truth in [label for label, _ in answer.top] for answer, truth in answers]),
        coarse=np.array([coarse[answer.top[0][0]] == coarse[truth] for answer, truth in answers]),
        score=np.array([answer.score for answer, _ in answers]),
    )


def choose_threshold(measured: Measured) -> tuple[float, str]:
    """The least threshold whose accepted answers are right often enough on the photos, and why."""
    for threshold in np.arange(0.10, 0.96, 0.01):
        accepted = measured.score >= threshold
        if accepted.sum() >= 20 and measured.top1[accepted].mean() >= WANTED_PRECISION:
            precision, share = float(measured.top1[accepted].mean()), float(accepted.mean())
            reason = (
                f"the least at which at least {WANTED_PRECISION:.0%} of the accepted answers on val.txt are right: "
                f"{precision:.1%} of the {share:.1%} that are accepted "
                "(chosen and counted on the same photos, so a little hopeful)"
            )
            return round(float(threshold), 2), reason
    return 0.5, f"no threshold reaches {WANTED_PRECISION:.0%} right answers on val.txt; one half is a guess"


def read_photos(data_dir: Path, split: str, names: tuple[str, ...]) -> Pictures:
    """The photos of a split, decoded as the product decodes them, with their labels."""
    rows = [
        line.split(",") for line in (data_dir / f"{split}.txt").read_text(encoding="utf-8").splitlines() if line.strip()
    ]
    return [(decode_picture((data_dir / row[0].strip()).read_bytes()), names[int(row[1])]) for row in rows]


def by_group(data_dir: Path, split: str, measured: Measured) -> dict[str, float]:
    """Top-1 accuracy for each of the data set's folders (fruit, packages, vegetables)."""
    lines = (data_dir / f"{split}.txt").read_text(encoding="utf-8").splitlines()
    groups = np.array([Path(line.split(",")[0]).parts[1].lower() for line in lines if line.strip()])
    return {
        f"{split}_top1_{group}": round(float(measured.top1[groups == group].mean()), 4) for group in np.unique(groups)
    }


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
    inputs = []
    with Classifier.open(bundle, "onnxruntime") as classifier:
        worker = classifier.worker()
        for path in paths:
            answer = worker.classify(decode_picture(bundle.read(path)), k=len(classifier.labels))
            expected = {label: round(score, 6) for label, score in answer.top if score >= 5e-4}
            inputs.append(GoldenInput(path=path, expected=expected))
    return Golden(inputs=tuple(inputs), tolerance={"cpu": 1e-3, "gpu": 2e-2, "npu": 5e-2})


def _card(story: Story, labels: tuple[str, ...], size_px: int) -> str:
    figures = "\n".join(f"| {name.replace('_', ' ')} | {value:.4g} |" for name, value in story.metrics.items())
    return f"""# {len(labels)} products of a grocery shelf

| measured | |
|---|---|
{figures}

Measured by the script that made the bundle, through the product's own classifier (its resize, its runtime).

**Takes** a BGR picture, the middle square of it, at {size_px} x {size_px}. **Gives** a probability for each label.

**Threshold {story.threshold}**: {story.threshold_reason}. Below it an answer is called `unknown`.

**Data.** {story.data_set}

**Licence.** {story.licence}

**Method.** {story.method}

**Limits.** {story.limits} There is no class for anything else: a picture of something else gets one of these labels,
and how often above the threshold was not measured. The rendered scenes are easy: their figure shows that the
demonstration works, nothing about real shops. Not to be used to charge customers without a person's check.
"""
