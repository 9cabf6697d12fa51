"""Where bytes of updates come from: a web server, or a folder such as a USB stick. Neither is trusted with anything."""

import contextlib
import os
import re
import stat
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO, Protocol

from agent.errors import Rejected, Retryable

PIECE_BYTES = 64 * 1024
MOST_PATH_CHARACTERS = 1024


class Missing(Retryable):
    """The mirror has no such file (``update-missing``): it may lag behind, or the wrong place was named."""


class TooLarge(Rejected):
    """The mirror gives more bytes than were allowed (``update-size``)."""


@dataclass(frozen=True, slots=True)
class Part:
    """A file from byte `start` on, in pieces as they come. A mirror may begin at 0 although more was asked for."""

    start: int
    pieces: Iterator[bytes]


class Mirror(Protocol):
    """A place with files under relative paths. Paths come from signed metadata or from us, never from a message."""

    where: str
    """Its address, for people."""
    told_at: datetime | None
    """What the mirror's own clock said last; a hint for people, and never trusted."""

    def read(self, path: str, most_bytes: int) -> bytes:
        """Read a small file whole. Raises `Missing`, `TooLarge`, `Rejected` (``update-path``) and `Retryable`
        (``update-net``)."""
        ...

    def open(self, path: str, start: int) -> AbstractContextManager[Part]:
        """Read a file from byte `start` on; the pieces raise as `read` does."""
        ...


def safe_path(path: str) -> str:
    """Give `path` back when it stays below its base everywhere. Raises `Rejected` (``update-path``)."""
    steps = path.split("/")
    if (
        len(path) > MOST_PATH_CHARACTERS
        or re.search(r"[\\\x00-\x1f\x7f]", path)
        or any(step in ("", ".", "..") for step in steps)
        or ":" in steps[0]
    ):
        raise Rejected(
            "update-path", f"the repository names a path that does not stay inside it: {path[:80]!r}",
            "whoever publishes must name it anew; nothing was fetched",
        )  # fmt: skip
    return path


def too_large(path: str, most_bytes: int) -> TooLarge:
    """The error of a file that does not end."""
    return TooLarge(
        "update-size", f"{path} goes on beyond the {most_bytes} bytes that it may have",
        "somebody on the way, or the mirror, sends something else; look at the mirror",
    )  # fmt: skip


def gather(part: Part, path: str, most_bytes: int) -> bytes:
    """Join the pieces of a small file. Raises `TooLarge`."""
    found = bytearray()
    for piece in part.pieces:
        found += piece
        if len(found) > most_bytes:
            raise too_large(path, most_bytes)
    return bytes(found)


class FolderMirror:
    """A folder laid out as the repository is: ``metadata/``, ``targets/``, ``blobs/``. Links in it are not followed."""

    def __init__(self, folder: Path) -> None:
        self.where = str(folder)
        self.told_at: datetime | None = None
        self._folder = folder

    def read(self, path: str, most_bytes: int) -> bytes:
        """See Mirror."""
        with self.open(path, 0) as part:
            return gather(part, path, most_bytes)

    @contextlib.contextmanager
    def open(self, path: str, start: int) -> Iterator[Part]:
        """See Mirror."""
        with self._file(path) as file:
            file.seek(start)
            yield Part(start, self._pieces(file, path))

    def _file(self, path: str) -> IO[bytes]:
        place = self._folder
        for step in safe_path(path).split("/"):
            place = place / step
            if place.is_symlink():
                raise Rejected("update-path", f"{place} is a link", "copy the files themselves into the folder")
        try:
            number = os.open(place, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            raise Missing(
                "update-missing", f"there is no {path} in {self.where}",
                "name the folder that holds metadata, targets and blobs, or copy the whole repository again",
            ) from None  # fmt: skip
        except OSError as error:
            raise self._unreadable(path, error) from None
        if not stat.S_ISREG(os.fstat(number).st_mode):
            os.close(number)
            raise Rejected("update-path", f"{place} is no file", "copy the files themselves into the folder")
        return os.fdopen(number, "rb", buffering=0)

    def _pieces(self, file: IO[bytes], path: str) -> Iterator[bytes]:
        try:
            while piece := file.read(PIECE_BYTES):
                yield piece
        except OSError as error:
            raise self._unreadable(path, error) from None

    def _unreadable(self, path: str, error: OSError) -> Retryable:
        return Retryable(
            "update-net", f"{path} in {self.where} cannot be read: {error.strerror}",
            "plug the stick in again, or take another one",
        )  # fmt: skip
