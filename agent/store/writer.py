"""The writer's side of the outbox: put and evict. One process, one thread."""

import secrets
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from agent.ports import Draft, Lane
from agent.store.database import Lock, Reserve, count, one, open_database, prepare_folder, set_fact, tally, transaction
from agent.store.spool import Spool, Sweeper

EVICT_ROWS = 500
"""Rows evicted in one transaction: few enough for the reserve of a full disk."""

VACUUM_PAGES = 256
"""Pages given back to the disk at once: 1 MiB, a few milliseconds."""

EVICT_LEVELS = 16
NEVER_EVICTED = (Lane.ALERT, Lane.RECEIPT)


@dataclass(frozen=True, slots=True)
class Limits:
    """How much may wait on the device."""

    max_rows: int = 5_000_000
    max_bytes: int = 1 << 30
    pictures_max_bytes: int = 4 << 30
    keep_free_bytes: int = 0
    """Free space on the disk that pictures never take."""


class Writer:
    """Puts records into the outbox, and thins them out when the limits are reached.

    `role` is vision's own place at the store, of which there is one, or a short visit of `submit` beside it.
    """

    def __init__(
        self, folder: Path, limits: Limits, reserve_bytes: int, *, role: Literal["vision", "submit"] = "vision"
    ) -> None:
        prepare_folder(folder)
        self._role = role
        self._lock = Lock(folder, role) if role == "vision" else None
        if self._lock is not None:
            self._lock.take()
        try:
            self._db = open_database(folder, check=role == "vision")
            self.spool = Spool(folder, max_bytes=limits.pictures_max_bytes, keep_free_bytes=limits.keep_free_bytes)
        except BaseException:
            self._release()
            raise
        self._limits = limits
        self._level = 1
        self._run: int | None = None
        self._sweeper = Sweeper(self.spool, self._with_row)
        self.spool.committed((), self._pictures_bytes())
        self.reserve = Reserve(folder, reserve_bytes)
        if role == "vision":
            self.reserve.build()

    def wait_at_most(self, patience_ms: int) -> None:
        """Say how long a commit waits for another process's before it raises `BUSY_ERRORS`."""
        self._db.set_busy_timeout(patience_ms)

    def start_run(self, boot_id: str, started_wall_ns: int, agent_version: str) -> str:
        """Begin a run: what this process puts is keyed by it. Gives its id, 8 random bytes in hexadecimal."""
        run_id = secrets.token_hex(8)
        with transaction(self._db):
            self._db.execute(
                "INSERT INTO run(run_id, boot_id, started_ns, agent_version, role) VALUES (?, ?, ?, ?, ?)",
                (run_id, boot_id, started_wall_ns, agent_version, self._role),
            )
            self._run = self._db.last_insert_rowid()
        return run_id

    def put(
        self, drafts: Iterable[Draft], counts: Mapping[str, int] | None = None, facts: Mapping[str, str] | None = None
    ) -> list[int]:
        """Commit records, counters and facts in one durable transaction; gives the records' sequence numbers.

        Raises `DISK_ERRORS` when the disk will not take them, and `BUSY_ERRORS` when another process held the write
        lock for the whole of our patience; then nothing was written.
        """
        drafts = list(drafts)
        rows = Counter([draft.lane for draft in drafts])
        kinds = Counter([draft.kind for draft in drafts])
        size_bytes: Counter[int] = Counter()
        with transaction(self._db):
            seqs = self._insert(drafts)
            for draft in drafts:
                size_bytes[draft.lane] += len(draft.body)
            for lane, n in rows.items():
                tally(self._db, lane, n, size_bytes[lane])
            for kind, n in kinds.items():
                count(self._db, f"{kind}:produced", n)
            for name, n in (counts or {}).items():
                count(self._db, name, n)
            for name, value in (facts or {}).items():
                set_fact(self._db, name, value)
        self.spool.committed([d.picture.name for d in drafts if d.picture is not None], self._pictures_bytes())
        return seqs

    def _insert(self, drafts: Sequence[Draft]) -> list[int]:
        """Add the rows; gives their sequence numbers, which follow each other: nobody else writes meanwhile."""
        self._db.executemany(
            "INSERT INTO outbox(run, kind, lane, wall_ns, boot_ns, clock, bytes, body, picture, picture_bytes,"
            " picture_sha256, expires_ns) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [self._row(draft) for draft in drafts],
        )
        last = self._db.last_insert_rowid()
        return list(range(last - len(drafts) + 1, last + 1))

    def _row(self, draft: Draft) -> tuple[Any, ...]:
        picture = draft.picture
        return (
            self._run,
            draft.kind,
            int(draft.lane),
            draft.captured.wall_ns,
            draft.captured.boot_ns,
            draft.clock,
            len(draft.body),
            draft.body,
            picture.name if picture else None,
            picture.size_bytes if picture else 0,
            picture.sha256 if picture else None,
            draft.expires_ns,
        )

    def _pictures_bytes(self) -> int:
        """What the pictures of all rows take, those in sealed files included."""
        found = self._db.execute("SELECT n FROM counter WHERE name = 'pictures:bytes'").fetchone()
        return int(found[0]) if found else 0

    def fact(self, name: str) -> str | None:
        """Read a fact."""
        found = self._db.execute("SELECT value FROM fact WHERE name = ?", (name,)).fetchone()
        return None if found is None else str(found[0])

    def evict(self) -> int:
        """Thin out waiting records until the limits hold; gives how many went.

        Every second row goes, then every second of what is left, so that no span of time is lost as a whole. The
        lane that matters least goes first; alerts, receipts and what lies in a sealed file never go. What was evicted
        is counted, and its picture goes after the row.
        """
        gone = 0
        while self._over_limits():
            evicted = self._evict_some()
            if evicted == 0:
                break
            gone += evicted
        return gone

    def shrink(self) -> None:
        """Give some free pages of the file back to the disk."""
        self._db.execute(f"PRAGMA incremental_vacuum({VACUUM_PAGES})").fetchall()

    def _over_limits(self) -> bool:
        total = "SELECT coalesce(sum(n), 0) FROM counter WHERE name GLOB ?"
        too_many = one(self._db, total, "rows:*") > self._limits.max_rows
        return bool(too_many or one(self._db, total, "bytes:*") > self._limits.max_bytes)

    def _evict_some(self) -> int:
        for lane in sorted(set(Lane) - set(NEVER_EVICTED), reverse=True):
            for _ in range(EVICT_LEVELS):
                evicted = self._evict_level(lane, 1 << self._level)
                if evicted:
                    return evicted
                self._level = self._level % EVICT_LEVELS + 1
        return 0

    def _evict_level(self, lane: Lane, step: int) -> int:
        with transaction(self._db):
            rows: list[tuple[Any, ...]] = self._db.execute(
                "DELETE FROM outbox WHERE seq IN (SELECT seq FROM outbox WHERE state = 0 AND lane = ?1"
                " AND shard IS NULL AND seq % ?2 = ?3 ORDER BY seq LIMIT ?4) RETURNING kind, bytes, picture",
                (int(lane), step, step >> 1, EVICT_ROWS),
            ).fetchall()
            tally(self._db, lane, -len(rows), -sum(row[1] for row in rows))
            for kind, n in Counter(kind for kind, _, _ in rows).items():
                count(self._db, f"{kind}:dropped:evicted", n)
        self.spool.remove(picture for _, _, picture in rows if picture is not None)
        return len(rows)

    def sweep(self) -> int:
        """Look at a few of the spool's files and remove those without a row; gives how many went."""
        return self._sweeper.turn()

    def _with_row(self, names: Collection[str]) -> set[str]:
        """Tell which files are still needed: with a shard their pictures lie in its file."""
        marks = ",".join("?" * len(names))
        where = f"shard IS NULL AND picture IN ({marks})"
        found = self._db.execute(f"SELECT picture FROM outbox WHERE {where}", tuple(names))  # noqa: S608 - only marks
        return {str(row[0]) for row in found}

    def close(self) -> None:
        """Close the file and give the lock back."""
        self._db.close()
        self._release()

    def _release(self) -> None:
        if self._lock is not None:
            self._lock.release()
