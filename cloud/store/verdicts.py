"""The one place where late answers are kept: the row, its way back to the device, and what the page shows of it."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import psycopg

from cloud.store.rows import EARLIEST, LATEST
from cloud.store.sql import statements
from wire.records import Verdict

_SQL = {name: text.encode() for name, text in statements(Path(__file__).with_name("verdicts.sql")).items()}

OUTBOUND = "outbound"
"""What the notice on `shelfwire_live` calls a verdict that waits for its device."""


@dataclass(frozen=True, slots=True)
class Kept:
    """A verdict and what it took. `asked_at` is when the cloud got the picture; costs are None where nobody counts."""

    verdict: Verdict
    asked_at: datetime
    picture_bytes: int | None = None
    billed_ms: int | None = None
    usd: float | None = None


def keep(cursor: psycopg.Cursor[Any], answers: Sequence[Kept]) -> int:
    """Keep late answers inside the caller's transaction; gives how many were new.

    With each new one, in the same transaction: a row in `outbound` that takes it to its device, the camera's shown
    answer when it speaks of a newer frame, the device's tally, and a notice to pages and couriers. A copy changes
    nothing but the tally of copies.
    """
    counted: Counter[tuple[str, str]] = Counter()
    fresh: set[str] = set()
    # In one order, so that two writers never wait for each other in a circle.
    for kept in sorted(answers, key=lambda k: (k.verdict.device, k.verdict.camera, k.verdict.run, k.verdict.seq)):
        verdict = kept.verdict
        values = _values(kept)
        if cursor.execute(_SQL["insert_verdict"], values).fetchone() is None:
            counted[verdict.device, "verdict-copies"] += 1
            continue
        fresh.add(verdict.device)
        counted[verdict.device, f"verdicts-{verdict.mode}"] += 1
        cursor.execute(_SQL["send"], {"device": verdict.device, "body": verdict.model_dump_json()})
        # A picture without a number has no place in a camera's order, so it is never what the camera shows.
        if verdict.frame is not None and cursor.execute(_SQL["known_camera"], values).fetchone() is not None:
            cursor.execute(_SQL["show"], values)
    for (device, name), n in sorted(counted.items()):
        cursor.execute(_SQL["add_tally"], {"device": device, "name": name, "n": n})
    for device in sorted(fresh):
        cursor.execute(_SQL["tell"], {"told": json.dumps({"device": device, "what": ["answers", OUTBOUND]})})
    return sum(n for (_, name), n in counted.items() if name != "verdict-copies")


@dataclass(frozen=True, slots=True)
class Answered:
    """Whether the function has answered a frame before, what that cost, and the time by the database's clock."""

    now: datetime
    known: bool
    billed_ms: int | None
    usd: float | None


def serverless(cursor: psycopg.Cursor[Any], device: str, run: str, seq: int) -> Answered:
    """Look whether the function has answered this frame before. The cursor gives tuples."""
    row = cursor.execute(_SQL["serverless"], {"device": device, "run": run, "seq": seq}).fetchone()
    assert row is not None
    return Answered(*row)


def _values(kept: Kept) -> dict[str, object]:
    verdict, model = kept.verdict, kept.verdict.model
    return {
        "device": verdict.device,
        "run": verdict.run,
        "seq": verdict.seq,
        "mode": verdict.mode,
        "model_digest": model.digest,
        "camera": verdict.camera,
        "frame": verdict.frame,
        # A device may claim any time; one that no client of the database could read back is drawn to the edge.
        "captured_at": min(max(verdict.captured_at, EARLIEST), LATEST),
        "label": verdict.label,
        "score": verdict.labels[0].score,
        "labels": json.dumps([label.model_dump() for label in verdict.labels]),
        "agrees": verdict.agrees,
        "model_name": model.name,
        "model_version": model.version,
        "model_release": model.release,
        "runtime": verdict.runtime,
        "inference_ms": verdict.inference_ms,
        "answered_at": verdict.answered_at,
        "asked_at": kept.asked_at,
        "picture_bytes": kept.picture_bytes,
        "billed_ms": kept.billed_ms,
        "usd": kept.usd,
    }
