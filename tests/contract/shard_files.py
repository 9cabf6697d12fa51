"""Shards as a device writes them, of rendered shelves, written with another library than ours."""

import hashlib
import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cloud.shards.form import Declared

DAY = "2026-03-01"
NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
RUN = "00112233445566aa"
PRODUCTS = ("Banana", "Lemon", "Granny-Smith", "Carrots", "Watermelon", "Avocado")
SCHEMA = pa.schema(
    [
        ("frame_id", pa.string()), ("device", pa.string()), ("store", pa.string()), ("run", pa.string()),
        ("seq", pa.int64()), ("camera", pa.string()), ("frame", pa.int64()), ("captured_at", pa.timestamp("us", "UTC")),
        ("dated_by", pa.string()), ("day", pa.string()), ("reason", pa.string()), ("width", pa.int32()),
        ("height", pa.int32()), ("label", pa.string()), ("score", pa.float32()), ("labels", pa.string()),
        ("model_name", pa.string()), ("model_version", pa.string()), ("model_digest", pa.string()),
        ("model_release", pa.int32()), ("truth", pa.string()), ("picture", pa.binary()),
        ("picture_sha256", pa.string()),
    ]
)  # fmt: skip


@cache
def shelf(label: str, seed: int = 3, width: int = 320, height: int = 180) -> bytes:
    """A rendered shelf with one product, as JPEG."""
    from agent.camera.synthetic import Scene

    import cv2  # isort: skip

    picture, _ = Scene(seed, width, height, (label,)).render(40)
    ok, jpeg = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 85])
    assert ok
    return bytes(jpeg.tobytes())


def row(seq: int, **changed: Any) -> dict[str, Any]:
    """A frame of the night. Its picture shows one of the products; the device had said so, unsurely."""
    product = PRODUCTS[seq % len(PRODUCTS)]
    made = {
        "device": "shop-1", "store": "Harbour Street", "run": RUN, "seq": seq, "camera": f"shelf-{seq % 2 + 1}",
        "frame": seq, "captured_at": NOON + timedelta(seconds=seq), "dated_by": "device", "day": DAY, "reason": "kept",
        "width": 320, "height": 180, "label": product, "score": 0.5,
        "labels": json.dumps([{"label": product, "score": 0.5}]), "model_name": "produce", "model_version": "0.0.9",
        "model_digest": "1" * 64, "model_release": 1, "truth": product, "picture": shelf(product), **changed,
    }  # fmt: skip
    made.setdefault("frame_id", f"{made['device']}/{made['run']}/{made['seq']}")
    made.setdefault("picture_sha256", hashlib.sha256(made["picture"]).hexdigest())
    return made


def rows(count: int, first: int = 1, **changed: Any) -> list[dict[str, Any]]:
    return [row(seq, **changed) for seq in range(first, first + count)]


def write(
    path: Path, given: Sequence[dict[str, Any]], part: int = 1, schema: pa.Schema = SCHEMA, **manifest: Any
) -> Declared:
    """Write a shard, and give what a device declares of it."""
    first = given[0]
    told = {
        "version": 1, "device": first["device"], "store": first["store"], "day": first["day"], "part": part,
        "rows": len(given), "pictures_bytes": sum(len(r["picture"] or b"") for r in given),
        "first_captured_at": str(first["captured_at"]), "last_captured_at": str(given[-1]["captured_at"]), **manifest,
    }  # fmt: skip
    table = pa.Table.from_pylist(list(given), schema=schema.with_metadata({"shelfwire": json.dumps(told)}))
    pq.write_table(table, path, row_group_size=100, compression="zstd")
    return declare(path, given, part)


def declare(path: Path, given: Sequence[dict[str, Any]], part: int = 1) -> Declared:
    content = path.read_bytes()
    first = given[0]
    return Declared(
        device=first["device"], store=first["store"], day=first["day"], part=part, rows=len(given), bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
    )  # fmt: skip
