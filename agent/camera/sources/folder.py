"""A folder of pictures, in the order of their names, sub-folders included."""

import csv
import logging
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

from agent.camera.sources.paths import existing_path
from agent.config import Camera
from agent.errors import Rejected
from agent.ports import Picture, Shot
from models import PictureError, decode_picture

log = logging.getLogger(__name__)

_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
_LABELS_NAME = "labels.csv"
_LABELS_MAX_BYTES = 16 << 20
_FILE_MAX_BYTES = 32 << 20
_SKIPPED_MAX = 10_000
"""Broken files remembered so that each is logged once, also when the folder loops."""


class FolderSource:
    """Gives every picture below a folder, sorted; broken ones are skipped, logged once and counted, by code.

    A file ``labels.csv`` in the folder (lines of ``path,label``, paths relative to it) gives the true labels.
    """

    live = False

    def __init__(self, camera: Camera) -> None:
        self._camera = camera
        self._root = Path()
        self._paths: Iterator[Path] = iter(())
        self._labels: Mapping[str, str] = {}
        self._given = 0
        self._logged: set[Path] = set()
        self.skipped: Counter[str] = Counter()

    def open(self) -> None:
        """Look into the folder. Raises `Rejected` when it is not there or holds no picture."""
        self._root = existing_path(self._camera)
        self._labels = _read_labels(self._camera, self._root / _LABELS_NAME)
        self._rewind()
        if next(_pictures(self._root), None) is None:
            raise Rejected(
                "camera-not-found",
                f"camera {self._camera.name}: there is no picture in {self._root}",
                f"put pictures there whose names end in {', '.join(_SUFFIXES)}",
            )

    def read(self) -> Shot | None:
        """Give the next good picture, or None after the last. Raises `Rejected` when not one was good."""
        while True:
            for path in self._paths:
                picture = self._decode(path)
                if picture is not None:
                    self._given += 1
                    return Shot(picture, self._labels.get(path.relative_to(self._root).as_posix()))
            if self._given == 0:
                raise Rejected(
                    "camera-codec",
                    f"camera {self._camera.name}: no file in {self._root} can be read as a picture",
                    "replace them by JPEG, PNG or WebP pictures; the log names what is wrong with each",
                )
            if not self._camera.loop:
                return None
            self._rewind()

    def close(self) -> None:
        """Let go of the folder."""
        self._paths = iter(())

    def _rewind(self) -> None:
        self._paths = _pictures(self._root)
        self._given = 0

    def _decode(self, path: Path) -> Picture | None:
        try:
            with path.open("rb") as file:
                content = file.read(_FILE_MAX_BYTES + 1)
            return decode_picture(content, max_bytes=_FILE_MAX_BYTES)
        except PictureError as error:
            code, reason = error.code, str(error)
        except OSError as error:
            code, reason = "picture-unreadable", error.strerror or type(error).__name__
        self.skipped[code] += 1
        if path not in self._logged and len(self._logged) < _SKIPPED_MAX:
            self._logged.add(path)
            log.warning("camera %s: skipped %s [%s]: %s", self._camera.name, path, code, reason)
        return None


def _pictures(folder: Path) -> Iterator[Path]:
    """Give the pictures below `folder`, sorted; links to folders are not followed, so a loop of links is harmless."""
    try:
        with os.scandir(folder) as entries:
            found = sorted(entries, key=lambda e: e.name)
    except OSError as error:
        log.warning("skipped the folder %s: %s", folder, error.strerror)
        return
    for entry in found:
        if entry.is_dir(follow_symlinks=False):
            yield from _pictures(Path(entry.path))
        elif entry.name.lower().endswith(_SUFFIXES) and entry.is_file():
            yield Path(entry.path)


def _read_labels(camera: Camera, path: Path) -> Mapping[str, str]:
    if not path.is_file():
        return {}
    try:
        with path.open("rb") as file:
            text = file.read(_LABELS_MAX_BYTES + 1).decode("utf-8")
        rows = [row for row in csv.reader(text.splitlines(), skipinitialspace=True, strict=True) if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise _bad_labels(camera, path, type(error).__name__) from None
    if len(text) > _LABELS_MAX_BYTES or any(len(row) != 2 for row in rows):
        raise _bad_labels(camera, path, "every line needs a path and a label")
    return {name.strip(): label.strip() for name, label in rows}


def _bad_labels(camera: Camera, path: Path, reason: str) -> Rejected:
    return Rejected(
        "camera-labels",
        f"camera {camera.name}: {path} is not a list of labels: {reason}",
        "write one line per picture, as in  shelf/one.jpg,Banana  or take the file away",
    )
