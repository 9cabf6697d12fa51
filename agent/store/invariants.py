"""Whether the store is what ARCHITECTURE.md says that it must be at any moment; reads only, the daemons may run.

`shelfwire-agent outbox check` and `doctor --deep` show what is found.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import apsw

from agent.core import tallies
from agent.ports import Lane
from agent.store import batch, spool
from agent.store.database import APPLICATION_ID, SCHEMAS, VERSION, one
from agent.store.outside import reading

MOST_DAMAGES = 5
"""Lines of SQLite's own check that are shown."""

BOOKS = "report it with a support bundle; nothing is lost by it, but a figure of `status` is wrong"
REPLACE = "stop vision and sync and start them again: vision moves a damaged file aside, never deletes it, and goes on"


@dataclass(frozen=True, slots=True)
class Flaw:
    """One thing that is not as it must be. `rule` is the number of the invariant in ARCHITECTURE.md, or what broke."""

    code: str
    rule: str
    text: str
    cure: str


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that is looked at: its name for people, and the look."""

    name: str
    look: Callable[[apsw.Connection, Path], Iterator[Flaw]]


def check(folder: Path, *, thorough: bool = True) -> list[tuple[str, list[Flaw]]]:
    """Look at everything at one moment; gives each check's name with the flaws found, none of them when it is sound.

    `thorough` reads every page of the file (0.2 s per 100 MB); without, SQLite is asked for a quick check.
    Raises `Broken`: ``no-store``, ``store-permission``, ``store-unreadable``, ``disk-full``.
    """
    damage = Check("the file is sound", _integrity if thorough else _quick)
    with reading(folder) as db:
        db.execute("BEGIN")
        found: list[tuple[str, list[Flaw]]] = []
        for item in (damage, *CHECKS):
            found.append((item.name, _looked(item, db, folder)))
            if item in (damage, _SCHEMA) and found[-1][1]:
                break  # in a file that is broken, or none of ours, the rest says nothing
    return [(name, [f for f in flaws if f.code != "picture-missing" or _still_missing(folder, f)])
            for name, flaws in found]  # fmt: skip


def _looked(item: Check, db: apsw.Connection, folder: Path) -> list[Flaw]:
    try:
        return list(item.look(db, folder))
    except (apsw.CorruptError, apsw.NotADBError) as error:
        return [Flaw("store-damaged", "file", f"SQLite says: {error}", REPLACE)]


def flaws(folder: Path, *, thorough: bool = True) -> list[Flaw]:
    """Give only what is wrong, as `check` finds it."""
    return [flaw for _, some in check(folder, thorough=thorough) for flaw in some]


def _integrity(db: apsw.Connection, _folder: Path) -> Iterator[Flaw]:
    return _damage(db, f"PRAGMA integrity_check({MOST_DAMAGES})")


def _quick(db: apsw.Connection, _folder: Path) -> Iterator[Flaw]:
    return _damage(db, f"PRAGMA quick_check({MOST_DAMAGES})")


def _damage(db: apsw.Connection, question: str) -> Iterator[Flaw]:
    for (answer,) in db.execute(question):
        if answer != "ok":
            yield Flaw("store-damaged", "file", f"SQLite says: {answer}", REPLACE)


def _schema(db: apsw.Connection, _folder: Path) -> Iterator[Flaw]:
    """Compare with the tables that this version would make; an older file is brought forward at the next start."""
    if one(db, "PRAGMA application_id") != APPLICATION_ID:
        yield Flaw("store-foreign", "file", "this is no outbox of ours", "name another state_dir")
        return
    version = int(one(db, "PRAGMA user_version"))
    if version != VERSION:
        cure = "start vision once: it brings an older file forward; for a newer file install the newer agent again"
        yield Flaw("store-version", "file", f"the file has version {version}, this agent has {VERSION}", cure)
        return
    there, meant = _tables(db), _tables(_fresh())
    for name in sorted(meant.keys() | there.keys()):
        if there.get(name) != meant.get(name):
            what = "is missing" if name not in there else "is not ours" if name not in meant else "was altered"
            yield Flaw("store-schema", "file", f"{name} {what}", REPLACE)


def _fresh() -> apsw.Connection:
    fresh = apsw.Connection(":memory:")
    for name in SCHEMAS:
        fresh.execute(resources.files("agent.store").joinpath(name).read_text())
    return fresh


def _tables(db: apsw.Connection) -> dict[str, str]:
    found = db.execute("SELECT type || ' ' || name, sql FROM sqlite_schema WHERE name NOT LIKE 'sqlite_%'")
    return {str(name): str(sql) for name, sql in found}


def _references(db: apsw.Connection, _folder: Path) -> Iterator[Flaw]:
    broken = Counter(str(table) for table, *_ in db.execute("PRAGMA foreign_key_check"))
    for table, n in broken.items():
        yield Flaw("store-references", "5", f"{n} rows of {table} speak of rows that are not there", REPLACE)
    highest = int(one(db, "SELECT coalesce(max(seq), 0) FROM outbox"))
    given = int(one(db, "SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'outbox'"))
    if highest > given:
        text = f"number {highest} is in use, but {given} is the last one given out: numbers could be used twice"
        yield Flaw("store-sequence", "5", text, REPLACE)


def _counters(db: apsw.Connection) -> Counter[str]:
    return Counter({str(name): int(n) for name, n in db.execute("SELECT name, n FROM counter")})


def _frames(db: apsw.Connection, _folder: Path) -> Iterator[Flaw]:
    frames = tallies.frames(_counters(db))
    told = frames.classified + frames.serverless + frames.deferred + sum(frames.dropped.values())
    if frames.captured != told:
        text = f"{frames.captured:,} frames were captured, but the fate of {told:,} is counted"
        yield Flaw("books-frames", "2", text, BOOKS)


def _records(db: apsw.Connection, _folder: Path) -> Iterator[Flaw]:
    counters = _counters(db)
    rows: dict[tuple[str, int], int] = {
        (str(kind), int(state)): int(n)
        for kind, state, n in db.execute("SELECT kind, state, count(*) FROM outbox GROUP BY kind, state")
    }
    kinds = {kind for kind, _ in rows} | {name.partition(":")[0] for name in counters if name.endswith(":produced")}
    for kind in sorted(kinds):
        waiting, dead = rows.get((kind, 0), 0), rows.get((kind, 2), 0)
        delivered = counters[f"{kind}:delivered"]
        dropped = sum(n for name, n in counters.items() if name.startswith(f"{kind}:dropped:"))
        produced = counters[f"{kind}:produced"]
        if produced != delivered + waiting + dead + dropped:
            text = (f"of {produced:,} records of kind {kind}, {delivered:,} were delivered, {waiting:,} wait,"
                    f" {dead:,} are dead letters and {dropped:,} were dropped: that is not all of them")  # fmt: skip
            yield Flaw("books-records", "3", text, BOOKS)
    if counters["alert:dropped:evicted"]:
        text = f"{counters['alert:dropped:evicted']:,} alerts were thinned out"
        yield Flaw("books-alerts", "4", text, BOOKS)
    below = sorted(name for name, n in counters.items() if n < 0)
    if below:
        yield Flaw("books-negative", "1", f"counted below nothing: {', '.join(below)}", BOOKS)


def _lanes(db: apsw.Connection, _folder: Path) -> Iterator[Flaw]:
    counters = _counters(db)
    rows = {
        int(lane): (int(n), int(size_bytes))
        for lane, n, size_bytes in db.execute(
            "SELECT lane, count(*), sum(bytes) FROM outbox WHERE state = 0 GROUP BY lane"
        )
    }
    for lane in Lane:
        there, told = rows.get(lane, (0, 0)), (counters[f"rows:{int(lane)}"], counters[f"bytes:{int(lane)}"])
        if there != told:
            text = f"lane {lane.name.lower()}: {there[0]:,} records wait ({there[1]:,} B)"
            text += f", {told[0]:,} ({told[1]:,} B) are counted"
            yield Flaw("books-lanes", "3", text, BOOKS)
    wrong = int(one(db, "SELECT count(*) FROM outbox WHERE bytes <> length(body)"))
    if wrong:
        yield Flaw("books-sizes", "3", f"{wrong:,} records have another size than is noted with them", BOOKS)


def _pictures(db: apsw.Connection, folder: Path) -> Iterator[Flaw]:
    counters = _counters(db)
    count, size_bytes = db.execute(
        "SELECT count(*), coalesce(sum(picture_bytes), 0) FROM outbox WHERE picture IS NOT NULL"
    ).fetchall()[0]
    told = (counters["pictures:files"], counters["pictures:bytes"])
    if (count, size_bytes) != told:
        text = f"{count:,} pictures wait ({size_bytes:,} B), {told[0]:,} ({told[1]:,} B) are counted"
        yield Flaw("books-pictures", "14", text, BOOKS)
    bare = int(one(db, "SELECT count(*) FROM outbox WHERE kind = 'frame' AND state = 0 AND picture IS NULL"))
    if bare:
        yield Flaw("frame-bare", "14", f"{bare:,} frames wait without a picture", BOOKS)
    yield from _missing(db, folder)
    yield from _orphans(db, folder)


def _missing(db: apsw.Connection, folder: Path) -> Iterator[Flaw]:
    lie = {entry.name for entry in _files(folder / spool.FOLDER)}
    for seq, name in db.execute("SELECT seq, picture FROM outbox WHERE picture IS NOT NULL AND shard IS NULL"):
        if name not in lie:
            cure = "check the disk; the record is set aside when its turn comes"
            yield Flaw("picture-missing", "14", f"record {seq} has no picture {name} in the spool", cure)


def _still_missing(folder: Path, flaw: Flaw) -> bool:
    """Look again: the record may have been delivered, with its picture, since this look began."""
    seq, name = int(flaw.text.split()[1]), flaw.text.split()[5]
    with reading(folder) as db:
        there = db.execute("SELECT 1 FROM outbox WHERE seq = ? AND picture = ? AND shard IS NULL", (seq, name))
        return there.fetchone() is not None and not (folder / spool.FOLDER / name).exists()


def _orphans(db: apsw.Connection, folder: Path) -> Iterator[Flaw]:
    """Files without a row are swept by vision ten minutes after they were written; older ones show that it does not."""
    have = {str(name) for (name,) in db.execute("SELECT picture FROM outbox WHERE picture IS NOT NULL")}
    oldest_s = time.time() - 3 * spool.ORPHAN_S
    stray = [entry for entry in _files(folder / spool.FOLDER) if entry.name not in have]
    late = [entry for entry in stray if 0 < _mtime_s(entry) < oldest_s]
    if late:
        text = f"{len(late):,} files lie in the spool without a record"
        yield Flaw("spool-orphans", "14", text, "start vision: it sweeps them away within an hour")


def _mtime_s(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _files(folder: Path) -> list[Path]:
    try:
        return [path for path in folder.iterdir() if path.is_file()]
    except OSError:
        return []


def _night(db: apsw.Connection, folder: Path) -> Iterator[Flaw]:
    found: list[Any] = db.execute(
        "SELECT shard, file, rows, bytes, (SELECT count(*) FROM outbox WHERE outbox.shard = shard.shard) FROM shard"
    ).fetchall()
    for shard, file, rows, size_bytes, there in found:
        if rows != there:
            yield Flaw(
                "shard-rows", "13", f"sealed file {shard} holds {rows:,} frames, {there:,} records name it", BOOKS
            )
        path = folder / batch.FOLDER / file
        try:
            size = path.stat().st_size
        except OSError:
            size = -1
        if size != size_bytes:
            what = "is missing" if size < 0 else f"has {size:,} B instead of {size_bytes:,} B"
            cure = "check the disk; sync sets a damaged file aside and its frames with it"
            yield Flaw("shard-file", "13", f"{path} {what}", cure)


_SCHEMA = Check("the tables are this version's", _schema)
CHECKS = (
    _SCHEMA,
    Check("rows and numbers fit together", _references),
    Check("every captured frame has its fate", _frames),
    Check("every record is delivered, waits, is dead or was dropped", _records),
    Check("the lanes' figures are what their rows say", _lanes),
    Check("every waiting picture lies in the spool", _pictures),
    Check("every sealed file of the night is there", _night),
)
"""What is looked at after the file itself, in this order."""
