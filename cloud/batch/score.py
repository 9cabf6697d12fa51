"""Scores one shard: a file with pictures in, a file with answers out. Runs in a worker process of any engine.

It knows no database and keeps nothing between two shards but the open model. What goes wrong comes back as a value:
errors do not survive the way between processes well.
"""

import hashlib
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final

from cloud.batch import scores
from cloud.batch.scores import Line, Summary
from cloud.errors import CloudError
from cloud.function.handler import About, Model, WrongKind, answer
from cloud.objects import NoSuchObject, Objects, open_objects
from cloud.shards.form import BadShard, open_shard
from models.errors import BundleError, PictureError

TOP: Final = 5
"""Labels kept of each answer."""


@dataclass(frozen=True, slots=True)
class Task:
    """One shard to score. `bundle` is a shipped bundle's name, or a folder that every worker can read."""

    shard: str
    sha256: str
    rows: int
    output: str
    objects: str
    bundle: str
    model_digest: str
    again: bool = False


@dataclass(frozen=True, slots=True)
class Done:
    """The answers are there; `made` is False when they were before."""

    shard: str
    output: str
    made: bool


@dataclass(frozen=True, slots=True)
class Failed:
    """There are none, and why."""

    shard: str
    code: str
    detail: str
    hint: str


def score(task: Task) -> Done | Failed:
    """Score one shard, unless that was done. Run twice at once, both write the same."""
    try:
        objects = _objects(task.objects)
        if not task.again and find(objects, task.output, task) is not None:
            return Done(task.shard, task.output, made=False)
        content = _score(task, objects, _model(task.bundle))
        objects.put(task.output, content)
        return Done(task.shard, task.output, made=True)
    except (CloudError, BundleError) as error:
        code = "shard-missing" if isinstance(error, NoSuchObject) else error.code
        return Failed(task.shard, code, str(error), error.hint)


def find(objects: Objects, output: str, task: Task) -> bytes | None:
    """The answers when they are there, whole, and those of this shard and model."""
    if objects.size(output) is None:
        return None
    content = b"".join(objects.get(output))
    try:
        summary, _ = scores.read(content)
    except BadShard:
        return None
    same = (summary.shard_sha256, summary.rows, summary.model.digest) == (task.sha256, task.rows, task.model_digest)
    return content if same else None


@lru_cache(maxsize=1)
def _model(bundle: str) -> Model:
    import cv2

    cv2.setNumThreads(1)  # a worker has one core; the function's model computes on one too
    return Model.open({"SHELFWIRE_BUNDLE": bundle})


@lru_cache(maxsize=1)
def _objects(address: str) -> Objects:
    return open_objects(address)


def _score(task: Task, objects: Objects, model: Model) -> bytes:
    if model.name.digest != task.model_digest:
        raise CloudError(
            "bundle-differs", f"the bundle {task.bundle} is another one on this machine",
            "bring the same bundle to every node",
        )  # fmt: skip
    began, cpu = time.monotonic(), time.process_time()
    file = b"".join(objects.get(task.shard))  # at most `MOST_BYTES`, and one at a time
    if hashlib.sha256(file).hexdigest() != task.sha256:
        raise CloudError(
            "shard-changed", "the file is not the one that was received",
            "bring it back from a copy; its frames are otherwise lost to this batch",
        )  # fmt: skip
    parts = [
        (scores.columns_kept(batch), [_look(model, row) for row in _rows(batch)])
        for batch in open_shard(file).batches()
    ]
    lines = [line for _, part in parts for line in part]
    if len(lines) != task.rows:
        raise CloudError(
            "shard-rows", f"the file holds {len(lines)} rows, not the {task.rows} of its manifest",
            "compare the file with the table `shard`",
        )  # fmt: skip
    summary = Summary(
        shard=task.shard,
        shard_sha256=task.sha256,
        rows=len(lines),
        answered=sum(line.label is not None for line in lines),
        unreadable=sum(line.error is not None for line in lines),
        compared=sum(line.agrees is not None for line in lines),
        agreed=sum(line.agrees is True for line in lines),
        model=model.name,
        runtime=model.classifier.runtime,
        answered_at=datetime.now(UTC),
        took_s=time.monotonic() - began,
        cpu_s=time.process_time() - cpu,
    )
    return scores.write(parts, summary)


def _rows(batch: Any) -> Iterator[dict[str, Any]]:
    names = ("device", "run", "seq", "camera", "frame", "captured_at", "label", "picture")
    for values in zip(*(batch[name].to_pylist() for name in names), strict=True):
        yield dict(zip(names, values, strict=True))


def _look(model: Model, row: dict[str, Any]) -> Line:
    """Answer one frame as the function does, within the same limits."""
    picture, local = row.pop("picture"), row.pop("label")
    about = About(**row, local_label=local, top=TOP, mode=scores.MODE)
    try:
        verdict = answer(model, picture, about, row["captured_at"])
    except (PictureError, WrongKind) as error:
        return Line(picture_bytes=len(picture), error=f"{error.code}: {error}")
    return Line(
        label=verdict.label,
        score=verdict.labels[0].score,
        labels=json.dumps([{"label": item.label, "score": item.score} for item in verdict.labels]),
        agrees=verdict.agrees,
        inference_ms=verdict.inference_ms,
        picture_bytes=len(picture),
    )
