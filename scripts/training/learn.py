"""The training loop: batches of views, a falling rate, an average of the weights that is kept, and where it stopped."""

import copy
import dataclasses
import math
import os
import pickle
import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import models  # noqa: F401  # sets the limits of the picture decoder before cv2 is imported

import cv2  # isort: skip
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from training import views
from training.errors import TrainError
from training.network import MEAN_BGR, SCALE, Network, ShelfNet
from training.teacher import STRIDES, Said, Teachers

TEMPERATURE = 2.0
"""By what the teacher's and the network's logits are divided before they are compared (Hinton et al. 2015)."""

GIVEN_RATE = 0.1
"""The rate of weights that came with a network, as a part of the rate of new ones: they know something already."""

SMOOTHING = 0.1
"""How much of a hard label is spread over all classes."""

ON_SIDES = ((0.55, 0.7), (0.85, 0.85), (1.0, 1.0))
"""`Plan.sides` of weights that another training has brought this far: the smallest pictures taught them long ago."""

LOSSES = ("loss", "labels", "teacher", "hints")
"""What the figures of an epoch hold of losses, as far as they were there."""

Pictures = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Lessons:
    """What is learnt from: photos of any size and rendered scenes, each with the number of its class."""

    photos: list[Pictures]
    photo_labels: npt.NDArray[np.int64]
    scenes: Pictures
    scene_labels: npt.NDArray[np.int64]
    scenes_per_epoch: int
    classes: int


@dataclass(frozen=True, slots=True)
class Plan:
    """How long and how hard. With `seconds` the schedule follows the clock and two runs differ; without, the seed."""

    epochs: int
    seconds: float | None
    size_px: int
    seed: int
    bfloat16: bool
    device: str = "cpu"
    batch: int = 64
    rate: float = 2e-3
    decay: float = 0.05
    mixed: float = 0.5
    """Share of the batches whose photos are mixed with each other."""
    mixed_taught: float = 0.8
    """The same beside a teacher, who has a word for every mixture: on photos as they are, which it was taught with, it
    says little more than the label (Beyer et al. 2022, Knowledge distillation: a good teacher is patient)."""
    hard: float = 0.1
    """Weight of the labels beside a teacher."""
    sides: tuple[tuple[float, float], ...] = ((0.35, 0.6), (0.75, 0.8), (1.0, 1.0))
    """Until which share of the time pictures have which part of `size_px`: small ones cost little and teach first."""


@dataclass(slots=True)
class Progress:
    """Where a training stands: steps done, seconds spent, the figures of every epoch so far, and those of each step of
    the epoch that is not over."""

    step: int = 0
    seconds: float = 0.0
    history: list[dict[str, float]] = field(default_factory=list)
    losses: list[dict[str, float]] = field(default_factory=list)


@dataclass(slots=True)
class _Batch:
    pictures: Pictures
    labels: npt.NDArray[np.int64]
    partner: npt.NDArray[np.intp]
    share: npt.NDArray[np.float32]
    drawn: npt.NDArray[np.bool_]


class Learner:
    """A network in training. `run` goes on from where it stands; `save` and `load` keep that."""

    def __init__(
        self,
        lessons: Lessons,
        plan: Plan,
        teachers: Teachers | None,
        make: Callable[[int], Network] = ShelfNet,
    ) -> None:
        """`make` gives the network for a number of classes; the seed is set before."""
        torch.manual_seed(plan.seed)
        torch.set_flush_denormal(True)  # numbers next to zero cost many times as much on x86
        self._lessons = lessons
        self._plan = plan
        self._teachers = teachers
        self.network = make(lessons.classes).to(plan.device, memory_format=torch.channels_last)
        self.kept = copy.deepcopy(self.network).eval()
        self._hints = _Hints(self._sample(), self.network, plan.device) if teachers is not None else None
        trained: list[nn.Module] = [self.network, *([self._hints] if self._hints is not None else [])]
        groups = _groups(trained, self.network.given(), plan.decay)
        self._optimiser = torch.optim.AdamW(groups, lr=plan.rate, fused=True)
        self.progress = Progress()
        self.earlier_views = 0
        """Views of the training whose weights it started from, and of those before."""
        self.per_epoch = max(1, (len(lessons.photos) + lessons.scenes_per_epoch) // plan.batch)

    @property
    def device(self) -> str:
        """On what it is trained: cpu or cuda."""
        return self._plan.device

    @property
    def arithmetic(self) -> str:
        """What numbers it is computed with: float32 or bfloat16."""
        return "bfloat16" if self._plan.bfloat16 else "float32"

    @property
    def batch(self) -> int:
        """Pictures in a step."""
        return self._plan.batch

    @property
    def mixed(self) -> float:
        """Share of the batches whose photos are mixed."""
        return self._plan.mixed if self._teachers is None else self._plan.mixed_taught

    @property
    def views(self) -> int:
        """Pictures that its weights have learnt from, each as often as it was seen, earlier trainings included."""
        return self.earlier_views + self.progress.step * self.batch

    @property
    def done(self) -> float:
        """Share of the training that is behind, by steps or by the clock, whichever is further."""
        if not self._plan.epochs:
            return 1.0
        by_step = self.progress.step / (self.per_epoch * self._plan.epochs)
        by_clock = self.progress.seconds / self._plan.seconds if self._plan.seconds else 0.0
        return max(by_step, by_clock)

    def run(self, after_epoch: Callable[["Learner"], None], after_step: Callable[["Learner"], None]) -> None:
        """Train until the plan is fulfilled, or a callback raises: after each step all is in order to be saved."""
        stop = threading.Event()
        began = time.monotonic() - self.progress.seconds
        losses = self.progress.losses
        try:
            for batch in _prefetch(self._batches(self.progress.step), stop):
                done = self.done
                if done >= 1:
                    break
                losses.append(self._step(batch, done))
                self.progress.step += 1
                self.progress.seconds = time.monotonic() - began
                if self.progress.step % self.per_epoch == 0:
                    self._note(losses, done)
                    losses.clear()
                    after_epoch(self)
                    self.progress.seconds = time.monotonic() - began
                after_step(self)
        finally:
            stop.set()

    def save(self, path: Path) -> None:
        """Keep everything that a later `load` goes on from."""
        state = {
            "network": self.network.state_dict(),
            "kept": self.kept.state_dict(),
            "hints": self._hints.state_dict() if self._hints is not None else None,
            "optimiser": self._optimiser.state_dict(),
            "torch": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state_all() if self.device == "cuda" else [],
            "progress": dataclasses.astuple(self.progress),
            "views": self.views,
        }
        half = path.with_suffix(".half")
        with half.open("wb") as out:
            torch.save(state, out)
            out.flush()
            os.fsync(out.fileno())  # hours of work, which a power cut behind the rename would take
        half.replace(path)

    def start_from(self, *paths: Path) -> list[str]:
        """Take the averaged weights that another training kept, of several their mean (Wortsman et al. 2022, Model
        soups); gives the names of those that do not fit (the head of other classes).

        Raises TrainError start-missing, start-unsafe, start-broken.
        """
        mine = self.network.state_dict()
        self.earlier_views = 0
        states = [self._fitting(path, mine) for path in paths]
        both = set.intersection(*(set(state) for state in states))
        mean = {
            name: torch.stack([state[name] for state in states]).mean(dim=0)
            if mine[name].dtype.is_floating_point
            else states[0][name]
            for name in both
        }
        for network in (self.network, self.kept):
            network.load_state_dict(mean, strict=False)
        return sorted(set(mine) - both)

    def _fitting(self, path: Path, mine: dict[str, Tensor]) -> dict[str, Tensor]:
        """What a state holds that `mine`, of this network, has too. The views of the longest training count."""
        if not path.is_file():
            raise TrainError("start-missing", f"{path} does not exist", "give a training's state.pt, or leave it away")
        try:
            state: dict[str, Any] = torch.load(path, map_location=self._plan.device, weights_only=True)
            kept: dict[str, Tensor] = state["kept"]
            views_seen = int(state.get("views", state["progress"][0] * self.batch))
        except pickle.UnpicklingError as broken:
            hint = "give a training's state.pt; what another file holds, a function of yours may load and return"
            raise TrainError("start-unsafe", f"{path} holds more than weights, and could run code", hint) from broken
        except (RuntimeError, KeyError, IndexError, ValueError, TypeError, EOFError, OSError) as broken:
            raise TrainError(
                "start-broken", f"{path} holds no weights of this network: {broken}", "give a training's state.pt"
            ) from broken
        fitting = {name: value for name, value in kept.items() if name in mine and value.shape == mine[name].shape}
        if len(fitting) < len(mine) // 2:
            raise TrainError("start-broken", f"{path} is of another network", "give a state.pt of this version")
        self.earlier_views = max(self.earlier_views, views_seen)
        return fitting

    def load(self, path: Path) -> None:
        """Go on from what was kept. Raises TrainError when it is another training's."""
        try:
            state: dict[str, Any] = torch.load(path, map_location=self._plan.device, weights_only=True)
            self.network.load_state_dict(state["network"])
            self.kept.load_state_dict(state["kept"])
            if self._hints is not None:
                self._hints.load_state_dict(state["hints"])
            self._optimiser.load_state_dict(state["optimiser"])
            torch.set_rng_state(state["torch"].cpu())
            if self.device == "cuda" and state.get("cuda"):
                torch.cuda.set_rng_state_all([kept.cpu() for kept in state["cuda"]])
            self.progress = Progress(*state["progress"])
        except (RuntimeError, KeyError, ValueError, EOFError, OSError, pickle.UnpicklingError) as broken:
            raise TrainError(
                "train-state", f"{path} cannot be gone on from: {broken}", "start over with --fresh"
            ) from broken

    def _note(self, losses: list[dict[str, float]], done: float) -> None:
        means = {name: float(np.mean([loss[name] for loss in losses])) for name in losses[0]}
        means["side"] = losses[-1]["side"]  # it may have changed in the epoch, and a mean of sides is none
        epoch = self.progress.step / self.per_epoch
        self.progress.history.append({"epoch": epoch, "share": done, "seconds": self.progress.seconds, **means})

    # One step.

    def _step(self, batch: _Batch, done: float) -> dict[str, float]:
        plan = self._plan
        for group in self._optimiser.param_groups:
            group["lr"] = plan.rate * _rate(done) * group.get("part", 1.0)
        said = self._teachers.ask(batch.pictures) if self._teachers is not None else None
        x = normalise(_as_cameras(batch.pictures, side_of(plan, done), self.progress.step), plan.device)
        self.network.train()
        with torch.autocast(plan.device, torch.bfloat16, enabled=plan.bfloat16):
            maps, vector = self.network.features(x)
            logits = self.network.head(self.network.dropout(vector))
        loss, figures = self._loss(batch, said, logits.float(), done)
        if said is not None and self._hints is not None:
            hints = self._hints(maps, vector, said)
            loss = loss + _hint_weight(done) * hints
            figures["hints"] = float(hints.detach())
        self._optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), 5.0)
        self._optimiser.step()
        _average(self.kept, self.network, min(0.998, (self.progress.step + 1) / (self.progress.step + 20)))
        return {"loss": float(loss.detach()), **figures, "side": float(x.shape[2])}

    def _loss(self, batch: _Batch, said: Said | None, logits: Tensor, done: float) -> tuple[Tensor, dict[str, float]]:
        """Labels for all; the teacher's word for the photos only, as it has never seen a rendered scene."""
        del done
        device, classes = self._plan.device, self._lessons.classes
        labels = torch.from_numpy(batch.labels).to(device)
        share = torch.from_numpy(batch.share).to(device)[:, None]
        one = functional.one_hot(labels, classes).float()
        target = share * one + (1 - share) * one[torch.from_numpy(batch.partner).to(device)]
        target = target * (1 - SMOOTHING) + SMOOTHING / classes
        by_label = -(target * torch.log_softmax(logits, dim=1)).sum(dim=1)
        if said is None:
            return by_label.mean(), {"labels": float(by_label.mean().detach())}
        wanted = torch.log_softmax(torch.from_numpy(said.scores).to(device) / TEMPERATURE, dim=1)
        given = torch.log_softmax(logits / TEMPERATURE, dim=1)
        by_teacher = (wanted.exp() * (wanted - given)).sum(dim=1) * TEMPERATURE**2
        drawn = torch.from_numpy(batch.drawn).to(device)
        whole = torch.where(drawn, by_label, by_teacher + self._plan.hard * by_label).mean()
        return whole, {"labels": float(by_label.mean().detach()), "teacher": float(by_teacher[~drawn].mean().detach())}

    # What is shown to it.

    def _side(self) -> int:
        return self._teachers.side_px if self._teachers is not None else self._plan.size_px

    def _sample(self) -> Said:
        """What the teacher says about some views, for the scale and shape of what it gives."""
        assert self._teachers is not None
        if not self._lessons.photos:
            raise TrainError("teacher-idle", "a teacher speaks of photos, and there are none", "give --data")
        rng = np.random.default_rng((self._plan.seed, 2))
        chosen = rng.choice(len(self._lessons.photos), min(256, len(self._lessons.photos)), replace=False)
        pictures = np.stack([views.view(rng, self._lessons.photos[i], self._side()) for i in chosen])
        return self._teachers.ask(pictures)

    def _batches(self, first: int) -> Iterator[_Batch]:
        """Batch number n is the same whenever it is asked for: a training that goes on sees what it would have seen."""
        epoch, order = -1, np.empty(0, np.int64)
        for number in range(first, 1 << 40):
            if number // self.per_epoch != epoch:
                epoch = number // self.per_epoch
                order = self._order(epoch)
            at = (number % self.per_epoch) * self._plan.batch
            yield self._batch(np.random.default_rng((self._plan.seed, 3, number)), order[at : at + self._plan.batch])

    def _order(self, epoch: int) -> npt.NDArray[np.int64]:
        """All photos and some scenes (their numbers follow the photos'), shuffled."""
        rng = np.random.default_rng((self._plan.seed, 1, epoch))
        lessons = self._lessons
        scenes = rng.integers(0, max(1, len(lessons.scenes)), lessons.scenes_per_epoch) + len(lessons.photos)
        order = np.concatenate([np.arange(len(lessons.photos)), scenes]).astype(np.int64)
        rng.shuffle(order)
        return order

    def _batch(self, rng: np.random.Generator, chosen: npt.NDArray[np.int64]) -> _Batch:
        """Photos first, so that they can be mixed among themselves."""
        lessons, side = self._lessons, self._side()
        count = len(lessons.photos)
        ordered = np.sort(chosen)
        drawn = ordered >= count
        pictures = np.stack(
            [
                views.view(rng, lessons.scenes[i - count], side, views.SCENES)
                if i >= count
                else views.view(rng, lessons.photos[i], side)
                for i in ordered
            ]
        )
        labels = np.array([lessons.scene_labels[i - count] if i >= count else lessons.photo_labels[i] for i in ordered])
        mixed = int((~drawn).sum()) if rng.random() < self.mixed else 0
        pictures, partner, share = views.mix(rng, pictures, mixed)
        return _Batch(pictures, labels, partner, share, drawn)


class _Hints(nn.Module):
    """How far the network's layers are from telling the teacher's: one linear map each, used in training only."""

    def __init__(self, sample: Said, network: Network, device: str) -> None:
        super().__init__()
        self._order = tuple(network.widths)
        told = sample.maps if network.widths else ()  # a network that shows no maps learns from the vector alone
        self._strides = STRIDES[len(STRIDES) - len(told) :]
        self.maps = nn.ModuleList(
            nn.Conv2d(network.widths[stride], part.shape[1], 1)
            for stride, part in zip(self._strides, told, strict=True)
        )
        width = network.head.in_features
        self.vector = nn.Linear(width, sample.vector.shape[1]) if sample.vector is not None else None
        for number, part in enumerate(told):
            self._scale(f"map{number}", part, (0, 2, 3))
        if sample.vector is not None:
            self._scale("vector", sample.vector, (0,))
        self.to(device)

    def _scale(self, name: str, part: npt.NDArray[np.float32], axes: tuple[int, ...]) -> None:
        mean, spread = part.mean(axes, keepdims=True), part.std(axes, keepdims=True)
        self.register_buffer(f"{name}_mean", torch.from_numpy(mean))
        self.register_buffer(f"{name}_spread", torch.from_numpy(np.maximum(spread, 0.05 * spread.mean())))

    def _told(self, name: str, part: npt.NDArray[np.float32]) -> Tensor:
        mean, spread = getattr(self, f"{name}_mean"), getattr(self, f"{name}_spread")
        return ((torch.from_numpy(part).to(mean.device) - mean) / spread).clamp(-6, 6)

    def forward(self, maps: list[Tensor], vector: Tensor, said: Said) -> Tensor:
        """The mean squared distance, each layer of the teacher scaled to a spread of one."""
        losses: list[Tensor] = []
        for number, (stride, change) in enumerate(zip(self._strides, self.maps, strict=True)):
            mine = maps[self._order.index(stride)].float()
            told = functional.adaptive_avg_pool2d(self._told(f"map{number}", said.maps[number]), mine.shape[2:])
            losses.append(functional.mse_loss(change(mine), told))
        if self.vector is not None and said.vector is not None:
            losses.append(functional.mse_loss(self.vector(vector.float()), self._told("vector", said.vector)))
        return torch.stack(losses).mean() if losses else vector.new_zeros(())


def normalise(pictures: Pictures, device: str = "cpu") -> Tensor:
    """(N, H, W, 3) BGR bytes -> (N, 3, H, W) as the network takes them."""
    x = torch.from_numpy(pictures).to(device).permute(0, 3, 1, 2).float()
    mean = torch.tensor(MEAN_BGR, device=device).view(1, 3, 1, 1)
    return ((x - mean) * SCALE).contiguous(memory_format=torch.channels_last)


def side_of(plan: Plan, done: float) -> int:
    """The side of the pictures in pixels at this share of the training."""
    part = next(part for until, part in plan.sides if done < until or until >= 1)
    return plan.size_px if part == 1 else max(32, round(plan.size_px * part / 32) * 32)


def _as_cameras(pictures: Pictures, side_px: int, step: int) -> Pictures:
    """Resized, mostly as the device does it; every third batch smoother, because cameras differ."""
    return views.resized(pictures, side_px, cv2.INTER_AREA if step % 3 == 0 else cv2.INTER_LINEAR)


def _rate(done: float) -> float:
    warm = 0.03
    return max(0.02, done / warm) if done < warm else 0.5 * (1 + math.cos(math.pi * (done - warm) / (1 - warm))) + 2e-3


def _hint_weight(done: float) -> float:
    """The layers first, the answers last."""
    return 3.0 - 2.0 * min(1.0, done)


def _groups(modules: list[nn.Module], given: list[nn.Parameter], decay: float) -> list[dict[str, object]]:
    """New weights, then those that came with the network, each as matrices and as lists of numbers."""
    slow = {id(p) for p in given}
    new = [p for module in modules for p in module.parameters() if id(p) not in slow]
    groups = _by_depth(new, decay)
    return groups + ([{**group, "part": GIVEN_RATE} for group in _by_depth(given, decay)] if given else [])


def _by_depth(parameters: list[nn.Parameter], decay: float) -> list[dict[str, object]]:
    flat = [p for p in parameters if p.ndim == 1]
    deep = [p for p in parameters if p.ndim > 1]
    return [{"params": deep, "weight_decay": decay}, {"params": flat, "weight_decay": 0.0}]


@torch.no_grad()
def _average(kept: nn.Module, network: nn.Module, keep: float) -> None:
    old, new = list(kept.state_dict().values()), list(network.state_dict().values())
    floats = [number for number, value in enumerate(old) if value.dtype.is_floating_point]
    torch._foreach_lerp_([old[i] for i in floats], [new[i] for i in floats], 1 - keep)
    for number in set(range(len(old))) - set(floats):
        old[number].copy_(new[number])


def _prefetch(batches: Iterator[_Batch], stop: threading.Event) -> Iterator[_Batch]:
    """Cut the next batches in a second thread while the network works on this one; its error is raised here."""
    waiting: queue.Queue[_Batch | BaseException] = queue.Queue(maxsize=3)

    def put(what: _Batch | BaseException) -> None:
        while not stop.is_set():
            try:
                return waiting.put(what, timeout=0.5)
            except queue.Full:
                continue
        return None

    def fill() -> None:
        try:
            for batch in batches:
                put(batch)
                if stop.is_set():
                    return
        except BaseException as broken:  # noqa: BLE001  # handed to the thread that waits
            put(broken)

    threading.Thread(target=fill, name="cut-batches", daemon=True).start()
    while True:
        given = waiting.get()
        if isinstance(given, BaseException):
            raise given
        yield given
