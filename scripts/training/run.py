"""The whole of a training: data, teacher, loop, choices on val, export, measurement, bundle, report."""

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from models import Bundle, Classifier, decode_picture, evaluate
from models.prepare import Input
from models.quantise import quantise
from models.setup import Setup
from training import bundling, choosing, learn, photos, scenes
from training.bundling import Measured, Parts, Story
from training.choosing import Tried
from training.export import onnx_of
from training.learn import Learner, Lessons, Plan
from training.network import ShelfNet
from training.photos import Classes, DataSet
from training.teacher import Teacher

Progress = Callable[[str], Callable[[int, int], None]]

SCENES_PER_EPOCH = 128
SMOKE_SEEDS = range(10_000, 10_006)
SAVE_EVERY_S = 240.0
SIDES_BEYOND_PX = (0, 32, 64)
"""How much larger than in training the input may be; val decides."""

CALIBRATION_PHOTOS = 240
CALIBRATION_SCENES = 60


@dataclass(frozen=True, slots=True)
class Request:
    """What the person asked for; see `scripts/train --help`."""

    data_dir: Path | None
    out: Path
    release: int
    epochs: int
    minutes: float | None
    size_px: int
    teacher: Path | None
    start: Path | None
    cache_dir: Path
    seed: int
    precision: str
    threads: int = 0
    fresh: bool = False

    @property
    def work_dir(self) -> Path:
        """Where this training keeps its state and its report: another request, another folder."""
        named = (self.data_dir, self.epochs, self.minutes, self.size_px, self.teacher, self.start, self.seed)
        return self.cache_dir / f"training-{hashlib.sha256(repr(named).encode()).hexdigest()[:12]}"


@dataclass(frozen=True, slots=True)
class _Material:
    """Everything that is learnt from and chosen with."""

    classes: Classes
    lessons: Lessons
    val: photos.Pictures
    val_labels: photos.Labels
    data: DataSet | None


def train(request: Request, progress: Progress) -> Bundle:
    """Train, export, measure and write the bundle and the report. Raises TrainError, BundleError."""
    if request.threads:
        torch.set_num_threads(request.threads)
    learn.cv2.setNumThreads(1)  # the learning has the cores
    material = _material(request, progress)
    learner = _learner(request, material)
    _learn(request, learner, material)
    network = learner.kept.cpu()
    tried: list[Tried] = []
    size_px = request.size_px
    if material.data is not None:
        sides = [size_px + more for more in SIDES_BEYOND_PX]
        network, best, tried = choosing.best_side(
            network, material.lessons.photos, material.val, material.val_labels, sides
        )
        size_px = best.side_px
        scores = choosing.logits(network, material.val, size_px)
        choosing.sharpen(network, choosing.best_sharpness(scores, material.val_labels))
    parts = Parts(_models(network, size_px, material), material.classes.names, size_px, request.release)
    bundle, _ = _bundle(request, material, parts, learner, progress)
    for side in tried:
        print(side)
    print(f"bundle {bundle.folder}")
    return bundle


# What is learnt from


def _material(request: Request, progress: Progress) -> _Material:
    if request.data_dir is None:
        return _synthetic(request, progress)
    data = photos.find(request.data_dir)
    taught = photos.read(data.train, request.cache_dir, progress("reading photos"))
    val = photos.read(data.val, request.cache_dir, progress("reading photos"))
    names = data.classes.names
    drawn = [label for label in scenes.PRODUCTS if label in names]
    if len(drawn) == len(scenes.PRODUCTS):
        pictures, labels = scenes.training_set(names, request.cache_dir, progress("rendering cameras"))
        per_epoch = SCENES_PER_EPOCH
    else:  # another shop's products: the rendered ones are no lesson for them
        pictures, labels, per_epoch = np.empty((0, 1, 1, 3), np.uint8), np.empty(0, np.int64), 0
    lessons = Lessons(taught, data.train.labels, pictures, labels, per_epoch, len(names))
    return _Material(data.classes, lessons, val, data.val.labels, data)


def _synthetic(request: Request, progress: Progress) -> _Material:
    """A few rendered cameras: enough to see that everything works, in a minute."""
    names = scenes.PRODUCTS
    pictures, labels = scenes.training_set(names, request.cache_dir, progress("rendering cameras"), SMOKE_SEEDS)
    lessons = Lessons([], np.empty(0, np.int64), pictures, labels, SCENES_PER_EPOCH, len(names))
    return _Material(Classes(names, names), lessons, [], np.empty(0, np.int64), None)


# The loop


def _learner(request: Request, material: _Material) -> Learner:
    plan = Plan(
        epochs=request.epochs,
        seconds=None if request.minutes is None else request.minutes * 60,
        size_px=request.size_px,
        seed=request.seed,
        bfloat16=_use_bfloat16(request.precision),
        device="cuda" if torch.cuda.is_available() else "cpu",
    )
    teacher = Teacher(request.teacher, material.lessons.classes) if request.teacher is not None else None
    learner = Learner(material.lessons, plan, teacher)
    if request.start is not None:
        left = learner.start_from(request.start)
        print(f"starting from {request.start}" + (f"; new: {', '.join(left)}" if left else ""), flush=True)
    return learner


def _learn(request: Request, learner: Learner, material: _Material) -> None:
    request.work_dir.mkdir(parents=True, exist_ok=True)
    state = request.work_dir / "state.pt"
    if request.fresh:
        state.unlink(missing_ok=True)
    if state.exists():
        learner.load(state)
        print(f"going on after {learner.progress.step} steps of {state}", flush=True)
    lessons = material.lessons
    print(f"learning {len(lessons.photos)} photos and {len(lessons.scenes)} scenes", flush=True)
    saved_s = [time.monotonic()]

    def after_epoch(learner: Learner) -> None:
        _note_val(learner, material)
        print(_line(learner.progress.history[-1]), flush=True)

    def after_step(learner: Learner) -> None:
        if time.monotonic() - saved_s[0] > SAVE_EVERY_S:
            learner.save(state)
            saved_s[0] = time.monotonic()

    try:
        learner.run(after_epoch, after_step)
    finally:
        learner.save(state)


def _note_val(learner: Learner, material: _Material) -> None:
    """Every few epochs, how the averaged network does on val so far."""
    figures = learner.progress.history[-1]
    if material.val and (round(figures["epoch"]) % 5 == 0 or learner.done >= 1):
        scores = choosing.logits(learner.kept, material.val, round(figures["side"]), learner.device)
        figures["val"] = float((scores.argmax(axis=1) == material.val_labels).mean())


def _line(figures: dict[str, float]) -> str:
    shown = {"share": "{:4.0%}", "epoch": "epoch {:.0f}", "side": "{:.0f} px", "val": "val {:.1%}"}
    parts = [form.format(figures[name]) for name, form in shown.items() if name in figures]
    return "  ".join([*parts, *(f"{name} {figures[name]:.3f}" for name in figures if name in learn.LOSSES)])


def _use_bfloat16(precision: str) -> bool:
    if precision != "auto":
        return precision == "bfloat16"
    if torch.cuda.is_available():
        return True
    cpuinfo = Path("/proc/cpuinfo")
    return cpuinfo.exists() and "avx512_bf16" in cpuinfo.read_text(encoding="utf-8")


# The bundle


def _models(network: ShelfNet, size_px: int, material: _Material) -> dict[str, bytes]:
    """FP32, and INT8 calibrated on photos and scenes that were learnt from, never on val."""
    whole = onnx_of(network, size_px)
    rng = np.random.default_rng(5)
    lessons = material.lessons
    taught = rng.permutation(len(lessons.photos))[:CALIBRATION_PHOTOS]
    drawn = rng.permutation(len(lessons.scenes))[:CALIBRATION_SCENES]
    pictures = [lessons.photos[i] for i in taught] + [lessons.scenes[i] for i in drawn]
    return {"fp32": whole, "int8": quantise(whole, Input(width=size_px, height=size_px), pictures)}


def _bundle(
    request: Request, material: _Material, parts: Parts, learner: Learner, progress: Progress
) -> tuple[Bundle, dict[str, Measured]]:
    """Write the bundle twice: first to measure it as users will run it, then with what was measured."""
    story = _story(request, material, learner)
    bundle = bundling.bundle_of(parts, request.out, story)
    measured = {}
    for precision in parts.models:
        setup = Setup.from_json({"precision": precision})
        with Classifier.open(bundle, setup) as classifier:
            if material.data is not None:
                found = bundling.measure(classifier, _val(material.data), progress(f"{precision} on val"))
                measured[precision] = found
                story.metrics |= _val_metrics(precision, found, material.classes, story, classifier.labels)
            story.metrics |= _synthetic_metrics(classifier, precision, story, progress)
    print("  ".join(f"{name} {value:g}" for name, value in story.metrics.items()), f" threshold {story.threshold}")
    return bundling.bundle_of(parts, request.out, story), measured


def _val(data: DataSet) -> bundling.Pictures:
    """The photos of val, decoded as the product decodes them."""
    names = data.classes.names
    return [
        (decode_picture(path.read_bytes()), names[label])
        for path, label in zip(data.val.paths, data.val.labels, strict=True)
    ]


def _val_metrics(
    precision: str, found: Measured, classes: Classes, story: Story, labels: tuple[str, ...]
) -> dict[str, float]:
    """FP32 comes first and chooses the threshold, which holds for both."""
    coarse = dict(zip(classes.names, classes.coarse, strict=True))
    right = found.scores.argmax(axis=1) == found.truths
    if precision == "fp32":
        story.threshold, story.threshold_reason = choosing.threshold(right, found.scores.max(axis=1))
    figures = evaluate.figures(found.scores, found.truths, labels, story.threshold, coarse)
    told = {
        "top1": figures.accuracy,
        "top5": figures.top5,
        "coarse_top1": figures.coarse_accuracy,
        "calibration_error": figures.calibration_error,
        "accepted": figures.accepted,
        "accepted_top1": figures.accepted_accuracy,
    }
    kept = {f"val_{precision}_{name}": round(value, 4) for name, value in told.items() if value is not None}
    return {"val_photos": float(figures.pictures), **kept}


def _synthetic_metrics(classifier: Classifier, precision: str, story: Story, progress: Progress) -> dict[str, float]:
    frames = [frame for seed in scenes.CHECK_SEEDS for frame in scenes.frames(seed) if frame[1] in classifier.labels]
    if not frames:
        return {}
    drawn = bundling.measure(classifier, frames, progress(f"{precision} on unseen cameras"))
    return {
        f"synthetic_{precision}_top1": round(float((drawn.scores.argmax(axis=1) == drawn.truths).mean()), 4),
        f"synthetic_{precision}_accepted": round(float((drawn.scores.max(axis=1) >= story.threshold).mean()), 4),
        "synthetic_frames": float(len(frames)),
    }


def _story(request: Request, material: _Material, learner: Learner) -> Story:
    parameters = sum(weights.numel() for weights in learner.kept.parameters()) / 1e6
    seen = learner.progress.step * learner.batch
    start = "random weights" if request.start is None else f"the weights of {request.start.name}"
    method = (
        f"A residual network of 3x3 convolutions with {parameters:.1f} million parameters, trained from {start} with "
        f"scripts/train: {seen / 1e3:.0f} thousand views (cut, turned, lit, blurred, covered, half of the batches "
        "mixed), averaged weights. INT8 by NNCF after the training, calibrated on 300 of the pictures learnt from."
    )
    if material.data is None:
        limits = "Rendered scenes only; real photos were never shown to it."
        return Story(method, "Rendered scenes of the synthetic camera only.", "Apache-2.0, as the project.", limits)
    method += " The side of the input and one factor that makes its scores mean what they say were chosen on val."
    if request.teacher is not None:
        method += (
            " It learnt from a larger network too, of which each view got the scores and what its layers hold "
            "(knowledge distillation); no weights were taken from it."
        )
    if (material.data.folder / "classes.csv").is_file():
        data_set = (
            "Grocery Store Dataset (Klasson, Zhang, Kjellström: A Hierarchical Grocery Store Image Dataset with Visual "
            "and Semantic Labels, WACV 2019), split train.txt and the shops' own pictures, and rendered scenes of the "
            "synthetic camera."
        )
        licence = "The data set is under the MIT licence; the model is under Apache-2.0, as the project."
        limits = (
            "Photos of single products and small groups in Swedish shops, by day, from arm's length. The figures are "
            "of val.txt, which also chose the threshold, the side and the factor; the weights were not fitted to it."
        )
        return Story(method, data_set, licence, limits)
    data_set = f"{len(material.data.train)} photos of {len(material.classes.names)} classes."
    return Story(method, data_set, "That of the photos; to be filled in by whoever trained it.", "Not described.")
