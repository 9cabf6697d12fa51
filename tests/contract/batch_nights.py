"""Nights for the tests of the batch: shards that were received, in a store and a place for objects."""

import functools
import os
import signal
from datetime import date
from pathlib import Path
from typing import Any

from shard_files import DAY, rows, write

from cloud.batch.score import Done, Failed, Task, score
from cloud.objects import Objects, fetch
from cloud.shards.form import Declared
from cloud.shards.intake import Intake
from cloud.store import Store

NIGHT = date.fromisoformat(DAY)


class Silent:
    """Nobody watches the progress; it is counted."""

    def __init__(self) -> None:
        self.rows = 0

    def begin(self, shards: int, rows: int) -> None:
        self.rows = -rows

    def advance(self, rows: int) -> None:
        self.rows += rows


def receive(store: Store, objects: Objects, folder: Path, given: list[dict[str, Any]], part: int = 1) -> Declared:
    """Hand a shard over without a server."""
    path = folder / "handing-over"
    declared = write(path, given, part)
    intake = Intake(store.pool, objects)
    intake.announce(declared)
    objects.put(declared.key, path)
    intake.finish(declared.sha256, declared.device)
    return declared


def night(store: Store, objects: Objects, folder: Path, shards: int, frames: int) -> list[Declared]:
    """A night of one device in several parts."""
    return [receive(store, objects, folder, rows(frames, first=n * frames + 1), part=n + 1) for n in range(shards)]


def verdicts(store: Store) -> list[tuple[Any, ...]]:
    sql = b"SELECT seq, label, agrees, mode, model_name, asked_at, picture_bytes FROM verdict ORDER BY seq"
    with store.pool.connection() as connection:
        return connection.execute(sql).fetchall()


def count(store: Store, table: str) -> int:
    with store.pool.connection() as connection:
        row = connection.execute(f"SELECT count(*) FROM {table}".encode()).fetchone()
    assert row is not None
    return int(row[0])


def file_of(objects: Objects, key: str, folder: Path) -> Path:
    fetch(objects, key, folder / "fetched.parquet")
    return folder / "fetched.parquet"


def score_but_die(task: Task, marks: str, times: int) -> Done | Failed:
    """Score, but the first worker on each of the first `times` tries of part 1 is killed in the middle of it."""
    if "part-0001" in task.shard:
        for n in range(times):
            try:
                (Path(marks) / str(n)).touch(exist_ok=False)
            except FileExistsError:
                continue
            os.kill(os.getpid(), signal.SIGKILL)
    return score(task)


def dying(marks: Path, times: int) -> Any:
    marks.mkdir()
    return functools.partial(score_but_die, marks=str(marks), times=times)
