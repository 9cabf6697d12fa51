"""How the pages read: named statements over the store's pool, each of which ends in time and cannot write."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, ClassVar, TypeVar

import psycopg
from psycopg.rows import TupleRow, class_row

if TYPE_CHECKING:
    from cloud.store import Pool

WAIT_S = 2.0
"""Longest wait for a free connection: a page that waits longer should rather say that the database is busy."""

STATEMENT_MS = 10_000
"""Longest statement of a search: one that takes longer needs a narrower question, not a slower database."""

_Row = TypeVar("_Row")


class Reading:
    """Base of what reads the store; a class names its `statements`. Thread safe.

    Every method raises `psycopg.OperationalError` or `psycopg_pool.PoolTimeout` when the database is away.
    """

    statements: ClassVar[Mapping[str, bytes]]

    def __init__(self, pool: "Pool") -> None:
        self._pool = pool

    @property
    def pool(self) -> "Pool":
        """The pool that it reads through."""
        return self._pool

    def _rows(self, kind: type[_Row], name: str, values: Mapping[str, object]) -> list[_Row]:
        with self._connection() as connection, connection.cursor(row_factory=class_row(kind)) as cursor:
            return cursor.execute(self.statements[name], values).fetchall()

    @contextmanager
    def _connection(self) -> Iterator[psycopg.Connection[TupleRow]]:
        """Lend a connection whose statements end in time and cannot write."""
        with self._pool.connection(timeout=WAIT_S) as connection, connection.transaction():
            connection.execute(f"SET TRANSACTION READ ONLY; SET LOCAL statement_timeout = {STATEMENT_MS}".encode())
            yield connection
