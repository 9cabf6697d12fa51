"""The cloud's late answers on the device: once per frame, way and model, beside the local answer and never over it.

One thread per object; any process may read.
"""

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.store.database import count, one, open_database, transaction
from wire.records import Verdict

KEPT_DAYS = 30
KEPT_ROWS = 100_000
THIN_ROWS = 500
"""Rows deleted in one transaction."""

BLOCK = 4096
"""Sequence numbers of a run whose marks lie in one row: 512 bytes."""
KEPT_BLOCKS = 10_000
"""Rows of marks that are kept, 5 MB: a frame may count as answered again 40 million records later, and no sooner."""

RANK = "release DESC, CASE mode WHEN 'serverless' THEN 1 WHEN 'asynchronous' THEN 2 ELSE 3 END DESC"
"""Which answer of a frame is shown: the newest model's, then the way's that had most time. The same as in the cloud."""


@dataclass(frozen=True, slots=True)
class Kept:
    """A verdict as it lies here. `received_ns` is wall time."""

    verdict: Verdict
    received_ns: int


class VerdictStore:
    """Keeps verdicts and counts what they answer."""

    def __init__(self, folder: Path) -> None:
        self._db = open_database(folder, check=False)

    def keep(self, verdicts: Sequence[Verdict], received_ns: int) -> int:
        """Commit verdicts in one transaction with their counters; gives how many were new.

        ``answers:MODE`` counts new ones. ``frames:answered`` counts frames that the device had no answer for itself,
        at their first verdict; pictures that a person submitted are no captured frames, ``submitted:answered``.
        """
        with transaction(self._db):
            return sum(self._keep_one(verdict, received_ns) for verdict in verdicts)

    def _keep_one(self, verdict: Verdict, received_ns: int) -> bool:
        key = (verdict.run, verdict.seq)
        first = not self._is_answered(*key)
        self._db.execute(
            "INSERT INTO verdict(run_id, seq, mode, digest, camera, frame, label, score, release, agrees, received_ns,"
            " body) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
            (
                *key,
                verdict.mode,
                verdict.model.digest,
                verdict.camera,
                verdict.frame,
                verdict.label,
                verdict.labels[0].score,
                verdict.model.release,
                verdict.agrees,
                received_ns,
                verdict.model_dump_json().encode(),
            ),
        )
        if self._db.changes() == 0:
            return False
        count(self._db, f"answers:{verdict.mode}", 1)
        if first and verdict.agrees is None:
            count(self._db, "submitted:answered" if self._is_submitted(verdict.run) else "frames:answered", 1)
        return True

    def _is_answered(self, run_id: str, seq: int) -> bool:
        """Whether a frame has a verdict, or had one that was thinned out."""
        if self._db.execute("SELECT 1 FROM verdict WHERE run_id = ? AND seq = ?", (run_id, seq)).fetchone():
            return True
        block, bit = divmod(seq, BLOCK)
        return bool(self._marks(run_id, block)[bit // 8] & 1 << bit % 8)

    def _marks(self, run_id: str, block: int) -> bytearray:
        found = self._db.execute("SELECT bits FROM answered WHERE run_id = ? AND block = ?", (run_id, block)).fetchone()
        return bytearray(found[0]) if found else bytearray(BLOCK // 8)

    def _is_submitted(self, run_id: str) -> bool:
        found = self._db.execute("SELECT role FROM run WHERE run_id = ?", (run_id,)).fetchone()
        return found is not None and found[0] == "submit"

    def answer(self, run_id: str, seq: int) -> Kept | None:
        """Give the best verdict of a frame, None while there is none."""
        found: tuple[Any, ...] | None = self._db.execute(
            f"SELECT body, received_ns FROM verdict WHERE run_id = ? AND seq = ? ORDER BY {RANK} LIMIT 1",  # noqa: S608
            (run_id, seq),
        ).fetchone()
        return None if found is None else Kept(Verdict.model_validate_json(found[0]), int(found[1]))

    def refused(self, seq: int) -> str | None:
        """Say why a record was set aside for good, so that no verdict will come for it; None when it was not."""
        found = self._db.execute("SELECT error FROM outbox WHERE seq = ? AND state = 2", (seq,)).fetchone()
        return None if found is None else str(found[0])

    def thin(self, now_ns: int) -> int:
        """Delete verdicts older than `KEPT_DAYS` by the wall clock, and the oldest above `KEPT_ROWS`; gives how many.

        What they answered stays counted, and marked as answered: a later verdict for it is no first one.
        """
        gone = self._thin("received_ns < ?", now_ns - KEPT_DAYS * 86_400 * 10**9)
        surplus = one(self._db, "SELECT count(*) FROM verdict") - KEPT_ROWS
        while surplus > 0:
            step = min(surplus, THIN_ROWS)
            with transaction(self._db):
                newest = one(
                    self._db, "SELECT received_ns FROM verdict ORDER BY received_ns LIMIT 1 OFFSET ?", step - 1
                )
                self._delete("received_ns <= ?", newest, step)
            gone += step
            surplus -= step
        return gone

    def _thin(self, where: str, value: int) -> int:
        gone = 0
        while True:
            with transaction(self._db):
                n = self._delete(where, value, THIN_ROWS)
            gone += n
            if n < THIN_ROWS:
                return gone

    def _delete(self, where: str, value: int, most: int) -> int:
        gone: list[tuple[Any, ...]] = self._db.execute(
            "DELETE FROM verdict WHERE (run_id, seq, mode, digest) IN (SELECT run_id, seq, mode, digest FROM verdict"  # noqa: S608
            f" WHERE {where} ORDER BY received_ns LIMIT ?) RETURNING run_id, seq",
            (value, most),
        ).fetchall()
        self._mark({(str(run_id), int(seq)) for run_id, seq in gone})
        return len(gone)

    def _mark(self, frames: Collection[tuple[str, int]]) -> None:
        """Remember, inside the caller's transaction, that these frames had a verdict: a bit for each."""
        blocks: dict[tuple[str, int], list[int]] = defaultdict(list)
        for run_id, seq in frames:
            block, bit = divmod(seq, BLOCK)
            blocks[run_id, block].append(bit)
        for (run_id, block), bits in blocks.items():
            marks = self._marks(run_id, block)
            for bit in bits:
                marks[bit // 8] |= 1 << bit % 8
            self._db.execute(
                "INSERT INTO answered(run_id, block, bits) VALUES (?, ?, ?)"
                " ON CONFLICT(run_id, block) DO UPDATE SET bits = excluded.bits",
                (run_id, block, bytes(marks)),
            )
        self._db.execute("DELETE FROM answered WHERE number <= (SELECT max(number) FROM answered) - ?", (KEPT_BLOCKS,))

    def close(self) -> None:
        """Close the file."""
        self._db.close()
