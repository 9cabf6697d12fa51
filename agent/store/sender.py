"""The sender's side of the outbox for what goes by MQTT: lease, settle, give back. One process, one thread.

Leases live in this process's memory, so they are void when it starts; only a receipt deletes a record.
"""

import heapq
import itertools
import secrets
from collections import Counter, OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.ports import Lane, Lease, Row, Settled, Stamp
from agent.store.database import Lock, Reserve, count, one, open_database, prepare_folder, set_fact, tally, transaction
from agent.store.facts import count_due
from agent.store.retried import RETRIED, take
from wire.bounds import SEQ_MAX

REFUSALS_BEFORE_DEAD = 5
"""Times the cloud may refuse a record for good before it is set aside: a faulty cloud release is mended by then."""

READY = "state = 0 AND kind <> 'frame'"
"""Frames are pictures and go by HTTP: see `agent.store.frames`."""

REMEMBERED_LEASES = 200
"""Leases whose late receipt is still understood; each holds at most one envelope's sequence numbers."""


@dataclass(slots=True)
class _Held:
    lane: Lane
    kind: str
    runs: dict[int, str]
    """Run id by sequence number."""


class Sender:
    """Lends waiting records to the uplink and takes receipts."""

    def __init__(self, folder: Path, reserve_bytes: int) -> None:
        prepare_folder(folder)
        self._lock = Lock(folder, "sync")
        self._lock.take()
        try:
            self._db = open_database(folder)
        except BaseException:
            self._lock.release()
            raise
        self.reserve = Reserve(folder, reserve_bytes)
        self._remembered: OrderedDict[str, _Held] = OrderedDict()
        self._tokens: dict[int, set[str]] = {}
        self._order = itertools.count()
        self._leased: dict[int, str] = {}
        self._later: dict[Lane, list[tuple[int, int, tuple[int, ...]]]] = {lane: [] for lane in Lane}
        self._backlog_until = 0
        self._backlog: dict[Lane, int] = {}
        self._live: dict[Lane, int] = {}
        self.begin()

    def begin(self) -> None:
        """Start over from what is stored, as after a lost connection: no lease holds, and what waits is the backlog."""
        self._leased.clear()
        for waiting in self._later.values():
            waiting.clear()
        self._backlog_until = self.newest()
        self._backlog = dict.fromkeys(Lane, 0)
        self._live = dict.fromkeys(Lane, self._backlog_until)

    def lease(self, lane: Lane, now_ns: int, max_rows: int, max_bytes: int, *, backlog: bool = True) -> Lease | None:
        """Lease the next records of one lane, one kind and one boot, oldest first; None when none is ready.

        `now_ns` is the boot clock: records given back wait there until their time. What was put since `begin` goes
        before the backlog, which is left alone when `backlog` is False.
        """
        rows = self._due(lane, now_ns, max_rows)
        place = None
        if not rows:
            place, rows = self._live, self._range(lane, self._live[lane], SEQ_MAX, max_rows)
        if not rows and backlog:
            place, rows = self._backlog, self._range(lane, self._backlog[lane], self._backlog_until, max_rows)
        taken = _alike(rows, max_bytes)
        if not taken:
            return None
        if place is not None:
            place[lane] = taken[-1].seq
        else:
            self._put_later(lane, now_ns, tuple(r.seq for r in rows[len(taken) :]))
        return self._lend(lane, taken)

    def _lend(self, lane: Lane, rows: Sequence[Row]) -> Lease:
        token = secrets.token_hex(12)
        self._remembered[token] = _Held(lane, rows[0].kind, {r.seq: r.run_id for r in rows})
        for row in rows:
            self._leased[row.seq] = token
            self._tokens.setdefault(row.seq, set()).add(token)
        while len(self._remembered) > REMEMBERED_LEASES:
            self._forget(next(iter(self._remembered)))
        return Lease(token, lane, rows[0].kind, tuple(rows))

    def _forget(self, token: str) -> None:
        for seq in self._remembered.pop(token).runs:
            self._tokens[seq].discard(token)
            if not self._tokens[seq]:
                del self._tokens[seq]

    def _close_book(self, seqs: Iterable[int]) -> None:
        """Take records out of every lease that held them: their fate is known."""
        for seq in seqs:
            self._leased.pop(seq, None)
            for token in self._tokens.pop(seq, ()):
                del self._remembered[token].runs[seq]

    def _range(self, lane: Lane, after: int, until: int, max_rows: int) -> list[Row]:
        where = f"{READY} AND lane = ? AND outbox.seq > ? AND outbox.seq <= ? ORDER BY outbox.seq LIMIT ?"
        return self._select(where, (int(lane), after, until, max_rows))

    def _due(self, lane: Lane, now_ns: int, max_rows: int) -> list[Row]:
        """Take up what was given back and is due. What a receipt or an eviction has removed is simply not there."""
        waiting = self._later[lane]
        while waiting and waiting[0][0] <= now_ns:
            due_ns, _, seqs = heapq.heappop(waiting)
            self._put_later(lane, due_ns, seqs[max_rows:])
            marks = ",".join("?" * len(seqs[:max_rows]))
            rows = self._select(f"{READY} AND outbox.seq IN ({marks}) ORDER BY outbox.seq", seqs[:max_rows])
            if rows:
                return rows
        return []

    def _put_later(self, lane: Lane, due_ns: int, seqs: tuple[int, ...]) -> None:
        if seqs:
            heapq.heappush(self._later[lane], (due_ns, next(self._order), seqs))

    def _select(self, where: str, values: Sequence[int]) -> list[Row]:
        found = self._db.execute(
            "SELECT outbox.seq, run.run_id, run.boot_id, kind, wall_ns, boot_ns, refusals, body"  # noqa: S608
            f" FROM outbox JOIN run USING (run) WHERE {where}",
            tuple(values),
        )
        return [
            Row(seq, run_id, boot, kind, Stamp(wall_ns, boot_ns), refusals, body)
            for seq, run_id, boot, kind, wall_ns, boot_ns, refusals, body in found
        ]

    def settle(
        self,
        token: str,
        committed: Iterable[tuple[str, int, int]],
        refused: Mapping[tuple[str, int], str],
        retry_at_ns: int,
    ) -> Settled:
        """Act on a receipt for the lease `token`, whether that lease has run out meanwhile or not.

        `committed` are (run id, first, last), `refused` maps (run id, seq) to a code. Only records that this lease
        held are touched, whatever the receipt claims. What it names nowhere is ready again at `retry_at_ns`.
        """
        held = self._remembered.get(token)
        if held is None:
            return Settled(known=False)
        done = {
            seq
            for run_id, first, last in committed
            for seq, held_run in held.runs.items()
            if held_run == run_id and first <= seq <= last
        }
        bad = {seq: code for (run_id, seq), code in refused.items() if held.runs.get(seq) == run_id and seq not in done}
        with transaction(self._db):
            delivered = self._delete(held, sorted(done))
            buried = [seq for seq, code in bad.items() if self._refuse(held, seq, code)]
        self._close_book((*done, *bad))
        self._put_later(held.lane, retry_at_ns, tuple(sorted(set(bad) - set(buried))))
        given_back = self.give_back(token, retry_at_ns)
        return Settled(True, delivered, len(bad), len(buried), given_back)

    def _delete(self, held: _Held, seqs: Sequence[int]) -> int:
        if not seqs:
            return 0
        marks = ",".join("?" * len(seqs))
        rows: list[tuple[Any, ...]] = self._db.execute(
            f"DELETE FROM outbox WHERE seq IN ({marks}) RETURNING seq, state, bytes",  # noqa: S608 - only marks
            tuple(seqs),
        ).fetchall()
        ready = [row[2] for row in rows if row[1] == 0]
        tally(self._db, held.lane, -len(ready), -sum(ready))
        gone = {row[0] for row in rows}
        # Not gone by a receipt, or its lease would not list it any more: the writer evicted it on its way. It did
        # arrive, so it moves from evicted to delivered in the books.
        evicted = sum(1 for seq in seqs if seq not in gone)
        count(self._db, f"{held.kind}:dropped:evicted", -evicted)
        count(self._db, f"{held.kind}:delivered", len(rows) + evicted)
        return len(rows) + evicted

    def _refuse(self, held: _Held, seq: int, code: str) -> bool:
        """Note one refusal for good; True when the record was set aside for it."""
        found = self._db.execute(
            "UPDATE outbox SET refusals = refusals + 1, error = ?, state = iif(refusals + 1 >= ?, 2, 0)"
            " WHERE seq = ? AND state = 0 RETURNING state, bytes",
            (code, REFUSALS_BEFORE_DEAD, seq),
        ).fetchone()
        if found is None or found[0] == 0:
            return False
        tally(self._db, held.lane, -1, -found[1])
        return True

    def give_back(self, token: str, retry_at_ns: int) -> int:
        """End a lease without a receipt; gives how many records are ready again, at `retry_at_ns`.

        The lease is remembered: a late receipt for it still counts.
        """
        held = self._remembered.get(token)
        if held is None:
            return 0
        seqs = tuple(sorted(s for s in held.runs if self._leased.get(s) == token))
        for seq in seqs:
            del self._leased[seq]
        self._put_later(held.lane, retry_at_ns, seqs)
        return len(seqs)

    def take_up_retried(self, now_ns: int) -> int:
        """Put records that a person has sent back to the line where they are leased; gives how many.

        What lies before the places that were read to comes by itself.
        """
        passed = [(seq, Lane(lane)) for seq, lane in take(self._db, RETRIED) if self._is_passed(seq, Lane(lane))]
        for seq, lane in passed:
            self._put_later(lane, now_ns, (seq,))
        return len(passed)

    def _is_passed(self, seq: int, lane: Lane) -> bool:
        if seq in self._leased:  # it comes back by itself, or its receipt comes
            return False
        return seq <= self._backlog[lane] or self._backlog_until < seq <= self._live[lane]

    def hurry(self, now_ns: int) -> None:
        """Let everything that was given back be ready now: what it waited for is over."""
        for lane, waiting in self._later.items():
            self._later[lane] = [(min(due_ns, now_ns), order, seqs) for due_ns, order, seqs in waiting]
            heapq.heapify(self._later[lane])

    def split(self, token: str, retry_at_ns: int) -> int:
        """End a lease so that each of its records goes alone next time; gives how many."""
        held = self._remembered.get(token)
        if held is None:
            return 0
        seqs = sorted(s for s in held.runs if self._leased.get(s) == token)
        for seq in seqs:
            del self._leased[seq]
            self._put_later(held.lane, retry_at_ns, (seq,))
        return len(seqs)

    def bury(self, token: str, code: str) -> int:
        """Set the records of a lease aside for good, with the reason; gives how many."""
        held = self._remembered.get(token)
        if held is None:
            return 0
        seqs = [s for s in held.runs if self._leased.get(s) == token]
        with transaction(self._db):
            for seq in seqs:
                rows: list[tuple[Any, ...]] = self._db.execute(
                    "UPDATE outbox SET state = 2, error = ? WHERE seq = ? AND state = 0 RETURNING bytes", (code, seq)
                ).fetchall()
                tally(self._db, held.lane, -len(rows), -sum(row[0] for row in rows))
        self._close_book(seqs)
        return len(seqs)

    def waiting(self) -> bool:
        """Whether any record of ours is ready or leased."""
        return bool(self._select(f"{READY} LIMIT 1", ()))

    def leased(self) -> int:
        """How many records are on their way now."""
        return len(self._leased)

    def newest(self) -> int:
        """Give the highest sequence number ever given out."""
        found = self._db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'outbox'").fetchone()
        return int(found[0]) if found else 0

    def counters(self) -> Counter[str]:
        """Read all counters."""
        return Counter({str(name): int(n) for name, n in self._db.execute("SELECT name, n FROM counter")})

    def due(self) -> int:
        """Count the records that should be on their way."""
        return count_due(self._db)

    def dead(self) -> int:
        """Count the dead letters."""
        return int(one(self._db, "SELECT count(*) FROM outbox WHERE state = 2"))

    def dead_frames(self) -> int:
        """Count the frames among the dead letters."""
        return int(one(self._db, "SELECT count(*) FROM outbox WHERE state = 2 AND kind = 'frame'"))

    def oldest(self) -> tuple[int, int] | None:
        """Give (wall, boot) capture time of the oldest record that should be on its way, in ns; None when none is."""
        # Lane by lane along the index: what waits for the night may be many rows, and is meant to wait.
        found = [
            row
            for lane in Lane
            if lane != Lane.BATCH
            for row in self._db.execute(
                "SELECT wall_ns, boot_ns, seq FROM outbox WHERE state = 0 AND lane = ? ORDER BY seq LIMIT 1",
                (int(lane),),
            )
        ]
        wall_ns, boot_ns, _ = min(found, key=lambda row: row[2], default=(0, 0, None))
        return (int(wall_ns), int(boot_ns)) if found else None

    def fact(self, name: str) -> str | None:
        """Read a fact that the writer keeps."""
        found = self._db.execute("SELECT value FROM fact WHERE name = ?", (name,)).fetchone()
        return None if found is None else str(found[0])

    def set_fact(self, name: str, value: str) -> None:
        """Keep a fact, for whoever looks into the store."""
        with transaction(self._db):
            set_fact(self._db, name, value)

    def close(self) -> None:
        """Close the file and give the lock back."""
        self._db.close()
        self._lock.release()


def _alike(rows: Sequence[Row], max_bytes: int) -> list[Row]:
    """Take rows from the front as long as they are of one kind and boot, and fit; the first always fits.

    One boot, because the cloud dates records whose wall clock is unsure by the boot clock of their envelope.
    """
    taken: list[Row] = []
    size_bytes = 0
    for row in rows:
        size_bytes += len(row.body) + 64
        alike = not taken or (row.kind, row.boot_id) == (taken[0].kind, taken[0].boot_id)
        if not alike or (taken and size_bytes > max_bytes):
            break
        taken.append(row)
    return taken
