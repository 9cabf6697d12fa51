"""What the pages and the API read from the store. Every method is one or two statements, none of them writes."""

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from psycopg.rows import scalar_row

from cloud.errors import Rejected
from cloud.store.reading import Reading
from cloud.store.sql import statements

NEAR = timedelta(minutes=5)
"""How far apart the answers of one picture may be dated: a device's clock may be set between two of them."""


@dataclass(frozen=True, slots=True)
class DeviceRow:
    """A device's presence; `status` is its last wire Status as it came."""

    device: str
    store: str
    state: str
    agent: str
    status: Mapping[str, object] | None
    seen_at: datetime
    changed_at: datetime


@dataclass(frozen=True, slots=True)
class AnswerRow:
    """The newest answer of one camera; `labels` is a list of {label, score}."""

    device: str
    camera: str
    run: str
    seq: int
    frame: int
    captured_at: datetime
    received_at: datetime
    label: str
    score: float
    state: str
    mode: str
    labels: Sequence[Mapping[str, object]]
    model_name: str | None
    model_version: str | None
    total_ms: float | None
    truth: str | None
    model_release: int | None = None


@dataclass(frozen=True, slots=True)
class LateRow:
    """One of a camera's newest late answers; `stored_at` is when the cloud had it."""

    device: str
    camera: str
    run: str
    seq: int
    frame: int | None
    captured_at: datetime
    stored_at: datetime
    mode: str
    label: str
    score: float
    agrees: bool | None
    model_name: str
    model_version: str


@dataclass(frozen=True, slots=True)
class AnsweredRow:
    """How many answers one way gave for one device."""

    device: str
    mode: str
    n: int


@dataclass(frozen=True, slots=True)
class FrameAnswerRow:
    """One answer of one picture, whoever gave it; `rank` is greater for the better one."""

    device: str
    run: str
    seq: int
    camera: str
    frame: int | None
    captured_at: datetime
    stored_at: datetime
    mode: str
    label: str
    score: float
    labels: Sequence[Mapping[str, object]]
    model_name: str | None
    model_version: str | None
    model_release: int | None
    model_digest: str | None
    runtime: str
    inference_ms: float | None
    agrees: bool | None
    rank: int


@dataclass(frozen=True, slots=True)
class VerdictRow:
    """One late answer as it stands in the store."""

    device: str
    run: str
    seq: int
    mode: str
    camera: str
    frame: int | None
    captured_at: datetime
    asked_at: datetime
    answered_at: datetime
    committed_at: datetime
    label: str
    score: float
    labels: Sequence[Mapping[str, object]]
    agrees: bool | None
    model_name: str
    model_version: str
    model_release: int
    model_digest: str
    runtime: str
    inference_ms: float
    picture_bytes: int | None
    billed_ms: int | None
    usd: float | None


@dataclass(frozen=True, slots=True)
class VerdictFilter:
    """Which late answers are wanted; None means all."""

    device: str | None = None
    camera: str | None = None
    mode: str | None = None


@dataclass(frozen=True, slots=True)
class _Place:
    camera: str
    frame: int | None
    captured_at: datetime


@dataclass(frozen=True, slots=True)
class PictureRow:
    """What is known of a camera's newest picture, without its bytes."""

    device: str
    camera: str
    frame: int
    captured_at: datetime
    received_at: datetime
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Jpeg:
    """A picture's bytes, with what tells it from the one before."""

    frame: int
    captured_at: datetime
    jpeg: bytes


@dataclass(frozen=True, slots=True)
class AlertRow:
    """One alert record. `picture_run` and `picture_seq` name the record of its episode that has a thumbnail, if any."""

    device: str
    run: str
    seq: int
    camera: str
    rule: str
    state: str
    label: str
    score: float
    since: datetime
    frame: int
    reason: str
    captured_at: datetime
    received_at: datetime
    picture_run: str | None
    picture_seq: int | None


@dataclass(frozen=True, slots=True)
class ResultRow:
    """One result as it stands in the store."""

    device: str
    run: str
    seq: int
    camera: str
    frame: int
    captured_at: datetime
    captured_device_at: datetime
    dated_by: str
    received_at: datetime
    label: str
    score: float
    state: str
    changed: bool
    reason: str
    labels: Sequence[Mapping[str, object]]
    model_name: str | None
    model_version: str | None
    runtime: str
    mode: str
    waiting_ms: float | None
    inference_ms: float | None
    total_ms: float | None
    truth: str | None


@dataclass(frozen=True, slots=True)
class CountRow:
    """One counter of one device."""

    device: str
    name: str
    n: int


@dataclass(frozen=True, slots=True)
class Percentiles:
    """Milliseconds over `n` results; all None when there is none."""

    n: int
    p50: float | None
    p95: float | None
    p99: float | None


@dataclass(frozen=True, slots=True)
class Latency:
    """How long answers took. `commit_from` says what the end of the way to the cloud is measured by."""

    answer: Percentiles
    cloud: Percentiles
    commit_from: str


@dataclass(frozen=True, slots=True)
class _LatencyRow:
    answer_n: int
    answer_ms: tuple[float, float, float] | None
    cloud_n: int
    cloud_ms: tuple[float, float, float] | None


@dataclass(frozen=True, slots=True)
class QuarantineRow:
    """One refused message or record; `payload_start` is its first 256 bytes."""

    id: int
    received_at: datetime
    topic: str
    device: str | None
    run: str | None
    seq: int | None
    code: str
    detail: str
    payload_bytes: int
    payload_start: bytes


@dataclass(frozen=True, slots=True)
class ResultFilter:
    """Which results are wanted; None means all."""

    device: str | None = None
    camera: str | None = None
    label: str | None = None
    since: datetime | None = None


@dataclass(frozen=True, slots=True)
class Cursor:
    """The last row of a page: the next page starts after it. `at` is the moment by which the pages are ordered."""

    at: datetime
    device: str
    run: str
    seq: int

    def encode(self) -> str:
        """Write the cursor as text that is safe in an address."""
        parts = [self.at.isoformat(), self.device, self.run, self.seq]
        return base64.urlsafe_b64encode(json.dumps(parts).encode()).decode().rstrip("=")

    @classmethod
    def decode(cls, text: str) -> "Cursor":
        """Read what `encode` wrote. Raises `Rejected` (``bad-cursor``)."""
        try:
            at, device, run, seq = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
            moment = datetime.fromisoformat(at)
            if not (isinstance(device, str) and isinstance(run, str) and type(seq) is int and moment.tzinfo):
                raise ValueError("not what encode writes")
            if "\0" in device + run or not 0 <= seq < 2**63:
                raise ValueError("out of bounds")
        except (ValueError, TypeError, binascii.Error, RecursionError, OverflowError) as error:
            hint = "take the cursor from `next` of the page before, or start without one"
            raise Rejected("bad-cursor", "the cursor is not one of ours", hint) from error
        return cls(moment, device, run, seq)


_STATEMENTS = {name: sql.encode() for name, sql in statements(Path(__file__).with_name("read.sql")).items()}


class Reader(Reading):
    """Reads the store through its pool; the statements are in read.sql. Thread safe.

    Every method raises `psycopg.OperationalError` or `psycopg_pool.PoolTimeout` when the database is away.
    """

    statements = _STATEMENTS

    def devices(self, devices: Sequence[str] | None = None) -> list[DeviceRow]:
        """All devices, or those named, by store and name."""
        return self._rows(DeviceRow, "devices", {"devices": _listed(devices)})

    def answers(self, devices: Sequence[str] | None = None) -> list[AnswerRow]:
        """The newest answer of each camera, by device and camera."""
        return self._rows(AnswerRow, "answers", {"devices": _listed(devices)})

    def pictures(self, devices: Sequence[str] | None = None) -> list[PictureRow]:
        """What is known of each camera's newest picture, by device and camera."""
        return self._rows(PictureRow, "pictures", {"devices": _listed(devices)})

    def open_alerts(self, limit: int = 200) -> list[AlertRow]:
        """Alerts that stand now, the newest first."""
        return self._rows(AlertRow, "open_alerts", {"limit": limit})

    def cleared_alerts(self, since: datetime, limit: int = 50) -> list[AlertRow]:
        """Alerts that ended after `since`, the newest first."""
        return self._rows(AlertRow, "cleared_alerts", {"since": since, "limit": limit})

    def picture(self, device: str, camera: str) -> Jpeg | None:
        """The bytes of a camera's newest picture."""
        found = self._rows(Jpeg, "picture", {"device": device, "camera": camera})
        return found[0] if found else None

    def thumbnail(self, device: str, run: str, seq: int) -> Jpeg | None:
        """The bytes of an alert's picture."""
        found = self._rows(Jpeg, "thumbnail", {"device": device, "run": run, "seq": seq})
        return found[0] if found else None

    def results(self, wanted: ResultFilter, limit: int, after: Cursor | None = None) -> list[ResultRow]:
        """At most `limit` results, the newest first, from after a cursor on."""
        values: dict[str, object] = {
            "device": wanted.device,
            "camera": wanted.camera,
            "label": wanted.label,
            "since": wanted.since,
            "limit": limit,
            **_from(after),
        }
        return self._rows(ResultRow, "results", values)

    def late(self, devices: Sequence[str] | None = None, per_camera: int = 3) -> list[LateRow]:
        """The late answers of each camera's newest pictures, the newest picture first."""
        return self._rows(LateRow, "late", {"devices": _listed(devices), "per_camera": per_camera})

    def answered(self, since: datetime, most: int = 5_000) -> list[AnsweredRow]:
        """How many answers each device got since then, by mode; at most `most` are counted per camera and late mode."""
        return self._rows(AnsweredRow, "answered", {"since": since, "most": most})

    def frame_answers(self, device: str, run: str, seq: int) -> list[FrameAnswerRow]:
        """All answers of the picture that a record speaks of, the best first; empty when there is no such record."""
        places = self._rows(_Place, "place_of_record", {"device": device, "run": run, "seq": seq})
        if not places:
            return []
        values = {"device": device, "run": run, "seq": seq}
        if places[0].frame is None:  # a picture that a person submitted has no number: its record is all there is
            return self._rows(FrameAnswerRow, "answers_of_record", values)
        return self._answers_at(device, run, places)

    def picture_answers(self, device: str, run: str, camera: str, frame: int) -> list[FrameAnswerRow]:
        """All answers of a camera's numbered frame, the best first.

        Without a late one, a local answer is looked for among the camera's newest: old ones need their record's key.
        """
        values = {"device": device, "run": run, "camera": camera, "frame": frame}
        return self._answers_at(device, run, self._rows(_Place, "place_of_picture", values))

    def _answers_at(self, device: str, run: str, places: Sequence[_Place]) -> list[FrameAnswerRow]:
        if not places:
            return []
        place = places[0]
        values = {
            "device": device, "run": run, "camera": place.camera, "frame": place.frame,
            "from": place.captured_at - NEAR, "to": place.captured_at + NEAR,
        }  # fmt: skip
        return self._rows(FrameAnswerRow, "answers_of_picture", values)

    def verdicts(self, wanted: VerdictFilter, limit: int, after: Cursor | None = None) -> list[VerdictRow]:
        """At most `limit` late answers, the newest in the store first, from after a cursor on."""
        modes = [wanted.mode] if wanted.mode else ["serverless", "asynchronous", "batch"]
        values: dict[str, object] = {
            "modes": modes, "device": wanted.device, "camera": wanted.camera, "limit": limit, **_from(after),
        }  # fmt: skip
        return self._rows(VerdictRow, "verdicts", values)

    def tallies(self) -> list[CountRow]:
        """The counters that ingest keeps, by device and name."""
        return self._rows(CountRow, "tallies", {})

    def stored(self) -> list[CountRow]:
        """The rows that the store holds: results, alerts and quarantined messages per device, counted one by one."""
        return self._rows(CountRow, "stored", {})

    def latency(self, since: datetime, per_camera: int = 5_000, *, same_clock: bool = False) -> Latency:
        """How long answers captured after `since` took; at most `per_camera` results of each camera are looked at.

        The way to the cloud ends with the commit where PostgreSQL keeps its moment, else with the reception. It begins
        with the corrected moment of the capture, or with `same_clock` at what the device's own clock said.
        """
        values = {"since": since, "limit": per_camera, "same_clock": same_clock}
        with self._connection() as connection, connection.cursor(row_factory=scalar_row) as cursor:
            kept = cursor.execute("SHOW track_commit_timestamp").fetchone() == "on"
        name = "latency_to_commit" if kept else "latency_to_reception"
        (row,) = self._rows(_LatencyRow, name, values)
        answer = Percentiles(row.answer_n, *(row.answer_ms or (None, None, None)))
        cloud = Percentiles(row.cloud_n, *(row.cloud_ms or (None, None, None)))
        return Latency(answer, cloud, "commit" if kept else "reception")

    def quarantine(self, device: str | None, limit: int, before: int | None = None) -> list[QuarantineRow]:
        """What was refused, the newest first; `before` is the smallest id of the page before."""
        return self._rows(QuarantineRow, "quarantine", {"device": device, "limit": limit, "before": before})

    def alive(self) -> bool:
        """Ask the database for a sign of life."""
        with self._connection() as connection, connection.cursor(row_factory=scalar_row) as cursor:
            return cursor.execute("SELECT 1").fetchone() == 1


def _from(after: Cursor | None) -> dict[str, object]:
    """The parameters of a page that starts after a cursor."""
    return {
        "at": after.at if after else None,
        "at_device": after.device if after else None,
        "at_run": after.run if after else None,
        "at_seq": after.seq if after else None,
    }


def _listed(devices: Sequence[str] | None) -> list[str] | None:
    return None if devices is None else list(devices)
