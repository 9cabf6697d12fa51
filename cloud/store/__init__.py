"""The store: PostgreSQL, embedded or by DSN, at the newest schema."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
from psycopg.rows import TupleRow
from psycopg_pool import ConnectionPool

from cloud.errors import Broken, Rejected, Retryable
from cloud.store.migrate import migrate

if TYPE_CHECKING:
    from cloud.store.embedded import Embedded

__all__ = ["Counts", "Store", "explain"]

CONNECT_TIMEOUT_S = 10
POOL_CONNECTIONS = 8
RECONNECT_S = 2.0
"""The pool waits twice as long after each failed attempt. Given up early, the next user starts a new attempt, and a
database that comes back is found within a few seconds."""

Pool = ConnectionPool[psycopg.Connection[TupleRow]]


@dataclass(frozen=True, slots=True)
class Counts:
    """How much the store holds and what was done with what came, over all devices."""

    results: int
    alerts: int
    received: int
    committed: int
    duplicates: int
    refused: int
    conflicts: int
    quarantined: int


class Store:
    """An open store. `dsn` reaches it from other processes of this machine (embedded) or from anywhere (own server)."""

    def __init__(self, dsn: str, embedded: "Embedded | None") -> None:
        self.dsn = dsn
        self._embedded = embedded
        self.pool: Pool = ConnectionPool(
            dsn,
            min_size=1,
            max_size=POOL_CONNECTIONS,
            timeout=CONNECT_TIMEOUT_S,
            reconnect_timeout=RECONNECT_S,
            check=ConnectionPool.check_connection,  # after a restart of the server no query meets a dead connection
            kwargs={"autocommit": True, "connect_timeout": CONNECT_TIMEOUT_S, "application_name": "shelfwire-store"},
            open=True,
            name="store",
        )

    @classmethod
    def open(cls, dsn: str | None, folder: Path) -> "Store":
        """Open the PostgreSQL at `dsn`, or start the embedded one in `folder`, and bring it to the newest schema.

        With an embedded server this process owns it: other processes connect by its `dsn` and end before it does.
        Raises `Rejected` (``store-dsn``), `Retryable` (``store-away``) and `Broken` (``store-folder``, ``store-start``,
        ``store-disk-full``, ``store-version``, ``store-newer``, ``store-migration``).
        """
        embedded = _embedded(folder) if dsn is None else None
        address = embedded.start() if embedded is not None else dsn
        assert address is not None
        try:
            _check(address)
            migrate(address)
            return cls(address, embedded)
        except BaseException:
            if embedded is not None:
                embedded.stop()
            raise

    def revive(self) -> None:
        """Start the embedded server again when it has died; nothing to do for a server that is not ours."""
        if self._embedded is not None:
            self._embedded.start()

    def close(self) -> None:
        """Close the connections, and stop the embedded server when nobody else uses it."""
        self.pool.close(timeout=3)
        if self._embedded is not None:
            self._embedded.stop()

    def counts(self) -> Counts:
        """Count rows and tallies."""
        with self.pool.connection() as connection:
            rows = connection.execute("SELECT name, sum(n)::bigint FROM tally GROUP BY name").fetchall()
            tally: dict[str, int] = dict(rows)
            row = connection.execute("SELECT (SELECT count(*) FROM result), (SELECT count(*) FROM alert)").fetchone()
        assert row is not None
        names = ("received", "committed", "duplicates", "refused", "conflicts", "quarantined")
        return Counts(row[0], row[1], *(tally.get(name, 0) for name in names))


def _embedded(folder: Path) -> "Embedded":
    """Import the server's package only for those who use it: it exists for few platforms."""
    try:
        from cloud.store.embedded import Embedded
    except ImportError as error:
        raise Broken(
            "store-missing",
            f"no embedded PostgreSQL on this machine: {error}",
            "install shelfwire[cloud], or use a PostgreSQL of your own with --dsn",
        ) from error
    return Embedded(folder)


def _check(dsn: str) -> None:
    """Connect once, so that a wrong address gives a clear answer at once and not a pool that waits."""
    try:
        psycopg.connect(dsn, connect_timeout=CONNECT_TIMEOUT_S).close()
    except psycopg.Error as error:
        raise explain(error) from error


def explain(error: psycopg.Error) -> Rejected | Retryable | Broken:
    """Turn the driver's error into one that names the cure."""
    text = " ".join(str(error).split())
    if isinstance(error, psycopg.errors.DiskFull):
        return Broken("store-disk-full", f"the database has no space left: {text}", "free some space on its disk")
    if isinstance(error, psycopg.ProgrammingError):
        return Rejected("store-dsn", f"the DSN is not understood: {text}", "postgresql://user@host:5432/database")
    if "does not exist" in text and "database" in text:
        return Rejected("store-dsn", text, "create the database first: createdb NAME")
    if "authentication failed" in text or "no password" in text or "Peer authentication" in text:
        return Rejected("store-auth", text, "check user and password of the DSN, or put the password into ~/.pgpass")
    return Retryable("store-away", f"the database does not answer: {text}", "start it, or correct --dsn")
