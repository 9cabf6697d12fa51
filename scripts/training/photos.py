"""Labelled photos: lists or a folder per class, decoded once and kept.

A data set is a folder with train.txt and val.txt (lines of `path, class[, ...]`, the class by name or by its number in
classes.csv), as the Grocery Store Dataset has them; or with train/ and val/, each with a folder per class; or with a
folder per class alone. Where there is no val, every tenth photo of each class is kept for choices. classes.csv gives
the coarse classes, and may be left away.
"""

import csv
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from models import PictureError, decode_picture
from models.labelled import SUFFIXES

import cv2  # isort: skip  # after models, which sets the limits of the picture decoder
import numpy as np
import numpy.typing as npt

from training.errors import TrainError

SIDE_PX = 384
"""Photos are kept with this shorter side at most: more than the network sees, so that a crop still has detail, and that
a view of a phone's or a web shop's picture is resized once only, as the device resizes it."""

LEAST_SIDE_PX = 32
"""A photo with a shorter side below this shows nothing to learn; it is an icon or a mistake."""

VAL_EVERY = 10
ENDINGS = SUFFIXES | {".tif", ".tiff", ".gif", ".heic", ".avif"}
"""What counts as a photo in a folder; kinds that the product does not read are named, not passed over."""

NAMED = 5
"""At most so many bad photos are named at once."""

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
    """Where the photos lie and what they show: those that are learnt from, and those that are kept for choices."""

    folder: Path
    classes: Classes
    train: Listing
    val: Listing


def find(folder: Path) -> DataSet:
    """Look what `folder` holds; no photo is opened. Raises TrainError data-missing, data-classes, data-list."""
    if not folder.is_dir():
        raise _missing(f"{folder} is no folder")
    classes, train, val = _listed(folder) if (folder / "train.txt").is_file() else _foldered(folder)
    if val is None:
        train, val = _split(train, len(classes.names))
    for name, split in (("train", train), ("val", val)):
        if not len(split):
            raise _missing(f"{name} of {folder} holds no photos")
    twice = set(train.paths) & set(val.paths)
    if twice:
        text = f"{len(twice)} photos are in train and in val, {min(twice)} for one"
        raise TrainError("data-list", text, "take them out of one of the two, or val says nothing")
    return DataSet(folder, classes, train, val)


def read(listing: Listing, cache_dir: Path, progress: Told) -> Pictures:
    """The photos of `listing`, BGR, the shorter side at most SIDE_PX; decoded once and kept in `cache_dir`.

    They are parts of one file that the system maps, so that several trainings share its memory; not to be written to.
    `progress` is called with (done, all) while photos are decoded. Raises TrainError data-photo, data-missing.
    """
    mark = hashlib.sha256(repr((SIDE_PX, [_stamp(path) for path in listing.paths])).encode()).hexdigest()[:16]
    pixels, shapes = cache_dir / f"photos-{mark}.bytes", cache_dir / f"photos-{mark}.npy"
    if not (pixels.exists() and shapes.exists()):
        cache_dir.mkdir(parents=True, exist_ok=True)
        half = pixels.with_suffix(".half")
        found = _decode_all(listing.paths, half, progress)
        half.replace(pixels)
        np.save(half, found)
        half.with_suffix(".half.npy").replace(shapes)
    return _parts(np.asarray(np.memmap(pixels, np.uint8, "r")), np.load(shapes))


def _parts(pixels: npt.NDArray[np.uint8], shapes: npt.NDArray[np.int64]) -> Pictures:
    ends = np.cumsum(shapes.prod(axis=1) * 3)
    starts = np.concatenate([[0], ends[:-1]])
    return [
        pixels[start:end].reshape(*shape, 3) for start, end, shape in zip(starts, ends, shapes.tolist(), strict=True)
    ]


def _missing(what: str) -> TrainError:
    return TrainError(
        "data-missing",
        what,
        "give a folder with a folder per class, or with train.txt, val.txt and classes.csv "
        "(github.com/marcusklasson/GroceryStoreDataset, folder dataset), or try --synthetic-only",
    )


def _text(path: Path, code: str) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise _missing(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise TrainError(code, f"{path} is no text in UTF-8", "save it as UTF-8") from None


# classes.csv


def _rows(path: Path) -> list[dict[str, str]]:
    """The lines of classes.csv by the names of their columns, small, without the kind in brackets; none without it."""
    if not path.is_file():
        return []
    lines = csv.DictReader(_text(path, "data-classes").splitlines())
    rows = [{(key or "").split("(")[0].strip().lower(): value or "" for key, value in row.items()} for row in lines]
    wanted = [row.get("class name", "").strip() for row in rows]
    if not rows or not all(wanted):
        raise _classes_error(f"{path} has no column Class Name, or a line without one")
    if len(set(wanted)) != len(wanted):
        raise _classes_error(f"{path} names a class twice")
    return rows


def _classes_error(text: str) -> TrainError:
    hint = "give it the columns Class Name, Class ID (0, 1, 2 ... in this order) and Coarse Class Name"
    return TrainError("data-classes", text, hint)


def _classes(names: Sequence[str], rows: Sequence[dict[str, str]]) -> Classes:
    """`names` with the coarse classes that classes.csv gives them."""
    coarse = {row["class name"].strip(): row.get("coarse class name", "").strip() for row in rows}
    return Classes(tuple(names), tuple(coarse.get(name) or name for name in names))


# Lists


def _listed(folder: Path) -> tuple[Classes, Listing, Listing | None]:
    rows = _rows(folder / "classes.csv")
    if rows and [row.get("class id", "").strip() for row in rows] != [str(number) for number in range(len(rows))]:
        raise _classes_error(f"{folder / 'classes.csv'} is not in the order of its ids")
    train = _lines(folder / "train.txt")
    names = [row["class name"].strip() for row in rows] or sorted({named for _, _, named in train})
    if not rows and all(name.isdigit() for name in names):
        raise TrainError("data-classes", f"{folder} has numbers for classes and no classes.csv", "name the classes")
    number_of = {name: number for number, name in enumerate(names)}
    if rows:
        number_of = {str(number): number for number in range(len(names))} | number_of
    taught = _listing(folder / "train.txt", train, number_of)
    extra = [(path, number) for number, row in enumerate(rows) if (path := _iconic(folder, row)) is not None]
    paths = (*taught.paths, *(path for path, _ in extra))
    labels = np.concatenate([taught.labels, np.array([number for _, number in extra], np.int64)])
    val = folder / "val.txt"
    kept = _listing(val, _lines(val), number_of) if val.is_file() else None
    return _classes(names, rows), Listing(paths, labels), kept


def _lines(path: Path) -> list[tuple[int, str, str]]:
    """Number, path and class of each line that says something."""
    found = []
    for number, line in enumerate(_text(path, "data-list").splitlines(), start=1):
        cells = [cell.strip() for cell in line.split(",")]
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        if len(cells) < 2 or not cells[0] or not cells[1]:
            raise TrainError("data-list", f"{path}, line {number} names no class", "each line is: path, class")
        found.append((number, cells[0], cells[1]))
    return found


def _listing(path: Path, lines: Sequence[tuple[int, str, str]], number_of: dict[str, int]) -> Listing:
    strange = next(((number, named) for number, _, named in lines if named not in number_of), None)
    if strange is not None:
        text = f"{path}, line {strange[0]}: {strange[1]!r} is none of the {len(set(number_of.values()))} classes"
        raise TrainError("data-list", text, "correct the line, or name the class in classes.csv or in train.txt")
    paths = tuple(path.parent / named for _, named, _ in lines)
    return Listing(paths, np.array([number_of[named] for _, _, named in lines], np.int64))


def _iconic(folder: Path, row: dict[str, str]) -> Path | None:
    """The shop's own picture of a class, where classes.csv names one that is there."""
    inside = row.get("iconic image path", "").strip().lstrip("/")
    for start in (inside, inside.replace("iconic-images-and-descriptions", "iconic", 1)):
        if inside and (folder / start).is_file():
            return folder / start
    return None


# A folder per class


def _foldered(folder: Path) -> tuple[Classes, Listing, Listing | None]:
    has_splits = (folder / "train").is_dir()
    taught = folder / "train" if has_splits else folder
    names = sorted(place.name for place in _folders(taught) if _photos_in(place))
    if len(names) < 2:
        raise _missing(f"{taught} has fewer than two folders with photos")
    val = _in_folders(folder / "val", names) if has_splits and (folder / "val").is_dir() else None
    return _classes(names, _rows(folder / "classes.csv")), _in_folders(taught, names), val


def _folders(folder: Path) -> list[Path]:
    return [place for place in folder.iterdir() if place.is_dir() and not place.name.startswith(".")]


def _photos_in(folder: Path) -> list[Path]:
    """The photos at any depth; what is hidden is none."""
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in ENDINGS
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and path.is_file()
    )


def _in_folders(folder: Path, names: Sequence[str]) -> Listing:
    strange = [place.name for place in _folders(folder) if place.name not in names and _photos_in(place)]
    if strange:
        raise TrainError("data-classes", f"{folder} has {strange[0]!r}, which train/ has not", "name both alike")
    rows = [(path, number) for number, name in enumerate(names) for path in _photos_in(folder / name)]
    return Listing(tuple(path for path, _ in rows), np.array([number for _, number in rows], np.int64))


def _split(whole: Listing, classes: int) -> tuple[Listing, Listing]:
    """Every tenth photo of each class is kept for choices."""
    turns = np.zeros(len(whole), np.int64)
    for number in range(classes):
        of_class = whole.labels == number
        turns[of_class] = np.arange(of_class.sum())
    chosen = turns % VAL_EVERY == VAL_EVERY - 1
    if not chosen.any():
        raise _missing(f"there is no val, and no class has {VAL_EVERY} photos to keep one of")
    return _part(whole, ~chosen), _part(whole, chosen)


def _part(whole: Listing, chosen: npt.NDArray[np.bool_]) -> Listing:
    paths = tuple(path for path, taken in zip(whole.paths, chosen, strict=True) if taken)
    return Listing(paths, whole.labels[chosen])


# Photos


def _stamp(path: Path) -> tuple[str, int, int]:
    """What changes when another photo is put in the place of this one."""
    facts = path.stat() if path.is_file() else None
    return (str(path), facts.st_size, facts.st_mtime_ns) if facts is not None else (str(path), -1, 0)


def _decode_all(paths: Sequence[Path], into: Path, progress: Told) -> npt.NDArray[np.int64]:
    """Write the pixels of all photos one after another; gives heights and widths (count, 2). All bad ones are named."""
    shapes, wrong = [], []
    with into.open("wb") as out:
        for number, path in enumerate(paths):
            try:
                picture = _decode(path)
            except TrainError as bad:
                wrong.append(bad)
            else:
                out.write(np.ascontiguousarray(picture).data)
                shapes.append(picture.shape[:2])
            progress(number + 1, len(paths))
    if wrong:
        into.unlink()
        raise _all_wrong(wrong, len(paths))
    return np.array(shapes, np.int64)


def _all_wrong(wrong: Sequence[TrainError], of: int) -> TrainError:
    if len(wrong) == 1:
        return wrong[0]
    named = "; ".join(str(bad) for bad in wrong[:NAMED]) + (" ..." if len(wrong) > NAMED else "")
    hint = "take them out of the data set, or put good photos in their place"
    return TrainError(wrong[0].code, f"{len(wrong)} of {of} photos cannot be used: {named}", hint)


def _decode(path: Path) -> npt.NDArray[np.uint8]:
    """One photo as the product would see it, made smaller."""
    if not path.is_file():
        raise TrainError("data-missing", f"{path} does not exist", "correct the list, or fetch the photo")
    try:
        picture = decode_picture(path.read_bytes())
    except PictureError as bad:
        raise TrainError("data-photo", f"{path}: {bad}", f"{bad.hint}, or take it out of the data set") from None
    except OSError as bad:
        raise TrainError("data-photo", f"{path}: {bad.strerror}", "let this user read it") from None
    height, width = picture.shape[:2]
    if min(height, width) < LEAST_SIDE_PX:
        text = f"{path} has {width} x {height} pixels; at least {LEAST_SIDE_PX} on each side show something"
        raise TrainError("data-photo", text, "take it out of the data set")
    part = SIDE_PX / min(height, width)
    if part >= 1:
        return picture
    size = (round(width * part), round(height * part))
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)
