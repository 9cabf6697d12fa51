"""Labelled photos: a list file or a folder per class, read once and kept decoded.

A data set is a folder with train.txt and val.txt (lines of `path, number[, coarse number]`) and classes.csv, as the
Grocery Store Dataset has them; or with train/ and val/, each with a folder per class; or with a folder per class alone,
of whose photos every tenth is then kept for choices.
"""

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

SIDE_PX = 288
"""Photos are kept with this shorter side: more than the network sees, so that a crop still has detail."""

VAL_EVERY = 10
ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")

Pictures = list[npt.NDArray[np.uint8]]
Labels = npt.NDArray[np.int64]
Told = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Classes:
    """The names in the order of their numbers, and for each the name of its coarse class (itself without one)."""

    names: tuple[str, ...]
    coarse: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Listing:
    """One split before it is read: paths and the numbers of their classes."""

    paths: tuple[Path, ...]
    labels: Labels

    def __len__(self) -> int:
        return len(self.paths)


@dataclass(frozen=True, slots=True)
class DataSet:
    """Where the photos lie and what they show. `licence_note` is what the card says of their origin."""

    folder: Path
    classes: Classes
    train: Listing
    val: Listing


def find(folder: Path) -> DataSet:
    """Look what `folder` holds. Raises TrainError data-missing, data-classes, data-list, data-photo."""
    if not folder.is_dir():
        raise _missing(f"{folder} is no folder")
    if (folder / "train.txt").is_file():
        return _listed(folder)
    if (folder / "train").is_dir():
        names = _class_names(folder / "train")
        val = _in_folders(folder / "val", names) if (folder / "val").is_dir() else None
        train = _in_folders(folder / "train", names)
        return _split(folder, names, train) if val is None else DataSet(folder, Classes(names, names), train, val)
    names = _class_names(folder)
    return _split(folder, names, _in_folders(folder, names))


def read(listing: Listing, cache_dir: Path, progress: Told) -> Pictures:
    """The photos of `listing`, BGR, the shorter side SIDE_PX; decoded once and kept in `cache_dir`.

    `progress` is called with (done, all) while photos are decoded. Raises TrainError for one that is no picture.
    """
    stamps = [(str(path), path.stat().st_size if path.is_file() else -1) for path in listing.paths]
    mark = hashlib.sha256(repr((SIDE_PX, stamps)).encode()).hexdigest()[:16]
    kept = cache_dir / f"photos-{mark}.npz"
    if not kept.exists():
        cache_dir.mkdir(parents=True, exist_ok=True)
        pictures = []
        for number, path in enumerate(listing.paths):
            pictures.append(_read(path))
            progress(number + 1, len(listing))
        half = kept.with_suffix(".half.npz")
        shapes = np.array([picture.shape[:2] for picture in pictures], np.int64)
        np.savez(half, pixels=np.concatenate([picture.reshape(-1) for picture in pictures]), shapes=shapes)
        half.replace(kept)
    with np.load(kept) as stored:
        pixels, shapes = stored["pixels"], stored["shapes"]
    ends = np.cumsum(shapes.prod(axis=1) * 3)
    starts = np.concatenate([[0], ends[:-1]])
    return [
        pixels[start:end].reshape(*shape, 3) for start, end, shape in zip(starts, ends, shapes.tolist(), strict=True)
    ]


def _missing(what: str) -> TrainError:
    return TrainError(
        "data-missing",
        what,
        "give a folder with train.txt, val.txt and classes.csv (github.com/marcusklasson/GroceryStoreDataset, folder "
        "dataset), or with a folder per class, or try --synthetic-only",
    )


# Lists


def _listed(folder: Path) -> DataSet:
    classes, pictured = _classes(folder / "classes.csv")
    train = _list(folder / "train.txt", len(classes.names))
    if not (folder / "val.txt").is_file():
        raise _missing(f"there is a train.txt but no val.txt in {folder}")
    val = _list(folder / "val.txt", len(classes.names))
    extra = [(path, number) for number, path in enumerate(pictured) if path is not None]
    paths = (*train.paths, *(path for path, _ in extra))
    labels = np.concatenate([train.labels, np.array([number for _, number in extra], np.int64)])
    return DataSet(folder, classes, Listing(paths, labels), val)


def _classes(path: Path) -> tuple[Classes, list[Path | None]]:
    """Names and coarse names of classes.csv, and for each class the shop's own picture where it is there."""
    if not path.is_file():
        raise _missing(f"{path} does not exist")
    with path.open(newline="", encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    try:
        names = tuple(row["Class Name (str)"] for row in rows)
        coarse = tuple(row["Coarse Class Name (str)"] for row in rows)
        ordered = [int(row["Class ID (int)"]) for row in rows] == list(range(len(rows)))
        iconic = [_iconic(path.parent, row.get("Iconic Image Path (str)") or "") for row in rows]
    except (KeyError, ValueError) as broken:
        raise TrainError("data-classes", f"classes.csv cannot be read: {broken!r}", "fetch the file again") from broken
    if not ordered or len(set(names)) != len(names):
        raise TrainError("data-classes", "classes.csv is not in the order of its ids", "fetch the file again")
    return Classes(names, coarse), iconic


def _iconic(folder: Path, named: str) -> Path | None:
    inside = named.strip().lstrip("/")
    for start in (inside, inside.replace("iconic-images-and-descriptions", "iconic", 1)):
        if inside and (folder / start).is_file():
            return folder / start
    return None


def _list(path: Path, classes: int) -> Listing:
    rows = [
        [cell.strip() for cell in line.split(",")]
        for line in path.read_text(encoding="utf-8-sig").splitlines()
        if line.strip()
    ]
    try:
        labels = np.array([int(row[1]) for row in rows], dtype=np.int64)
    except (IndexError, ValueError) as broken:
        raise TrainError("data-list", f"{path}: {broken}", "each line is: path, number of the class") from broken
    if not len(labels) or labels.min() < 0 or labels.max() >= classes:
        raise TrainError("data-list", f"{path} names no class of the {classes}", "correct the numbers in it")
    return Listing(tuple(path.parent / row[0] for row in rows), labels)


# A folder per class


def _class_names(folder: Path) -> tuple[str, ...]:
    names = tuple(sorted(place.name for place in folder.iterdir() if place.is_dir() and any(_photos_in(place))))
    if len(names) < 2:
        raise _missing(f"{folder} has fewer than two folders with photos")
    return names


def _photos_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in ENDINGS and path.is_file())


def _in_folders(folder: Path, names: tuple[str, ...]) -> Listing:
    strange = [place.name for place in folder.iterdir() if place.is_dir() and place.name not in names]
    if strange:
        raise TrainError("data-classes", f"{folder} has {strange[0]!r}, which train/ has not", "name both alike")
    rows = [(path, number) for number, name in enumerate(names) for path in _photos_in(folder / name)]
    return Listing(tuple(path for path, _ in rows), np.array([number for _, number in rows], np.int64))


def _split(folder: Path, names: tuple[str, ...], whole: Listing) -> DataSet:
    """Every tenth photo of each class is kept for choices."""
    turns = np.concatenate([np.arange((whole.labels == number).sum()) for number in range(len(names))])
    chosen = turns % VAL_EVERY == VAL_EVERY - 1
    if not chosen.any():
        raise TrainError("data-photo", f"no class has {VAL_EVERY} photos", "give more photos, or a val folder")
    return DataSet(folder, Classes(names, names), _part(whole, ~chosen), _part(whole, chosen))


def _part(whole: Listing, chosen: npt.NDArray[np.bool_]) -> Listing:
    paths = tuple(path for path, taken in zip(whole.paths, chosen, strict=True) if taken)
    return Listing(paths, whole.labels[chosen])


def _read(path: Path) -> npt.NDArray[np.uint8]:
    if not path.is_file():
        raise _missing(f"{path} does not exist")
    picture = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if picture is None:
        raise TrainError("data-photo", f"{path} is no picture", "take it out of the data set, or fetch it again")
    height, width = picture.shape[:2]
    part = SIDE_PX / min(height, width)
    if part >= 1:
        return np.asarray(picture, np.uint8)
    size = (round(width * part), round(height * part))
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)
