"""Single pictures out of received shards, on demand."""

import tempfile
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable
from datetime import date
from pathlib import Path
from typing import Final

from cloud.batch.rows import Nights
from cloud.errors import CloudError, Rejected
from cloud.objects import Objects, fetch
from cloud.shards.form import open_shard

MOST_BYTES: Final = 1024 * 1024
"""Largest picture that is given; a device's is a tenth of it."""
KEPT: Final = 64
"""Pictures kept in memory: what one report shows, and some more."""


class NoPicture(Rejected):
    """There is no such row, or what is in it is no JPEG of a sane size (``no-such-picture``)."""

    def __init__(self, detail: str) -> None:
        super().__init__("no-such-picture", detail, "take the address from the report")


class Pictures:
    """Reads pictures. Serves any number of threads; one shard is read at a time, whatever is asked."""

    def __init__(self, nights: Nights, objects: Objects) -> None:
        self._nights = nights
        self._objects = objects
        self._reading = threading.Lock()
        self._kept: OrderedDict[tuple[str, int], bytes] = OrderedDict()

    def picture(self, day: date, shard_sha256: str, row: int, also: Callable[[], Iterable[int]] = tuple) -> bytes:
        """The picture in a row, from 0; where the file must be read, the rows `also` are kept for the next calls.

        Raises `NoPicture`, `CloudError` (``shard-changed``) and what `Objects` raises.
        """
        name = self._nights.received(day, shard_sha256)
        if name is None:
            raise NoPicture(f"no shard {shard_sha256[:16]} was received for {day}")
        with self._reading:
            if (shard_sha256, row) not in self._kept:
                self._read(name, shard_sha256, {row, *also()})
            found = self._kept.get((shard_sha256, row), b"")
        if not found:
            raise NoPicture(f"row {row} of this shard holds no picture that can be shown")
        return found

    def _read(self, name: str, shard_sha256: str, wanted: set[int]) -> None:
        with tempfile.TemporaryDirectory(prefix="shelfwire-") as folder:
            file = Path(folder) / "shard.parquet"
            if fetch(self._objects, name, file) != shard_sha256:
                raise CloudError(
                    "shard-changed", "the file is not the one that was received", "bring it back from a copy"
                )
            self._take(file, shard_sha256, wanted)

    def _take(self, file: Path, shard_sha256: str, wanted: set[int]) -> None:
        begin, last = 0, max(wanted)
        for batch in open_shard(file).batches():
            pictures = batch["picture"]
            for row in sorted(row for row in wanted if begin <= row < begin + batch.num_rows):
                self._keep((shard_sha256, row), pictures[row - begin].as_py() or b"")
            begin += batch.num_rows
            if begin > last:
                break

    def _keep(self, key: tuple[str, int], picture: bytes) -> None:
        fit = picture.startswith(b"\xff\xd8\xff") and len(picture) <= MOST_BYTES
        self._kept[key] = picture if fit else b""
        while len(self._kept) > KEPT:
            self._kept.popitem(last=False)
