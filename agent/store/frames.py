"""The carrier's side of the outbox: pictures on their way to the cloud by HTTP. One process, one thread.

Leases live in memory here too, so they are void when sync starts. A frame goes when the cloud says that it has its
answer, or its job; the row first, then the picture. Frames in `Lane.BATCH` are the night's.
"""

import heapq
import logging
from collections import defaultdict
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import apsw

from agent.ports import Lane, Row, Spooled, Stamp
from agent.store.database import count, open_database, set_fact, tally, transaction
from agent.store.retried import RETRIED_FRAMES, take
from agent.store.sender import REFUSALS_BEFORE_DEAD
from agent.store.spool import Spool

log = logging.getLogger(__name__)

DEAD_PICTURES = 200
"""Refused pictures that are kept to be looked at; of older ones only the row stays."""

DEFER_AT_ONCE = 500
"""Frames handed to the night in one transaction."""


class FrameSender:
    """Lends frames to the carrier. Whoever opens it holds sync's lock (`agent.store.sender.Sender`)."""

    def __init__(self, folder: Path, spool: Spool) -> None:
        self._db = open_database(folder, check=False)
        self._spool = spool
        self._leased: set[int] = set()
        self._later: dict[Lane, list[tuple[int, int]]] = defaultdict(list)
        self._after: dict[Lane, int] = defaultdict(int)

    def lease(self, lane: Lane, now_ns: int, most: int) -> list[Row]:
        """Lease up to `most` frames: first what was given back and is due at `now_ns` (boot), then the next ones."""
        rows: list[Row] = []
        later = self._later[lane]
        while later and later[0][0] <= now_ns and len(rows) < most:
            _, seq = heapq.heappop(later)
            if seq not in self._leased:  # set aside and sent back by hand, it may stand in line twice
                rows += self._select("lane = ? AND outbox.seq = ?", (int(lane), seq))
                self._leased.update(row.seq for row in rows)
        left = most - len(rows)
        if left > 0:
            fresh = self._select("lane = ? AND outbox.seq > ? ORDER BY outbox.seq LIMIT ?",
                                 (int(lane), self._after[lane], left))  # fmt: skip
            if fresh:
                self._after[lane] = fresh[-1].seq
            rows += fresh
        self._leased.update(row.seq for row in rows)
        return rows

    def _select(self, where: str, values: Sequence[int]) -> list[Row]:
        found = self._db.execute(
            "SELECT outbox.seq, run.run_id, run.boot_id, kind, wall_ns, boot_ns, refusals, body, picture,"  # noqa: S608
            " picture_bytes, picture_sha256, expires_ns"
            f" FROM outbox JOIN run USING (run) WHERE state = 0 AND kind = 'frame' AND {where}",
            tuple(values),
        )
        return [
            Row(seq, run_id, boot, kind, Stamp(wall_ns, boot_ns), refusals, body,
                Spooled(picture, size_bytes, sha256) if picture is not None else None, expires_ns)
            for seq, run_id, boot, kind, wall_ns, boot_ns, refusals, body, picture, size_bytes, sha256, expires_ns
            in found
        ]  # fmt: skip

    def delivered(self, rows: Sequence[Row]) -> None:
        """Delete frames that the cloud has, in one transaction, then their pictures."""
        with transaction(self._db):
            for row in rows:
                gone = self._db.execute(
                    "DELETE FROM outbox WHERE seq = ? RETURNING lane, bytes, state", (row.seq,)
                ).fetchone()
                if gone is None:
                    # The writer evicted it on its way. It did arrive: it moves from evicted to delivered in the books.
                    count(self._db, "frame:dropped:evicted", -1)
                elif gone[2] == 0:  # else a person has set it aside meanwhile
                    tally(self._db, gone[0], -1, -gone[1])
                count(self._db, "frame:delivered", 1)
        self._leased.difference_update(row.seq for row in rows)
        self._spool.remove(row.picture.name for row in rows if row.picture is not None)

    def give_back(self, row: Row, retry_at_ns: int) -> None:
        """End a lease without an answer; the frame is ready again at `retry_at_ns`."""
        self._leased.discard(row.seq)
        found = self._db.execute("SELECT lane FROM outbox WHERE seq = ?", (row.seq,)).fetchone()
        if found is not None:
            heapq.heappush(self._later[Lane(found[0])], (retry_at_ns, row.seq))

    def take_up_retried(self, now_ns: int) -> int:
        """Put frames that a person has sent back to the line where they are leased; gives how many."""
        found = [(seq, Lane(lane)) for seq, lane in take(self._db, RETRIED_FRAMES)]
        passed = [(seq, lane) for seq, lane in found if seq <= self._after[lane] and seq not in self._leased]
        for seq, lane in passed:
            heapq.heappush(self._later[lane], (now_ns, seq))
        return len(passed)

    def hurry(self, lane: Lane, now_ns: int) -> None:
        """Let every frame of a lane that was given back be ready now: what it waited for is over."""
        self._later[lane] = [(min(due_ns, now_ns), seq) for due_ns, seq in self._later[lane]]
        heapq.heapify(self._later[lane])

    def refuse(self, row: Row, code: str, retry_at_ns: int) -> bool:
        """Note one refusal for good; True when the frame was set aside for it, with its picture."""
        with transaction(self._db):
            found: tuple[Any, ...] | None = self._db.execute(
                "UPDATE outbox SET refusals = refusals + 1, error = ?, state = iif(refusals + 1 >= ?, 2, 0)"
                " WHERE seq = ? AND state = 0 RETURNING state, lane, bytes",
                (code, REFUSALS_BEFORE_DEAD, row.seq),
            ).fetchone()
            unneeded: list[str] = []
            buried = False
            if found is not None and found[0] != 0:
                buried = True
                tally(self._db, found[1], -1, -found[2])
                unneeded = let_go_of_dead_pictures(self._db)
        self._spool.remove(unneeded)
        if buried:
            self._leased.discard(row.seq)
        else:
            self.give_back(row, retry_at_ns)
        return buried

    def bury(self, row: Row, code: str) -> None:
        """Set a frame aside whose picture is no use any more: the row stays and says why, the picture goes."""
        with transaction(self._db):
            before = self._db.execute("SELECT state, lane, bytes FROM outbox WHERE seq = ?", (row.seq,)).fetchone()
            self._db.execute(
                "UPDATE outbox SET state = 2, error = ?, picture = NULL, picture_bytes = 0 WHERE seq = ?",
                (code, row.seq),
            )
            if before is not None and before[0] == 0:  # else a person has set it aside meanwhile
                tally(self._db, before[1], -1, -before[2])
        self._leased.discard(row.seq)
        if row.picture is not None:
            self._spool.remove([row.picture.name])

    def defer_expired(self, now_ns: int, boot_id: str) -> int:
        """Hand frames to offload that nobody answered in time, or in this boot, to the night. Gives how many."""
        return defer_expired(self._db, now_ns, boot_id, self._leased)

    def tell(self, name: str, value: str) -> None:
        """Keep a fact that vision and `status` read."""
        with transaction(self._db):
            set_fact(self._db, name, value)

    def close(self) -> None:
        """Close the file."""
        self._db.close()


def let_go_of_dead_pictures(db: apsw.Connection) -> list[str]:
    """Take the older dead letters' pictures out of the books, in the caller's transaction; gives their files.

    Else what is refused would fill the spool, and new frames would find no room.
    """
    found = db.execute(
        "SELECT seq, picture FROM outbox WHERE state = 2 AND picture IS NOT NULL ORDER BY seq DESC LIMIT -1 OFFSET ?",
        (DEAD_PICTURES,),
    ).fetchall()
    for seq, _ in found:
        db.execute("UPDATE outbox SET picture = NULL, picture_bytes = 0 WHERE seq = ?", (seq,))
    return [str(picture) for _, picture in found]


def defer_expired(db: apsw.Connection, now_ns: int, boot_id: str, spare: Collection[int] = ()) -> int:
    """Move what has expired from `Lane.OFFLOAD` to `Lane.BATCH`, and count ``frames:expired``; gives how many.

    `now_ns` is this boot's clock; a frame of another boot cannot be timed by it and has expired. `spare` are
    under way now: they come back, or they are answered. Used by the night too, when sync does not run.
    """
    moved = 0
    while seqs := _expired(db, now_ns, boot_id, spare):
        with transaction(db):
            marks = ",".join("?" * len(seqs))
            rows: list[tuple[Any, ...]] = db.execute(
                "UPDATE outbox SET lane = ?, expires_ns = NULL"  # noqa: S608 - only marks
                f" WHERE seq IN ({marks}) AND state = 0 AND lane = ? RETURNING bytes",
                (int(Lane.BATCH), *seqs, int(Lane.OFFLOAD)),
            ).fetchall()
            size_bytes = sum(row[0] for row in rows)
            tally(db, Lane.OFFLOAD, -len(rows), -size_bytes)
            tally(db, Lane.BATCH, len(rows), size_bytes)
            count(db, "frames:expired", len(rows))
        moved += len(rows)
    return moved


def _expired(db: apsw.Connection, now_ns: int, boot_id: str, spare: Collection[int]) -> list[int]:
    """Look first, without the lock that writing takes: mostly there is nothing."""
    found = db.execute(
        "SELECT seq FROM outbox JOIN run USING (run) WHERE state = 0 AND lane = ? AND kind = 'frame'"
        " AND (expires_ns IS NULL OR expires_ns <= ? OR boot_id <> ?) ORDER BY seq LIMIT ?",
        (int(Lane.OFFLOAD), now_ns, boot_id, DEFER_AT_ONCE + len(spare)),
    )
    return [int(seq) for (seq,) in found if seq not in spare][:DEFER_AT_ONCE]
