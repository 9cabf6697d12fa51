"""The labels of somebody's model, from the file that came with it: lines of text, a JSON list, or a table."""

import csv
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from models.bundle import UNKNOWN
from models.errors import BundleError

MOST_BYTES: Final = 4 * 1024 * 1024
MOST_CHARACTERS: Final = 64
"""A label travels with every result; longer ones are cut."""
_HEADINGS: Final = ("label", "labels", "name", "class name", "class_name", "class", "display_name", "category")
_NUMBERED = re.compile(r"^(\d+)(?:\s*[:,;\t]\s*|\s+)(\S.*)$")


@dataclass(frozen=True, slots=True)
class LabelFile:
    """Names in the order of the file, each once; `notes` say what was changed on the way."""

    names: tuple[str, ...]
    notes: tuple[str, ...]


def read_labels(path: Path) -> LabelFile:
    """The labels in `path`: one per line (numbers before them are taken off), a JSON list or object, or a CSV table.

    Empty lines are left out, names that are there twice get a number, names of over 64 characters are shortened; each
    is told in the notes. Raises BundleError import-labels.
    """
    text = _text(path)
    names = [name.strip() for name in _reader(path)(path, text)]
    if not any(names):
        raise _refused(path, "holds no labels", "give a file with one label per line")
    notes: list[str] = []
    for change in (_without_blanks, _without_numbers, _shortened, _told_apart):
        names = change(names, notes)
    for number, name in enumerate(names, start=1):
        _check(path, number, name)
    return LabelFile(tuple(names), tuple(notes))


def _refused(path: Path, what: str, hint: str) -> BundleError:
    return BundleError("import-labels", f"{path} {what}", hint)


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > MOST_BYTES:
            raise _refused(path, f"has over {MOST_BYTES} bytes", "give the labels' file, not the model's")
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise _refused(path, f"cannot be read: {error.strerror}", "name the file with the model's labels") from None
    except UnicodeDecodeError:
        raise _refused(path, "is no UTF-8 text", "save it as UTF-8 text, one label per line") from None


def _reader(path: Path) -> Callable[[Path, str], list[str]]:
    return {".json": _from_json, ".csv": _from_csv, ".tsv": _from_csv}.get(path.suffix.lower(), _from_lines)


def _from_lines(path: Path, text: str) -> list[str]:
    return _from_json(path, text) if text.lstrip().startswith("[") else text.splitlines()


def _from_json(path: Path, text: str) -> list[str]:
    """A list of names, or an object from number to name or to [id, name], as torchvision's and Keras's files are."""
    hint = 'give a JSON list as ["apple", "pear"], in the order of the model\'s outputs'
    try:
        said = json.loads(text)
        if isinstance(said, dict):
            said = [said[str(number)] for number in range(len(said))]
        names = [item[-1] if isinstance(item, list) else item for item in said]
    except (ValueError, TypeError, KeyError, IndexError, RecursionError):
        raise _refused(path, "is no JSON list of labels", hint) from None
    if not all(isinstance(name, str) for name in names):
        raise _refused(path, "holds something that is no label", hint)
    return names


def _from_csv(path: Path, text: str) -> list[str]:
    """The column that is headed as labels are; without a heading the last one."""
    rows = [row for row in csv.reader(text.splitlines(), delimiter="\t" if "\t" in text else ",") if row]
    heads = [re.sub(r"\s*\(.*\)$", "", cell.strip().casefold()) for cell in rows[0]] if rows else []
    column = next((heads.index(head) for head in _HEADINGS if head in heads), None)
    try:
        return [row[-1] for row in rows] if column is None else [row[column] for row in rows[1:]]
    except IndexError:
        raise _refused(path, "has rows of different length", "give each label a row with the same columns") from None


def _without_blanks(names: list[str], notes: list[str]) -> list[str]:
    kept = [name for name in names if name]
    inner = len("\n".join(names).strip("\n").split("\n")) - len(kept)
    if inner:
        notes.append(f"{inner} empty lines between labels were left out")
    return kept


def _without_numbers(names: list[str], notes: list[str]) -> list[str]:
    """Take off `0 `, `1: ` and so on, when every line has its own number, from 0 or 1."""
    found = [_NUMBERED.match(name) for name in names]
    numbers = [int(match[1]) for match in found if match]
    if len(names) < 2 or len(numbers) < len(names) or numbers != list(range(numbers[0], numbers[0] + len(names))):
        return names
    if numbers[0] > 1:
        return names
    notes.append("the numbers before the labels were taken off")
    return [match[2] for match in found if match]


def _shortened(names: list[str], notes: list[str]) -> list[str]:
    """Of names joined by commas as many as fit, as ImageNet's synonyms; of others the beginning."""
    kept = []
    for name in names:
        short = name
        while len(short) > MOST_CHARACTERS and "," in short:
            short = short.rpartition(",")[0].strip()
        kept.append(short[:MOST_CHARACTERS].strip())
    count = sum(a != b for a, b in zip(names, kept, strict=True))
    if count:
        notes.append(f"{count} labels of over {MOST_CHARACTERS} characters were shortened")
    return kept


def _told_apart(names: list[str], notes: list[str]) -> list[str]:
    """ImageNet has two kinds of crane: the second becomes `crane (2)`."""
    seen: dict[str, int] = {}
    taken, kept, changed = set(names), [], []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        new, number = name, seen[name]
        while number > 1 and new in taken:
            tail = f" ({number})"
            new, number = name[: MOST_CHARACTERS - len(tail)] + tail, number + 1
        taken.add(new)
        kept.append(new)
        if new != name:
            changed.append(f"{name!r}, from here on {new!r}")
    if changed:
        notes.append(
            "labels that are there twice were numbered: " + "; ".join(changed[:5]) + ("; ..." * (len(changed) > 5))
        )
    return kept


def _check(path: Path, number: int, name: str) -> None:
    if re.search(r"[\x00-\x1f\x7f]", name):
        raise _refused(path, f"holds a control character in label {number}", "save it as plain text")
    if name == UNKNOWN:
        hint = "call it otherwise, as 'other': the word is what an answer below the threshold is called"
        raise _refused(path, f"calls label {number} {UNKNOWN!r}", hint)
