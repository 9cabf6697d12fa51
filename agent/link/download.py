"""Files of an update: bounded, resumed where they were cut, and checked before they get their name."""

import contextlib
import errno
import hashlib
import os
import shutil
import stat
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO

from agent.core.bandwidth import Bandwidth
from agent.durable import sync_folder
from agent.errors import Broken, Rejected, Retryable
from agent.link.mirror import Mirror, too_large
from agent.ports import Clock

READ_BYTES = 1 << 20
BURST_BYTES = 256 * 1024

Gate = Callable[[int], None]
"""Called before each piece with the bytes there are so far; raises to stop: a window that ends, a newer order."""


class Downloads:
    """Fetches files from a mirror, at most `bytes_per_second`, leaving `keep_free_bytes` of the disk. For one thread.

    What was fetched of a file that did not come to its end lies beside it as ``.part``.
    """

    def __init__(
        self,
        mirror: Mirror,
        clock: Clock,
        *,
        bytes_per_second: int,
        keep_free_bytes: int = 0,
        gate: Gate = lambda _: None,
        stop: threading.Event | None = None,
    ) -> None:
        self._mirror = mirror
        self._clock = clock
        self._bandwidth = Bandwidth(bytes_per_second, BURST_BYTES)
        self._keep_free_bytes = keep_free_bytes
        self._gate = gate
        self._stop = stop if stop is not None else threading.Event()

    def fetch(self, path: str, hashes: Mapping[str, str], size_bytes: int, into: Path) -> None:
        """Have the file `into` with exactly these hashes (name of the algorithm -> hex digest) and this size.

        Nothing is fetched when it is there already. Raises `Rejected`: ``update-digest``, ``update-size``,
        ``update-path``; `Retryable`: ``update-net``, ``update-missing``, ``update-space``, ``update-stopped``;
        `Broken`: ``update-folder``; and what the gate raises.
        """
        if self._is_there(into, hashes, size_bytes):
            return
        part = into.with_name(f"{into.name}.part")
        try:
            self._complete(path, hashes, size_bytes, part)
            part.replace(into)
            sync_folder(into.parent)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise self._no_space(size_bytes) from None
            raise Broken(
                "update-folder", f"{into.parent} cannot be written: {error.strerror or error}",
                "look at this device's disk and at who may write there",
            ) from None  # fmt: skip

    def _is_there(self, into: Path, hashes: Mapping[str, str], size_bytes: int) -> bool:
        if into.is_symlink() or not into.is_file() or into.stat().st_size != size_bytes:
            return False
        state = _Hashes(hashes)
        with into.open("rb") as file:
            state.take_all(file)
        return not state.wrong()

    def _complete(self, path: str, hashes: Mapping[str, str], size_bytes: int, part: Path) -> None:
        with _open_part(part) as file:
            have = os.fstat(file.fileno()).st_size
            if have > size_bytes:
                file.truncate(0)
                have = 0
            self._check_space(part.parent, size_bytes - have)
            state = _Hashes(hashes)
            state.take_all(file)
            fresh = have == 0
            if have < size_bytes:
                fresh = self._receive(path, file, state, have, size_bytes) or fresh
            os.fsync(file.fileno())
        if state.wrong():
            part.unlink()
            raise self._differs(path, fresh)

    def _receive(self, path: str, file: IO[bytes], state: "_Hashes", have: int, size_bytes: int) -> bool:
        """Append what is missing; True when the mirror began anew, so that no byte is older than this call."""
        self._gate(have)
        with self._mirror.open(path, have) as part:
            anew = part.start == 0
            if anew and have:
                file.truncate(0)
                file.seek(0)
                state.clear()
                have = 0
            for piece in part.pieces:
                if have + len(piece) > size_bytes:
                    file.truncate(0)
                    raise too_large(path, size_bytes)
                file.write(piece)
                state.take(piece)
                have += len(piece)
                if have < size_bytes:
                    self._pause(len(piece))
                    self._gate(have)
        if have < size_bytes:
            raise Retryable(
                "update-net", f"{path} ended after {have} of {size_bytes} bytes", "it goes on from there later"
            )
        return anew

    def _pause(self, sent_bytes: int) -> None:
        wait_s = self._bandwidth.take(sent_bytes, self._clock.now().boot_ns)
        if self._stop.is_set() or (wait_s > 0 and self._clock.wait(self._stop, wait_s)):
            raise Retryable("update-stopped", "the download was told to stop", "it goes on from there later")

    def _check_space(self, folder: Path, more_bytes: int) -> None:
        if shutil.disk_usage(folder).free < more_bytes + self._keep_free_bytes:
            raise self._no_space(more_bytes)

    def _no_space(self, more_bytes: int) -> Retryable:
        return Retryable(
            "update-space",
            f"the disk has no room for {more_bytes} bytes more beside the {self._keep_free_bytes} that stay free",
            "free some space; shelfwire-agent doctor host says what is used",
        )

    def _differs(self, path: str, fresh: bool) -> Rejected | Retryable:
        if fresh:
            return Rejected(
                "update-digest", f"{path} of {self._mirror.where} is not the file that was promised",
                "somebody changed it: copy the whole repository to the mirror again",
            )  # fmt: skip
        return Retryable(
            "update-digest", f"{path} is not the file that was promised, once its parts were put together",
            "it was thrown away and is fetched from the start",
        )  # fmt: skip


class _Hashes:
    """Digests as they grow. Raises `Rejected` (``update-digest``) for an algorithm that is not known."""

    def __init__(self, expected: Mapping[str, str]) -> None:
        self._expected = expected
        self.clear()

    def clear(self) -> None:
        """Begin anew."""
        try:
            self._states = {name: hashlib.new(name) for name in self._expected}
        except ValueError:
            raise Rejected(
                "update-digest", f"the repository describes files by {', '.join(self._expected)}, not by SHA-256",
                "publish with SHA-256",
            ) from None  # fmt: skip

    def take(self, piece: bytes) -> None:
        """Count a piece."""
        for state in self._states.values():
            state.update(piece)

    def take_all(self, file: IO[bytes]) -> None:
        """Count a file from its start to its end, where it is left."""
        file.seek(0)
        while piece := file.read(READ_BYTES):
            self.take(piece)

    def wrong(self) -> bool:
        """Whether any digest differs; nothing at all to compare with counts as wrong."""
        same = (state.hexdigest() == self._expected[name] for name, state in self._states.items())
        return not self._states or not all(same)


def _open_part(part: Path) -> IO[bytes]:
    """Open what is there of a file, or begin it; a link or anything else in its place is taken away."""
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISREG(part.lstat().st_mode):
            part.unlink()
    number = os.open(part, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o640)
    return os.fdopen(number, "r+b", buffering=0)
