"""The folder `batch`: finished files of the night, and what was set aside.

A file is written under another name, brought to the disk, and then given its own; the row that speaks of it comes
after. So a crash leaves at worst a file without a row, which the sweeper finds.
"""

import contextlib
import errno
import hashlib
import logging
import os
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from agent.core.shards import Manifest
from agent.durable import sync_folder
from agent.errors import Broken
from agent.night_ports import ShardFile
from agent.store.database import NO_SPACE

log = logging.getLogger(__name__)

FOLDER = "batch"
ASIDE = "aside"
"""Folder inside it for files that the cloud will not take or that were damaged."""

SUFFIX = ".parquet"
PART = ".part"
READ_BYTES = 1 << 16

ASIDE_S = 30 * 86_400.0
ASIDE_BYTES = 1 << 30
"""How long, and how much of, what was set aside is kept."""


class BatchFolder:
    """Writes, checks and removes the night's files."""

    def __init__(
        self,
        state_dir: Path,
        *,
        time_s: Callable[[], float] = time.time,
        on_step: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.folder = state_dir / FOLDER
        self._time_s = time_s
        self._on_step = on_step
        self._suspects: set[str] = set()
        """Files that had no row at the last look."""
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            sync_folder(state_dir)
        except OSError as error:
            raise _trouble(self.folder, error) from None

    def room_bytes(self) -> int:
        """How much the disk still takes."""
        disk = os.statvfs(self.folder)
        return disk.f_bavail * disk.f_frsize

    def write(self, manifest: Manifest, rows: Iterable[Mapping[str, Any]]) -> ShardFile:
        """Write a file durably. What `rows` raises is raised here; then nothing stays.

        Raises `Broken`: ``disk-full``, ``batch-folder``. Tells `on_step` ``written`` and ``named``.
        """
        from agent.store import parquet  # 8 MB, of which sync, which sends the files, has no use

        temporary = self.folder / f"{manifest.day}-{manifest.part:04}{PART}"
        try:
            written = parquet.write(temporary, manifest, rows)
            self._on_step("written")
            name = f"{manifest.day}-{manifest.part:04}-{written.sha256[:16]}{SUFFIX}"
            temporary.rename(self.folder / name)
            sync_folder(self.folder)
            self._on_step("named")
        except OSError as error:
            raise _trouble(self.folder, error) from None
        finally:
            temporary.unlink(missing_ok=True)
        return ShardFile(name, written.size_bytes, written.sha256)

    def is_sound(self, file: ShardFile) -> bool:
        """Read a file through, and tell whether it is what was written.

        Raises `Broken` (``batch-folder``) when we are not let look; a disk that cannot read it has lost it.
        """
        digest = hashlib.sha256()
        try:
            with (self.folder / file.name).open("rb") as stream:
                while part := stream.read(READ_BYTES):
                    digest.update(part)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.EIO):
                raise _trouble(self.folder, error) from None
            return False
        return digest.hexdigest() == file.sha256

    def read(self, file: ShardFile) -> Iterator[tuple[int, bytes]]:
        """Give a sound file's pictures, each with its frame's number."""
        from agent.store import parquet

        return parquet.read(self.folder / file.name)

    def pieces(self, file: ShardFile, size_bytes: int) -> Iterator[bytes]:
        """Read a file in pieces of this size. Raises `OSError`."""
        with (self.folder / file.name).open("rb") as stream:
            while piece := stream.read(size_bytes):
                yield piece

    def remove(self, name: str) -> None:
        """Remove a file whose row is gone. One that cannot be removed is left to the sweeper."""
        with contextlib.suppress(OSError):
            (self.folder / name).unlink(missing_ok=True)

    def set_aside(self, name: str) -> Path | None:
        """Move a file away that nobody will take: it is kept for a while, for a person. None when it is not there."""
        target = self.folder / ASIDE / name
        try:
            target.parent.mkdir(mode=0o700, exist_ok=True)
            (self.folder / name).rename(target)
        except OSError:
            return None
        return target

    def sweep(self, known: Collection[str], *, at_once: bool = False) -> int:
        """Remove what no row speaks of, and what was set aside long ago; gives how many files went.

        A file that is just being handed over has no row yet, so it goes only when it had none at the look before
        either; looks are minutes apart. `at_once`: nobody seals now.
        """
        now_s = self._time_s()
        gone = 0
        without = {e.name for e in _files(self.folder) if e.name.endswith((SUFFIX, PART)) and e.name not in known}
        for name in without if at_once else without & self._suspects:
            self.remove(name)
            gone += 1
        self._suspects = without
        kept_bytes = 0
        for entry in sorted(_files(self.folder / ASIDE), key=lambda e: -e.stat().st_mtime):
            kept_bytes += entry.stat().st_size
            if kept_bytes > ASIDE_BYTES or now_s - entry.stat().st_mtime > ASIDE_S:
                log.info("removed %s, which was set aside long ago", entry.name)
                self.remove(f"{ASIDE}/{entry.name}")
                gone += 1
        return gone


def _files(folder: Path) -> list["os.DirEntry[str]"]:
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if entry.is_file(follow_symlinks=False)]
    except FileNotFoundError:
        return []


def _trouble(folder: Path, error: OSError) -> Broken:
    if error.errno in NO_SPACE:
        return Broken("disk-full", f"no space left for the night's files in {folder}",
                      "free disk space, then run this again; nothing was lost")  # fmt: skip
    return Broken("batch-folder", f"{folder} cannot be used: {error}", "check the disk and the folder's rights")
