"""The photos of the grocery data set: read once, kept as one array, listed with their labels."""

import csv
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import models  # noqa: F401  # sets the limits of the picture decoder before cv2 is imported

import cv2  # isort: skip
import numpy as np
import numpy.typing as npt

from training.errors import TrainError

SIDE_PX = 256
"""Photos are kept with this side: twice what the network sees, so that a crop still has detail."""

Pictures = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Photos:
    """One split: `pictures` is (count, SIDE_PX, SIDE_PX, 3) BGR, `labels` (count,) in classes.csv order."""

    pictures: Pictures
    labels: Labels
    coarse: Labels

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, slots=True)
class Classes:
    """The names in classes.csv order, and for each the number of its coarse class."""

    names: tuple[str, ...]
    coarse: Labels


def _need(path: Path) -> Path:
    if not path.exists():
        raise TrainError(
            "data-missing",
            f"{path} does not exist",
            "give the folder that holds train.txt, val.txt and classes.csv with --data "
            "(github.com/marcusklasson/GroceryStoreDataset, folder dataset), or try --synthetic-only",
        )
    return path


def read_classes(data_dir: Path) -> Classes:
    """The classes of `data_dir`/classes.csv. Raises TrainError when the file is absent or not as expected."""
    with _need(data_dir / "classes.csv").open(newline="", encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    try:
        names = tuple(row["Class Name (str)"] for row in rows)
        coarse = np.array([int(row["Coarse Class ID (int)"]) for row in rows], dtype=np.int64)
        ordered = [int(row["Class ID (int)"]) for row in rows] == list(range(len(rows)))
    except (KeyError, ValueError) as broken:
        raise TrainError("data-classes", f"classes.csv cannot be read: {broken!r}", "fetch the file again") from broken
    if not ordered or len(set(names)) != len(names):
        raise TrainError("data-classes", "classes.csv is not in the order of its ids", "fetch the file again")
    return Classes(names, coarse)


def read_split(data_dir: Path, split: str, cache_dir: Path, progress: Callable[[int, int], None]) -> Photos:
    """The photos listed in `data_dir`/`split`.txt, decoded once and kept in `cache_dir`.

    `progress` is called with (done, all) while photos are decoded. Raises TrainError for a missing file.
    """
    listing = _need(data_dir / f"{split}.txt").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.split(",")] for line in listing.splitlines() if line.strip()]
    labels = np.array([int(row[1]) for row in rows], dtype=np.int64)
    coarse = np.array([int(row[2]) for row in rows], dtype=np.int64)
    mark = hashlib.sha256(f"{SIDE_PX} {listing}".encode()).hexdigest()[:16]
    kept = cache_dir / f"{split}-{mark}.npy"
    if not kept.exists():
        cache_dir.mkdir(parents=True, exist_ok=True)
        pictures = np.empty((len(rows), SIDE_PX, SIDE_PX, 3), np.uint8)
        for number, row in enumerate(rows):
            pictures[number] = _read_square(_need(data_dir / row[0]))
            progress(number + 1, len(rows))
        half = kept.with_suffix(".half.npy")
        np.save(half, pictures)
        half.replace(kept)
    return Photos(np.load(kept), labels, coarse)


def _read_square(path: Path) -> Pictures:
    picture = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if picture is None:
        raise TrainError("data-photo", f"{path} is no picture", "fetch the data set again")
    height, width = picture.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = picture[top : top + side, left : left + side]
    return np.asarray(cv2.resize(square, (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_AREA), dtype=np.uint8)
