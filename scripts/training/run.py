"""The whole of a training: data, teacher, loop, export, measurement, bundle."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from models import Bundle, Classifier
from training import bundling, learn, photos, scenes, teacher
from training.bundling import Story
from training.export import write_onnx
from training.network import ShelfNet
from training.photos import Classes, Photos

Progress = Callable[[str], Callable[[int, int], None]]

_CROP_SEED = 7
_SCENES_PER_EPOCH = 224
_SMOKE_SEEDS = range(10_000, 10_006)


@dataclass(frozen=True, slots=True)
class Request:
    """What the person asked for; see `scripts/train --help`."""

    data_dir: Path | None
    out: Path
    release: int
    epochs: int
    minutes: float
    size_px: int
    teacher: Path | None
    cache_dir: Path
    seed: int
    precision: str
    threads: int = 0


def train(request: Request, work_dir: Path, progress: Progress) -> Bundle:
    """Train, export, measure and write the bundle. Raises TrainError."""
    if request.threads:
        torch.set_num_threads(request.threads)
    classes, lessons = _lessons(request, progress)
    plan = learn.Plan(
        epochs=request.epochs,
        seconds=request.minutes * 60,
        size_px=request.size_px,
        seed=request.seed,
        bfloat16=_use_bfloat16(request.precision),
    )
    print(
        f"learning {len(lessons.photos)} photos and {len(lessons.scenes)} scenes, bfloat16: {plan.bfloat16}", flush=True
    )
    network = learn.learn(lessons, plan, _reporter(request, progress))
    if request.data_dir is not None:
        val = photos.read_split(request.data_dir, "val", request.cache_dir, progress("reading photos"))
        sharpen(network, best_sharpness(_logits(network, val, request.size_px), val.labels))
    onnx_path = work_dir / "model.onnx"
    write_onnx(network, onnx_path, request.size_px)
    return _bundle(request, classes, onnx_path, progress)


def _lessons(request: Request, progress: Progress) -> tuple[Classes, learn.Lessons]:
    if request.data_dir is None:
        return _synthetic_lessons(request, progress)
    classes = photos.read_classes(request.data_dir)
    taught = photos.read_split(request.data_dir, "train", request.cache_dir, progress("reading photos"))
    pictures, labels = scenes.training_set(classes.names, request.cache_dir, progress("rendering cameras"))
    targets = _targets(request, classes, taught, progress)
    return classes, learn.Lessons(
        taught.pictures, targets, _CROP_SEED, pictures, labels, _SCENES_PER_EPOCH, len(classes.names)
    )


def _synthetic_lessons(request: Request, progress: Progress) -> tuple[Classes, learn.Lessons]:
    """A few rendered cameras: enough to see that everything works, in a minute."""
    names = scenes.PRODUCTS
    pictures, labels = scenes.training_set(names, request.cache_dir, progress("rendering cameras"), _SMOKE_SEEDS)
    none = np.empty((0, photos.SIDE_PX, photos.SIDE_PX, 3), np.uint8)
    targets = np.empty((0, 1, len(names)), np.float32)
    classes = Classes(names, np.arange(len(names)))
    return classes, learn.Lessons(none, targets, _CROP_SEED, pictures, labels, _SCENES_PER_EPOCH, len(names))


def _targets(request: Request, classes: Classes, taught: Photos, progress: Progress) -> np.ndarray:
    """What the network is to answer for each fixed crop: the label, softened by the teacher where there is one."""
    count = len(classes.names)
    hard = np.eye(count, dtype=np.float32)[taught.labels][:, None]
    if request.teacher is None:
        return np.repeat(hard * 0.9 + 0.1 / count, teacher.VIEWS, axis=1).astype(np.float32)
    said = teacher.ask(
        request.teacher, taught, _CROP_SEED, teacher.VIEWS, request.cache_dir, progress("asking the teacher")
    ).astype(np.float32)
    soft = np.sqrt(said)  # a temperature of 2: more of what the teacher also thought of
    soft /= soft.sum(axis=2, keepdims=True)
    return np.asarray(0.7 * soft + 0.3 * hard, np.float32)


def _use_bfloat16(precision: str) -> bool:
    if precision != "auto":
        return precision == "bfloat16"
    cpuinfo = Path("/proc/cpuinfo")
    return cpuinfo.exists() and "avx512_bf16" in cpuinfo.read_text(encoding="utf-8")


def _reporter(request: Request, progress: Progress) -> Callable[[dict[str, float], nn.Module], None]:
    """Print the loss of every epoch, and every few the accuracy on val so far."""
    val = None
    if request.data_dir is not None:
        val = photos.read_split(request.data_dir, "val", request.cache_dir, progress("reading photos"))

    def report(figures: dict[str, float], network: nn.Module) -> None:
        line = "  ".join(f"{name} {value:.3f}" for name, value in figures.items())
        if val is not None and round(figures["epoch"]) % 5 == 0:
            line += f"  val {(_logits(network, val, request.size_px).argmax(axis=1) == val.labels).mean():.3f}"
        print(line, flush=True)

    return report


@torch.no_grad()
def _logits(network: nn.Module, split: Photos, size_px: int) -> np.ndarray:
    resized = np.stack([learn.cv2.resize(picture, (size_px, size_px)) for picture in split.pictures])
    parts = [network(learn.normalise(resized[i : i + 64])) for i in range(0, len(resized), 64)]
    return np.asarray(torch.cat(parts).numpy(), np.float64)


def best_sharpness(logits: np.ndarray, labels: np.ndarray) -> float:
    """The factor for the logits (count, classes) whose probabilities fit `labels` best (least log loss).

    Soft targets and mixup leave a network unsure of what it gets right; one number makes its scores mean
    what they say and changes no ranking (Guo et al. 2017, On Calibration of Modern Neural Networks).
    """
    factors = np.arange(0.5, 4.01, 0.05)
    losses = []
    for factor in factors:
        scaled = logits * factor
        peak = scaled.max(axis=1)
        total = peak + np.log(np.exp(scaled - peak[:, None]).sum(axis=1))
        losses.append(float((total - scaled[np.arange(len(labels)), labels]).mean()))
    return float(factors[int(np.argmin(losses))])


@torch.no_grad()
def sharpen(network: ShelfNet, factor: float) -> None:
    """Multiply the logits of `network` by `factor`, in its last layer."""
    network.head.weight.mul_(factor)
    network.head.bias.mul_(factor)


def _bundle(request: Request, classes: Classes, onnx_path: Path, progress: Progress) -> Bundle:
    """Write the bundle twice: first to measure it as users will run it, then with what was measured."""
    story = _story(request)
    bundle = bundling.bundle_of(onnx_path, request.out, classes.names, request.size_px, request.release, story)
    coarse = {name: int(number) for name, number in zip(classes.names, classes.coarse, strict=True)}
    with Classifier.open(bundle) as classifier:
        if request.data_dir is not None:
            pictures = bundling.read_photos(request.data_dir, "val", classes.names)
            found = bundling.measure(classifier, pictures, coarse, progress("measuring on val"))
            story.metrics |= {
                "val_top1": round(float(found.top1.mean()), 4),
                "val_top5": round(float(found.top5.mean()), 4),
                "val_coarse_top1": round(float(found.coarse.mean()), 4),
                "val_photos": float(len(pictures)),
            }
            story.metrics |= bundling.by_group(request.data_dir, "val", found)
            story.threshold, story.threshold_reason = bundling.choose_threshold(found)
        frames = [frame for seed in scenes.CHECK_SEEDS for frame in scenes.frames(seed)]
        drawn = bundling.measure(classifier, frames, coarse, progress("measuring on unseen cameras"))
        story.metrics |= {
            "synthetic_top1": round(float(drawn.top1.mean()), 4),
            "synthetic_accepted": round(float((drawn.score >= story.threshold).mean()), 4),
            "synthetic_frames": float(len(frames)),
        }
    print("  ".join(f"{name} {value:g}" for name, value in story.metrics.items()), f" threshold {story.threshold}")
    return bundling.bundle_of(onnx_path, request.out, classes.names, request.size_px, request.release, story)


def _story(request: Request) -> Story:
    parameters = sum(weights.numel() for weights in ShelfNet(81).parameters()) / 1e6
    method = (
        f"A residual network of 3x3 convolutions with {parameters:.1f} million parameters, trained from random weights "
        "with scripts/train (random crops, colour, mixup, averaged weights)."
    )
    if request.data_dir is None:
        limits = "Rendered scenes only; real photos were never shown to it."
        return Story(method, "Rendered scenes of the synthetic camera only.", "Apache-2.0, as the project.", limits)
    method += " One factor, chosen on val.txt, makes its scores mean what they say."
    if request.teacher is not None:
        method += (
            " Targets were softened by a larger network's probabilities for the same crops (knowledge distillation); "
            "no weights were taken from it."
        )
    data_set = (
        "Grocery Store Dataset (Klasson, Zhang, Kjellström: A Hierarchical Grocery Store Image Dataset with Visual and "
        "Semantic Labels, WACV 2019), split train.txt, and rendered scenes of the synthetic camera."
    )
    licence = "The data set is under the MIT licence; the model is under Apache-2.0, as the project."
    limits = (
        "Photos of single products and small groups in Swedish shops, by day, from arm's length. The figures are of "
        "val.txt, which also chose the threshold and the factor of the scores; the weights were not fitted to it."
    )
    return Story(method, data_set, licence, limits)
