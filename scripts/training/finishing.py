"""From trained weights to a bundle: choices on val, both precisions, what they reach, the report."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from models import Bundle, Classifier, decode_picture, evaluate
from models.prepare import Input
from models.quantise import quantise
from models.setup import Setup
from training import bundling, choosing, report, scenes, telling
from training.bundling import Measured, Parts, Story
from training.choosing import Tried
from training.export import onnx_of
from training.learn import Learner
from training.material import Material, Progress, Request
from training.network import Network
from training.photos import Classes, DataSet

SIDES_BEYOND_PX = (0, 32, 64)
"""How much larger than in training the input may be; val decides."""

MOST_LOST = 0.03
"""The share of val that INT8 may get wrong beyond FP32: further, it is no rounding any more, and is not shipped."""

CALIBRATION_PHOTOS = 240
CALIBRATION_SCENES = 60


@dataclass(slots=True)
class Choice:
    """The network as it is exported, the side of its input, and what val was asked for that."""

    network: Network
    size_px: int
    tried: Sequence[Tried] = ()
    best: Tried | None = None


@dataclass(slots=True)
class Found:
    """What each precision answered for the photos of val and for the unseen cameras."""

    val: dict[str, Measured] = field(default_factory=dict)
    drawn: dict[str, Measured] = field(default_factory=dict)


def finish(request: Request, material: Material, learner: Learner, progress: Progress) -> Bundle:
    """Choose, export, measure; write the bundle, and the report beside the training's state."""
    choice = _choose(learner.kept.cpu(), request.size_px, material)
    models = _models(choice.network, choice.size_px, material)
    above = zip(material.classes.names, material.classes.coarse, strict=True)
    coarse = {name: one for name, one in above if one != name}
    parts = Parts(models, material.classes.names, choice.size_px, request.release, coarse)
    story = telling.story(request, material, learner)
    bundle, found = _bundle(request, material, parts, story, progress)
    print("  ".join(f"{name} {value:g}" for name, value in story.metrics.items()), f" threshold {story.threshold}")
    told = telling.training(request, material, learner, bundle, story, (choice.tried, choice.best))
    checked = telling.checked(material, bundle, story, found.val or found.drawn)
    print(f"report {report.write(request.work_dir / 'report.html', told, checked)}")
    print(f"bundle {bundle.folder}")
    return bundle


def _choose(network: Network, size_px: int, material: Material) -> Choice:
    """The side of the input that fits val best, and the factor after which scores mean what they say."""
    if material.data is None:
        return Choice(network, size_px)
    sides = [size_px + more for more in SIDES_BEYOND_PX if network.any_side or not more]
    labels = material.val_labels
    network, best, tried = choosing.best_side(network, material.lessons.photos, material.val, labels, sides)
    choosing.sharpen(network, choosing.best_sharpness(choosing.logits(network, material.val, best.side_px), labels))
    return Choice(network, best.side_px, tried, best)


def _models(network: Network, size_px: int, material: Material) -> dict[str, bytes]:
    """FP32, and INT8 calibrated on photos and scenes that were learnt from, never on val."""
    whole = onnx_of(network, size_px)
    rng = np.random.default_rng(5)
    lessons = material.lessons
    taught = rng.permutation(len(lessons.photos))[:CALIBRATION_PHOTOS]
    drawn = rng.permutation(len(lessons.scenes))[:CALIBRATION_SCENES]
    pictures = [lessons.photos[i] for i in taught] + [lessons.scenes[i] for i in drawn]
    return {"fp32": whole, "int8": quantise(whole, Input(width=size_px, height=size_px), pictures)}


def _bundle(
    request: Request, material: Material, parts: Parts, story: Story, progress: Progress
) -> tuple[Bundle, Found]:
    """Write the bundle twice: first to measure it as users will run it, then with what was measured."""
    bundle = bundling.bundle_of(parts, request.out, story)
    found = Found()
    with ExitStack() as opened:
        classifiers = {name: opened.enter_context(_open(bundle, name)) for name in parts.models}
        if material.data is not None:
            shown = _val(material.data)
            for name, classifier in classifiers.items():
                found.val[name] = bundling.measure(classifier, shown, progress(f"{name} on val"))
                story.metrics |= _val_metrics(name, found.val[name], material.classes, story)
        found.drawn = _drawn(classifiers, progress("unseen cameras"))
        for name, drawn in found.drawn.items():
            story.metrics |= _drawn_metrics(name, drawn, story)
    if found.val and lost_too_much(found.val["fp32"], found.val["int8"]):
        parts = _without_int8(parts, request.out, story, found)
    return bundling.bundle_of(parts, request.out, story), found


def lost_too_much(before: Measured, after: Measured) -> bool:
    """Whether INT8 is wrong about so many more photos than FP32 that it is not the same classifier any more."""
    right = [int((said.scores.argmax(axis=1) == said.truths).sum()) for said in (before, after)]
    return right[0] - right[1] > max(1.5, MOST_LOST * len(before.truths))


def _without_int8(parts: Parts, folder: Path, story: Story, found: Found) -> Parts:
    """FP32 alone: a device must not choose for its speed what has forgotten what it knew."""
    before, after = (story.metrics[f"val_{name}_top1"] for name in ("fp32", "int8"))
    told = f"INT8 was left out: on val it had {after:.1%} right, FP32 {before:.1%}."
    print(f"{told}\n  the bundle runs in FP32; shelfwire-agent model quantize tries again, with photos that you choose")
    story.method = f"{story.method} {told}"
    story.metrics = {name: value for name, value in story.metrics.items() if "_int8_" not in name}
    for answers in (found.val, found.drawn):
        answers.pop("int8", None)
    (folder / bundling.FILES["int8"]).unlink()
    return replace(parts, models={"fp32": parts.models["fp32"]})


def _open(bundle: Bundle, precision: str) -> Classifier:
    classifier = Classifier.open(bundle, Setup.from_json({"precision": precision}))
    for note in classifier.notes:
        print(f"{precision}: {note.message}; {note.hint}")
    return classifier


def _val(data: DataSet) -> bundling.Pictures:
    """The photos of val, decoded as the product decodes them."""
    names = data.classes.names
    return [
        (decode_picture(path.read_bytes()), names[label])
        for path, label in zip(data.val.paths, data.val.labels, strict=True)
    ]


def _val_metrics(precision: str, found: Measured, classes: Classes, story: Story) -> dict[str, float]:
    """FP32 comes first and chooses the threshold, which holds for both."""
    coarse = dict(zip(classes.names, classes.coarse, strict=True))
    right = found.scores.argmax(axis=1) == found.truths
    if precision == "fp32":
        story.threshold, story.threshold_reason = choosing.threshold(right, found.scores.max(axis=1))
    figures = evaluate.figures(found.scores, found.truths, classes.names, story.threshold, coarse)
    told = {
        "top1": figures.accuracy,
        "top5": figures.top5,
        "coarse_top1": figures.coarse_accuracy,
        "calibration_error": figures.calibration_error,
        "accepted": figures.accepted,
        "accepted_top1": figures.accepted_accuracy,
    }
    kept = {f"val_{precision}_{name}": round(value, 6) for name, value in told.items() if value is not None}
    return {"val_photos": float(figures.pictures), **kept}


def _drawn(classifiers: Mapping[str, Classifier], progress: bundling.Progress) -> dict[str, Measured]:
    """What is said about cameras that were not learnt from, one after another; nothing without labels for them."""
    if not all(set(scenes.PRODUCTS) <= set(classifier.labels) for classifier in classifiers.values()):
        return {}
    parts: dict[str, list[Measured]] = {name: [] for name in classifiers}
    for number, seed in enumerate(scenes.CHECK_SEEDS):
        shown = scenes.frames(seed)  # rendered once: that costs more than the answers
        for name, classifier in classifiers.items():
            parts[name].append(bundling.measure(classifier, shown, lambda _done, _all: None))
        progress(number + 1, len(scenes.CHECK_SEEDS))
    return {
        name: Measured(np.concatenate([one.scores for one in told]), np.concatenate([one.truths for one in told]))
        for name, told in parts.items()
    }


def _drawn_metrics(precision: str, drawn: Measured, story: Story) -> dict[str, float]:
    right = drawn.scores.argmax(axis=1) == drawn.truths
    return {
        f"synthetic_{precision}_top1": round(float(right.mean()), 6),
        f"synthetic_{precision}_accepted": round(float((drawn.scores.max(axis=1) >= story.threshold).mean()), 6),
        "synthetic_frames": float(len(right)),
    }
