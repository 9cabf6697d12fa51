"""Jobs in the store. Every method is one transaction; the statements are in rows.sql."""

import base64
import binascii
import json
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import psycopg
from psycopg.rows import DictRow, dict_row
from psycopg.types.json import Jsonb

from cloud.errors import Rejected, Retryable
from cloud.frame import About
from cloud.jobs import lifecycle
from cloud.jobs.lifecycle import Event, State
from cloud.store import verdicts
from cloud.store.sql import statements
from wire.records import ModelName, Score, Verdict

if TYPE_CHECKING:
    from cloud.store import Pool

QUEUE = "shelfwire"
CLASSIFY = "classify"
NOTIFY = "notify"
"""Names of the queue and of its two tasks."""

MOST_WAITING = 5_000
MOST_WAITING_BYTES = 2 * 1024**3
"""Beyond, new jobs are refused until the workers have caught up."""

WAIT_S = 5.0
STATEMENT_MS = 10_000

_SQL = {name: sql.encode() for name, sql in statements(Path(__file__).with_name("rows.sql")).items()}


@dataclass(frozen=True, slots=True)
class Submission:
    """A picture that has been checked from its header, and what its sender wishes; a device says what it is `about`."""

    picture: bytes
    sha256: bytes
    kind: str
    width: int
    height: int
    submitted_by: str
    key: str | None
    name: str
    callback: str | None
    email: str | None
    about: About | None = None


@dataclass(frozen=True, slots=True)
class JobRow:
    """A job as it stands; `result` is {label, known, score, top, prepare_ms, inference_ms}, `about` what
    `About.stored` writes, of a job that a device has sent."""

    id: UUID
    submitted_by: str
    idempotency_key: str | None
    state: State
    name: str
    sha256: bytes
    bytes: int
    kind: str
    width: int
    height: int
    callback: str | None
    email: str | None
    attempts: int
    error_code: str | None
    error_detail: str | None
    error_hint: str | None
    result: Mapping[str, object] | None
    model_name: str | None
    model_version: str | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    about: Mapping[str, object] | None


@dataclass(frozen=True, slots=True)
class NoticeRow:
    """A notice with what each attempt met: {attempt, at, code, detail, took_ms}."""

    id: UUID
    job: UUID
    way: str
    target: str
    state: str
    attempts: int
    created_at: datetime
    deliveries: Sequence[Mapping[str, object]]


@dataclass(frozen=True, slots=True)
class NoticeTry:
    """One attempt of a notice; `attempt` is its token."""

    id: UUID
    job: UUID
    way: str
    target: str
    attempt: int


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a job or an attempt did not succeed, and the cure."""

    code: str
    detail: str
    hint: str


@dataclass(frozen=True, slots=True)
class Found:
    """What a look at a picture gave. `result` is as in JobRow; the thumbnail is JPEG."""

    result: Mapping[str, Any]
    thumbnail: bytes
    model: ModelName
    runtime: str

    def verdict(self, about: About, now: datetime) -> Verdict:
        """Say it as an answer to the device that asked."""
        label = str(self.result["label"])
        return Verdict(
            device=about.device,
            run=about.run,
            seq=about.seq,
            camera=about.camera,
            frame=about.frame,
            captured_at=about.captured_at,
            mode="asynchronous",
            label=label,
            labels=tuple(Score(label=one["label"], score=one["score"]) for one in self.result["top"]),
            model=self.model,
            runtime=self.runtime,
            inference_ms=self.result["inference_ms"],
            answered_at=now,
            agrees=None if about.local_label is None else about.local_label == label,
        )


@dataclass(frozen=True, slots=True)
class Cursor:
    """The last job of a page: the next page starts after it."""

    created_at: datetime
    id: UUID

    def encode(self) -> str:
        """Write the cursor as text that is safe in an address."""
        text = json.dumps([self.created_at.isoformat(), str(self.id)])
        return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")

    @classmethod
    def decode(cls, text: str) -> "Cursor":
        """Read what `encode` wrote. Raises `Rejected` (``bad-cursor``)."""
        try:
            at, key = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
            moment = datetime.fromisoformat(at)
            if not moment.tzinfo:
                raise ValueError("not what encode writes")
            return cls(moment, UUID(key))
        except (ValueError, TypeError, AttributeError, binascii.Error, RecursionError, OverflowError) as error:
            hint = "take the cursor from `next` of the page before, or start without one"
            raise Rejected("bad-cursor", "the cursor is not one of ours", hint) from error


class Jobs:
    """Reads and writes jobs through the store's pool. Thread safe.

    Every method raises `psycopg.OperationalError` or `psycopg_pool.PoolTimeout` when the database is away.
    """

    def __init__(self, pool: "Pool") -> None:
        self._pool = pool

    # -- taking in and reading

    def accept(self, given: Submission) -> tuple[JobRow, bool]:
        """Take a job in: its row, its picture and its place in the queue in one transaction.

        Gives the job and whether it is new: a sender's key that was used for the same picture gives the job of then.
        Raises `Rejected` (``key-reused``) for another picture, `Retryable` (``queue-full``).
        """
        job = uuid4()
        values = {
            "id": job, "submitted_by": given.submitted_by, "key": given.key, "name": given.name,
            "sha256": given.sha256, "bytes": len(given.picture), "kind": given.kind, "width": given.width,
            "height": given.height, "callback": given.callback, "email": given.email, "picture": given.picture,
            "about": None if given.about is None else Jsonb(given.about.stored()),
        }  # fmt: skip
        with self._cursor() as cursor:
            new = cursor.execute(_SQL["accept"], values).fetchone() is not None
            if not new:
                found = cursor.execute(_SQL["by_key"], values).fetchone()
                if found is None:
                    raise Retryable("key-busy", "the job with this key was deleted just now", "send it again")
                row = self._one(cursor, found["id"])
                if row.sha256 != given.sha256:
                    raise Rejected(
                        "key-reused",
                        "this Idempotency-Key was used for another picture",
                        "make a new key for each picture; use the old one only to send the same picture again",
                    )
                return row, False
            _refuse_when_full(cursor)
            cursor.execute(_SQL["keep_picture"], values)
            _defer(cursor, CLASSIFY, 0, {"job": str(job)})
            _tell(cursor, job)
            return self._one(cursor, job), True

    def find(self, job: UUID) -> JobRow | None:
        """One job."""
        with self._cursor(reads=True) as cursor:
            row = cursor.execute(_SQL["job"], {"id": job}).fetchone()
        return JobRow(**row) if row else None

    def page(self, state: State | None, limit: int, after: Cursor | None) -> list[JobRow]:
        """At most `limit` jobs, the newest first, from after a cursor on."""
        at = {"at": after.created_at if after else None, "at_id": after.id if after else None}
        with self._cursor(reads=True) as cursor:
            rows = cursor.execute(_SQL["jobs"], {"state": state, "limit": limit, **at}).fetchall()
        return [JobRow(**row) for row in rows]

    def counts(self) -> dict[str, int]:
        """How many jobs are in each state."""
        with self._cursor(reads=True) as cursor:
            rows = cursor.execute(_SQL["counts"]).fetchall()
        return dict.fromkeys(lifecycle.STATES, 0) | {row["state"]: row["n"] for row in rows}

    def notices(self, jobs: Sequence[UUID]) -> dict[UUID, list[NoticeRow]]:
        """The notices of some jobs."""
        found: dict[UUID, list[NoticeRow]] = {job: [] for job in jobs}
        with self._cursor(reads=True) as cursor:
            for row in cursor.execute(_SQL["notices"], {"ids": list(jobs)}):
                found[row["job"]].append(NoticeRow(**row))
        return found

    def with_thumbnail(self, jobs: Sequence[UUID]) -> set[UUID]:
        """Those of some jobs that have a thumbnail."""
        with self._cursor(reads=True) as cursor:
            return {row["job"] for row in cursor.execute(_SQL["with_thumbnail"], {"ids": list(jobs)})}

    def thumbnail(self, job: UUID) -> bytes | None:
        """A job's thumbnail as JPEG, when a worker has made it and retention has not deleted it."""
        with self._cursor(reads=True) as cursor:
            row = cursor.execute(_SQL["thumbnail"], {"id": job}).fetchone()
        return bytes(row["thumbnail"]) if row and row["thumbnail"] is not None else None

    # -- running

    def start(self, job: UUID) -> JobRow | None:
        """Begin a run, counted; its token is the row's `attempts`. None when the job is over or gone."""
        with self._cursor() as cursor:
            values = {"id": job, "into": lifecycle.target("start"), "from": lifecycle.before("start")}
            row = cursor.execute(_SQL["start"], values).fetchone()
            if row is None:
                return None
            _tell(cursor, job)
            return JobRow(**row)

    def picture(self, job: UUID) -> bytes | None:
        """The picture as it came."""
        with self._cursor(reads=True) as cursor:
            row = cursor.execute(_SQL["picture"], {"id": job}).fetchone()
        return bytes(row["picture"]) if row else None

    def finish(self, job: UUID, attempt: int, found: Found) -> bool:
        """Write the result, the thumbnail, the notices and the device's verdict in one transaction.

        False when another run has taken over.
        """
        with self._cursor() as cursor:
            model = found.model
            values = {"result": Jsonb(found.result), "model_name": model.name, "model_version": model.version}
            moved = _move(cursor, job, attempt, "finish", values)
            if moved is None:
                return False
            cursor.execute(_SQL["keep_thumbnail"], {"id": job, "thumbnail": found.thumbnail})
            if moved["about"] is not None:
                verdict = found.verdict(About.restored(moved["about"]), datetime.now(UTC))
                verdicts.keep(cursor, [verdicts.Kept(verdict, moved["created_at"], moved["bytes"])])
            return True

    def stop(self, job: UUID, attempt: int, event: Event, fault: Fault) -> bool:
        """Refuse, postpone or bury a job with the reason. False when another run has taken over."""
        with self._cursor() as cursor:
            values = {"code": fault.code, "detail": fault.detail, "hint": fault.hint}
            return _move(cursor, job, attempt, event, values) is not None

    # -- notices

    def start_notice(self, notice: UUID) -> NoticeTry | None:
        """Begin an attempt to tell; None when that is over."""
        with self._cursor() as cursor:
            row = cursor.execute(_SQL["start_notice"], {"notice": notice}).fetchone()
        return NoticeTry(row["id"], row["job"], row["way"], row["target"], row["attempts"]) if row else None

    def end_notice(self, tried: NoticeTry, into: str, code: str, detail: str, took_ms: float) -> None:
        """Log an attempt; `into` is sent, dead, or waiting when another follows."""
        with self._cursor() as cursor:
            values = {
                "notice": tried.id, "attempt": tried.attempt, "code": code, "detail": detail[:500],
                "took_ms": took_ms, "into": into,
            }  # fmt: skip
            cursor.execute(_SQL["log_delivery"], values)
            if into != "waiting":
                cursor.execute(_SQL["end_notice"], values)
            _tell(cursor, tried.job)

    def secret(self) -> str:
        """The secret that signs webhooks (``whsec_...``), made when it is first asked for."""
        made = "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()
        with self._cursor() as cursor:
            cursor.execute(_SQL["offer_secret"], {"secret": made})
            row = cursor.execute(_SQL["secret"]).fetchone()
        assert row is not None
        return str(row["secret"])

    # -- retention

    def forget(self, pictures_older_s: float, jobs_older_s: float) -> tuple[int, int]:
        """Delete pictures and jobs that were finished so long ago; gives how many of each."""
        with self._cursor() as cursor:
            over = list(lifecycle.OVER)
            pictures = cursor.execute(_SQL["forget_pictures"], {"over": over, "older_s": pictures_older_s}).rowcount
            jobs = cursor.execute(_SQL["forget_jobs"], {"over": over, "older_s": jobs_older_s}).rowcount
        return pictures, jobs

    def _one(self, cursor: psycopg.Cursor[DictRow], job: UUID) -> JobRow:
        row = cursor.execute(_SQL["job"], {"id": job}).fetchone()
        assert row is not None
        return JobRow(**row)

    @contextmanager
    def _cursor(self, *, reads: bool = False) -> Iterator[psycopg.Cursor[DictRow]]:
        """Lend a cursor in a transaction whose statements end in time."""
        with self._pool.connection(timeout=WAIT_S) as connection, connection.transaction():
            mode = "SET TRANSACTION READ ONLY; " if reads else ""
            connection.execute(f"{mode}SET LOCAL statement_timeout = {STATEMENT_MS}".encode())
            with connection.cursor(row_factory=dict_row) as cursor:
                yield cursor


def _move(
    cursor: psycopg.Cursor[DictRow], job: UUID, attempt: int, event: Event, values: Mapping[str, object]
) -> DictRow | None:
    """Let an event happen; when the job is over now, its notices go into the queue in the same transaction.

    Gives who wants to hear of it, None when another run has taken over.
    """
    into = lifecycle.target(event)
    over = into in lifecycle.OVER
    nothing = dict.fromkeys(("code", "detail", "hint", "result", "model_name", "model_version"))
    known = {"id": job, "attempt": attempt, "into": into, "from": lifecycle.before(event), "over": over}
    row = cursor.execute(_SQL["move"], {**nothing, **values, **known}).fetchone()
    if row is None:
        return None
    if over:
        for way, target in (("webhook", row["callback"]), ("email", row["email"])):
            if target is not None:
                notice = uuid4()
                cursor.execute(_SQL["add_notice"], {"notice": notice, "id": job, "way": way, "target": target})
                _defer(cursor, NOTIFY, 0, {"notice": str(notice)})
    _tell(cursor, job)
    return row


def _defer(cursor: psycopg.Cursor[DictRow], task: str, priority: int, args: Mapping[str, str]) -> None:
    values = {"queue": QUEUE, "task": task, "priority": priority, "args": json.dumps(args)}
    cursor.execute(_SQL["defer"], values)


def _tell(cursor: psycopg.Cursor[DictRow], job: UUID) -> None:
    """Tell the pages, when the transaction commits."""
    cursor.execute(_SQL["tell"], {"told": json.dumps({"device": None, "what": ["jobs"], "job": str(job)})})


def _refuse_when_full(cursor: psycopg.Cursor[DictRow]) -> None:
    row = cursor.execute(_SQL["waiting"], {"open": list(lifecycle.OPEN)}).fetchone()
    assert row is not None
    if row["jobs"] > MOST_WAITING or row["bytes"] > MOST_WAITING_BYTES:
        raise Retryable(
            "queue-full",
            f"{row['jobs']} jobs wait already",
            "send it again later; start more workers with shelfwire-cloud worker",
        )
