"""A look into the store from outside, also while the daemons run or are dead; reads only."""

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import apsw

from agent.core import tallies
from agent.core.backlog import Backlog
from agent.core.health import REPORT_TIMEOUT_S
from agent.ports import Lane
from agent.store.database import one
from agent.store.night import read_backlog
from agent.store.outside import holder, is_at_work, reading


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What the store says at one moment.

    `vision`, `sync` and `function` are the last reports, empty when there is none. `oldest_wall_ns` is of what should
    be on its way: what waits for the night is meant to wait.
    """

    counters: Counter[str]
    vision: dict[str, Any]
    sync: dict[str, Any]
    function: dict[str, Any]
    dead: int
    dead_frames: int
    oldest_wall_ns: int | None
    vision_runs: bool
    sync_runs: bool
    night: Backlog
    vision_pid: int | None = None
    """The process that holds vision's lock, or held it last."""
    receipt: dict[str, Any] = field(default_factory=dict)
    """When the cloud last confirmed something, as sync notes it now and then; empty when it never did."""

    def silent_s(self, boot: str, boot_ns: int) -> float | None:
        """For how long the vision process that runs has not reported, when that is too long; else None.

        `boot` and `boot_ns` are this boot's id and clock. A report of the process before this one says nothing.
        """
        report = self.vision
        if not self.vision_runs or not report or report["stopped"] or report["boot"] != boot:
            return None
        if self.vision_pid not in (None, report.get("pid", self.vision_pid)):
            return None
        age_s = (boot_ns - int(report["boot_ns"])) / 1e9
        return age_s if age_s > REPORT_TIMEOUT_S else None

    @property
    def waiting(self) -> int:
        """Records and frames that should be on their way to the cloud; not those that wait for the night."""
        return sum(self.counters[f"rows:{lane}"] for lane in Lane if lane != Lane.BATCH)

    @property
    def waiting_bytes(self) -> int:
        """Bytes of these, without their pictures."""
        return sum(self.counters[f"bytes:{lane}"] for lane in Lane if lane != Lane.BATCH)

    @property
    def waiting_frames(self) -> int:
        """Of those that should be on their way, the frames."""
        return self.counters[f"rows:{Lane.OFFLOAD}"] + self.counters[f"rows:{Lane.REVIEW}"]

    @property
    def for_the_night(self) -> int:
        """Frames that wait for the night, sealed ones among them."""
        return self.counters[f"rows:{Lane.BATCH}"]

    @property
    def cameras_ill(self) -> list[dict[str, Any]]:
        """Cameras that give no pictures, by vision's last report."""
        return [c for c in self.vision.get("cameras", ()) if c["phase"] in ("failed", "stalled")]

    @property
    def frames(self) -> tallies.Frames:
        """What became of captured frames."""
        return tallies.frames(self.counters)


OLDEST = "SELECT seq, wall_ns FROM outbox WHERE state = 0 AND lane = ? ORDER BY seq LIMIT 1"


def look(folder: Path) -> Snapshot:
    """Read the store in `folder`. Raises `Broken` (``no-store``, ``store-unreadable``, ``disk-full``)."""
    with reading(folder) as db:
        db.execute("BEGIN")  # one moment, not one per question; closing ends it
        return _read(db, folder)


def _read(db: apsw.Connection, folder: Path) -> Snapshot:
    counters = Counter({str(name): int(n) for name, n in db.execute("SELECT name, n FROM counter")})
    facts = {str(name): str(value) for name, value in db.execute("SELECT name, value FROM fact")}
    dead = one(db, "SELECT count(*) FROM outbox WHERE state = 2")
    dead_frames = one(db, "SELECT count(*) FROM outbox WHERE state = 2 AND kind = 'frame'")
    oldest = [row for lane in Lane if lane != Lane.BATCH for row in db.execute(OLDEST, (int(lane),))]
    night = read_backlog(db)
    return Snapshot(
        counters,
        json.loads(facts.get("vision", "{}")),
        json.loads(facts.get("sync", "{}")),
        json.loads(facts.get("function", "{}")),
        int(dead),
        int(dead_frames),
        int(min(oldest)[1]) if oldest else None,
        is_at_work(folder, "vision"),
        is_at_work(folder, "sync"),
        night,
        holder(folder, "vision"),
        json.loads(facts.get("receipt", "{}")),
    )
