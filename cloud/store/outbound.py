"""The cloud's own outbox as its couriers see it: lend what is due, and give back or set aside what did not go."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
from psycopg.rows import TupleRow

from cloud.store.sql import statements

if TYPE_CHECKING:
    from cloud.store import Pool

_SQL = {name: text.encode() for name, text in statements(Path(__file__).with_name("outbound.sql")).items()}

WAIT_S = 5.0
STATEMENT_MS = 30_000


@dataclass(frozen=True, slots=True)
class Pace:
    """How long a row waits for its receipt: `patience_s` at first, doubled each time, `most_s` at most."""

    patience_s: float
    most_s: float


@dataclass(frozen=True, slots=True)
class Lent:
    """Rows of one device, (id, body); none when the device is away and all that it waits for was put off."""

    run: str
    device: str
    rows: tuple[tuple[int, bytes], ...]


@dataclass(frozen=True, slots=True)
class Waiting:
    """How many rows wait for their receipt, since when the oldest of them, and how many their devices refuse."""

    rows: int
    oldest_age_s: float
    refused: int


class Outbound:
    """Lends rows through the store's pool. Thread safe.

    Every method raises `psycopg.OperationalError` or `psycopg_pool.PoolTimeout` when the database is away.
    """

    def __init__(self, pool: "Pool") -> None:
        self._pool = pool

    def lend(self, limit: int, pace: Pace, jitter: float, *, newest: bool) -> Lent | None:
        """Lend at most `limit` due rows of the device that is next; None when nothing is due.

        `jitter`, at most 1, shortens the wait for the receipts. `newest` begins with what has become due last, so that
        a fresh answer need not wait for the end of a backlog.
        """
        end = "last" if newest else "first"
        with self._cursor() as cursor:
            found = cursor.execute(_SQL[end]).fetchone()
            if found is None:
                return None
            values = {
                "device": found[0], "limit": limit, "patience_s": pace.patience_s, "most_s": pace.most_s,
                "jitter": jitter, "in_s": pace.most_s * jitter,
            }  # fmt: skip
            run = cursor.execute(_SQL["run"]).fetchone()
            assert run is not None
            if cursor.execute(_SQL["away"], values).fetchone() is not None:
                cursor.execute(_SQL["postpone"], values)
                return Lent(run[0], found[0], ())
            rows = cursor.execute(_SQL[f"lend_{end}"], values).fetchall()
            return Lent(run[0], found[0], tuple(sorted((key, body.encode()) for key, body in rows)))

    def delay(self, ids: Sequence[int], in_s: float) -> None:
        """Let rows that are still lent be due again after `in_s`."""
        with self._cursor() as cursor:
            cursor.execute(_SQL["delay"], {"ids": list(ids), "in_s": in_s})

    def refuse(self, ids: Sequence[int], code: str) -> None:
        """Set rows aside for good: no device will ever take them."""
        with self._cursor() as cursor:
            cursor.execute(_SQL["refuse"], {"ids": list(ids), "code": code})

    def waiting(self) -> Waiting:
        """Count what waits."""
        with self._cursor() as cursor:
            row = cursor.execute(_SQL["waiting"]).fetchone()
        assert row is not None
        return Waiting(*row)

    @contextmanager
    def _cursor(self) -> Iterator[psycopg.Cursor[TupleRow]]:
        """Lend a cursor in a transaction. One that a crash of the server undoes only has something sent twice."""
        with self._pool.connection(timeout=WAIT_S) as connection, connection.transaction():
            connection.execute(f"SET LOCAL statement_timeout = {STATEMENT_MS}; SET LOCAL synchronous_commit = off")
            with connection.cursor() as cursor:
                yield cursor
