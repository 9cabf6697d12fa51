"""Labelled pictures on disk: a folder for each label, or a list of paths with labels. Nothing is decoded here."""

import csv
import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from models.errors import DataError

SUFFIXES: Final = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp"})
CLASSES: Final = "classes.csv"
MOST_LIST_BYTES: Final = 256 * 1024 * 1024
_HEADINGS: Final = frozenset({"label", "class", "id", "class id", "label id", "category"})


@dataclass(frozen=True, slots=True)
class Labelled:
    """One picture's file and what it shows, a label of the bundle."""

    path: Path
    label: str


@dataclass(frozen=True, slots=True)
class Listing:
    """Labelled pictures in the order of their source.

    `coarse` gives labels their coarse class, None when the source says nothing of it; `coarse_named` says that it does
    so by name, in classes.csv, and not only by number in a list. `skipped` counts the pictures of each name that is no
    label, which were left out because that was asked for.
    """

    pictures: tuple[Labelled, ...]
    coarse: Mapping[str, str] | None
    coarse_named: bool
    skipped: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class _Row:
    path: Path
    name: str
    coarse: str | None


def read_labelled(source: Path, labels: Sequence[str], *, ignore_unknown: bool = False) -> Listing:
    """The labelled pictures of `source` for a bundle with these `labels`.

    A folder has a folder for each label, at any depth: the nearest folder above a picture that is named like a label
    counts. A list has lines of `path, label` or `path, label, coarse class`; the path is relative to the list, the
    label a name, or a number in the order of `classes.csv` beside the list or above it, else in the order of `labels`.
    Raises DataError: data-missing, data-empty, data-list, data-classes, and data-label for names that are no labels
    unless they are to be ignored.
    """
    if not source.exists():
        raise DataError("data-missing", f"there is no {source}", "give a folder with a folder per label, or a list")
    folder = source if source.is_dir() else source.parent
    classes = _read_classes([folder / CLASSES, folder.parent / CLASSES])
    rows = _folder_rows(source, labels) if source.is_dir() else _list_rows(source, labels, classes)
    pictures, skipped = _sort_out(rows, labels)
    if skipped and not ignore_unknown:
        raise _strange(skipped, labels)
    if not pictures:
        hint = f"name a folder or list with pictures ({', '.join(sorted(SUFFIXES))}) of the bundle's labels"
        raise DataError("data-empty", f"{source} holds no picture of a label of the bundle", hint)
    return Listing(tuple(pictures), _coarse(rows, labels, classes), bool(classes), skipped)


def pictures_below(folder: Path) -> list[Path]:
    """All picture files below `folder`, sorted; hidden files and folders are left out. Raises DataError data-empty."""
    found = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in SUFFIXES
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and path.is_file()
    )
    if not found:
        raise DataError(
            "data-empty", f"{folder} holds no pictures", f"name a folder with {', '.join(sorted(SUFFIXES))}"
        )
    return found


def spread(pictures: Sequence[Labelled], most: int | None) -> tuple[Labelled, ...]:
    """At most `most` of `pictures`, evenly spread over the whole, so that all labels keep their share."""
    if most is None or most >= len(pictures):
        return tuple(pictures)
    return tuple(pictures[number * len(pictures) // most] for number in range(most))


def _plain(name: str) -> str:
    """As names are compared: `golden delicious`, `Golden_Delicious` and `Golden-Delicious` are the same."""
    return re.sub(r"[\s_-]+", "-", name.strip().casefold())


def _names(labels: Iterable[str]) -> dict[str, str]:
    """Every way to write a label that means one label only."""
    plain: dict[str, list[str]] = {}
    for label in labels:
        plain.setdefault(_plain(label), []).append(label)
    unique = {name: group[0] for name, group in plain.items() if len(group) == 1}
    return unique | {label: label for label in labels}


def _label_of(name: str, names: Mapping[str, str]) -> str | None:
    return names.get(name) or names.get(_plain(name))


def _folder_rows(folder: Path, labels: Sequence[str]) -> list[_Row]:
    names = _names(labels)
    rows = []
    for path in pictures_below(folder):
        above = path.relative_to(folder).parts[:-1][::-1]
        known = next((part for part in above if _label_of(part, names)), None)
        rows.append(_Row(path, known or (above[0] if above else "."), None))
    return rows


def _list_rows(path: Path, labels: Sequence[str], classes: Mapping[int, tuple[str, str]]) -> list[_Row]:
    rows, known = [], frozenset(labels)
    for number, cells in _cells(path):
        if len(cells) < 2 or not cells[0]:
            hint = "write lines as: path, label or number[, coarse class]"
            raise DataError("data-list", f"{path}, line {number}: {', '.join(cells)!r} names no label", hint)
        if number == 1 and cells[1].casefold() in _HEADINGS and cells[1] not in known:
            continue
        coarse = cells[2] if len(cells) > 2 and cells[2] else None
        name = cells[1] if cells[1] in known else _name_of(cells[1], labels, classes)
        rows.append(_Row(path.parent / cells[0], name, coarse))
    return rows


def _cells(path: Path) -> Iterable[tuple[int, list[str]]]:
    """Line numbers with their cells: between commas, else tabs, else before and after the last blank."""
    try:
        if path.stat().st_size > MOST_LIST_BYTES:
            raise DataError("data-list", f"{path} has over {MOST_LIST_BYTES} bytes", "give a text file with a list")
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DataError("data-missing", f"{path} cannot be read: {error.strerror}", "let this user read it") from None
    except UnicodeDecodeError:
        raise DataError("data-list", f"{path} is no text", "give a UTF-8 text file with lines: path, label") from None
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        if "," in line or "\t" in line:
            cells = next(csv.reader([line], delimiter="," if "," in line else "\t", skipinitialspace=True), [])
        else:
            cells = line.rsplit(maxsplit=1)
        yield number, [cell.strip() for cell in cells]


def _name_of(cell: str, labels: Sequence[str], classes: Mapping[int, tuple[str, str]]) -> str:
    """The name that a list's label cell means; a number that means none stays as it is."""
    if not (cell.isascii() and cell.isdigit()):
        return cell
    number = int(cell)
    if classes:
        return classes[number][0] if number in classes else cell
    return labels[number] if number < len(labels) else cell


def _sort_out(rows: Iterable[_Row], labels: Sequence[str]) -> tuple[list[Labelled], dict[str, int]]:
    names = _names(labels)
    pictures: list[Labelled] = []
    skipped: dict[str, int] = {}
    for row in rows:
        label = _label_of(row.name, names)
        if label is not None:
            pictures.append(Labelled(row.path, label))
        else:
            skipped[row.name] = skipped.get(row.name, 0) + 1
    return pictures, skipped


def _strange(skipped: Mapping[str, int], labels: Sequence[str]) -> DataError:
    """The error that names up to three names that are no labels, and labels that are written like them."""
    named = []
    for name in list(skipped)[:3]:
        near = difflib.get_close_matches(_plain(name), [_plain(label) for label in labels], n=2, cutoff=0.6)
        likely = [label for label in labels if _plain(label) in near]
        named.append(f"{name!r}" + (f" (near: {', '.join(likely)})" if likely else ""))
    more = f" and {len(skipped) - 3} more" if len(skipped) > 3 else ""
    if "." in skipped:
        hint = "put each picture into a folder that is named as its label, or give --ignore-unknown to leave them out"
    else:
        hint = "name them as the bundle's labels, or give --ignore-unknown to leave them out"
    return DataError("data-label", f"no labels of the bundle: {', '.join(named)}{more}", hint)


def _read_classes(places: Sequence[Path]) -> dict[int, tuple[str, str]]:
    """Number -> (class, coarse class) from the first of `places` that exists, as the grocery data set writes it."""
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        return {}
    hint = "give it the columns Class Name, Class ID and Coarse Class Name, or take the file away"
    try:
        with path.open(newline="", encoding="utf-8-sig") as lines:
            rows = [
                {_plain(key or "").split("-(")[0]: value for key, value in row.items()} for row in csv.DictReader(lines)
            ]
        return {
            int(row["class-id"]): (row["class-name"].strip(), (row.get("coarse-class-name") or "").strip())
            for row in rows
        }
    except (OSError, UnicodeDecodeError, KeyError, ValueError, AttributeError) as wrong:
        raise DataError("data-classes", f"{path} cannot be read: {wrong!r}", hint) from None


def _class_of(row: Mapping[str, str | None]) -> tuple[int, tuple[str, str]]:
    """Columns may say their kind in brackets, as `Class ID (int)`. Raises KeyError, ValueError."""
    named = {_plain(key or "").split("-(")[0]: (value or "").strip() for key, value in row.items()}
    return int(named["class-id"]), (named["class-name"], named.get("coarse-class-name", ""))


def _coarse(
    rows: Iterable[_Row], labels: Sequence[str], classes: Mapping[int, tuple[str, str]]
) -> dict[str, str] | None:
    """Coarse classes by label: from classes.csv, else from the third column of a list."""
    names = _names(labels)
    pairs = list(classes.values()) or [(row.name, row.coarse or "") for row in rows]
    known = {_label_of(name, names): coarse for name, coarse in pairs if coarse}
    found = {label: coarse for label, coarse in known.items() if label is not None}
    return found or None
