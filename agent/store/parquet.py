"""Writes a file of the night as Parquet, a few pictures at a time, however many it holds.

Any reader of Parquet opens it: one row per frame, the JPEG as it is in the column `picture`.
"""

import hashlib
import io
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

from arro3.core import Array, DataType, Field, RecordBatch, RecordBatchReader, Schema
from arro3.io import read_parquet, write_parquet

from agent.core.shards import MANIFEST_KEY, Manifest

ROWS_PER_GROUP = 100
ROWS_PER_BATCH = 10
"""Rows handed to the writer at once: beside the row group that it is filling, only so many pictures are in memory."""

WRITE_BYTES = 1 << 20

_STRING, _INT32, _INT64, _FLOAT, _BINARY = (
    DataType.utf8(), DataType.int32(), DataType.int64(), DataType.float64(), DataType.binary(),
)  # fmt: skip

COLUMNS: tuple[tuple[str, DataType, bool], ...] = (
    ("frame_id", _STRING, False),
    ("device", _STRING, False),
    ("store", _STRING, False),
    ("run", _STRING, False),
    ("seq", _INT64, False),
    ("camera", _STRING, False),
    ("frame", _INT64, False),
    ("captured_at", DataType.timestamp("us", tz="UTC"), False),
    ("dated_by", _STRING, False),
    ("day", _STRING, False),
    ("reason", _STRING, False),
    ("width", _INT32, False),
    ("height", _INT32, False),
    ("label", _STRING, True),
    ("score", _FLOAT, True),
    ("labels", _STRING, True),
    ("model_name", _STRING, True),
    ("model_version", _STRING, True),
    ("model_release", _INT32, True),
    ("model_digest", _STRING, True),
    ("truth", _STRING, True),
    ("picture", _BINARY, False),
    ("picture_sha256", _STRING, False),
)
"""Name, type, and whether it may be empty."""

SCHEMA = Schema([Field(name, kind, nullable=nullable) for name, kind, nullable in COLUMNS])


@dataclass(frozen=True, slots=True)
class Written:
    """A file that was written."""

    size_bytes: int
    sha256: str


def write(path: Path, manifest: Manifest, rows: Iterable[Mapping[str, Any]]) -> Written:
    """Write `rows` (see `COLUMNS`; `captured_at` in microseconds) to `path`, durably.

    What `rows` raises is raised here, and `OSError` when the disk does not take the file; then it is incomplete.
    """
    with _Sink(path) as sink:
        source = _Source(rows, sink)
        try:
            write_parquet(
                RecordBatchReader.from_batches(SCHEMA, source.batches()),
                cast("IO[bytes]", sink),
                max_row_group_size=ROWS_PER_GROUP,
                compression="zstd(3)",
                # A JPEG shrinks no further, no two are the same, and their least and greatest say nothing.
                column_compression={"picture": "uncompressed"},
                column_dictionary_enabled={"picture": False},
                column_max_statistics_size={"picture": 0},
                skip_arrow_metadata=True,  # pyarrow would show that instead of our manifest
                key_value_metadata={MANIFEST_KEY: manifest.to_json()},
            )
        except Exception:
            # The library knows our own exceptions only as texts.
            if source.trouble is None and sink.trouble is None:
                raise
        trouble = sink.trouble or source.trouble
        if trouble is not None:
            raise trouble
        sink.finish()
    return Written(sink.size_bytes, sink.sha256())


def read(path: Path) -> Iterator[tuple[int, bytes]]:
    """Give the pictures of a file that is known to be sound, each with its frame's number."""
    for batch in read_parquet(str(path), batch_size=ROWS_PER_BATCH):
        yield from zip(batch["seq"].to_pylist(), batch["picture"].to_pylist(), strict=True)


class _Source:
    """Turns rows into small batches, and keeps what went wrong on the way."""

    def __init__(self, rows: Iterable[Mapping[str, Any]], sink: "_Sink") -> None:
        self._rows = rows
        self._sink = sink
        self.trouble: BaseException | None = None

    def batches(self) -> Iterator[RecordBatch]:
        try:
            waiting: list[Mapping[str, Any]] = []
            for row in self._rows:
                waiting.append(row)
                if len(waiting) == ROWS_PER_BATCH:
                    yield _batch(waiting)
                    waiting = []
                if self._sink.trouble is not None:
                    raise self._sink.trouble
            if waiting:
                yield _batch(waiting)
        except BaseException as error:
            self.trouble = error
            raise


def _batch(rows: list[Mapping[str, Any]]) -> RecordBatch:
    arrays: dict[str, Any] = {}
    for name, kind, _ in COLUMNS:
        values = [row[name] for row in rows]
        if name == "captured_at":
            arrays[name] = Array(values, DataType.int64()).cast(kind)
        else:
            arrays[name] = Array(values, kind)
    return RecordBatch(arrays, schema=SCHEMA)


class _Sink(io.RawIOBase):
    """The file as the library sees it: it takes everything, adds up the digest, and keeps the first error.

    The library does not survive an error of its file (it panics), so it is not told: the next batch ends it instead.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        self._file = os.fdopen(file, "wb", buffering=WRITE_BYTES)
        self._digest = hashlib.sha256()
        self.size_bytes = 0
        self.trouble: BaseException | None = None

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:  # noqa: ARG002
        raise io.UnsupportedOperation("this file is written from its start to its end")

    def write(self, part: Any) -> int:
        if self.trouble is None:
            try:
                self._file.write(part)
                self._digest.update(part)
                self.size_bytes += len(part)
            except (OSError, KeyboardInterrupt) as error:
                self.trouble = error
        return len(part)

    def finish(self) -> None:
        """Bring the file to the disk. Raises `OSError`."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def sha256(self) -> str:
        return self._digest.hexdigest()

    def close(self) -> None:
        if not self.closed:
            try:
                self._file.close()
            except OSError as error:
                self.trouble = self.trouble or error
            super().close()
