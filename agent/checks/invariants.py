"""With --deep: the invariants of ARCHITECTURE.md that can be seen on the device, and the file itself."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import apsw

from agent.checks.context import Context
from agent.checks.finding import Finding, fine, skipped, wrong
from agent.checks.runner import Check
from agent.checks.words import many
from agent.errors import ShelfwireError
from agent.store.database import one
from agent.store.outside import reading
from agent.store.spool import FOLDER, ORPHAN_S, SUFFIX

SPARE_S = 0.5
"""What is kept back of the check's time, to say how far it came."""

BATCH_FOLDER = "batch"
"""As in `agent.store.batch`, which loads what it takes to write such files."""

PROGRESS_STEPS = 5_000
"""Instructions of SQLite between two looks at the clock: well under a millisecond."""

KINDS = """
SELECT kind, coalesce(sum(state = 0), 0), coalesce(sum(state = 2), 0) FROM outbox GROUP BY kind
"""
TALLIES = "SELECT lane, count(*), coalesce(sum(bytes), 0) FROM outbox WHERE state = 0 GROUP BY lane"
PICTURES = "SELECT count(*), coalesce(sum(picture_bytes), 0) FROM outbox WHERE picture IS NOT NULL"
HOMELESS = """
SELECT count(*) FROM outbox WHERE kind = 'frame' AND state = 0 AND picture IS NULL AND shard IS NULL
"""
FILES = "SELECT picture, picture_bytes FROM outbox WHERE picture IS NOT NULL AND shard IS NULL"
FILE = "SELECT 1 FROM outbox WHERE picture = ? AND shard IS NULL"
SHARDS = "SELECT file, bytes FROM shard"
SHARD = "SELECT 1 FROM shard WHERE file = ?"


def check(context: Context) -> Iterator[Finding]:
    """Look through the store; nothing is said without --deep."""
    if not context.deep:
        return
    until_s = time.monotonic() + context.patience_s - SPARE_S
    try:
        with reading(context.state_dir) as db:
            db.set_progress_handler(lambda: time.monotonic() > until_s, PROGRESS_STEPS)
            yield from _all(context, db)
    except ShelfwireError as error:
        if "nterrupt" in str(error):
            yield skipped("outbox", "deep check", "the store is large: give it more time, --patience 60")
        else:
            yield skipped("outbox", "deep check", str(error))


def _all(context: Context, db: apsw.Connection) -> Iterator[Finding]:
    """Give what is wrong; one line when nothing is."""
    db.execute("BEGIN")  # one moment for all questions
    found = [*_books(db), *_rows(db)]
    db.execute("COMMIT")
    found += _files(context, db)
    yield from found
    if not found:
        yield fine("outbox", "invariants 2, 3, 5, 13 and 14 hold")
    # Last, for it takes the longest.
    answer = str(one(db, "PRAGMA integrity_check(1)"))
    yield fine("outbox", "the store's file is whole") if answer == "ok" else wrong("outbox", "BOX-2", answer[:200])


def _books(db: apsw.Connection) -> Iterator[Finding]:
    """Invariants 1 and 3: the counters say what the rows say."""
    counters = {str(name): int(n) for name, n in db.execute("SELECT name, n FROM counter")}
    rows = {str(kind): (int(ready), int(dead)) for kind, ready, dead in db.execute(KINDS)}
    kinds = {name.removesuffix(":produced") for name in counters if name.endswith(":produced")} | set(rows)
    for kind in sorted(kinds):
        ready, dead = rows.get(kind, (0, 0))
        dropped = sum(n for name, n in counters.items() if name.startswith(f"{kind}:dropped:"))
        ends = counters.get(f"{kind}:delivered", 0) + ready + dead + dropped
        produced = counters.get(f"{kind}:produced", 0)
        if produced != ends:
            yield wrong("outbox", "BOX-8", f"{many(produced, kind)} made, {ends:,} accounted for (invariant 3)")
    tallied = {int(lane): (int(n), int(size)) for lane, n, size in db.execute(TALLIES)}
    for lane in {*tallied, *(int(name[5:]) for name in counters if name.startswith("rows:"))}:
        said = (counters.get(f"rows:{lane}", 0), counters.get(f"bytes:{lane}", 0))
        if said != tallied.get(lane, (0, 0)):
            yield wrong(
                "outbox", "BOX-8", f"lane {lane}: {said} rows and bytes counted, {tallied.get(lane, (0, 0))} there"
            )
    pictures = tuple(int(n) for n in next(iter(db.execute(PICTURES))))
    counted = (counters.get("pictures:files", 0), counters.get("pictures:bytes", 0))
    if pictures != counted:
        yield wrong("outbox", "BOX-8", f"pictures: {counted} files and bytes counted, {pictures} there")


def _rows(db: apsw.Connection) -> Iterator[Finding]:
    """Invariants 5 and 14: every row has its run, every frame its picture."""
    if list(db.execute("PRAGMA foreign_key_check")):
        yield wrong("outbox", "BOX-8", "rows without their run or file (invariant 5)")
    homeless = int(one(db, HOMELESS))
    if homeless:
        yield wrong("outbox", "BOX-9", f"{many(homeless, 'frame')} without a picture (invariant 14)")


def _files(context: Context, db: apsw.Connection) -> Iterator[Finding]:
    """Invariants 13 and 14: what the rows speak of lies on the disk.

    The agent goes on meanwhile. A row goes before its file, so a file counts as missing only while its row is there.
    """
    wanted = {str(name): int(size) for name, size in db.execute(FILES)}
    there, old = _listing(context)
    missing = [name for name, size in wanted.items() if there.get(name) != size and _has_row(db, name)]
    if missing:
        yield wrong("outbox", "BOX-9", f"{many(len(missing), 'picture')} missing or cut (invariant 14): {missing[0]}")
    orphans = [name for name in old if name not in wanted and not _has_row(db, name)]
    if orphans:
        yield wrong("outbox", "BOX-10", many(len(orphans), "file"))
    for name, size in list(db.execute(SHARDS)):
        if _size(context.state_dir / BATCH_FOLDER / str(name)) != size and list(db.execute(SHARD, (name,))):
            yield wrong("outbox", "BOX-9", f"the night's file {name} is missing or cut (invariant 13)")


def _has_row(db: apsw.Connection, name: str) -> bool:
    return bool(list(db.execute(FILE, (name,))))


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None


def _listing(context: Context) -> tuple[dict[str, int], list[str]]:
    """Give the spool's files with their sizes in bytes, and the names of those old enough to need a row."""
    there: dict[str, int] = {}
    old = []
    try:
        with os.scandir(context.state_dir / FOLDER) as entries:
            for entry in entries:
                status = entry.stat()
                there[entry.name] = status.st_size
                if entry.name.endswith(SUFFIX) and time.time() - status.st_mtime > ORPHAN_S:
                    old.append(entry.name)
    except OSError:
        pass
    return there, old


CHECK = Check(
    "invariants", "outbox", "with --deep: the store's invariants, the file itself", check, "BOX-3", quick=False
)
