"""What stands in a file of the night: one row per frame, and a manifest that says what to expect."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from agent.core.days import Dated
from wire.envelope import utc
from wire.records import rfc3339

MANIFEST_KEY = "shelfwire"
"""Key of the manifest in the file's metadata."""

ROW_BYTES = 256
"""What a row takes in its file beside picture and body, rather more than less: ids, digests, share of the footer."""


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose frames these are."""

    device: str
    store: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a file holds. Times are wall times in nanoseconds."""

    owner: Owner
    day: str
    part: int
    rows: int
    pictures_bytes: int
    first_captured_ns: int
    last_captured_ns: int

    def to_json(self) -> str:
        """Write it for the file's metadata."""
        return json.dumps(
            {
                "version": 1,
                "device": self.owner.device,
                "store": self.owner.store,
                "day": self.day,
                "part": self.part,
                "rows": self.rows,
                "pictures_bytes": self.pictures_bytes,
                "first_captured_at": rfc3339(utc(self.first_captured_ns)),
                "last_captured_at": rfc3339(utc(self.last_captured_ns)),
            }
        )


_NEEDED: tuple[tuple[str, type], ...] = (
    ("camera", str), ("frame", int), ("width", int), ("height", int), ("reason", str),
)  # fmt: skip
_OPTIONAL: tuple[tuple[str, type], ...] = (("label", str), ("score", float), ("labels", list), ("truth", str))
_MODEL: tuple[tuple[str, type], ...] = (("name", str), ("version", str), ("digest", str), ("release", int))
INT32_MAX = 2**31 - 1


def read_body(body: bytes) -> dict[str, Any]:
    """Read a frame's record and see that a row can be made of it. Raises `ValueError`."""
    record = json.loads(body)
    model = record.get("model") or {} if isinstance(record, dict) else None
    sound = (
        isinstance(model, dict)
        and all(_is(record.get(name), kind) for name, kind in _NEEDED)
        and all(record.get(name) is None or _is(record[name], kind) for name, kind in _OPTIONAL)
        and all(model.get(name) is None or _is(model[name], kind) for name, kind in _MODEL)
        and max(record["width"], record["height"], model.get("release") or 0) <= INT32_MAX
    )
    if not sound:
        raise ValueError("it is no record of a frame")
    return record  # type: ignore[no-any-return]


def _is(value: object, kind: type) -> bool:
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(value, kind) and not isinstance(value, bool)


def frame_row(
    owner: Owner, run_id: str, seq: int, record: Mapping[str, Any], dated: Dated, sha256: str
) -> dict[str, Any]:
    """Make a frame's row, all of it but the picture itself; `captured_at` in microseconds since 1970."""
    model = record.get("model") or {}
    labels = record.get("labels")
    return {
        "frame_id": f"{owner.device}/{run_id}/{seq}",
        "device": owner.device,
        "store": owner.store,
        "run": run_id,
        "seq": seq,
        "camera": record["camera"],
        "frame": record["frame"],
        "captured_at": dated.wall_ns // 1000,
        "dated_by": dated.by,
        "day": dated.day,
        "reason": record["reason"],
        "width": record["width"],
        "height": record["height"],
        "label": record.get("label"),
        "score": record.get("score"),
        "labels": None if labels is None else json.dumps(labels, separators=(",", ":")),
        "model_name": model.get("name"),
        "model_version": model.get("version"),
        "model_release": model.get("release"),
        "model_digest": model.get("digest"),
        "truth": record.get("truth"),
        "picture_sha256": sha256,
    }
