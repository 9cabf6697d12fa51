"""The training loop: batches of crops, a falling rate, an average of the weights that is kept."""

import copy
import math
import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import models  # noqa: F401  # sets the limits of the picture decoder before cv2 is imported

import cv2  # isort: skip
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from training import crops
from training.network import ShelfNet

MEAN_BGR = (103.5, 116.3, 123.7)
SCALE = 1 / 58.0
"""A pixel's value enters the network as (value - mean) * SCALE; the same constants for every channel order."""

Pictures = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Lessons:
    """What is learnt from. Photos with targets per fixed crop, (count, views, classes), and rendered scenes."""

    photos: Pictures
    photo_targets: npt.NDArray[np.float32]
    crop_seed: int
    scenes: Pictures
    scene_labels: npt.NDArray[np.int64]
    scenes_per_epoch: int
    classes: int


@dataclass(frozen=True, slots=True)
class Plan:
    """How long and how hard: `epochs` at most, `seconds` of wall time at most."""

    epochs: int
    seconds: float
    size_px: int
    seed: int
    bfloat16: bool
    batch: int = 64
    rate: float = 2e-3
    decay: float = 0.05
    sides: tuple[tuple[float, float], ...] = ((0.35, 0.5), (0.75, 0.75), (1.0, 1.0))
    """Until which share of the time pictures have which part of `size_px`: small ones cost little and teach first."""


@dataclass(slots=True)
class _Batch:
    pictures: Pictures
    targets: npt.NDArray[np.float32]
    first_of_epoch: bool


def learn(lessons: Lessons, plan: Plan, report: Callable[[dict[str, float], nn.Module], None]) -> ShelfNet:
    """Train from random weights. `report` gets the figures of every epoch and the averaged network."""
    torch.manual_seed(plan.seed)
    torch.set_flush_denormal(True)  # numbers next to zero cost many times as much on x86
    network = ShelfNet(lessons.classes).to(memory_format=torch.channels_last)
    kept = copy.deepcopy(network).eval()
    optimiser = torch.optim.AdamW(_groups(network, plan.decay), lr=plan.rate)
    per_epoch = (len(lessons.photos) + lessons.scenes_per_epoch) // plan.batch
    total = per_epoch * plan.epochs
    started = time.monotonic()
    size_px = [_side(plan, 0.0)]
    losses: list[float] = []
    stop = threading.Event()
    for step, batch in enumerate(_prefetch(_batches(lessons, plan, size_px, per_epoch), stop)):
        done = max(step / total, (time.monotonic() - started) / plan.seconds)
        if batch.first_of_epoch and step:
            seconds = time.monotonic() - started
            report({"epoch": step / per_epoch, "share": done, "loss": float(np.mean(losses)), "seconds": seconds}, kept)
            losses.clear()
        if done >= 1:
            break
        size_px[0] = _side(plan, done)
        for group in optimiser.param_groups:
            group["lr"] = plan.rate * _rate(done)
        losses.append(_step(network, optimiser, batch, plan))
        _average(kept, network, min(0.998, (step + 1) / (step + 20)))
    stop.set()
    return kept


def normalise(pictures: Pictures) -> Tensor:
    """(N, H, W, 3) BGR bytes -> (N, 3, H, W) as the network takes them."""
    x = torch.from_numpy(pictures).permute(0, 3, 1, 2).float()
    mean = torch.tensor(MEAN_BGR).view(1, 3, 1, 1)
    return ((x - mean) * SCALE).contiguous(memory_format=torch.channels_last)


def _side(plan: Plan, done: float) -> int:
    part = next(part for until, part in plan.sides if done < until or until >= 1)
    return max(32, round(plan.size_px * part / 32) * 32)


def _rate(done: float) -> float:
    warm = 0.05
    return max(0.02, done / warm) if done < warm else 0.5 * (1 + math.cos(math.pi * (done - warm) / (1 - warm))) + 2e-3


def _groups(network: nn.Module, decay: float) -> list[dict[str, object]]:
    flat = [p for p in network.parameters() if p.ndim == 1]
    deep = [p for p in network.parameters() if p.ndim > 1]
    return [{"params": deep, "weight_decay": decay}, {"params": flat, "weight_decay": 0.0}]


def _step(network: nn.Module, optimiser: torch.optim.Optimizer, batch: _Batch, plan: Plan) -> float:
    network.train()
    x, target = normalise(batch.pictures), torch.from_numpy(batch.targets)
    with torch.autocast("cpu", torch.bfloat16, enabled=plan.bfloat16):
        logits = network(x)
    loss = -(target * torch.log_softmax(logits.float(), dim=1)).sum(dim=1).mean()
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    optimiser.step()
    return float(loss.detach())


@torch.no_grad()
def _average(kept: nn.Module, network: nn.Module, keep: float) -> None:
    for old, new in zip(kept.state_dict().values(), network.state_dict().values(), strict=True):
        if old.dtype.is_floating_point:
            old.lerp_(new, 1 - keep)
        else:
            old.copy_(new)


def _prefetch(batches: Iterator[_Batch], stop: threading.Event) -> Iterator[_Batch]:
    """Cut the next batches in a second thread while the network works on this one."""
    waiting: queue.Queue[_Batch] = queue.Queue(maxsize=3)

    def fill() -> None:
        for batch in batches:
            while not stop.is_set():
                try:
                    waiting.put(batch, timeout=0.5)
                    break
                except queue.Full:
                    continue
            if stop.is_set():
                return

    threading.Thread(target=fill, name="cut-batches", daemon=True).start()
    while True:
        yield waiting.get()


def _batches(lessons: Lessons, plan: Plan, size_px: list[int], per_epoch: int) -> Iterator[_Batch]:
    rng = np.random.default_rng((plan.seed, 1))
    while True:
        order = [(False, int(i)) for i in range(len(lessons.photos))]
        order += [(True, int(i)) for i in rng.choice(len(lessons.scenes), lessons.scenes_per_epoch)]
        rng.shuffle(order)
        for number in range(per_epoch):
            chosen = order[number * plan.batch : (number + 1) * plan.batch]
            size = size_px[0]
            pairs = [_scene(lessons, rng, i, size) if drawn else _photo(lessons, rng, i, size) for drawn, i in chosen]
            pictures = np.stack([_recolour(rng, picture) for picture, _ in pairs])
            targets = np.stack([target for _, target in pairs])
            pictures, targets = _blend(rng, pictures, targets)
            yield _Batch(pictures, targets, first_of_epoch=number == 0)


def _photo(
    lessons: Lessons, rng: np.random.Generator, photo: int, size: int
) -> tuple[Pictures, npt.NDArray[np.float32]]:
    view = int(rng.integers(lessons.photo_targets.shape[1]))
    picture = lessons.photos[photo]
    crop = crops.plan(lessons.crop_seed, photo, view, picture.shape[0])
    if rng.random() < 0.5:  # the mirrored crop is as good an example of what the target says
        crop = crops.Crop(crop.left, crop.top, crop.width, crop.height, not crop.mirrored)
    cut = crops.cut(picture, _nudge(rng, crop, picture.shape[0]), size, _interpolation(rng))
    return cut, lessons.photo_targets[photo, view]


def _scene(
    lessons: Lessons, rng: np.random.Generator, number: int, size: int
) -> tuple[Pictures, npt.NDArray[np.float32]]:
    picture = lessons.scenes[number]
    crop = crops.plan(int(rng.integers(1 << 31)), number, int(rng.integers(0, 3)), picture.shape[0], least_area=0.4)
    target = np.full(lessons.classes, 0.05 / lessons.classes, np.float32)
    target[lessons.scene_labels[number]] += 0.95
    return crops.cut(picture, crop, size, _interpolation(rng)), target


def _nudge(rng: np.random.Generator, crop: crops.Crop, side_px: int) -> crops.Crop:
    """The same crop, each edge moved by up to 8 %: never twice the same pixels for the same target."""
    reach = 0.08 * min(crop.width, crop.height)
    left, top, right, bottom = rng.uniform(-reach, reach, 4)
    x0, y0 = max(0, round(crop.left + left)), max(0, round(crop.top + top))
    x1 = min(side_px, round(crop.left + crop.width + right))
    y1 = min(side_px, round(crop.top + crop.height + bottom))
    return crops.Crop(x0, y0, x1 - x0, y1 - y0, crop.mirrored)


def _interpolation(rng: np.random.Generator) -> int:
    """Mostly the device's own; sometimes a smoother one, because cameras differ."""
    return cv2.INTER_AREA if rng.random() < 0.3 else cv2.INTER_LINEAR


def _recolour(rng: np.random.Generator, picture: Pictures) -> Pictures:
    """Another exposure, contrast and white balance, and at times a patch that hides a part."""
    gains = rng.uniform(0.72, 1.28) * rng.uniform(0.93, 1.07, 3)
    contrast, middle = rng.uniform(0.8, 1.2), 118.0
    ramp = (np.arange(256)[:, None] * gains - middle) * contrast + middle
    table = np.clip(ramp, 0, 255).astype(np.uint8)
    shifted = np.asarray(cv2.LUT(picture, table[None]), np.uint8)
    if rng.random() < 0.25:
        side = picture.shape[0]
        rows, columns = rng.integers(side // 8, side // 3, 2)
        y, x = int(rng.integers(side - rows)), int(rng.integers(side - columns))
        shifted[y : y + rows, x : x + columns] = rng.integers(40, 200, 3)
    return shifted


def _blend(
    rng: np.random.Generator, pictures: Pictures, targets: npt.NDArray[np.float32]
) -> tuple[Pictures, npt.NDArray[np.float32]]:
    """Mixup on a part of the batches: pictures laid over each other, targets mixed alike."""
    if rng.random() > 0.35:
        return pictures, targets
    share = float(rng.beta(0.4, 0.4))
    partner = rng.permutation(len(pictures))
    mixed = cv2.addWeighted(pictures, share, pictures[partner], 1 - share, 0)
    blended = targets * np.float32(share) + targets[partner] * np.float32(1 - share)
    return np.asarray(mixed, np.uint8), blended.astype(np.float32)
