"""The rules of ingest: from a message to what the store takes, and from what the store did to a receipt."""

import itertools
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from cloud.store.rows import (
    AHEAD_S,
    EARLIEST,
    PAYLOAD_BYTES,
    Entry,
    Presence,
    Quarantined,
    Report,
    Row,
    alert_row,
    result_row,
    shot,
)
from cloud.store.write import Key
from wire import bounds, envelope, mqtt, strict, topics
from wire.errors import WireError
from wire.orders import Reported
from wire.records import Alert, Picture, Receipt, Record, Refusal, Result, Span, Status


@dataclass(frozen=True, slots=True)
class Arrival:
    """A message, opened. `envelope` is the id that its receipt names; None: it gets none."""

    message: mqtt.Message
    entry: Entry
    envelope: str | None = None
    rejected: str | None = None
    keys: tuple[Key, ...] = ()
    refused: tuple[Refusal, ...] = ()
    oldest: datetime | None = None

    @property
    def urgent(self) -> bool:
        """Whether somebody is told by this message."""
        return bool(self.entry.alerts)


@dataclass(frozen=True, slots=True)
class Settled:
    """An arrival that the store has committed; `conflicts` are its keys that another content has."""

    arrival: Arrival
    conflicts: frozenset[Key] = frozenset()


def open_arrival(message: mqtt.Message, received_at: datetime) -> Arrival:
    """Open a message. A bad one never raises: it becomes an arrival that puts it into quarantine and says why."""
    try:
        device, rest = topics.split(message.topic)
    except WireError as error:
        return _reject(message, "", received_at, error)
    try:
        if rest == topics.RESULTS:
            return _open_records(message, device, received_at, "result")
        if rest == topics.ALERTS:
            return _open_records(message, device, received_at, "alert")
        if rest == topics.STATUS:
            return Arrival(message, _open_status(message, device, received_at))
        if rest == topics.REPORTED:
            return Arrival(message, _open_reported(message, device, received_at))
        if rest == topics.PICTURES:
            _, picture = envelope.open_message(
                message.payload, "picture", Picture, envelope.device_source(device)
            )  # fmt: skip
            return Arrival(message, Entry(device, received_at, shot=shot(picture)))
        if rest == topics.RECEIPTS_UP:
            return Arrival(message, _open_receipt(message, device, received_at))
        raise WireError("bad-topic", f"nothing is expected on {rest[:80]!r}")
    except WireError as error:
        return _reject(message, device, received_at, error)


def _open_records(message: mqtt.Message, device: str, received_at: datetime, kind: str) -> Arrival:
    opened: envelope.Records[Result] | envelope.Records[Alert]
    if kind == "result":
        opened = envelope.open_records(message.payload, kind, Result, device)
    else:
        opened = envelope.open_records(message.payload, kind, Alert, device)
    rows: list[Row] = []
    keys: list[Key] = []
    late: list[envelope.Refused] = []
    for record, body in zip(opened.good, opened.bodies, strict=True):
        try:
            rows.append(_row(device, record, body, opened.origin, received_at))
            keys.append((record.run, record.seq))
        except WireError as error:
            late.append(envelope.Refused(record.run, record.seq, error.code, str(error)))
    refused = (*opened.refused, *late)
    quarantined = _quarantine_records(message, opened, refused) if refused else ()
    return Arrival(
        message,
        Entry(
            device,
            received_at,
            results=tuple(rows) if kind == "result" else (),
            alerts=tuple(rows) if kind == "alert" else (),
            quarantined=quarantined,
            refused=len(refused),
        ),
        envelope=opened.event.id,
        keys=tuple(keys),
        refused=tuple(Refusal(run=r.run, seq=r.seq, code=r.code) for r in refused if r.run and r.seq),
        oldest=min((record.captured_at for record in opened.good if record.clock == "synced"), default=None),
    )


def _row(
    device: str, record: Record, body: dict[str, strict.Json], origin: envelope.Origin, received_at: datetime
) -> Row:
    if isinstance(record, Result):
        return result_row(device, record, body, origin, received_at)
    assert isinstance(record, Alert)
    return alert_row(device, record, body, origin, received_at)


def _quarantine_records(
    message: mqtt.Message,
    opened: envelope.Records[Result] | envelope.Records[Alert],
    refused: Sequence[envelope.Refused],
) -> tuple[Quarantined, ...]:
    """Keep each refused record itself, not the whole envelope once per record."""
    document = json.loads(message.payload)
    # The good records stand in the list in their order; what lies between them was refused by the wire.
    good = iter(opened.bodies)
    awaited = next(good, None)
    texts: list[bytes] = []
    by_key: dict[tuple[str | None, int | None], bytes] = {}
    for item in document["data"]["records"]:
        text = json.dumps(item).encode()[:PAYLOAD_BYTES]
        if item == awaited:
            by_key[item["run"], item["seq"]] = text
            awaited = next(good, None)
        else:
            texts.append(text)
    late = (by_key.get((r.run, r.seq), b"") for r in refused[len(texts) :])
    return tuple(
        Quarantined(message.topic, r.run, r.seq, r.code, r.detail, text)
        for r, text in zip(refused, itertools.chain(texts, late), strict=True)
    )


def _open_status(message: mqtt.Message, device: str, received_at: datetime) -> Entry:
    if not message.payload:  # Somebody cleared the retained status, as MQTT wants it done; that says nothing.
        return Entry(device, received_at)
    event, status = envelope.open_message(message.payload, "status", Status, envelope.device_source(device))
    document = strict.loads(message.payload)
    assert isinstance(document, dict)
    presence = Presence(
        store=status.store,
        session=status.session,
        state=status.state,
        agent=status.agent,
        status=json.dumps(_with_skew(document["data"], None if message.retained else event.time - received_at)),
        sent_at=max(event.time, EARLIEST),
        retained=message.retained,
    )
    return Entry(device, received_at, presence=presence)


def _with_skew(status: strict.Json, ahead: timedelta | None) -> strict.Json:
    """Note beside a status by how much the device's clock is ahead of ours; a kept copy does not tell."""
    assert isinstance(status, dict)
    return {**status, AHEAD_S: None if ahead is None else round(ahead.total_seconds(), 3)}


def _open_reported(message: mqtt.Message, device: str, received_at: datetime) -> Entry:
    if not message.payload:  # Somebody cleared what the broker kept.
        return Entry(device, received_at)
    _, said = envelope.open_message(message.payload, "reported", Reported, envelope.device_source(device))
    document = strict.loads(message.payload)
    assert isinstance(document, dict)
    return Entry(device, received_at, report=Report(json.dumps(document["data"]), said))


def _open_receipt(message: mqtt.Message, device: str, received_at: datetime) -> Entry:
    """Open what a device says of verdicts. An envelope that it could not read is kept for a person to look at."""
    source = envelope.device_source(device)
    _, said = envelope.open_message(message.payload, "receipt", Receipt, source)
    if said.rejected is None:
        return Entry(device, received_at, receipt=said)
    detail = f"the device cannot read the envelope {said.envelope} of verdicts: {said.rejected}"
    row = Quarantined(message.topic, None, None, "verdicts-rejected", _plain(detail), message.payload[:PAYLOAD_BYTES])
    return Entry(device, received_at, quarantined=(row,))


def _reject(message: mqtt.Message, device: str, received_at: datetime, error: WireError) -> Arrival:
    return Arrival(
        message,
        Entry(
            device,
            received_at,
            quarantined=(
                Quarantined(
                    _plain(message.topic)[:512], None, None, error.code, _plain(str(error))[:512],
                    message.payload[:PAYLOAD_BYTES],
                ),
            ),
        ),
        envelope=_correlated(message) if device and message.topic.endswith((topics.RESULTS, topics.ALERTS)) else None,
        rejected=error.code,
    )  # fmt: skip


def _plain(text: str) -> str:
    """Make a text that a stranger wrote fit for a column: no NUL, no half characters."""
    return text.replace("\x00", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode("utf-8")


def _correlated(message: mqtt.Message) -> str | None:
    """Read the envelope's id from the message's correlation data, where senders repeat it."""
    try:
        text = (message.correlation or b"").decode("ascii")
    except UnicodeDecodeError:
        return None
    return text if 0 < len(text) <= 64 and text.isprintable() else None


def spans(keys: Iterable[Key]) -> tuple[Span, ...]:
    """Write keys as the spans that hold them and nothing else."""
    found: list[Span] = []
    first: Key | None = None
    last: Key | None = None
    for key in sorted(set(keys)):
        if last is None or key != (last[0], last[1] + 1):
            if first is not None and last is not None:
                found.append(Span(run=first[0], first=first[1], last=last[1]))
            first = key
        last = key
    if first is not None and last is not None:
        found.append(Span(run=first[0], first=first[1], last=last[1]))
    return tuple(found)


def receipt(settled: Settled) -> Receipt | None:
    """Say what was committed and what is refused for good; None when the message gets no receipt."""
    arrival = settled.arrival
    if arrival.envelope is None:
        return None
    if arrival.rejected is not None:
        return Receipt(envelope=arrival.envelope, rejected=arrival.rejected)
    conflicts = tuple(Refusal(run=run, seq=seq, code="key-conflict") for run, seq in sorted(settled.conflicts))
    return Receipt(
        envelope=arrival.envelope,
        committed=spans(key for key in arrival.keys if key not in settled.conflicts),
        refused=(*arrival.refused, *conflicts)[: bounds.ENVELOPE_RECORDS],
    )


def poisoned(arrival: Arrival, detail: str) -> Arrival:
    """Turn an arrival that the database will never take into one that is kept in quarantine and refused as a whole."""
    row = Quarantined(
        arrival.message.topic, None, None, "store-refused", _plain(detail), arrival.message.payload[:PAYLOAD_BYTES]
    )
    entry = Entry(arrival.entry.device, arrival.entry.received_at, quarantined=(row,), refused=len(arrival.keys))
    return Arrival(arrival.message, entry, envelope=arrival.envelope, rejected="store-refused")
