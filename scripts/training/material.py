"""What a training was asked for, and what it is made from: photos, rendered scenes, val."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from training import photos, scenes
from training.learn import Lessons
from training.photos import Classes, DataSet
from training.start import Backbone

Progress = Callable[[str], Callable[[int, int], None]]

SCENES_PER_EPOCH = 128
SMOKE_SEEDS = range(10_000, 10_006)


@dataclass(frozen=True, slots=True)
class Request:
    """What the person asked for; see `scripts/train --help`."""

    data_dir: Path | None
    out: Path
    release: int
    epochs: int
    minutes: float | None
    size_px: int
    rate: float
    teachers: tuple[Path, ...]
    starts: tuple[Path, ...]
    cache_dir: Path
    seed: int
    precision: str
    threads: int = 0
    fresh: bool = False
    backbone: Backbone | None = None

    @property
    def work_dir(self) -> Path:
        """Where this training keeps its state and its report: another request, another folder."""
        paths = [path and path.resolve() for path in (self.data_dir, *self.teachers, None, *(self.starts or (None,)))]
        named = (*paths, self.epochs, self.minutes, self.size_px, self.rate, self.seed, self.precision, self.backbone)
        return self.cache_dir / f"training-{hashlib.sha256(repr(named).encode()).hexdigest()[:12]}"


@dataclass(frozen=True, slots=True)
class Material:
    """Everything that is learnt from and chosen with."""

    classes: Classes
    lessons: Lessons
    val: photos.Pictures
    val_labels: photos.Labels
    data: DataSet | None


def gather(request: Request, progress: Progress) -> Material:
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
    return Material(data.classes, lessons, val, data.val.labels, data)


def _synthetic(request: Request, progress: Progress) -> Material:
    """A few rendered cameras: enough to see that everything works, in a minute."""
    names = scenes.PRODUCTS
    pictures, labels = scenes.training_set(names, request.cache_dir, progress("rendering cameras"), SMOKE_SEEDS)
    lessons = Lessons([], np.empty(0, np.int64), pictures, labels, SCENES_PER_EPOCH, len(names))
    return Material(Classes(names, names), lessons, [], np.empty(0, np.int64), None)
