"""What is chosen on val once the weights are there: side of the input, sharpness of the scores, threshold."""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from training import learn, views
from training.network import Network

WANTED_PRECISION = 0.90
LEAST_ACCEPTED = 20

AS_LEARNT, VIEWS, WHOLE = "as learnt", "views", "whole pictures"
"""What the normalisations of a network have their means and spreads from: see `settled`."""

BATCH = 64

Pictures = Sequence[npt.NDArray[np.uint8]]
Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Tried:
    """One side of the input in pixels and what the normalisations went by, and how the network did on val with both."""

    side_px: int
    norms: str
    accuracy: float
    loss: float


@torch.no_grad()
def logits(network: nn.Module, pictures: Pictures, side_px: int, device: str = "cpu") -> Floats:
    """What `network` gives for the middle squares of `pictures`, (count, classes)."""
    parts = [network(learn.normalise(cut, device)).float().cpu() for cut in whole(pictures, side_px)]
    return np.asarray(torch.cat(parts).numpy(), np.float64)


def log_loss(scores: Floats, labels: Labels) -> float:
    """Mean of -log of the probability that the softmax of `scores` (count, classes) gives to the true label."""
    peak = scores.max(axis=1)
    total = peak + np.log(np.exp(scores - peak[:, None]).sum(axis=1))
    return float((total - scores[np.arange(len(labels)), labels]).mean())


def best_sharpness(scores: Floats, labels: Labels) -> float:
    """The factor for the logits (count, classes) whose probabilities fit `labels` best (least log loss).

    Soft targets and mixed pictures leave a network unsure of what it gets right; one number makes its scores mean
    what they say and changes no ranking (Guo et al. 2017, On Calibration of Modern Neural Networks).
    """
    factors = np.arange(0.5, 5.01, 0.05)
    losses = [log_loss(scores * factor, labels) for factor in factors]
    return float(factors[int(np.argmin(losses))])


def whole(pictures: Pictures, side_px: int) -> Iterator[npt.NDArray[np.uint8]]:
    """The middle squares of `pictures`, as the device shows them, in batches (N, side_px, side_px, 3)."""
    for start in range(0, len(pictures), BATCH):
        yield np.stack([views.middle(picture, side_px) for picture in pictures[start : start + BATCH]])


def _views(pictures: Pictures, side_px: int) -> Iterator[npt.NDArray[np.uint8]]:
    """A view of each of `pictures`, as they were learnt from, but never mixed."""
    rng = np.random.default_rng(6)
    order = rng.permutation(len(pictures))
    for start in range(0, len(pictures), BATCH):
        yield np.stack([views.view(rng, pictures[i], side_px) for i in order[start : start + BATCH]])


@torch.no_grad()
def settled(network: Network, batches: Iterator[npt.NDArray[np.uint8]], device: str = "cpu") -> Network:
    """A copy whose normalisations have met these pictures instead of those that were learnt from.

    Most batches were of mixed pictures, whose values spread less than those of any photo.
    """
    other = copy.deepcopy(network)
    for norm in [part for part in other.modules() if isinstance(part, nn.BatchNorm2d)]:
        norm.reset_running_stats()
        norm.momentum = None  # a plain average over all batches
        norm.train()
    for cut in batches:
        other(learn.normalise(cut, device))
    return other.eval()


def best_side(
    network: Network, taught: Pictures, val: Pictures, labels: Labels, sides_px: Sequence[int], device: str = "cpu"
) -> tuple[Network, Tried, list[Tried]]:
    """The side whose scores fit val best, as learnt or `settled`; a network sees best a bit above the side that it
    was trained with, because views enlarge what is in them (Touvron et al. 2019, Fixing the train-test resolution)."""
    tried: list[Tried] = []
    kept: tuple[Network, Tried] | None = None
    has_norms = any(isinstance(part, nn.BatchNorm2d) for part in network.modules())
    for side_px in sides_px:
        for norms in (AS_LEARNT, VIEWS, WHOLE) if has_norms else (AS_LEARNT,):
            candidate = network
            if norms != AS_LEARNT:
                shown = _views(taught, side_px) if norms == VIEWS else whole(taught, side_px)
                candidate = settled(network, shown, device)
            scores = logits(candidate, val, side_px, device)
            loss = log_loss(scores * best_sharpness(scores, labels), labels)
            tried.append(Tried(side_px, norms, float((scores.argmax(axis=1) == labels).mean()), loss))
            if kept is None or loss < kept[1].loss:
                kept = candidate, tried[-1]
    assert kept is not None
    return *kept, tried


@torch.no_grad()
def sharpen(network: Network, factor: float) -> None:
    """Multiply the logits of `network` by `factor`, in its last layer."""
    network.head.weight.mul_(factor)
    network.head.bias.mul_(factor)


def threshold(right: npt.NDArray[np.bool_], score: Floats) -> tuple[float, str]:
    """The least threshold whose accepted answers are right often enough on val, and why; both (count,)."""
    for least in np.arange(0.10, 0.96, 0.01):
        accepted = score >= least
        if accepted.sum() >= LEAST_ACCEPTED and right[accepted].mean() >= WANTED_PRECISION:
            precision, share = float(right[accepted].mean()), float(accepted.mean())
            reason = (
                f"the least at which at least {WANTED_PRECISION:.0%} of the accepted answers on val are right: "
                f"{precision:.1%} of the {share:.1%} that are accepted "
                "(chosen and counted on the same photos, so a little hopeful)"
            )
            return round(float(least), 2), reason
    return 0.5, f"no threshold reaches {WANTED_PRECISION:.0%} right answers on val; one half is a guess"
