"""From wire records to rows: pure rules about dating and identity; nothing here knows a database."""

import base64
import binascii
import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

import orjson
from pydantic import TypeAdapter

from wire.envelope import Origin
from wire.errors import WireError
from wire.orders import Reported
from wire.records import Alert, Picture, Receipt, Record, Result, Score
from wire.strict import Json

Row = tuple[object, ...]

PAYLOAD_BYTES = 64 * 1024
"""What quarantine keeps of a refused message."""

EARLIEST: Final = datetime(1970, 1, 1, tzinfo=UTC)
LATEST: Final = datetime(9000, 1, 1, tzinfo=UTC)
"""Times outside cannot be read back by every client of the database."""

AHEAD_S: Final = "clock_ahead_s"
"""Beside a device's own words in its kept status: by how much its clock was ahead of ours; null when not known."""

LONGEST_BOOT_NS = 20 * 366 * 86_400 * 10**9
"""No machine stays up for twenty years; a greater distance is nonsense and dates nothing."""

_labels = TypeAdapter(tuple[Score, ...]).dump_json

# fmt: off
RESULT_COLUMNS = (
    ("device", "text"), ("run", "text"), ("seq", "int8"), ("camera", "text"), ("frame", "int8"),
    ("captured_at", "timestamptz"), ("captured_device_at", "timestamptz"), ("dated_by", "text"), ("boot_ns", "int8"),
    ("label", "text"), ("score", "float4"), ("state", "text"), ("changed", "bool"), ("reason", "text"),
    ("labels", "text"), ("model_name", "text"), ("model_version", "text"), ("model_release", "int4"),
    ("model_digest", "text"), ("runtime", "text"), ("mode", "text"), ("waiting_ms", "float4"),
    ("inference_ms", "float4"), ("total_ms", "float4"), ("truth", "text"), ("received_at", "timestamptz"),
    ("content", "bytea"),
)
"""Columns of a result's row in order, with the types they travel in (`labels` is JSON as text)."""

ALERT_COLUMNS = (
    ("device", "text"), ("run", "text"), ("seq", "int8"), ("camera", "text"), ("rule", "text"), ("state", "text"),
    ("label", "text"), ("score", "float4"), ("since", "timestamptz"), ("frame", "int8"), ("reason", "text"),
    ("thumbnail", "bytea"), ("captured_at", "timestamptz"), ("captured_device_at", "timestamptz"),
    ("dated_by", "text"), ("boot_ns", "int8"), ("received_at", "timestamptz"), ("content", "bytea"),
)
"""Columns of an alert's row in order, with the types they travel in."""
# fmt: on


@dataclass(frozen=True, slots=True)
class Presence:
    """A device's status. `retained` marks a copy that the broker kept, which says nothing about now."""

    store: str
    session: str
    state: str
    agent: str
    status: str
    sent_at: datetime
    retained: bool


@dataclass(frozen=True, slots=True)
class Shot:
    """The last picture of one camera."""

    camera: str
    frame: int
    captured_at: datetime
    width: int
    height: int
    jpeg: bytes


@dataclass(frozen=True, slots=True)
class Report:
    """What a device runs and did about its orders: the body as it came, and what was read of it."""

    body: str
    said: Reported

    @property
    def highest(self) -> int:
        """The highest revision of an order that it knows."""
        return max([self.said.config_revision, *(update.revision for update in self.said.updates)])


@dataclass(frozen=True, slots=True)
class Quarantined:
    """What was refused, and why. `payload` is cut to `PAYLOAD_BYTES`."""

    topic: str
    run: str | None
    seq: int | None
    code: str
    detail: str
    payload: bytes


@dataclass(frozen=True, slots=True)
class Entry:
    """Everything that one message brings into the store, in one piece: all of it is committed or none.

    `device` is who the broker authenticated, "" for a topic that names nobody. `refused` counts records that
    were refused before they got here. `receipt` says which verdicts the device has.
    """

    device: str
    received_at: datetime
    results: tuple[Row, ...] = ()
    alerts: tuple[Row, ...] = ()
    presence: Presence | None = None
    shot: Shot | None = None
    receipt: Receipt | None = None
    report: Report | None = None
    quarantined: tuple[Quarantined, ...] = ()
    refused: int = 0


def content(body: dict[str, Json]) -> bytes:
    """Digest a record, unknown fields included: 32 bytes that do not depend on spaces or the order of keys."""
    return hashlib.sha256(orjson.dumps(body, option=orjson.OPT_SORT_KEYS)).digest()


def date(record: Record, origin: Origin, received_at: datetime) -> tuple[datetime, str]:
    """Decide when a record was captured and say by which clock: ``device``, ``boot-clock`` or ``unsure``.

    A record whose wall clock was unsure is dated back from its arrival by the boot clock, which only works inside one
    boot: a sender names its boot and the boot clock only for records of that boot, and leaves them empty otherwise.
    """
    if record.clock == "synced":
        return record.captured_at, "device"
    age_ns = origin.sent_boot_ns - record.boot_ns
    if origin.boot and origin.sent_boot_ns and 0 <= age_ns <= LONGEST_BOOT_NS:
        return received_at - timedelta(microseconds=age_ns // 1000), "boot-clock"
    return record.captured_at, "unsure"


def _check_time(moment: datetime, name: str) -> None:
    if not EARLIEST <= moment < LATEST:
        raise WireError("bad-time", f"{name}: {moment.isoformat()} is no time at which a camera could have looked")


def result_row(device: str, record: Result, body: dict[str, Json], origin: Origin, received_at: datetime) -> Row:
    """Make the row of `RESULT_COLUMNS`. Raises `WireError` (``bad-time``)."""
    _check_time(record.captured_at, "captured_at")
    captured_at, dated_by = date(record, origin, received_at)
    decision, model = record.decision, record.model
    # fmt: off
    return (
        device, record.run, record.seq, record.camera, record.frame, captured_at, record.captured_at, dated_by,
        record.boot_ns, decision.label, record.labels[0].score, decision.state, decision.changed, decision.reason,
        _labels(record.labels).decode(), model.name, model.version, model.release, model.digest, record.runtime,
        record.mode, record.waiting_ms, record.inference_ms, record.total_ms, record.truth, received_at, content(body),
    )
    # fmt: on


def alert_row(device: str, record: Alert, body: dict[str, Json], origin: Origin, received_at: datetime) -> Row:
    """Make the row of `ALERT_COLUMNS`. Raises `WireError` (``bad-time``, ``bad-picture``)."""
    _check_time(record.captured_at, "captured_at")
    _check_time(record.since, "since")
    captured_at, dated_by = date(record, origin, received_at)
    thumbnail = None if record.thumbnail is None else jpeg(record.thumbnail)
    # fmt: off
    return (
        device, record.run, record.seq, record.camera, record.rule, record.state, record.label, record.score,
        record.since, record.frame, record.reason, thumbnail, captured_at, record.captured_at, dated_by,
        record.boot_ns, received_at, content(body),
    )
    # fmt: on


def shot(picture: Picture) -> Shot:
    """Take the picture out of its message. Raises `WireError` (``bad-time``, ``bad-picture``)."""
    _check_time(picture.captured_at, "captured_at")
    return Shot(
        picture.camera, picture.frame, picture.captured_at, picture.width, picture.height, jpeg(picture.jpeg)
    )  # fmt: skip


def jpeg(text: str) -> bytes:
    """Decode a JPEG from base64. Raises `WireError` (``bad-picture``); only the browser looks further inside."""
    try:
        content = base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise WireError("bad-picture", f"not base64: {error}") from None
    # Start and end of image, ITU-T T.81 table B.1: a browser must never be handed anything else under this name.
    if not content.startswith(b"\xff\xd8\xff"):
        raise WireError("bad-picture", "not a JPEG")
    return content
