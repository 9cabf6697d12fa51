"""A device with pictures that wait for the night, on a real store and a real spool."""

import json
import os
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import apsw

from agent.core.days import Now, Trust
from agent.core.shards import Owner
from agent.nightly import Nightly
from agent.ports import Draft, Lane, Stamp
from agent.store.batch import BatchFolder
from agent.store.database import open_database
from agent.store.inspect import look
from agent.store.shards import Shards
from agent.store.spool import Spool
from agent.store.writer import Limits, Writer

ZONE = timezone(timedelta(hours=1))
BOOT = "boot-now"
NOON_NS = int(datetime(2026, 11, 24, 12, tzinfo=ZONE).timestamp()) * 10**9
NIGHT_NS = int(datetime(2026, 11, 25, 1, 30, tzinfo=ZONE).timestamp()) * 10**9
BOOT_NS = 90_000 * 10**9
"""Boot clock at `NIGHT_NS`: this boot has lasted for 25 hours."""

OWNER = Owner("shop-1", "store-12")


def night(wall_ns: int = NIGHT_NS, clock: Trust = "synced") -> Now:
    return Now(wall_ns, BOOT_NS, clock, BOOT, ZONE)


def body(frame: int, *, answered: bool = True, **more: Any) -> bytes:
    """A frame's record as vision writes it."""
    record: dict[str, Any] = {"camera": f"cam-{frame % 3}", "frame": frame, "captured_at": "2026-11-24T11:00:00Z",
                              "boot_ns": 5, "clock": "synced", "width": 640, "height": 360,
                              "reason": "kept" if answered else "displaced"}  # fmt: skip
    if answered:
        record |= {"label": "Banana", "score": 0.75, "labels": [{"label": "Banana", "score": 0.75}], "runtime": "x",
                   "model": {"name": "produce", "version": "1.0", "release": 3, "digest": "d" * 64},
                   "truth": "Lemon"}  # fmt: skip
    return json.dumps(record | more).encode()


class Device:
    """One device's store. Vision's own connection stays open, as in a shop."""

    def __init__(self, state: Path, limits: Limits = Limits()) -> None:  # noqa: B008
        self.state = state
        self.writer = Writer(state, limits, 0)
        self.runs: dict[str, str] = {}
        self.frames = 0
        self.jpegs: dict[int, bytes] = {}
        """What was captured, by sequence number."""

    def capture(
        self,
        n: int = 1,
        *,
        wall_ns: int = NOON_NS,
        boot: str = BOOT,
        boot_ns: int = BOOT_NS - 13 * 3600 * 10**9,
        clock: Trust = "synced",
        size: int = 900,
        lane: Lane = Lane.BATCH,
        record: bytes | None = None,
    ) -> list[int]:
        """Keep pictures for the night, one second apart; gives their sequence numbers."""
        if boot not in self.runs:
            self.runs[boot] = self.writer.start_run(boot, 0, "test")
        drafts, jpegs = [], []
        for _ in range(n):
            self.frames += 1
            jpegs.append(b"\xff\xd8" + os.urandom(size) + b"\xff\xd9")
            at = Stamp(wall_ns, boot_ns)
            kept = self.writer.spool.keep(jpegs[-1])
            text = record or body(self.frames, answered=self.frames % 2 == 0)
            drafts.append(Draft("frame", lane, text, at, clock, kept))
            wall_ns, boot_ns = wall_ns + 10**9, boot_ns + 10**9
        seqs = self.writer.put(drafts)
        self.jpegs.update(zip(seqs, jpegs, strict=True))
        return seqs

    def picture(self, seq: int) -> Path:
        """Where a frame's picture lies in the spool."""
        name = self.rows("SELECT picture FROM outbox WHERE seq = ?", seq)[0][0]
        return self.writer.spool.folder / str(name)

    def spooled(self) -> int:
        return len(list(self.writer.spool.folder.iterdir()))

    def batch_files(self) -> list[str]:
        return sorted(path.name for path in (self.state / "batch").iterdir() if path.is_file())

    def rows(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        db = open_database(self.state)
        try:
            return db.execute(sql, values).fetchall()
        finally:
            db.close()

    def counter(self, name: str) -> int:
        return look(self.state).counters[name]

    def books_balance(self) -> None:
        """produced = delivered + waiting + dead + dropped, and the tallies are what the rows say."""
        counters = look(self.state).counters
        waiting = self.rows("SELECT count(*) FROM outbox WHERE kind = 'frame' AND state = 0")[0][0]
        dead = self.rows("SELECT count(*) FROM outbox WHERE kind = 'frame' AND state = 2")[0][0]
        dropped = sum(n for name, n in counters.items() if name.startswith("frame:dropped:"))
        assert counters["frame:produced"] == counters["frame:delivered"] + waiting + dead + dropped
        rows, size = self.rows("SELECT count(*), coalesce(sum(bytes), 0) FROM outbox WHERE state = 0 AND lane = 5")[0]
        assert (counters["rows:5"], counters["bytes:5"]) == (rows, size)
        kept = self.rows("SELECT coalesce(sum(picture_bytes), 0) FROM outbox WHERE picture IS NOT NULL")[0][0]
        assert counters["pictures:bytes"] == kept

    def close(self) -> None:
        self.writer.close()


class Sealer:
    """The night's page on a device, with its own connection."""

    def __init__(self, state: Path, shard_bytes: int = 64 << 20, on_step: Any = lambda _: None) -> None:
        self.shards = Shards(state)
        self.folder = BatchFolder(state, on_step=on_step)
        self._spool = Spool(state)
        self._more: Any = {"shard_bytes": shard_bytes, "on_step": on_step}
        self.rename(OWNER)

    def rename(self, owner: Owner) -> None:
        """Seal under these names from now on."""
        self.nightly = Nightly(owner, self.shards, self._spool, self.folder, **self._more)

    def close(self) -> None:
        self.shards.close()


__all__ = ["BOOT", "BOOT_NS", "NIGHT_NS", "NOON_NS", "OWNER", "ZONE", "Device", "Sealer", "apsw", "body", "night"]
