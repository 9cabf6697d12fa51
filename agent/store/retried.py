"""How sync learns of records that a person has sent back to the line: their numbers stand in a fact."""

import json

import apsw

from agent.store.database import transaction

RETRIED = "retried"
RETRIED_FRAMES = "retried:frames"
"""Facts: sequence numbers (JSON) that went back to the line since the sender of that kind looked last."""

AT_ONCE = 500


def take(db: apsw.Connection, fact: str) -> list[tuple[int, int]]:
    """Take what a fact names, and forget it; gives (sequence number, lane) of what still waits, in their order.

    Mostly there is nothing, so it looks first without the lock that writing takes.
    """
    if db.execute("SELECT 1 FROM fact WHERE name = ?", (fact,)).fetchone() is None:
        return []
    with transaction(db):
        found = db.execute("DELETE FROM fact WHERE name = ? RETURNING value", (fact,)).fetchall()
    seqs = sorted({int(seq) for (value,) in found for seq in json.loads(str(value))})
    return [row for start in range(0, len(seqs), AT_ONCE) for row in _waiting(db, seqs[start : start + AT_ONCE])]


def _waiting(db: apsw.Connection, seqs: list[int]) -> list[tuple[int, int]]:
    marks = ",".join("?" * len(seqs))
    found = db.execute(f"SELECT seq, lane FROM outbox WHERE state = 0 AND seq IN ({marks}) ORDER BY seq", tuple(seqs))  # noqa: S608
    return [(int(seq), int(lane)) for seq, lane in found]
