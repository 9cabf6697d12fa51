"""The audit: what was done, when and by whom, as lines that hold each other by their hashes.

Who can write to the database could still cut lines from the end and add others: note the newest hash elsewhere, and
have `verify` look for it.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import psycopg
from psycopg.rows import TupleRow

from wire.records import rfc3339

FIRST: Final = bytes(32)
_LOCK: Final = 0x5368656C661
_PIECE: Final = 1000

Connection = psycopg.Connection[TupleRow]


@dataclass(frozen=True, slots=True)
class Line:
    """One line: its number, what it says, and its hash in hexadecimal."""

    n: int
    at: str
    who: str
    what: str
    subject: str
    said: Mapping[str, Any]
    hash: str


@dataclass(frozen=True, slots=True)
class Verified:
    """How many lines hold, and the newest hash; `broken` is the first line that does not hold, and `why`."""

    lines: int
    newest: str
    broken: int | None = None
    why: str = ""


def hold(connection: Connection) -> None:
    """Be the only writer until the transaction ends. Taken before anything else, so that no two wait for each other."""
    connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))


def append(connection: Connection, now: datetime, who: str, what: str, subject: str, **said: object) -> None:
    """Add a line in the caller's transaction. `said` is what was before and after, as JSON."""
    hold(connection)
    row = connection.execute("SELECT n, hash FROM audit ORDER BY n DESC LIMIT 1").fetchone()
    n, before = (row[0] + 1, row[1]) if row is not None else (1, FIRST)
    line = _canonical(
        {"n": n, "at": rfc3339(now), "who": who, "what": what, "subject": subject, "said": said}
    )  # fmt: skip
    connection.execute("INSERT INTO audit (n, line, hash) VALUES (%s, %s, %s)", (n, line, _hash(before, line)))


def newest(connection: Connection, limit: int, subject: str | None = None) -> list[Line]:
    """Read the newest lines, the newest first; of one rollout or device when `subject` names it."""
    rows = connection.execute(
        "SELECT n, line, hash FROM audit WHERE %(subject)s::text IS NULL OR line::jsonb ->> 'subject' = %(subject)s "
        "OR line::jsonb -> 'said' -> 'devices' ? %(subject)s ORDER BY n DESC LIMIT %(limit)s",
        {"subject": subject, "limit": limit},
    ).fetchall()
    return [_read(n, line, digest) for n, line, digest in rows]


def verify(connection: Connection, known: str | None = None) -> Verified:
    """Go through all lines. `known` is a hash that was noted elsewhere: it must still be there."""
    before, n, seen = FIRST, 0, known is None
    with connection.transaction(), connection.cursor("audit") as cursor:
        cursor.itersize = _PIECE
        for number, line, digest in cursor.execute("SELECT n, line, hash FROM audit ORDER BY n"):
            n += 1
            if number != n or json.loads(line).get("n") != n:
                return Verified(n - 1, before.hex(), n, "a line is missing")
            if digest != _hash(before, line):
                return Verified(n - 1, before.hex(), n, "the line was changed, or one before it")
            before = digest
            seen = seen or digest.hex() == known
    if not seen:
        return Verified(n, before.hex(), n + 1, "the hash that was noted is not in it: lines were cut from the end")
    return Verified(n, before.hex())


def _hash(before: bytes, line: str) -> bytes:
    return hashlib.sha256(before + line.encode("utf-8")).digest()


def _canonical(content: Mapping[str, object]) -> str:
    return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=str)


def _read(n: int, line: str, digest: bytes) -> Line:
    said = json.loads(line)
    return Line(n, said["at"], said["who"], said["what"], said["subject"], said["said"], bytes(digest).hex())
