"""How each of the four ways to an answer does over a time: counts, latencies, cost. Bounded, whatever is stored."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cloud.store.reading import Reading
from cloud.store.sql import statements

MOST_LATE = 100_000
"""Late answers looked at per mode: what is said beyond that is said of the newest."""

LOCAL_ROWS = 60_000
"""Local answers looked at, over all cameras, about."""

LOCAL_LEAST = 10
"""Local answers looked at per camera and slice of the time, however many cameras there are."""

SLICES_PER_BIN = 4
"""A camera that starts or stops inside a bin is seen a quarter of it exactly."""

_SAMPLE = 40
"""Records weighed."""


@dataclass(frozen=True, slots=True)
class Bins:
    """The time looked at: `count` bins of `bin_s` seconds from `since` on."""

    since: datetime
    bin_s: float
    count: int


@dataclass(frozen=True, slots=True)
class Flow:
    """What one way did. `bounded`: there was more than was looked at.

    `ms` is p50, p95 and p99 from capture to answer, of `measured` answers; `bins` pairs a bin's index with its answers.
    `usd` is the sum over the `priced` answers.
    """

    answers: float
    bounded: bool
    measured: int
    ms: Sequence[float] | None
    bins: Sequence[tuple[int, float]] | None
    compared: int = 0
    agreed: int = 0
    bytes_per_answer: float | None = None
    usd: float | None = None
    priced: int = 0


@dataclass(frozen=True, slots=True)
class _Newest:
    mode: str
    at: datetime | None


@dataclass(frozen=True, slots=True)
class _Record:
    run: str
    seq: int
    camera: str
    captured_at: datetime
    boot_ns: int
    frame: int
    labels: Sequence[Mapping[str, object]]
    label: str
    state: str
    changed: bool
    reason: str
    model_name: str | None
    model_version: str | None
    model_release: int | None
    model_digest: str | None
    runtime: str
    mode: str
    waiting_ms: float | None
    inference_ms: float | None
    total_ms: float | None
    truth: str | None


class ModesReader(Reading):
    """Reads how the ways do; the statements are in modes.sql. Thread safe."""

    statements = {name: sql.encode() for name, sql in statements(Path(__file__).with_name("modes.sql")).items()}  # noqa: RUF012

    def local(self, bins: Bins, cameras: int) -> Flow:
        """What the devices answered themselves; a busy time is looked at in samples, and then `bounded`."""
        slices = bins.count * SLICES_PER_BIN
        values = {
            "since": bins.since, "slice_s": bins.bin_s / SLICES_PER_BIN, "slices": slices, "per_bin": SLICES_PER_BIN,
            "most": max(LOCAL_LEAST, LOCAL_ROWS // (slices * max(1, cameras))),
        }  # fmt: skip
        return self._rows(Flow, "local", values)[0]

    def late(self, mode: str, bins: Bins) -> Flow:
        """What one late way answered, of its newest `MOST_LATE` answers."""
        values = {"mode": mode, "since": bins.since, "bin_s": bins.bin_s, "most": MOST_LATE}
        return self._rows(Flow, "late", values)[0]

    def newest(self) -> dict[str, datetime | None]:
        """When the newest answer of each mode came; None for a mode that never answered."""
        return {row.mode: row.at for row in self._rows(_Newest, "newest", {})}

    def cameras(self) -> int:
        """How many cameras have ever answered."""
        return self._rows(_Count, "cameras", {})[0].n

    def record_bytes(self, since: datetime) -> float | None:
        """Mean size of a local answer on the wire, in bytes, without its share of an envelope; None when there is none.

        The wire's bytes are not kept, so a few of the newest are written again as the device writes them.
        """
        rows = self._rows(_Record, "some_results", {"since": since, "most": _SAMPLE})
        return sum(map(_size, rows)) / len(rows) if rows else None


@dataclass(frozen=True, slots=True)
class _Count:
    n: int


def _size(row: _Record) -> int:
    record: dict[str, object] = {
        "run": row.run, "seq": row.seq, "camera": row.camera, "captured_at": "2026-01-31T12:00:00.000000Z",
        "boot_ns": row.boot_ns, "clock": "synced", "frame": row.frame, "labels": row.labels,
        "decision": {"label": row.label, "state": row.state, "changed": row.changed, "reason": row.reason},
        "model": {
            "name": row.model_name, "version": row.model_version, "release": row.model_release,
            "digest": row.model_digest,
        },
        "runtime": row.runtime, "mode": row.mode, "waiting_ms": row.waiting_ms, "inference_ms": row.inference_ms,
        "total_ms": row.total_ms, "truth": row.truth,
    }  # fmt: skip
    told = {name: value for name, value in record.items() if value is not None}
    return len(json.dumps(told, separators=(",", ":"), default=str))
