"""The file with the answers for one shard: a row per frame, in the shard's order, without the pictures."""

import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import arro3.io
from arro3.core import Array, DataType, RecordBatch, Table

from cloud.shards.form import reading
from wire.records import Digest, LateMode, ModelName, Moment, Part, Score, Verdict

SUMMARY: Final = "shelfwire"
"""The key of the summary in the file's metadata."""
ROWS_AT_ONCE: Final = 500
MODE: Final[LateMode] = "batch"

KEPT: Final = (
    "frame_id", "device", "store", "run", "seq", "camera", "frame", "captured_at", "truth", "model_name",
    "model_version", "model_digest",
)  # fmt: skip
"""Columns that are the shard's own; its `label`, `score` and `model_*` are called local_... here."""


class Summary(Part):
    """What a file of answers says of itself."""

    shard: str
    shard_sha256: Digest
    rows: int
    answered: int
    unreadable: int
    compared: int
    agreed: int
    model: ModelName
    runtime: str
    answered_at: Moment
    took_s: float
    cpu_s: float


@dataclass(slots=True)
class Line:
    """What the model said of one frame; `error` is why it said nothing."""

    label: str | None = None
    score: float | None = None
    labels: str | None = None
    agrees: bool | None = None
    inference_ms: float | None = None
    picture_bytes: int = 0
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Scored:
    """One frame of a file of answers. `row` counts the shard's rows from 0; `local_*` is what the device had said."""

    row: int
    device: str
    store: str
    run: str
    seq: int
    camera: str
    frame: int
    captured_at: datetime
    truth: str | None
    local_model: str | None
    local_label: str | None
    local_score: float | None
    label: str | None
    score: float | None
    labels: tuple[tuple[str, float], ...]
    agrees: bool | None
    inference_ms: float
    picture_bytes: int
    error: str | None

    def verdict(self, summary: Summary) -> Verdict:
        """The answer as it is kept and sent; only of a frame that was answered."""
        assert self.label is not None
        return Verdict(
            device=self.device,
            run=self.run,
            seq=self.seq,
            camera=self.camera,
            frame=self.frame,
            captured_at=self.captured_at,
            mode=MODE,
            label=self.label,
            labels=tuple(Score(label=label, score=score) for label, score in self.labels),
            model=summary.model,
            runtime=summary.runtime,
            inference_ms=self.inference_ms,
            answered_at=summary.answered_at,
            agrees=self.agrees,
        )


def columns_kept(batch: Any) -> dict[str, Array]:
    """Take over a batch of the shard what goes into the answers; its pictures can then be let go."""
    kept = {f"local_{name}" if name.startswith("model_") else name: batch[name] for name in KEPT}
    return {**kept, "local_label": batch["label"], "local_score": batch["score"]}


def write(parts: Sequence[tuple[dict[str, Array], Sequence[Line]]], summary: Summary) -> bytes:
    """The whole file, of what was kept of each batch and what was said of its frames."""
    model = summary.model.model_dump()
    types = {
        "label": DataType.utf8(), "score": DataType.float64(), "labels": DataType.utf8(), "agrees": DataType.bool(),
        "inference_ms": DataType.float64(), "picture_bytes": DataType.int64(), "error": DataType.utf8(),
    }  # fmt: skip
    batches = []
    for kept, lines in parts:
        columns: dict[str, Any] = dict(kept)
        for name, kind in types.items():
            columns[name] = Array([getattr(line, name) for line in lines], type=kind)
        for name in ("name", "version", "digest"):
            columns[f"model_{name}"] = Array([model[name]] * len(lines), type=DataType.utf8())
        batches.append(RecordBatch.from_pydict(columns))
    file = io.BytesIO()
    arro3.io.write_parquet(
        Table.from_batches(batches),
        file,
        compression="zstd(3)",
        key_value_metadata={SUMMARY: summary.model_dump_json()},
    )
    return file.getvalue()


def read(content: bytes) -> tuple[Summary, Iterator[Scored]]:
    """Open a file of answers. Raises `BadShard` for one that is damaged or none."""
    with reading("the answers cannot be read"):
        reader = arro3.io.read_parquet(content, batch_size=ROWS_AT_ONCE)
        summary = Summary.model_validate_json(reader.schema.metadata_str.get(SUMMARY, ""))
    return summary, _rows(reader)


def _rows(reader: Any) -> Iterator[Scored]:
    names = tuple(name for name in Scored.__dataclass_fields__ if name not in ("row", "labels", "local_model"))
    wanted = (*names, "labels", "local_model_name", "local_model_version")
    row = 0
    for batch in reader:
        for values in zip(*(batch[name].to_pylist() for name in wanted), strict=True):
            said = dict(zip(wanted, values, strict=True))
            name, version = said.pop("local_model_name"), said.pop("local_model_version")
            said["labels"] = tuple((item["label"], item["score"]) for item in json.loads(said["labels"] or "[]"))
            said["inference_ms"] = said["inference_ms"] or 0.0
            yield Scored(row=row, local_model=f"{name} {version}" if name else None, **said)
            row += 1
