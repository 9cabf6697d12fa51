"""Judges a shard in a process of its own: a file made to harm takes down this process, and nothing else.

    python -m cloud.shards.judge FILE     with what was declared as JSON on standard input

Prints one JSON object, ``{"rows": n}`` or ``{"bad": why}``.
"""

import hashlib
import json
import re
import resource
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cloud.shards.form import BadShard, Declared, Manifest, Shard, open_shard, reading
from wire import bounds

ROOM_BYTES = 768 * 1024 * 1024
"""Address space of the judge. A row group takes a few MB, and a page that unfolds to more than this is no picture."""

FIRST_YEAR, LAST_YEAR = 1970, 8999
"""Other times cannot be read back by every client of the database."""

_NAME, _RUN = re.compile(bounds.NAME), re.compile(bounds.RUN)


def main() -> None:
    """Judge the file that is named."""
    resource.setrlimit(resource.RLIMIT_AS, (ROOM_BYTES, ROOM_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    declared = Declared.model_validate_json(sys.stdin.read())
    try:
        said: dict[str, object] = {"rows": judge(Path(sys.argv[1]), declared)}
    except BadShard as bad:
        said = {"bad": str(bad)}
    print(json.dumps(said))


def judge(path: Path, declared: Declared) -> int:
    """Give the number of rows of a shard that is what was declared, row by row. Raises `BadShard`."""
    shard = open_shard(path)
    _compare(shard.manifest, declared)
    rows = _judge_rows(shard, declared)
    if rows != declared.rows:
        raise BadShard(f"the file holds {rows} rows, not the {declared.rows} that were declared")
    return rows


def _compare(manifest: Manifest, declared: Declared) -> None:
    for name in ("device", "store", "day", "part", "rows"):
        told, inside = getattr(declared, name), getattr(manifest, name)
        if told != inside:
            raise BadShard(f"the manifest says {name} {inside!r}, {told!r} was declared")


def _judge_rows(shard: Shard, declared: Declared) -> int:
    seen: set[tuple[str, int]] = set()
    rows = 0
    names = (
        "frame_id", "device", "store", "day", "run", "seq", "camera", "frame", "captured_at", "label", "picture",
        "picture_sha256",
    )  # fmt: skip
    for batch in shard.batches():
        with reading(f"after row {rows}"):
            columns = {name: batch[name].to_pylist() for name in names}
        for values in zip(*(columns[name] for name in names), strict=True):
            rows += 1
            row: Mapping[str, Any] = dict(zip(names, values, strict=True))
            wrong = _wrong_with(row, declared)
            key = (row["run"], row["seq"])
            if wrong or key in seen:
                raise BadShard(f"row {rows}: {wrong or 'its frame is there twice'}")
            seen.add(key)
    return rows


def _wrong_with(row: Mapping[str, Any], declared: Declared) -> str:
    """What is wrong with a row, or nothing. A row may only speak of its own device, store and day."""
    for name in ("device", "store", "day"):
        if row[name] != getattr(declared, name):
            return f"it speaks of {name} {str(row[name])[:80]!r}"
    if not _RUN.fullmatch(row["run"] or "") or not (row["seq"] or 0) >= 1:
        return "it has no key"
    if row["frame_id"] != f"{row['device']}/{row['run']}/{row['seq']}":
        return f"its id {str(row['frame_id'])[:120]!r} is not made of its key"
    if not _NAME.fullmatch(row["camera"] or "") or not (row["frame"] or 0) >= 1:
        return "it names no camera or no frame"
    if row["captured_at"] is None or not FIRST_YEAR <= row["captured_at"].year <= LAST_YEAR:
        return "it has no time at which a camera could have looked"
    if row["label"] is not None and not 1 <= len(row["label"]) <= 64:
        return "its label is none"
    if not row["picture"] or hashlib.sha256(row["picture"]).hexdigest() != row["picture_sha256"]:
        return "its picture is not the one whose digest it names"
    return ""


if __name__ == "__main__":
    main()
