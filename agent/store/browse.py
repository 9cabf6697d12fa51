"""Records of the outbox as a person looks at them: which there are, what one says, why it failed. Reads only."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import apsw

from agent.core.records import moment
from agent.ports import Lane, Stamp
from agent.store.database import one
from agent.store.outside import reading

State = Literal["waiting", "sealed", "dead"]

_TEXT = "iif(json_valid(CAST(body AS TEXT)), CAST(body AS TEXT), '{}')"
"""The body for SQLite's JSON functions, which take a blob for a JSON of their own kind."""

_COLUMNS = (
    "seq, run_id, boot_id, kind, lane, state, refusals, wall_ns, boot_ns, clock, bytes, coalesce(error, ''),"
    " coalesce(picture, ''), picture_bytes, shard, agent_version,"
    f" json_extract({_TEXT}, '$.camera'), json_extract({_TEXT}, '$.rule')"
)


@dataclass(frozen=True, slots=True)
class Record:
    """One record without its body. `size_bytes` is the body's, `picture` the file's name in the spool or empty."""

    seq: int
    run_id: str
    boot_id: str
    kind: str
    lane: Lane
    state: State
    refusals: int
    captured: Stamp
    clock: str
    size_bytes: int
    error: str
    picture: str
    picture_bytes: int
    shard: int | None
    agent_version: str
    camera: str
    rule: str

    def age_s(self, now: Stamp, boot: str) -> float | None:
        """How long ago it was captured; None when no clock can tell: another boot, and a wall clock unsure then."""
        if boot and self.boot_id == boot and self.captured.boot_ns <= now.boot_ns:
            return (now.boot_ns - self.captured.boot_ns) / 1e9
        return max(0.0, (now.wall_ns - self.captured.wall_ns) / 1e9) if self.clock == "synced" else None

    def told(self) -> dict[str, Any]:
        """What is told of it in JSON."""
        return {
            "seq": self.seq,
            "run": self.run_id,
            "state": self.state,
            "lane": self.lane.name.lower(),
            "kind": self.kind,
            "camera": self.camera or None,
            "captured_at": moment(self.captured.wall_ns),
            "clock": self.clock,
            "bytes": self.size_bytes,
            "picture": self.picture or None,
            "picture_bytes": self.picture_bytes,
            "refusals": self.refusals,
            "error": self.error or None,
        }


@dataclass(frozen=True, slots=True)
class Filter:
    """Which records: those of all that are given; `error` is a code, or the beginning of one."""

    state: Literal["waiting", "dead"] | None = None
    lane: Lane | None = None
    kind: str | None = None
    camera: str | None = None
    error: str | None = None
    after: int = 0

    def sql(self) -> tuple[str, tuple[str | int, ...]]:
        """Give the condition and its values."""
        parts: list[tuple[str, str | int | None]] = [
            ("state = ?", {None: None, "waiting": 0, "dead": 2}[self.state]),
            ("lane = ?", None if self.lane is None else int(self.lane)),
            ("kind = ?", self.kind),
            (f"json_extract({_TEXT}, '$.camera') = ?", self.camera),
            ("instr(error, ?) = 1", self.error),
            ("seq > ?", self.after),
        ]
        given = [(text, value) for text, value in parts if value is not None]
        return " AND ".join(text for text, _ in given), tuple(value for _, value in given)


@dataclass(frozen=True, slots=True)
class LaneSummary:
    """What lies in one lane."""

    lane: Lane
    waiting: int
    waiting_bytes: int
    dead: int


@dataclass(frozen=True, slots=True)
class Page:
    """One look: how much there is by lane, how many match the filter, and the first of these."""

    lanes: tuple[LaneSummary, ...]
    errors: tuple[tuple[str, int], ...]
    """Why dead letters were set aside, the most frequent first."""
    matching: int
    records: tuple[Record, ...]


def page(folder: Path, wanted: Filter, limit: int) -> Page:
    """Look at one moment. Raises `Broken` as `agent.store.outside.reading` does."""
    where, values = wanted.sql()
    with reading(folder) as db:
        db.execute("BEGIN")
        errors: list[Any] = db.execute(
            "SELECT coalesce(error, ''), count(*) FROM outbox WHERE state = 2 GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT 20"
        ).fetchall()
        return Page(
            tuple(_lanes(db)),
            tuple(errors),
            int(one(db, f"SELECT count(*) FROM outbox WHERE {where}", *values)),  # noqa: S608
            tuple(_records(db, where, (*values, limit), "LIMIT ?")),
        )


def _lanes(db: apsw.Connection) -> Iterator[LaneSummary]:
    counters = {str(name): int(n) for name, n in db.execute("SELECT name, n FROM counter")}
    dead: dict[Any, Any] = dict(
        db.execute("SELECT lane, count(*) FROM outbox WHERE state = 2 GROUP BY lane").fetchall()  # type: ignore[arg-type]
    )
    for lane in Lane:
        yield LaneSummary(
            lane,
            counters.get(f"rows:{int(lane)}", 0),
            counters.get(f"bytes:{int(lane)}", 0),
            int(dead.get(int(lane), 0)),
        )


def _records(db: apsw.Connection, where: str, values: Sequence[str | int], tail: str = "") -> Iterator[Record]:
    found = db.execute(
        f"SELECT {_COLUMNS} FROM outbox JOIN run USING (run) WHERE {where} ORDER BY seq {tail}",  # noqa: S608
        tuple(values),
    )
    return map(_record, found)


def _record(row: Sequence[Any]) -> Record:
    (seq, run_id, boot_id, kind, lane, state, refusals, wall_ns, boot_ns, clock, size_bytes, error, picture,
     picture_bytes, shard, version, camera, rule) = row  # fmt: skip
    says: State = "dead" if state == 2 else "waiting" if shard is None else "sealed"
    return Record(
        seq, run_id, boot_id, kind, Lane(lane), says, refusals, Stamp(wall_ns, boot_ns), clock, size_bytes, error,
        picture, picture_bytes, shard, version, str(camera or ""), str(rule or ""),
    )  # fmt: skip


def find(folder: Path, seq: int) -> tuple[Record, dict[str, Any]] | None:
    """Give one record and what it says; None when there is none. Raises as `page` does."""
    with reading(folder) as db:
        db.execute("BEGIN")
        record = next(_records(db, "seq = ?", (seq,)), None)
        if record is None:
            return None
        return record, _body(one(db, "SELECT body FROM outbox WHERE seq = ?", seq))


def newest(folder: Path) -> int:
    """Give the highest sequence number ever given out; 0 when there is none."""
    with reading(folder) as db:
        return int(one(db, "SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'outbox'"))


def everything(db: apsw.Connection, wanted: Filter) -> Iterator[tuple[Record, dict[str, Any]]]:
    """Give all records of a filter with what they say, one after another, on a connection of the caller's."""
    where, values = wanted.sql()
    found = db.execute(
        f"SELECT {_COLUMNS}, body FROM outbox JOIN run USING (run) WHERE {where} ORDER BY seq",  # noqa: S608
        values,
    )
    for *row, body in found:
        yield _record(row), _body(body)


def _body(body: bytes) -> dict[str, Any]:
    """Read a body; one that is no JSON object is shown as it is, for that is what somebody must see."""
    try:
        said = json.loads(body)
    except ValueError:
        return {"unreadable": body.decode(errors="replace")}
    return said if isinstance(said, dict) else {"unreadable": said}


def books(folder: Path) -> tuple[dict[str, int], dict[str, str]]:
    """Give all counters and all facts of the store. Raises as `page` does."""
    with reading(folder) as db:
        db.execute("BEGIN")
        counters = {str(name): int(str(n)) for name, n in db.execute("SELECT name, n FROM counter ORDER BY name")}
        facts = {str(name): str(value) for name, value in db.execute("SELECT name, value FROM fact ORDER BY name")}
        return counters, facts
