"""The batch in the store: which shards a day has, which were scored, and who scores it now."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
from psycopg.rows import class_row

from cloud.batch.scores import Scored, Summary
from cloud.errors import Retryable
from cloud.store import explain
from cloud.store.sql import statements
from cloud.store.verdicts import Kept, keep

if TYPE_CHECKING:
    from cloud.store import Pool

VERDICTS_AT_ONCE = 500
"""Verdicts in one transaction: a run that is killed repeats no more than these."""

_SQL = {name: sql.encode() for name, sql in statements(Path(__file__).with_name("rows.sql")).items()}


@dataclass(frozen=True, slots=True)
class ShardRow:
    """A received shard; `output` is where its answers are, None when it was not scored by the model in question."""

    name: str
    store: str
    device: str
    part: int
    rows: int
    bytes: int
    sha256: str
    received_at: datetime
    output: str | None


@dataclass(frozen=True, slots=True)
class DayRow:
    """What came in for one day."""

    day: date
    shards: int
    expected: int
    bad: int
    frames: int
    bytes: int
    devices: int


@dataclass(frozen=True, slots=True)
class ScoredRow:
    """What one model made of a day."""

    day: date
    model_digest: str
    model_name: str
    shards: int
    frames: int
    answered: int
    unreadable: int
    finished_at: datetime


@dataclass(frozen=True, slots=True)
class Output:
    """The file with the answers for one shard, and when it was written last."""

    sha256: str
    output: str
    finished_at: datetime


class Nights:
    """Reads and writes what the batch knows. Only who scores needs the `dsn`, for a connection of its own."""

    def __init__(self, pool: "Pool", dsn: str = "") -> None:
        self._pool = pool
        self._dsn = dsn

    @contextmanager
    def alone(self, day: date) -> Iterator[None]:
        """Be the only one who scores this day. Raises `Retryable` (``batch-running``, ``store-away``)."""
        try:
            connection = psycopg.connect(self._dsn, autocommit=True, application_name="shelfwire-batch")
        except psycopg.Error as error:
            raise explain(error) from error
        with connection:
            got = connection.execute(_SQL["lock"], {"day": day}).fetchone()
            if got is None or not got[0]:
                raise Retryable(
                    "batch-running", f"{day} is being scored by another run",
                    "wait for it to end; when it was killed this moment, try again in a few seconds",
                )  # fmt: skip
            yield

    def shards(self, day: date, model_digest: str) -> list[ShardRow]:
        """The received shards of a day."""
        with self._pool.connection() as connection, connection.cursor(row_factory=class_row(ShardRow)) as cursor:
            return cursor.execute(_SQL["shards"], {"day": day, "model_digest": model_digest}).fetchall()

    def keep(self, scored: Sequence[Scored], summary: Summary, shard: ShardRow) -> int:
        """Keep the verdicts of these frames in one transaction; gives how many were new."""
        answers = [
            Kept(one.verdict(summary), shard.received_at, one.picture_bytes) for one in scored if one.label is not None
        ]
        with self._pool.connection() as connection, connection.transaction(), connection.cursor() as cursor:
            return keep(cursor, answers)

    def save(self, summary: Summary, output: str, engine: str) -> None:
        """Say that a shard is scored and all its verdicts are kept."""
        values = {
            "shard": summary.shard, "model_digest": summary.model.digest, "model_name": summary.model.name,
            "engine": engine, "rows": summary.rows, "answered": summary.answered, "unreadable": summary.unreadable,
            "took_s": summary.took_s, "cpu_s": summary.cpu_s, "output": output,
        }  # fmt: skip
        with self._pool.connection() as connection:
            connection.execute(_SQL["save"], values)

    def days(self, limit: int = 60) -> list[DayRow]:
        """Days with files, the newest first."""
        with self._pool.connection() as connection, connection.cursor(row_factory=class_row(DayRow)) as cursor:
            return cursor.execute(_SQL["days"], {"limit": limit}).fetchall()

    def day(self, day: date) -> DayRow | None:
        """What came in for this day; None when nothing was even announced."""
        with self._pool.connection() as connection, connection.cursor(row_factory=class_row(DayRow)) as cursor:
            return cursor.execute(_SQL["day"], {"day": day}).fetchone()

    def scored(self, days: Sequence[date]) -> list[ScoredRow]:
        """What models made of these days; of one day, the newest work first."""
        with self._pool.connection() as connection, connection.cursor(row_factory=class_row(ScoredRow)) as cursor:
            return cursor.execute(_SQL["scored"], {"days": list(days)}).fetchall()

    def outputs(self, day: date, model_digest: str) -> list[Output]:
        """The files with this model's answers for a day."""
        values = {"day": day, "model_digest": model_digest}
        with self._pool.connection() as connection, connection.cursor(row_factory=class_row(Output)) as cursor:
            return cursor.execute(_SQL["outputs"], values).fetchall()

    def received(self, day: date, sha256: str) -> str | None:
        """The object of the received shard with this digest."""
        with self._pool.connection() as connection:
            row = connection.execute(_SQL["received"], {"day": day, "sha256": sha256}).fetchone()
        return None if row is None else str(row[0])
