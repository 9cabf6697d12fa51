"""The envelope: a CloudEvents 1.0 event in structured JSON that carries records or one message."""

import json
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Generic, Literal, TypeVar

from pydantic import Field, ValidationError

from wire import bounds, strict
from wire.errors import WireError
from wire.orders import Desired, Reported
from wire.records import (
    Alert,
    Keyed,
    LateAnswer,
    Moment,
    Name,
    Nanoseconds,
    Part,
    Picture,
    Receipt,
    Result,
    Status,
    Text,
    rfc3339,
)

CONTENT_TYPE = "application/cloudevents+json; charset=utf-8"
"""MQTT 5 content type property of every envelope."""

TYPES = {
    "result": "io.shelfwire.results.v1",
    "alert": "io.shelfwire.alert.v1",
    "status": "io.shelfwire.status.v1",
    "receipt": "io.shelfwire.receipt.v1",
    "picture": "io.shelfwire.picture.v1",
    "verdict": "io.shelfwire.verdicts.v1",
    "desired": "io.shelfwire.desired.v1",
    "reported": "io.shelfwire.reported.v1",
}
"""CloudEvents type of each kind of message. A change that breaks readers ends in v2."""

CLOUD_SOURCE = "/cloud"


def device_source(device: str) -> str:
    """CloudEvents source of what a device says."""
    return f"/devices/{device}"


class Event(Part):
    """Context attributes of an envelope (CloudEvents 1.0.2, section 3.1)."""

    specversion: Literal["1.0"]
    id: Annotated[str, Field(min_length=1, max_length=64)]
    source: Annotated[str, Field(min_length=1, max_length=128)]
    type: Annotated[str, Field(min_length=1, max_length=64)]
    time: Moment
    datacontenttype: Literal["application/json"]


class Origin(Part):
    """Whose records these are, and when a device sent its own by its boot clock, so that the cloud can date them.

    `device` is the sender of what devices say, and the addressee of what the cloud says.
    """

    device: Name
    store: Text = ""
    agent: Text = ""
    boot: Annotated[str, Field(max_length=64)] = ""
    sent_boot_ns: Nanoseconds = 0


M = TypeVar("M", bound=Part)
R = TypeVar("R", bound=Keyed)


@dataclass(frozen=True, slots=True)
class Refused:
    """One record of an envelope that cannot be taken. `run` and `seq` are None when not even they can be read."""

    run: str | None
    seq: int | None
    code: str
    detail: str


@dataclass(frozen=True, slots=True)
class Records(Generic[R]):
    """An envelope of records, opened: the good ones, and the refused ones with their reasons."""

    event: Event
    origin: Origin
    good: tuple[R, ...]
    bodies: tuple[dict[str, strict.Json], ...]
    """The good records as they came, unknown fields included, in the order of `good`."""
    refused: tuple[Refused, ...]


def utc(wall_ns: int) -> datetime:
    """Turn wall time in nanoseconds into a moment."""
    seconds, rest_ns = divmod(wall_ns, 10**9)
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest_ns // 1000)


def new_id() -> str:
    """Make an id for an envelope: 12 random bytes in hexadecimal."""
    return secrets.token_hex(12)


def seal(kind: str, source: str, message: bytes, sent_at: datetime, envelope_id: str) -> bytes:
    """Put one JSON document, already encoded, into an envelope."""
    head = json.dumps(
        {
            "specversion": "1.0",
            "id": envelope_id,
            "source": source,
            "type": TYPES[kind],
            "time": rfc3339(sent_at),
            "datacontenttype": "application/json",
        }
    )
    return head[:-1].encode() + b', "data": ' + message + b"}"


def seal_message(kind: str, source: str, message: Part, sent_at: datetime, envelope_id: str | None = None) -> bytes:
    """Put one message (status, receipt, picture) into an envelope."""
    return seal(kind, source, message.model_dump_json().encode(), sent_at, envelope_id or new_id())


def seal_records(
    kind: str, origin: Origin, records: Iterable[bytes], sent_at: datetime, envelope_id: str, source: str | None = None
) -> bytes:
    """Put records, each an encoded JSON object with its run and seq, into an envelope.

    `source` is who says it: the device that `origin` names, unless it is `CLOUD_SOURCE`.
    """
    head = origin.model_dump_json().encode()
    data = head[:-1] + b', "records": [' + b",".join(records) + b"]}"
    return seal(kind, source or device_source(origin.device), data, sent_at, envelope_id)


def keyed(run: str, seq: int, body: bytes) -> bytes:
    """Give an encoded record without a key its key: `body` is a JSON object with at least one field."""
    return b'{"run":"%s","seq":%d,' % (run.encode(), seq) + body[1:]


def _open(payload: bytes, kind: str, source: str, limit_bytes: int) -> tuple[Event, dict[str, strict.Json]]:
    document = strict.loads(payload, limit_bytes)
    if not isinstance(document, dict):
        raise WireError("bad-envelope", "an envelope is a JSON object")
    event = _validate(Event, {k: v for k, v in document.items() if k != "data"}, "bad-envelope")
    if event.type != TYPES[kind]:
        raise WireError(
            "bad-type", f"type {event.type!r} on a topic for {TYPES[kind]!r}", "update the side that is behind"
        )
    if event.source != source:
        raise WireError("bad-source", f"source {event.source!r}, but the broker knows the sender as {source!r}")
    data = document.get("data")
    if not isinstance(data, dict):
        raise WireError("bad-envelope", "data is missing or no object")
    return event, data


def open_message(payload: bytes, kind: str, model: type[M], source: str) -> tuple[Event, M]:
    """Open an envelope with one message. `source` is who the broker authenticated. Raises `WireError`."""
    event, data = _open(payload, kind, source, bounds.ENVELOPE_BYTES)
    return event, _validate(model, data, "bad-message")


def open_records(payload: bytes, kind: str, model: type[R], device: str, source: str | None = None) -> Records[R]:
    """Open an envelope of records sent by `device`, as the broker knows it, or to it by `source`.

    A bad envelope raises `WireError`; a bad record inside a good envelope is listed in `refused` and does not
    keep the others back.
    """
    event, data = _open(payload, kind, source or device_source(device), bounds.ENVELOPE_BYTES)
    items = data.get("records")
    origin = _validate(Origin, {k: v for k, v in data.items() if k != "records"}, "bad-envelope")
    if origin.device != device:
        raise WireError("bad-source", f"records of {origin.device!r} on the topic of {device!r}")
    if not isinstance(items, list) or not items:
        raise WireError("bad-envelope", "records is missing, empty or no list")
    if len(items) > bounds.ENVELOPE_RECORDS:
        raise WireError(
            "too-many", f"{len(items)} records; the limit is {bounds.ENVELOPE_RECORDS}", "send smaller envelopes"
        )
    return _sort_out(event, origin, items, model)


def _sort_out(event: Event, origin: Origin, items: Sequence[strict.Json], model: type[R]) -> Records[R]:
    good: list[R] = []
    bodies: list[dict[str, strict.Json]] = []
    refused: list[Refused] = []
    for item in items:
        if not isinstance(item, dict):
            refused.append(Refused(None, None, "bad-record", "a record is a JSON object"))
            continue
        try:
            good.append(_validate(model, item, "bad-record"))
            bodies.append(item)
        except WireError as error:
            refused.append(Refused(*_key(item), error.code, str(error)))
    return Records(event, origin, tuple(good), tuple(bodies), tuple(refused))


class _Key(Part):
    run: Annotated[str, Field(pattern=bounds.RUN)]
    seq: Annotated[int, Field(ge=1, le=bounds.SEQ_MAX)]


def _key(item: dict[str, strict.Json]) -> tuple[str | None, int | None]:
    try:
        key = _Key.model_validate(item)
    except ValidationError:
        return None, None
    return key.run, key.seq


def _validate(model: type[M], value: object, code: str) -> M:
    try:
        return model.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise WireError(code, f"{where or 'message'}: {first['msg']}"[: bounds.TEXT]) from None


MESSAGES: dict[str, type[Part]] = {
    "status": Status,
    "receipt": Receipt,
    "picture": Picture,
    "desired": Desired,
    "reported": Reported,
}
RECORDS: dict[str, type[Keyed]] = {"result": Result, "alert": Alert, "verdict": LateAnswer}
