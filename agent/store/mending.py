"""What a person does to the outbox by hand: send back to the line what was set aside, or set aside for good.

Vision and sync may run meanwhile, or be dead. Each call is one short transaction, rows and counters together, so that
the books balance after it. Sync keeps its leases in memory: a record that is set aside while it is on its way still
counts as delivered when its receipt comes, and what is sent back to the line is named in a fact, by which sync learns
that it lies behind where it has read to.
"""

import contextlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import apsw

from agent.errors import Broken, Rejected, Retryable
from agent.ports import Lane
from agent.store.database import BUSY_ERRORS, DISK_ERRORS, open_database, set_fact, tally, transaction
from agent.store.frames import let_go_of_dead_pictures
from agent.store.outside import must_exist
from agent.store.retried import RETRIED, RETRIED_FRAMES
from agent.store.spool import Spool

BY_HAND = "by-hand"
"""Begins the error of what a person has set aside: no code of the cloud does."""

REASON_CHARS = 200
AT_ONCE = 500
"""Records changed in one transaction: few enough for the reserve of a full disk."""


@dataclass(slots=True)
class Done:
    """What came of it: records changed, and why the others were not, by sequence number."""

    changed: list[int] = field(default_factory=list)
    refused: dict[int, str] = field(default_factory=dict)


class Mender:
    """Changes records by hand. For one thread; open it, do it, close it."""

    def __init__(self, folder: Path) -> None:
        must_exist(folder)
        self._folder = folder
        self._db = open_database(folder, check=False, replace=False)

    def retry(self, seqs: Sequence[int]) -> Done:
        """Send dead letters back to the line, their refusals forgotten.

        A frame without its picture is of no use to the cloud, and stays where it is.
        """
        done = Done()
        for start in range(0, len(seqs), AT_ONCE):
            with _trouble(self._folder), transaction(self._db):
                self._retry(seqs[start : start + AT_ONCE], done)
        return done

    def _retry(self, seqs: Sequence[int], done: Done) -> None:
        revived: dict[str, list[int]] = {RETRIED: [], RETRIED_FRAMES: []}
        found = self._rows(seqs)
        for seq in seqs:
            row = found.get(seq)
            if row is None:
                done.refused[seq] = "there is no such record; the cloud may have it by now"
            elif row.state != DEAD:
                done.refused[seq] = "it waits already"
            elif row.kind == "frame" and row.picture is None:
                done.refused[seq] = "its picture is gone"
            else:
                self._db.execute("UPDATE outbox SET state = 0, refusals = 0, error = NULL WHERE seq = ?", (seq,))
                tally(self._db, row.lane, 1, row.size_bytes)
                revived[RETRIED_FRAMES if row.kind == "frame" else RETRIED].append(seq)
                done.changed.append(seq)
        for name, some in revived.items():
            self._name(name, some)

    def _name(self, fact: str, seqs: Sequence[int]) -> None:
        if seqs:
            known = self._db.execute("SELECT value FROM fact WHERE name = ?", (fact,)).fetchone()
            set_fact(self._db, fact, json.dumps([*(json.loads(known[0]) if known else ()), *seqs]))

    def bury(self, seqs: Sequence[int], reason: str, *, alerts: bool = False) -> Done:
        """Set waiting records aside, with the reason; `alerts` allows alerts too, and they may be retried like others.

        What lies in a sealed file of the night leaves with that file. Raises `Rejected` (``reason-bad``).
        """
        text = " ".join(reason.split())
        if not text or len(text) > REASON_CHARS:
            hint = f"say in 1 to {REASON_CHARS} characters why it shall not be sent"
            raise Rejected("reason-bad", "a record is set aside with a reason", hint)
        done = Done()
        for start in range(0, len(seqs), AT_ONCE):
            with _trouble(self._folder):
                with transaction(self._db):
                    self._bury(seqs[start : start + AT_ONCE], f"{BY_HAND}: {text}", alerts=alerts, done=done)
                    unneeded = let_go_of_dead_pictures(self._db)
                if unneeded:
                    Spool(self._folder).remove(unneeded)
        return done

    def _bury(self, seqs: Sequence[int], error: str, *, alerts: bool, done: Done) -> None:
        gone: Counter[int] = Counter()
        size_bytes: Counter[int] = Counter()
        found = self._rows(seqs)
        for seq in seqs:
            row = found.get(seq)
            if row is None:
                done.refused[seq] = "there is no such record; the cloud may have it by now"
            elif row.state == DEAD:
                done.refused[seq] = "it is set aside already"
            elif row.shard is not None:
                done.refused[seq] = "it lies in a sealed file of the night, and leaves with that"
            elif row.kind == "alert" and not alerts:
                done.refused[seq] = "it is an alert, and somebody may wait for it: add --yes"
            else:
                self._db.execute("UPDATE outbox SET state = 2, error = ? WHERE seq = ?", (error, seq))
                gone[row.lane] += 1
                size_bytes[row.lane] += row.size_bytes
                done.changed.append(seq)
        for lane, n in gone.items():
            tally(self._db, lane, -n, -size_bytes[lane])

    def dead(self, lane: Lane | None = None, error: str | None = None) -> list[int]:
        """Give the sequence numbers of the dead letters, of one lane or with this code alone."""
        found = self._db.execute(
            "SELECT seq FROM outbox WHERE state = 2 AND (?1 IS NULL OR lane = ?1) AND (?2 IS NULL OR error = ?2)"
            " ORDER BY seq",
            (None if lane is None else int(lane), error),
        )
        return [int(seq) for (seq,) in found]

    def _rows(self, seqs: Sequence[int]) -> dict[int, "_Row"]:
        marks = ",".join("?" * len(seqs))
        found: list[tuple[Any, ...]] = self._db.execute(
            f"SELECT seq, kind, lane, state, bytes, picture, shard FROM outbox WHERE seq IN ({marks})",  # noqa: S608
            tuple(seqs),
        ).fetchall()
        return {row[0]: _Row(*row[1:]) for row in found}

    def close(self) -> None:
        """Close the file."""
        self._db.close()


DEAD = 2


@dataclass(frozen=True, slots=True)
class _Row:
    kind: str
    lane: int
    state: int
    size_bytes: int
    picture: str | None
    shard: int | None


@contextlib.contextmanager
def _trouble(folder: Path) -> Iterator[None]:
    """Say what SQLite raises in our words."""
    try:
        yield
    except BUSY_ERRORS:
        raise Retryable("store-busy", f"the store in {folder} is in use and does not become free",
                        "run this again; see whether vision, sync or nightly was halted") from None  # fmt: skip
    except DISK_ERRORS as error:
        raise Broken("disk-full", f"the store in {folder} cannot be written: {error}", "free disk space") from None
    except apsw.CorruptError as error:
        raise Broken("store-damaged", f"the store in {folder} is damaged: {error}",
                     "restart vision: it moves the damaged file aside, and starts a new one") from None  # fmt: skip
