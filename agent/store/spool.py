"""Pictures that wait for the cloud: one file each, in the folder `spool` beside the outbox.

The file comes first, then the row that speaks of it; at the end the row goes first, then the file. So a crash leaves
at worst a file without a row, and the sweeper finds it.
"""

import contextlib
import hashlib
import logging
import os
import secrets
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path

from agent.durable import sync_folder
from agent.errors import Broken, Rejected
from agent.ports import Spooled
from agent.store.database import NO_SPACE

log = logging.getLogger(__name__)

FOLDER = "spool"
SUFFIX = ".jpg"

LOOK_AT_DISK_S = 1.0
"""How long one look at the disk's free space is used."""

ORPHAN_S = 600.0
"""A file without a row is swept when it is older: far longer than any commit takes."""

SWEEP_EVERY_S = 600.0
SWEEP_AT_ONCE = 1000
"""Files looked at in one turn: some milliseconds of the store's thread."""


Known = Callable[[Collection[str]], set[str]]
"""Tells which of some files have a row."""


class Spool:
    """Keeps, reads and removes pictures. Any thread may call anything."""

    def __init__(
        self,
        state_dir: Path,
        *,
        max_bytes: int = 4 << 30,
        keep_free_bytes: int = 0,
        time_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self.folder = state_dir / FOLDER
        self._max_bytes = max_bytes
        self._keep_free_bytes = keep_free_bytes
        self._time_s = time_s
        self._lock = threading.Lock()
        self._used_bytes = 0
        self._uncommitted: dict[str, tuple[int, float]] = {}
        self._free_bytes = 0
        self._looked_s: float | None = None
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise _trouble(self.folder, error) from None

    def room_bytes(self) -> int:
        """How much more may be kept now; never negative. One look at the disk per second, no file is touched."""
        with self._lock:
            now_s = self._time_s()
            if self._looked_s is None or now_s - self._looked_s >= LOOK_AT_DISK_S:
                self._looked_s = now_s
                self._free_bytes = _free_bytes(self.folder)
            uncommitted = sum(size for size, _ in self._uncommitted.values())
            room = min(self._max_bytes - self._used_bytes - uncommitted, self._free_bytes - self._keep_free_bytes)
            return max(0, room)

    def keep(self, jpeg: bytes) -> Spooled:
        """Write a picture durably.

        Raises `Broken`: ``spool-full`` (no room by the limits), ``disk-full``, ``spool-folder``.
        """
        if len(jpeg) > self.room_bytes():
            raise Broken("spool-full", f"no room for {len(jpeg)} more bytes of pictures in {self.folder}",
                         "restore the connection, free disk space, or raise [spool] max_bytes")  # fmt: skip
        name = secrets.token_hex(16) + SUFFIX
        with self._lock:
            self._uncommitted[name] = (len(jpeg), self._time_s())
        try:
            self._write(name, jpeg)
        except OSError as error:
            self.remove([name])
            raise _trouble(self.folder, error) from None
        return Spooled(name, len(jpeg), hashlib.sha256(jpeg).hexdigest())

    def _write(self, name: str, jpeg: bytes) -> None:
        """File, then its name, then the folder: each is on the disk before the next."""
        temporary = self.folder / f"{name}.part"
        try:
            file = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with os.fdopen(file, "wb") as stream:
                stream.write(jpeg)
                stream.flush()
                os.fsync(stream.fileno())
            temporary.rename(self.folder / name)
            sync_folder(self.folder)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise

    def read(self, picture: Spooled) -> bytes:
        """Read a picture back.

        Raises `Rejected` (``picture-lost``) when its file is missing or not what was written, and `Broken`
        (``spool-folder``) when the disk does not let us look.
        """
        try:
            with (self.folder / picture.name).open("rb") as file:
                jpeg = file.read(picture.size_bytes + 1)
        except FileNotFoundError:
            raise Rejected("picture-lost", f"the spool has no file {picture.name}", "check the disk") from None
        except OSError as error:
            raise _trouble(self.folder, error) from None
        if hashlib.sha256(jpeg).hexdigest() != picture.sha256:
            raise Rejected("picture-lost", f"the file {picture.name} in the spool was altered", "check the disk")
        return jpeg

    def remove(self, names: Iterable[str]) -> None:
        """Remove files whose rows are gone. A file that cannot be removed is left to the sweeper."""
        for name in names:
            with contextlib.suppress(OSError):
                (self.folder / name).unlink(missing_ok=True)
            with self._lock:
                self._uncommitted.pop(name, None)

    # -- for the writer --------------------------------------------------------------------------------------

    def committed(self, names: Iterable[str], used_bytes: int) -> None:
        """Learn that these files have their rows, and what all rows' pictures take together."""
        with self._lock:
            for name in names:
                self._uncommitted.pop(name, None)
            self._used_bytes = used_bytes

    def orphans(self, known: Known, at_once: int) -> Iterator[list[str]]:
        """Walk the folder and give, per `at_once` files looked at, those that are old and have no row.

        What this process has just kept is spared whatever the wall clock says: that may have jumped since.
        """
        with os.scandir(self.folder) as entries:
            names: list[str] = []
            for n, entry in enumerate(entries, 1):
                if self._is_old(entry):
                    names.append(entry.name)
                if n % at_once == 0:
                    yield self._without_row(names, known)
                    names = []
            yield self._without_row(names, known)

    def _is_old(self, entry: "os.DirEntry[str]") -> bool:
        kept = self._uncommitted.get(entry.name.removesuffix(".part"))
        if kept is not None and self._time_s() - kept[1] < ORPHAN_S:
            return False
        try:
            return entry.is_file(follow_symlinks=False) and time.time() - entry.stat().st_mtime > ORPHAN_S
        except OSError:
            return False

    @staticmethod
    def _without_row(names: list[str], known: Known) -> list[str]:
        have = known(names) if names else set()
        return [name for name in names if name not in have]


class Sweeper:
    """Removes files that no row speaks of, a slice of the folder at a time; a pass begins every ten minutes."""

    def __init__(self, spool: Spool, known: Known, time_s: Callable[[], float] = time.monotonic) -> None:
        self._spool = spool
        self._known = known
        self._time_s = time_s
        self._pass: Iterator[list[str]] | None = None
        self._begin_s = time_s()

    def turn(self) -> int:
        """Do one slice when a pass is due or under way; gives how many files went."""
        if self._pass is None:
            if self._time_s() < self._begin_s:
                return 0
            self._begin_s = self._time_s() + SWEEP_EVERY_S
            self._pass = self._spool.orphans(self._known, SWEEP_AT_ONCE)
        try:
            found = next(self._pass, None)
        except OSError as error:
            log.warning("the spool cannot be swept: %s", error)
            found = None
        if found is None:
            self._pass = None
            return 0
        self._spool.remove(found)
        return len(found)


def _free_bytes(folder: Path) -> int:
    try:
        disk = os.statvfs(folder)
    except OSError:
        return 0
    return disk.f_bavail * disk.f_frsize


def _trouble(folder: Path, error: OSError) -> Broken:
    if error.errno in NO_SPACE:
        return Broken("disk-full", f"no space left for pictures in {folder}", "free disk space")
    return Broken("spool-folder", f"{folder} cannot be used: {error}", "check the disk and the folder's rights")
