"""The outbox as the night sees it: frames are sealed into files, and leave with their file once the cloud has it.

Two processes use it, each with a connection of its own: `nightly` seals, under the lock of its role; sync ships.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from agent.core.backlog import Backlog
from agent.core.shards import Owner
from agent.night_ports import NightFrame, Shard, ShardFile, Unsealed
from agent.ports import Lane, Spooled, Stamp
from agent.store.database import Reserve, count, one, open_database, set_fact, tally, transaction
from agent.store.frames import defer_expired
from agent.store.night import SHIP_NOW, UNSEALED, read_backlog
from agent.store.outside import reading
from agent.store.sender import REFUSALS_BEFORE_DEAD

AT_ONCE = 500
"""Rows read, or named in one statement, at once."""

KEPT_PARTS = 400
"""Days whose last part number is remembered; a part is also told by its digest, so that this need not be for ever."""

PARTS = "parts"
"""Fact: last part number given, by day (JSON). The shards themselves are gone once they are delivered."""

LIVE_LANES = (Lane.ALERT, Lane.RESULT, Lane.RECEIPT)

SEALED = (
    "SELECT shard, device, store, day, part, file, bytes, sha256, rows, sealed_ns, refusals, coalesce(error, '')"
    " FROM shard ORDER BY shard"
)


class Shards:
    """Frames that wait for the night, and the files that they were sealed into. For one thread at a time."""

    def __init__(self, folder: Path, reserve_bytes: int = 0) -> None:
        self._db = open_database(folder, check=False)
        self.reserve = Reserve(folder, reserve_bytes)

    def defer_expired(self, now_ns: int, boot_id: str) -> int:
        """Hand to the night what nobody answered in time; sync does it, so only while sync does not run."""
        return defer_expired(self._db, now_ns, boot_id)

    # -- for the night ---------------------------------------------------------------------------------------

    def unsealed(self) -> Iterator[Unsealed]:
        """Give every frame that waits for the night and lies in no file yet, oldest first.

        It is read in pieces: a reader that stays would keep the log of the database from being folded back.
        """
        after = 0
        while True:
            found: list[tuple[Any, ...]] = self._db.execute(
                "SELECT seq, boot_id, wall_ns, boot_ns, clock, picture_bytes + bytes FROM outbox JOIN run USING (run)"  # noqa: S608
                f" WHERE {UNSEALED} AND seq > ? ORDER BY seq LIMIT ?",
                (after, AT_ONCE),
            ).fetchall()
            for seq, boot_id, wall_ns, boot_ns, clock, size_bytes in found:
                yield Unsealed(seq, boot_id, Stamp(wall_ns, boot_ns), clock, size_bytes)
            if not found:
                return
            after = int(found[-1][0])

    def frames(self, seqs: Sequence[int]) -> list[NightFrame]:
        """Give these frames, in the order of their numbers; what is gone meanwhile is left out."""
        found = self._db.execute(
            "SELECT seq, run_id, boot_id, wall_ns, boot_ns, clock, body, picture, picture_bytes, picture_sha256"  # noqa: S608
            f" FROM outbox JOIN run USING (run) WHERE {UNSEALED} AND seq IN ({_marks(seqs)}) ORDER BY seq",
            tuple(seqs),
        )
        return [
            NightFrame(
                seq, run_id, boot_id, Stamp(wall_ns, boot_ns), clock, body, Spooled(picture or "none", size, sha or "")
            )
            for seq, run_id, boot_id, wall_ns, boot_ns, clock, body, picture, size, sha in found
        ]

    def next_part(self, day: str) -> int:
        """Give the number of the day's next file, from 1; `hand_over` takes it."""
        return self._parts().get(day, 0) + 1

    def hand_over(
        self, file: ShardFile, owner: Owner, day: str, part: int, seqs: Sequence[int], sealed_ns: int
    ) -> Shard | None:
        """Commit, in one transaction, that these frames lie in this file now; their pictures may leave the spool.

        None, and nothing is changed, when one of them is gone meanwhile: it was evicted. The rows keep the names of
        their pictures: what lies in a file counts against the limit of the spool until it has left this device.
        """
        try:
            with transaction(self._db):
                self._db.execute(
                    "INSERT INTO shard(device, store, day, part, file, rows, bytes, sha256, sealed_ns)"
                    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    (
                        owner.device,
                        owner.store,
                        day,
                        part,
                        file.name,
                        len(seqs),
                        file.size_bytes,
                        file.sha256,
                        sealed_ns,
                    ),
                )
                number = self._db.last_insert_rowid()
                for start in range(0, len(seqs), AT_ONCE):
                    self._move(number, seqs[start : start + AT_ONCE])
                others = [given for given in self._parts().items() if given[0] != day]
                set_fact(self._db, PARTS, json.dumps(dict([*others, (day, part)][-KEPT_PARTS:])))
        except _Gone:
            return None
        return Shard(number, owner, day, part, file, len(seqs), sealed_ns)

    def _move(self, shard: int, seqs: Sequence[int]) -> None:
        self._db.execute(
            f"UPDATE outbox SET shard = ? WHERE {UNSEALED} AND seq IN ({_marks(seqs)})",  # noqa: S608
            (shard, *seqs),
        )
        if self._db.changes() != len(seqs):
            raise _Gone

    def _parts(self) -> dict[str, int]:
        found = self._fact(PARTS)
        parts: dict[str, int] = json.loads(found) if found else {}
        return parts

    def sealed_pictures(self) -> Iterator[str]:
        """Give the names of pictures that lie in sealed files: after a crash some may still lie in the spool too."""
        found = self._db.execute("SELECT picture FROM outbox WHERE shard IS NOT NULL AND picture IS NOT NULL")
        return iter([str(row[0]) for row in found])

    def bury(self, seqs: Sequence[int], code: str) -> None:
        """Set frames aside for good, with the reason: the rows stay, and let go of their pictures."""
        with transaction(self._db):
            for start in range(0, len(seqs), AT_ONCE):
                some = seqs[start : start + AT_ONCE]
                rows = self._db.execute(
                    "UPDATE outbox SET state = 2, error = ?, picture = NULL, picture_bytes = 0"  # noqa: S608
                    f" WHERE {UNSEALED} AND seq IN ({_marks(some)}) RETURNING lane, bytes",
                    (code, *some),
                ).fetchall()
                self._tally_gone(rows)

    def take_back(self, number: int, pictures: Mapping[int, Spooled]) -> None:
        """Commit, in one transaction, that a file's frames lie in the spool again, and that the file is no more."""
        with transaction(self._db):
            for seq, kept in pictures.items():
                self._db.execute(
                    "UPDATE outbox SET shard = NULL, picture = ? WHERE seq = ? AND shard = ?", (kept.name, seq, number)
                )
            self._db.execute("DELETE FROM shard WHERE shard = ?", (number,))

    def hurry(self) -> None:
        """Let the files that are sealed now leave at once, whatever the window says."""
        with transaction(self._db):
            newest = one(self._db, "SELECT coalesce(max(shard), 0) FROM shard")
            set_fact(self._db, SHIP_NOW, str(newest))

    # -- for the shipper -------------------------------------------------------------------------------------

    def sealed(self) -> list[Shard]:
        """Give the files that the cloud does not have for certain yet, oldest first."""
        return [_shard(row) for row in self._db.execute(SEALED)]

    def ship_now(self) -> int:
        """Give the number of the last file that leaves at once; 0 when all wait for the window."""
        return int(self._fact(SHIP_NOW) or 0)

    def backlog(self) -> Backlog:
        """Look at all that waits for the night and its upload."""
        return read_backlog(self._db)

    def live_backlog(self) -> int:
        """How many live records wait for the cloud: they go first."""
        names = [f"rows:{int(lane)}" for lane in LIVE_LANES]
        return int(
            one(self._db, f"SELECT coalesce(sum(n), 0) FROM counter WHERE name IN ({_marks(names)})", *names)  # noqa: S608
        )

    def deliver(self, number: int) -> int:
        """Take a file and its frames out of the books: the cloud has them. Gives how many frames."""
        with transaction(self._db):
            rows = self._db.execute("DELETE FROM outbox WHERE shard = ? RETURNING lane, bytes", (number,)).fetchall()
            self._tally_gone(rows)
            count(self._db, "frame:delivered", len(rows))
            self._db.execute("DELETE FROM shard WHERE shard = ?", (number,))
        return len(rows)

    def note(self, number: int, error: str) -> None:
        """Keep why a file has not left yet, for whoever looks."""
        self._db.execute("UPDATE shard SET error = ?1 WHERE shard = ?2 AND error IS NOT ?1", (error[:256], number))

    def refuse(self, number: int, error: str) -> bool:
        """Note that the cloud refused a file for good; True when that was once too often."""
        with transaction(self._db):
            found = self._db.execute(
                "UPDATE shard SET refusals = refusals + 1, error = ? WHERE shard = ? RETURNING refusals",
                (error[:256], number),
            ).fetchone()
        return found is not None and int(found[0]) >= REFUSALS_BEFORE_DEAD

    def lose(self, number: int, code: str) -> int:
        """Set the frames of a file aside for good, with the reason; gives how many."""
        with transaction(self._db):
            rows = self._db.execute(
                "UPDATE outbox SET state = 2, error = ?, shard = NULL, picture = NULL, picture_bytes = 0"
                " WHERE shard = ? RETURNING lane, bytes",
                (code, number),
            ).fetchall()
            self._tally_gone(rows)
            self._db.execute("DELETE FROM shard WHERE shard = ?", (number,))
        return len(rows)

    def _tally_gone(self, rows: Sequence[tuple[Any, ...]]) -> None:
        """Take rows out of what waits, inside the caller's transaction."""
        for lane in {lane for lane, _ in rows}:
            sizes = [size for where, size in rows if where == lane]
            tally(self._db, lane, -len(sizes), -sum(sizes))

    def _fact(self, name: str) -> str | None:
        found = self._db.execute("SELECT value FROM fact WHERE name = ?", (name,)).fetchone()
        return None if found is None else str(found[0])

    def close(self) -> None:
        """Close the connection."""
        self._db.close()


class _Gone(Exception):
    """A frame is not there any more."""


def _marks(values: Sequence[object]) -> str:
    return ",".join("?" * len(values))


def _shard(row: Sequence[Any]) -> Shard:
    number, device, store, day, part, file, size_bytes, sha256, rows, sealed_ns, refusals, error = row
    lies = ShardFile(file, size_bytes, sha256)
    return Shard(number, Owner(device, store), day, part, lies, rows, sealed_ns, refusals, error)


def summary(folder: Path) -> Backlog:
    """Look into the outbox in `folder` from outside; reads only.

    Raises `Broken` (``no-store``, ``store-unreadable``, ``disk-full``).
    """
    with reading(folder) as db:
        return read_backlog(db)


def listing(folder: Path) -> list[Shard]:
    """Give the sealed files that the cloud does not have for certain yet, oldest first; reads only, as `summary`."""
    with reading(folder) as db:
        return [_shard(row) for row in db.execute(SEALED)]
