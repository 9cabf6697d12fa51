"""What a training starts from, as `--start` names it: a former training, an ONNX file, or a function of torch.

A file of pickled Python objects is not opened, as it may run anything; a function is code that a person chose to run.
"""

import hashlib
import importlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
import onnxruntime as ort
import torch
from torch import nn

from training.errors import TrainError
from training.given_net import Export, GivenNet, Pooled, export_onnx, export_torch
from training.learn import Learner, Lessons, Plan
from training.network import MEAN_BGR, SCALE, Network
from training.onnx_graph import Looks, body_of, read
from training.onnx_net import OnnxBody
from training.teacher import Teachers

OWN_SIDE_PX: Final = 160
GIVEN_SIDE_PX: Final = 224
"""The side of the last views where neither the person nor the file says one."""

MOST_APART: Final = 2e-3
"""How far a probability of the exported network may be from the trained one's: they are the same arithmetic."""

FUNCTION: Final = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")


@dataclass(frozen=True, slots=True)
class Backbone:
    """A network to fine-tune: the ONNX file or `package.module:function`, and what it gets from a pixel."""

    named: str
    looks: Looks

    @property
    def is_file(self) -> bool:
        """Whether an ONNX file is meant."""
        return self.named.lower().endswith(".onnx")


@dataclass(frozen=True, slots=True)
class Opened:
    """A backbone that can be trained: `make` gives the network for a number of classes, once."""

    make: Callable[[int], Network]
    any_side: bool
    """Whether it takes pictures of other sides than the one it was opened with."""


def named(texts: Sequence[str], looks: Looks) -> tuple[tuple[Path, ...], Backbone | None]:
    """Former trainings' state.pt, or one backbone, or neither. Raises TrainError start-kind, start-several."""
    states = tuple(Path(text) for text in texts if Path(text).suffix.lower() == ".pt")
    if len(states) == len(texts):
        return states, None
    if len(texts) > 1:
        hint = "give one network, or only state.pt files of former trainings"
        raise TrainError("start-several", "only former trainings have weights of which a mean can be taken", hint)
    (text,) = texts
    if Path(text).suffix.lower() == ".onnx" or FUNCTION.fullmatch(text):
        return (), Backbone(text, looks)
    raise TrainError(
        "start-kind",
        f"{text!r} is nothing that training can start from",
        "give a former training's state.pt, FILE.onnx, or package.module:function, a function of yours that loads "
        "what you have and returns the torch module",
    )


def looks_of(mean: list[float] | None, scale: list[float] | None, colour: str) -> Looks:
    """The arithmetic before the network, from one number or three each. Raises TrainError start-scale."""
    three = []
    for what, numbers, usual in (("mean", mean, 0.0), ("scale", scale, 1.0)):
        given = [usual] if numbers is None else numbers
        if len(given) not in (1, 3) or not np.isfinite(given).all() or (what == "scale" and 0 in given):
            raise TrainError("start-scale", f"--start-{what} cannot be {given}", "give one number, or one per channel")
        three.append(tuple(given * 3 if len(given) == 1 else given))
    looks = Looks(three[0], three[1], colour)
    if max(map(abs, (*looks.mean, *looks.scale))) <= 1 and looks != Looks(colour=colour):
        raise TrainError("start-scale", "mean and scale are for values of 0 to 255", "multiply both by 255")
    return looks


def usual_side_px(backbone: Backbone | None) -> int:
    """The side to train with when the person names none. Raises TrainError start-missing, start-broken, start-shape."""
    if backbone is None:
        return OWN_SIDE_PX
    if not backbone.is_file:
        return GIVEN_SIDE_PX
    return body_of(read(Path(backbone.named)), backbone.named).entry.side_px or GIVEN_SIDE_PX


def mark_of(backbone: Backbone) -> str:
    """What the card calls it: a file by its name and digest, as names do not stay with files."""
    if not backbone.is_file:
        return backbone.named
    path = Path(backbone.named)
    return f"{path.name} (SHA-256 {hashlib.sha256(path.read_bytes()).hexdigest()[:16]}...)"


def origin(backbone: Backbone | None) -> str:
    """From which weights the first training started, for the card: our own network always began with random ones."""
    if backbone is not None:
        return "the weights that it came with, all of which were trained on with a new last layer,"
    return "random weights"


def shortly(states: Sequence[Path], backbone: Backbone | None) -> str:
    """The same for a line of the report."""
    if backbone is not None:
        return mark_of(backbone)
    return " and ".join(state.name for state in states) or "random weights"


def licence(backbone: Backbone) -> str:
    """What the card says of the licence: what is derived from somebody's weights is not the project's to license."""
    return (
        f"That of {mark_of(backbone)}, from whose weights these are derived, together with the terms of the pictures "
        "that it and this training learnt from. Look them up before passing this bundle on: the project's own licence "
        "does not cover it."
    )


def learner(lessons: Lessons, plan: Plan, teachers: Teachers | None, backbone: Backbone) -> Learner:
    """A learner of `backbone` with a head for the lessons' classes. Raises what `opened` raises."""
    given = opened(backbone, plan.size_px, plan.seed)
    if not given.any_side:
        plan = replace(plan, sides=((1.0, 1.0),))
    print(f"starting from {mark_of(backbone)}" + ("" if given.any_side else f", at {plan.size_px} px only"), flush=True)
    return Learner(lessons, plan, teachers, given.make)


def opened(backbone: Backbone, side_px: int, seed: int) -> Opened:
    """Open, cut, try and export it once, so that what does not work is said before hours of learning.

    Raises TrainError start-missing, start-broken, start-shape, start-operator, start-scale, start-function,
    start-export.
    """
    torch.manual_seed(seed)  # a function may give random weights
    body, layout, export = _from_file(backbone) if backbone.is_file else _from_function(backbone, side_px)
    width = _width(body, layout, side_px, backbone)
    any_side = all(_runs(body, layout, side) == width for side in (side_px - 32, side_px + 32))

    def make(classes: int) -> GivenNet:
        network = GivenNet(body, width, classes, backbone.looks, layout, export)
        network.kind, network.any_side = f"The network of {mark_of(backbone)}", any_side
        return network

    _try_export(make(3), side_px, backbone)
    return Opened(make, any_side)


def _from_file(backbone: Backbone) -> tuple[nn.Module, str, Export]:
    graph = body_of(read(Path(backbone.named)), backbone.named)
    if graph.entry.bytes and backbone.looks != Looks(colour=backbone.looks.colour):
        hint = "leave --start-mean and --start-scale out"
        raise TrainError("start-scale", f"{backbone.named} takes bytes and scales them itself", hint)
    return OnnxBody(graph), graph.entry.layout, export_onnx


def _from_function(backbone: Backbone, side_px: int) -> tuple[nn.Module, str, Export]:
    module_name, _, function_name = backbone.named.partition(":")
    hint = "give package.module:function of a module that Python finds (PYTHONPATH), without arguments"
    try:
        function = importlib.import_module(module_name)
        for part in function_name.split("."):
            function = getattr(function, part)
        network = function()
    except Exception as broken:  # the person's own code runs here and may raise anything
        raise TrainError("start-function", f"{backbone.named}: {broken!r}", hint) from broken
    if not isinstance(network, nn.Module):
        raise TrainError("start-function", f"{backbone.named} gives {type(network).__name__}, no torch module", hint)
    return Pooled(_headless(network.float(), side_px)), "nchw", export_torch


def _headless(network: nn.Module, side_px: int) -> nn.Module:
    """`network` with nothing in the place of the linear layer that gives its answer; as it is where none does."""
    answers: list[tuple[str, object]] = []
    hooks = [
        part.register_forward_hook(lambda _, __, given, name=name: answers.append((name, given)))
        for name, part in network.named_modules()
        if isinstance(part, nn.Linear)
    ]
    try:
        with torch.no_grad():
            given = network.eval()(torch.zeros(2, 3, side_px, side_px))
    except (RuntimeError, ValueError, AssertionError, TypeError, IndexError):
        given = None  # said by the trial that follows
    finally:
        for hook in hooks:
            hook.remove()
    if answers and answers[-1][1] is given:
        parent, _, last = answers[-1][0].rpartition(".")
        setattr(network.get_submodule(parent), last, nn.Identity())
    return network


def _runs(body: nn.Module, layout: str, side_px: int) -> int | str:
    """The width of what `body` gives for two pictures of this side, or why it gives nothing of use."""
    shape = (2, 3, side_px, side_px) if layout == "nchw" else (2, side_px, side_px, 3)
    try:
        with torch.no_grad():
            given = body.eval()(torch.zeros(shape))
    except (RuntimeError, ValueError, AssertionError, TypeError, IndexError) as broken:
        return (str(broken).strip() or repr(broken)).splitlines()[0][:200]
    if not isinstance(given, torch.Tensor) or given.ndim != 2 or len(given) != 2:
        return f"it gives {tuple(given.shape) if isinstance(given, torch.Tensor) else type(given).__name__}"
    return int(given.shape[1])


def _width(body: nn.Module, layout: str, side_px: int, backbone: Backbone) -> int:
    found = _runs(body, layout, side_px)
    if isinstance(found, str):
        hint = "give the side that it was made for with --size, and a network that gives a vector or maps per picture"
        raise TrainError("start-shape", f"{backbone.named} does not take two pictures of {side_px} px: {found}", hint)
    return found


def _try_export(network: GivenNet, side_px: int, backbone: Backbone) -> None:
    """The exported file must say what the network says."""
    hint = "give the network as an ONNX file"
    pictures = np.random.default_rng(0).integers(0, 256, (2, side_px, side_px, 3), np.uint8)
    x = (torch.from_numpy(pictures).permute(0, 3, 1, 2) - torch.tensor(MEAN_BGR).view(1, 3, 1, 1)) * SCALE
    with torch.no_grad():
        logits = network.eval()(x)
        network.head.weight.mul_(4 / (logits.max() - logits.min()).clamp(min=1e-6))  # answers that differ
        mine = torch.softmax(network(x), dim=1).numpy()
    try:
        session = ort.InferenceSession(network.onnx(side_px), providers=["CPUExecutionProvider"])
        both = session.run(None, {"picture": pictures})[0]
        each = [session.run(None, {"picture": picture[None]})[0] for picture in pictures]
    except Exception as broken:  # exporter and runtime have no public common base of their errors
        why = (str(broken).strip() or repr(broken)).splitlines()[0][:300]
        raise TrainError("start-export", f"{backbone.named} cannot be exported: {why}", hint) from broken
    apart = float(max(np.abs(both - mine).max(), np.abs(np.concatenate(each) - mine).max()))
    if not apart <= MOST_APART:
        raise TrainError("start-export", f"{backbone.named} is exported as something else ({apart:.2g} apart)", hint)
