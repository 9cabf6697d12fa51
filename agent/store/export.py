"""A readable copy of the outbox for people and their tools: a new SQLite file, JSON lines or CSV.

The live store is read by the library that writes it (`agent.store.outside` says why); sqlite-utils writes the new
file only, and is loaded here alone, for it takes long and much memory.
"""

import contextlib
import csv
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw

from agent.errors import Broken, Rejected
from agent.store.browse import Filter, Record, everything
from agent.store.outside import reading

SUFFIXES = (".db", ".jsonl", ".csv")
BATCH_ROWS = 500

NAMES = (
    "seq", "run", "state", "lane", "kind", "camera", "captured_at", "clock", "boot_ns", "boot", "bytes", "picture",
    "picture_bytes", "sealed_in", "refusals", "error", "body",
)  # fmt: skip
NUMBERS = ("seq", "boot_ns", "bytes", "picture_bytes", "sealed_in", "refusals")

Row = dict[str, Any]


def export(folder: Path, target: Path, wanted: Filter) -> int:
    """Write the records of a filter into a new file, readable by this user alone; gives how many.

    The file appears under its name when it is whole. Raises `Rejected`: ``export-kind``, ``export-exists``; `Broken`:
    ``export-failed``, and what reading the store raises.
    """
    write = {".db": _write_db, ".jsonl": _write_jsonl, ".csv": _write_csv}.get(target.suffix)
    if write is None:
        raise Rejected("export-kind", f"{target.name} does not say what to write",
                       f"end the name in {', '.join(SUFFIXES)}")  # fmt: skip
    if os.path.lexists(target):
        raise Rejected("export-exists", f"{target} is there already, and is not overwritten", "give another name")
    with tempfile.TemporaryDirectory(prefix=".shelfwire-export-", dir=_folder_of(target)) as beside:
        fresh = Path(beside) / target.name
        with reading(folder) as db:
            db.execute("BEGIN")
            with _trouble(target):
                fresh.touch(0o600)
                written = write(fresh, (_row(record, said) for record, said in everything(db, wanted)), db)
        with _trouble(target):
            _give_name(fresh, target)
    return written


def _folder_of(target: Path) -> Path:
    folder = target.parent
    if not os.access(folder, os.W_OK | os.X_OK):
        raise Broken("export-failed", f"{folder} is no folder that this user may write to", "name another folder")
    return folder


@contextlib.contextmanager
def _trouble(target: Path) -> Iterator[None]:
    """Say in our words what goes wrong with the new file, before anybody takes it for trouble of the store."""
    try:
        yield
    except OSError as error:
        raise Broken("export-failed", f"{target} cannot be written: {error.strerror or error}",
                     "name a folder that this user may write to, with free space") from None  # fmt: skip


def _give_name(fresh: Path, target: Path) -> None:
    """Never over a file that has come meanwhile, where the file system can promise that; a memory stick cannot."""
    try:
        os.link(fresh, target)
    except FileExistsError:
        raise
    except OSError:
        fresh.rename(target)


def _row(record: Record, said: dict[str, Any]) -> Row:
    more = {"boot_ns": record.captured.boot_ns, "boot": record.boot_id, "sealed_in": record.shard, "body": said}
    row = record.told() | more
    return {name: row[name] for name in NAMES}


def _write_jsonl(path: Path, rows: Iterator[Row], _db: apsw.Connection) -> int:
    written = 0
    with path.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, separators=(",", ":")) + "\n")
            written += 1
    return written


def _write_csv(path: Path, rows: Iterator[Row], _db: apsw.Connection) -> int:
    """Write a table for a spreadsheet: the body stays JSON, in the last column."""
    written = 0
    with path.open("w", encoding="utf-8", newline="") as file:
        out = csv.DictWriter(file, NAMES)
        out.writeheader()
        for row in rows:
            out.writerow({**row, "body": json.dumps(row["body"], separators=(",", ":"))})
            written += 1
    return written


def _write_db(path: Path, rows: Iterator[Row], db: apsw.Connection) -> int:
    """Write tables that anybody can query: records, runs, counters, sealed files."""
    import sqlite_utils
    from sqlite_utils.utils import OperationalError

    fresh = sqlite_utils.Database(str(path))
    try:
        table = fresh.table("record")
        table.create({name: int if name in NUMBERS else str for name in NAMES}, pk="seq")
        table.insert_all(rows, batch_size=BATCH_ROWS)
        for name in ("run", "counter", "shard"):
            columns = [str(row[0]) for row in db.execute("SELECT name FROM pragma_table_info(?)", (name,))]
            fresh.table(name).insert_all(
                dict(zip(columns, row, strict=True))
                for row in db.execute(f"SELECT * FROM {name}")  # noqa: S608 - ours
            )
        return int(table.count)
    except OperationalError as error:
        raise OSError(str(error)) from None
    finally:
        fresh.close()
