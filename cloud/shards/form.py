"""What a shard is: one Parquet file with a day's frames of one device, a row per frame, and a manifest in its metadata.

Written on the device, read here. Extra columns are allowed, so that a newer device may say more.
"""

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Annotated, Final

import arro3.io
from arro3.core import RecordBatch, RecordBatchReader, Schema
from pydantic import Field, StringConstraints, ValidationError

from cloud.errors import Rejected
from wire import bounds
from wire.records import Digest, Name, Part

MOST_ROWS: Final = 1_000_000
MOST_BYTES: Final = 128 * 1024 * 1024
"""Largest shard that is taken; a device aims for half of it."""
ROWS_AT_ONCE: Final = 100
"""Rows in memory at once: a row group as the device writes it, some 5 MB of JPEG."""
MANIFEST: Final = "shelfwire"
"""The key of the manifest in the file's metadata."""

TEXT, BINARY, INT64, INT32, FLOAT, TIME = "text", "binary", "int64", "int32", "float", "time"
COLUMNS: Final[Mapping[str, str]] = {
    "frame_id": TEXT, "device": TEXT, "store": TEXT, "run": TEXT, "seq": INT64, "camera": TEXT, "frame": INT64,
    "captured_at": TIME, "dated_by": TEXT, "day": TEXT, "reason": TEXT, "width": INT32, "height": INT32,
    "label": TEXT, "score": FLOAT, "labels": TEXT, "model_name": TEXT, "model_version": TEXT, "model_digest": TEXT,
    "model_release": INT32, "truth": TEXT, "picture": BINARY, "picture_sha256": TEXT,
}  # fmt: skip
"""Every column that must be there, with the kind of its values."""

_ARROW: Final = {
    TEXT: ("Utf8", "LargeUtf8", "Utf8View"),
    BINARY: ("Binary", "LargeBinary", "BinaryView"),
    INT64: ("Int64",),
    INT32: ("Int32", "Int64"),
    FLOAT: ("Float64", "Float32"),
    TIME: ('Timestamp(µs, "UTC")', 'Timestamp(µs, "+00:00")'),
}
"""What Arrow calls these kinds; a dictionary of them is as good."""

StoreName = Annotated[str, StringConstraints(max_length=64, pattern=r"^[^\x00-\x1f\x7f]*$")]
Day = Annotated[str, StringConstraints(pattern=r"^\d{4}-\d\d-\d\d$")]
PartNumber = Annotated[int, Field(ge=1, le=9999)]
Rows = Annotated[int, Field(ge=1, le=MOST_ROWS)]


class Manifest(Part):
    """What a shard says of itself."""

    version: Annotated[int, Field(ge=1, le=1)]
    device: Name
    store: StoreName
    day: Day
    part: PartNumber
    rows: Rows


class Declared(Part):
    """What a device says of a shard before it sends it."""

    device: Name
    store: StoreName = ""
    day: Day
    part: PartNumber
    rows: Rows
    bytes: Annotated[int, Field(ge=1, le=MOST_BYTES)]
    sha256: Digest

    @property
    def date(self) -> date:
        """The day. Raises ValueError for one that no calendar has."""
        return date.fromisoformat(self.day)

    @property
    def key(self) -> str:
        """Where the object lies. A store's name is free text; in a key it is written plainly."""
        folder = f"shards/day={self.day}/store={plain(self.store)}/device={self.device}"
        return f"{folder}/part-{self.part:04}-{self.sha256[:16]}.parquet"


class BadShard(Rejected):
    """The file is not what was declared, or no shard at all (``shard-bad``); the message says what is wrong."""

    def __init__(self, detail: str) -> None:
        super().__init__(
            "shard-bad", detail, "seal these frames anew from the device's own pictures; the file is kept under bad/"
        )


@dataclass(frozen=True, slots=True)
class Shard:
    """An open shard."""

    manifest: Manifest
    reader: RecordBatchReader

    def batches(self) -> Iterator[RecordBatch]:
        """Its rows, at most `ROWS_AT_ONCE` at a time. Raises `BadShard` where the file is damaged."""
        while True:
            with reading("the file cannot be read to its end"):
                batch = next(self.reader, None)
            if batch is None:
                return
            yield batch


def plain(store: str) -> str:
    """A store's name as part of a key: letters, digits and dashes, ``none`` for nothing."""
    return re.sub(r"[^a-z0-9]+", "-", store.lower()).strip("-")[:64] or "none"


def open_shard(file: Path | bytes, rows_at_once: int = ROWS_AT_ONCE) -> Shard:
    """Open a file, or one that is in memory, and look at its schema and manifest. Raises `BadShard`."""
    with reading("this is no Parquet file"):
        reader = arro3.io.read_parquet(file, batch_size=rows_at_once)
    _check_columns(reader.schema)
    return Shard(_manifest(reader.schema), reader)


@contextmanager
def reading(otherwise: str) -> Iterator[None]:
    """Turn whatever the reader makes of a damaged file into `BadShard`; its panics are no `Exception`."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit, GeneratorExit, MemoryError):
        raise
    except BaseException as error:
        raise BadShard(f"{otherwise}: {' '.join(str(error).split())[:200]}") from error


def _check_columns(schema: Schema) -> None:
    there = {name: str(schema.field(name).type).removeprefix("arro3.core.DataType<") for name in schema.names}
    for name, kind in COLUMNS.items():
        if name not in there:
            raise BadShard(f"the column {name} is missing")
        said = re.sub(r"^Dictionary\(\w+, (.*)\)$", r"\1", there[name].strip().removesuffix(">"))
        if said not in _ARROW[kind]:
            raise BadShard(f"the column {name} holds {said[:60]}, not {kind}")


def _manifest(schema: Schema) -> Manifest:
    text = schema.metadata_str.get(MANIFEST)
    if text is None or len(text) > bounds.ENVELOPE_BYTES:
        raise BadShard(f"the file's metadata has no manifest under the key {MANIFEST}")
    try:
        return Manifest.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(step) for step in first["loc"]) or "the whole"
        raise BadShard(f"the manifest: {where}: {first['msg']}") from None


def labels_of(text: str | None) -> tuple[tuple[str, float], ...]:
    """The device's ranking, [{label, score}] as JSON, best first; empty where it cannot be read."""
    try:
        return tuple((str(item["label"]), float(item["score"])) for item in json.loads(text or "[]"))
    except (ValueError, TypeError, KeyError):
        return ()
