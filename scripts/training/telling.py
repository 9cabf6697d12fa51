"""What is told of a training: the story on the bundle's card, and what the report needs to know."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch

from models import Bundle, decode_picture
from training import report, scenes, start
from training.bundling import Measured, Story
from training.choosing import Tried
from training.learn import Learner
from training.material import Material, Request
from training.photos import Classes, DataSet
from training.report import Checked, Training
from training.report.parts import spell

GROCERY = frozenset({"Golden-Delicious", "Brown-Cap-Mushroom", "Yoggi-Vanilla-Yoghurt"})
"""Labels that, together and in a classes.csv, no other data set has."""


def story(request: Request, material: Material, learner: Learner) -> Story:
    """The words of the card, before anything is measured."""
    told = _story(request, material, learner)
    if request.backbone is not None:
        told.licence = start.licence(request.backbone)
    return told


def _story(request: Request, material: Material, learner: Learner) -> Story:
    method = _method(request, material, learner)
    if material.data is None:
        limits = "Rendered scenes only; real photos were never shown to it."
        return Story(method, "Rendered scenes of the synthetic camera only.", "Apache-2.0, as the project.", limits)
    names = material.classes.names
    if set(names) >= GROCERY:
        return Story(method, *_grocery(), grocery=True)
    data_set = f"{len(material.data.train)} photos of {len(names)} classes."
    return Story(method, data_set, "That of the photos; to be filled in by whoever trained it.", "Not described.")


def _method(request: Request, material: Material, learner: Learner) -> str:
    parameters = sum(weights.numel() for weights in learner.kept.parameters()) / 1e6
    seen = f"{learner.views:,} views"
    if learner.earlier_views:
        part = f"{learner.earlier_views:,}" if learner.progress.step else "all"
        before = "a training before, whose weights it started from"
        if len(states := set(request.starts)) > 1:
            before = f"trainings before, from the mean of {len(states)} of whose weights it started"
        seen += f", {part} of them in {before}"
    origin = start.origin(request.backbone)
    method = (
        f"{learner.kept.kind} with {parameters:.1f} million parameters, trained from {origin} with "
        f"scripts/train: {seen} (views are cut, turned, lit, blurred and covered at random{_mixed(learner)}), averaged "
        "weights. INT8 by NNCF after the training, calibrated on pictures that were learnt from."
    )
    if material.data is not None:
        method += (
            " The side of the input, what its normalisations go by and one factor that makes its scores mean what they "
            "say were chosen on val."
        )
    if request.teachers:
        one = len(request.teachers) == 1
        who, whom = ("a larger network", "it") if one else (f"{len(request.teachers)} larger networks", "them")
        scores = (
            "the scores and what its layers hold" if one else "the mean of their scores and what layers of one hold"
        )
        method += (
            f" It learnt from {who} too, of which each view got {scores} (knowledge distillation); no weights were "
            f"taken from {whom}."
        )
    return method


def _mixed(learner: Learner) -> str:
    """How many batches were mixed, as far as this training knows: nothing of those before."""
    if not learner.progress.step:
        return ""
    return f", {learner.mixed:.0%} of the batches mixed" + (" in the last training" if learner.earlier_views else "")


def _grocery() -> tuple[str, str, str]:
    """Data set, licence and limits of what is trained on the Grocery Store Dataset."""
    data_set = (
        "Grocery Store Dataset (Klasson, Zhang, Kjellström: A Hierarchical Grocery Store Image Dataset with Visual "
        "and Semantic Labels, WACV 2019), split train.txt and the shops' own pictures, and rendered scenes of the "
        "synthetic camera."
    )
    licence = "The data set is under the MIT licence; the model is under Apache-2.0, as the project."
    limits = (
        "Photos of single products and small groups in Swedish shops, by day, from arm's length. The figures are "
        "of val.txt, which also chose the threshold, the side, the normalisations and the factor; no weight was fitted "
        "to it."
    )
    return data_set, licence, limits


# For the report


def training(
    request: Request,
    material: Material,
    learner: Learner,
    bundle: Bundle,
    told: Story,
    chosen: tuple[Sequence[Tried], Tried | None],
) -> Training:
    """What was trained and how, for the report; `chosen` is what val was asked, and what it took."""
    manifest = bundle.manifest
    facts = {
        "Learnt from": _taught(material),
        "Labels": _labels(material.classes),
        "Learning": _length(learner),
        "Seed": str(request.seed),
        "Threads": f"{torch.get_num_threads()} on {learner.device}",
        "Started from": start.shortly(request.starts, request.backbone),
        "Teacher": ", ".join(teacher.name for teacher in request.teachers) or "none",
        "Pictures learnt at": f"{request.size_px} px, {learner.arithmetic}",
        "Input": f"{manifest.input.width} x {manifest.input.height} px",
        **_scene_facts(told.metrics),
        **{
            report.PRECISIONS[precision]: f"{file.size_bytes / 1e6:.1f} MB, {file.sha256[:12]}"
            for precision, file in manifest.models.items()
        },
        "Bundle": f"release {manifest.release}, {bundle.ref.digest[:12]}",
    }
    name = f"{manifest.name} {manifest.version}"
    return Training(name, facts, told.method, learner.progress.history, *chosen)


def checked(material: Material, bundle: Bundle, told: Story, measured: Mapping[str, Measured]) -> Checked:
    """What the bundle said about photos of val, or about unseen cameras where there are no photos."""
    classes = material.classes
    names, picture = _pictures(material.data)
    what = f"{len(names)} {'rendered pictures' if material.data is None else 'photos of val'}"
    coarse = dict(zip(classes.names, classes.coarse, strict=True))
    labels = bundle.manifest.labels
    return Checked(what, measured, labels, coarse, told.threshold, told.threshold_reason, names, picture)


def _pictures(data: DataSet | None) -> tuple[list[str], Callable[[int], npt.NDArray[np.uint8]]]:
    """The names of the pictures that were measured, and how to get one."""
    if data is None:
        each = len(scenes.PRODUCTS)
        names = [f"camera {seed}, picture {number + 1}" for seed in scenes.CHECK_SEEDS for number in range(each)]
        return names, lambda at: scenes.frames(scenes.CHECK_SEEDS[at // each])[at % each][0]
    paths = data.val.paths
    inside = [path.relative_to(data.folder) if path.is_relative_to(data.folder) else path for path in paths]
    return [str(path) for path in inside], lambda at: decode_picture(paths[at].read_bytes())


def _taught(material: Material) -> str:
    photos, drawn = len(material.lessons.photos), len(material.lessons.scenes)
    parts = [f"{photos:,} photos"] * bool(photos) + [f"{drawn:,} rendered scenes"] * bool(drawn)
    return ", ".join(parts)


def _labels(classes: Classes) -> str:
    coarse = len(set(classes.coarse))
    return str(len(classes.names)) + (f" in {coarse} coarse classes" if coarse < len(classes.names) else "")


def _length(learner: Learner) -> str:
    steps = learner.progress.step
    return f"{spell(round(learner.progress.seconds / 60))}, {steps / learner.per_epoch:.0f} epochs, {steps:,} steps"


def _scene_facts(metrics: Mapping[str, float]) -> dict[str, str]:
    shares = {name: metrics.get(f"synthetic_{precision}_top1") for precision, name in report.PRECISIONS.items()}
    known = [f"{name} {share:.1%}" for name, share in shares.items() if share is not None]
    return {"Rendered scenes right": ", ".join(known)} if known else {}
