"""Envelopes of records: what is refused, what is kept, and that nothing else than a `WireError` comes of bad input."""

import base64
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from wire import bounds, envelope
from wire.errors import WireError
from wire.records import (
    Alert,
    Decision,
    ModelName,
    Moment,
    Picture,
    Receipt,
    Record,
    Refusal,
    Result,
    Score,
    Span,
    Status,
    rfc3339,
)

DEVICE = "dev-001"
SOURCE = envelope.device_source(DEVICE)
ORIGIN = envelope.Origin(device=DEVICE)
NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
RUN = "00112233aabbccdd"
RECEIPT = Receipt(envelope="e1", committed=(Span(run=RUN, first=1, last=9),))

Document = dict[str, object]


def a_result(seq: int = 1) -> Document:
    """One good result, as plain JSON values."""
    return {
        "run": RUN,
        "seq": seq,
        "camera": "shelf-1",
        "captured_at": "2026-01-31T12:00:00.000007Z",
        "boot_ns": 80_000_000_000,
        "clock": "synced",
        "frame": 17,
        "labels": [{"label": "Ananas", "score": 0.75}],
        "decision": {"label": "Ananas", "state": "confirmed", "changed": True, "reason": "3 of 3"},
        "model": {"name": "produce", "version": "1", "release": 1, "digest": "ab" * 32},
        "runtime": "openvino",
        "mode": "real-time",
        "waiting_ms": 1.5,
        "inference_ms": 4,
        "total_ms": 7.0,
    }


def sealed(*records: object) -> bytes:
    return envelope.seal_records("result", ORIGIN, [json.dumps(record).encode() for record in records], NOW, "e1")


def opened(payload: bytes) -> envelope.Records:
    return envelope.open_records(payload, "result", Result, DEVICE)


def changed(path: str, value: object) -> Document:
    """Change one field of a good result; `path` has dots and list positions."""
    record = a_result()
    *way, last = path.split(".")
    place: object = record
    for step in way:
        place = place[int(step)] if isinstance(place, list) else place[step]  # type: ignore[index]
    place[last] = value  # type: ignore[index]
    return record


# -- single values ------------------------------------------------------------------------------------------------

BAD_VALUES: list[tuple[str, object]] = [
    ("seq", True),
    ("seq", "1"),
    ("seq", 1.0),
    ("seq", 0),
    ("seq", -1),
    ("seq", None),
    ("seq", [1]),
    ("run", "00112233AABBCCDD"),
    ("run", "00112233aabbccdd\n"),
    ("run", "0011"),
    ("camera", "../../etc"),
    ("camera", "a\n"),
    ("camera", ""),
    ("camera", "a" * 65),
    ("camera", 7),
    ("captured_at", 1_769_860_800),
    ("captured_at", "1769860800"),
    ("captured_at", "2026-01-31T12:00:00"),
    ("captured_at", "2026-01-31"),
    ("captured_at", "2026-W05-6T12:00:00Z"),
    ("captured_at", "20260131T120000Z"),
    ("captured_at", "2026-01-31T12Z"),
    ("captured_at", "2026-02-30T12:00:00Z"),
    ("captured_at", "2026-01-31T12:00:00Z\n"),
    ("captured_at", "0001-01-01T00:00:00+23:59"),
    ("captured_at", "9999-12-31T23:59:59-23:59"),
    ("captured_at", "٢026-01-31T12:00:00Z"),
    ("boot_ns", -1),
    ("boot_ns", 1.5),
    ("clock", "sure"),
    ("frame", False),
    ("labels", []),
    ("labels", {}),
    ("labels", "Ananas"),
    ("labels", [{"label": "a", "score": 0.1}] * (bounds.LABELS + 1)),
    ("labels", [["Ananas", 0.5]]),
    ("labels.0.score", 1.0001),
    ("labels.0.score", -0.0001),
    ("labels.0.score", "0.5"),
    ("labels.0.score", True),
    ("labels.0.label", ""),
    ("labels.0.label", "a" * 65),
    ("labels.0.label", None),
    ("decision.changed", 1),
    ("decision.changed", "true"),
    ("decision.state", "Confirmed"),
    ("decision.reason", "a" * (bounds.TEXT + 1)),
    ("model", None),
    ("model.release", -1),
    ("model.digest", "AB" * 32),
    ("model.name", "a/b"),
    ("mode", "realtime"),
    ("total_ms", -0.1),
    ("total_ms", 1e300),
    ("truth", 5),
]


@pytest.mark.parametrize(("path", "value"), BAD_VALUES, ids=[f"{p}={ascii(v)[:32]}" for p, v in BAD_VALUES])
def test_a_bad_value_is_refused_and_keeps_nobody_back(path: str, value: object) -> None:
    read = opened(sealed(a_result(7), changed(path, value), a_result(9)))
    assert [record.seq for record in read.good] == [7, 9]
    (refused,) = read.refused
    assert refused.code == "bad-record"
    assert path.split(".", maxsplit=1)[0] in refused.detail
    if path not in {"run", "seq"}:
        assert (refused.run, refused.seq) == (RUN, 1)


@pytest.mark.parametrize("name", sorted(a_result()))
def test_a_missing_field_is_refused(name: str) -> None:
    record = a_result()
    del record[name]
    (refused,) = opened(sealed(record)).refused
    assert refused.code == "bad-record"
    assert name in refused.detail


@pytest.mark.parametrize("record", [None, True, 1, "x", [], [[]], {}])
def test_what_is_no_record_is_refused_without_a_key(record: object) -> None:
    (refused,) = opened(sealed(record)).refused
    assert (refused.run, refused.seq, refused.code) == (None, None, "bad-record")


def test_the_body_of_a_good_record_stays_as_it_came() -> None:
    record = {**a_result(), "boxes": [[1, 2, 3, 4]]}
    assert opened(sealed(None, record)).bodies == (record,)


@pytest.mark.parametrize("thumbnail", ["", "A", "AA", "AAA", "A===", "AAAAA", "AA==AAAA", "AAAA\n", "AA-_", "ÄAAA"])
def test_a_thumbnail_that_no_decoder_takes_is_refused(thumbnail: str) -> None:
    with pytest.raises(ValidationError):
        an_alert(thumbnail)


@settings(deadline=None)
@given(st.binary(min_size=1, max_size=200))
def test_every_thumbnail_in_base64_is_taken(picture: bytes) -> None:
    alert = an_alert(base64.b64encode(picture).decode())
    assert alert.thumbnail is not None
    assert base64.b64decode(alert.thumbnail, validate=True) == picture


def test_the_largest_pictures_are_taken_and_one_byte_more_is_not() -> None:
    def a_picture(size_bytes: int) -> Picture:
        jpeg = base64.b64encode(bytes(size_bytes)).decode()
        return Picture(camera="c", frame=1, captured_at=NOW, width=1, height=1, jpeg=jpeg)

    assert a_picture(bounds.PICTURE_BYTES)
    assert an_alert(base64.b64encode(bytes(bounds.THUMBNAIL_BYTES)).decode())
    with pytest.raises(ValidationError):
        a_picture(bounds.PICTURE_BYTES + 3)
    with pytest.raises(ValidationError):
        an_alert(base64.b64encode(bytes(bounds.THUMBNAIL_BYTES + 3)).decode())


def test_the_largest_alert_fits_into_a_record_and_the_largest_picture_into_what_is_sent() -> None:
    alert = an_alert(base64.b64encode(bytes(bounds.THUMBNAIL_BYTES)).decode())
    assert len(alert.model_dump_json().encode()) <= bounds.SEND_BYTES
    jpeg = base64.b64encode(bytes(bounds.PICTURE_BYTES)).decode()
    picture = Picture(camera="c", frame=1, captured_at=NOW, width=1, height=1, jpeg=jpeg)
    assert len(envelope.seal_message("picture", SOURCE, picture, NOW)) <= bounds.ENVELOPE_BYTES


def an_alert(thumbnail: str | None) -> Alert:
    return Alert(
        run=RUN,
        seq=1,
        camera="c",
        captured_at=NOW,
        boot_ns=0,
        clock="unsure",
        rule="r",
        state="raised",
        label="x",
        score=1.0,
        since=NOW,
        frame=1,
        reason="",
        thumbnail=thumbnail,
    )


# -- times --------------------------------------------------------------------------------------------------------

MOMENTS = TypeAdapter(Moment)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-01-31T12:00:00Z", NOW),
        ("2026-01-31T13:00:00+01:00", NOW),
        ("2026-01-31T12:00:00.5Z", NOW + timedelta(seconds=0.5)),
        ("2026-01-31T12:00:00.000001999Z", NOW + timedelta(microseconds=1)),
        ("0001-01-01T00:00:00Z", datetime(1, 1, 1, tzinfo=UTC)),
    ],
)
def test_a_time_is_read_into_utc(text: str, moment: datetime) -> None:
    read = MOMENTS.validate_python(text, strict=True)
    assert read == moment
    assert read.tzinfo is UTC


OFFSETS = st.integers(-23 * 60, 23 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))


@settings(deadline=None)
@given(st.datetimes(datetime(2, 1, 1), datetime(9998, 12, 31), timezones=OFFSETS))  # noqa: DTZ001
def test_a_time_comes_back_to_the_microsecond(moment: datetime) -> None:
    assert MOMENTS.validate_python(rfc3339(moment), strict=True) == moment
    assert MOMENTS.validate_python(moment.isoformat(), strict=True) == moment


# -- whole envelopes ----------------------------------------------------------------------------------------------


def with_attribute(name: str, value: object) -> Callable[[Document], None]:
    def change(document: Document) -> None:
        document[name] = value

    return change


def with_data(name: str, value: object) -> Callable[[Document], None]:
    def change(document: Document) -> None:
        data = document["data"]
        assert isinstance(data, dict)
        data[name] = value

    return change


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (with_attribute("specversion", "0.3"), "bad-envelope"),
        (with_attribute("specversion", 1.0), "bad-envelope"),
        (with_attribute("id", ""), "bad-envelope"),
        (with_attribute("id", "x" * 65), "bad-envelope"),
        (with_attribute("id", 1), "bad-envelope"),
        (with_attribute("time", 0), "bad-envelope"),
        (with_attribute("time", "yesterday"), "bad-envelope"),
        (with_attribute("datacontenttype", "text/plain"), "bad-envelope"),
        (with_attribute("type", envelope.TYPES["alert"]), "bad-type"),
        (with_attribute("type", "io.shelfwire.results.v2"), "bad-type"),
        (with_attribute("source", "/devices/dev-002"), "bad-source"),
        (with_attribute("source", "/cloud"), "bad-source"),
        (with_attribute("source", "/devices/dev-001/../dev-002"), "bad-source"),
        (with_attribute("data", None), "bad-envelope"),
        (with_attribute("data", []), "bad-envelope"),
        (with_attribute("data", "{}"), "bad-envelope"),
        (with_data("device", "dev-002"), "bad-source"),
        (with_data("device", "../../etc"), "bad-envelope"),
        (with_data("sent_boot_ns", -1), "bad-envelope"),
        (with_data("records", []), "bad-envelope"),
        (with_data("records", {}), "bad-envelope"),
        (with_data("records", None), "bad-envelope"),
        (with_data("records", [{}] * (bounds.ENVELOPE_RECORDS + 1)), "too-many"),
    ],
)
def test_a_bad_envelope_is_refused_as_a_whole(change: Callable[[Document], None], code: str) -> None:
    document = json.loads(sealed(a_result()))
    change(document)
    with pytest.raises(WireError) as caught:
        opened(json.dumps(document).encode())
    assert caught.value.code == code


@pytest.mark.parametrize("name", ["specversion", "id", "source", "type", "time", "datacontenttype", "data"])
def test_an_envelope_without_one_of_its_attributes_is_refused(name: str) -> None:
    document = json.loads(sealed(a_result()))
    del document[name]
    with pytest.raises(WireError) as caught:
        opened(json.dumps(document).encode())
    assert caught.value.code == "bad-envelope"


@pytest.mark.parametrize("document", [b"[]", b"null", b'"x"', b"1"])
def test_an_envelope_is_an_object(document: bytes) -> None:
    with pytest.raises(WireError, match="object"):
        opened(document)


def test_as_many_records_as_allowed_are_read() -> None:
    assert len(opened(sealed(*[{}] * bounds.ENVELOPE_RECORDS)).refused) == bounds.ENVELOPE_RECORDS


def test_an_oversized_envelope_is_refused_before_it_is_parsed() -> None:
    with pytest.raises(WireError) as caught:
        opened(b"{" * (bounds.ENVELOPE_BYTES + 1))
    assert caught.value.code == "too-large"


def test_a_receipt_by_a_device_is_no_receipt_by_the_cloud() -> None:
    payload = envelope.seal_message("receipt", SOURCE, RECEIPT, NOW)
    with pytest.raises(WireError) as caught:
        envelope.open_message(payload, "receipt", Receipt, envelope.CLOUD_SOURCE)
    assert caught.value.code == "bad-source"


@pytest.mark.parametrize(
    "receipt",
    [
        {"envelope": "e1", "committed": [{"run": RUN, "first": 2, "last": 1}]},
        {"envelope": "e1", "committed": [{"run": RUN, "first": 0, "last": 1}]},
        {"envelope": "e1", "committed": [{"run": "x", "first": 1, "last": 1}]},
        {"envelope": "e1", "committed": [[RUN, 1, 1]]},
        {"envelope": "e1", "refused": [{"run": RUN, "seq": 1, "code": "Bad Code"}]},
        {"envelope": "e1", "rejected": ""},
        {"envelope": "x" * 65},
        {"envelope": "e1", "committed": [{"run": RUN, "first": 1, "last": 1}] * (bounds.ENVELOPE_RECORDS + 1)},
        {},
    ],
)
def test_a_bad_receipt_is_refused(receipt: Document) -> None:
    payload = envelope.seal("receipt", envelope.CLOUD_SOURCE, json.dumps(receipt).encode(), NOW, "e1")
    with pytest.raises(WireError) as caught:
        envelope.open_message(payload, "receipt", Receipt, envelope.CLOUD_SOURCE)
    assert caught.value.code == "bad-message"


def test_ids_of_envelopes_differ() -> None:
    assert len({envelope.new_id() for _ in range(100)}) == 100


# -- there and back -----------------------------------------------------------------------------------------------

NAMES = st.from_regex(bounds.NAME, fullmatch=True).filter(lambda name: not name.endswith("\n"))
RUNS = st.text("0123456789abcdef", min_size=16, max_size=16)
SEQS = st.integers(1, bounds.SEQ_MAX)
CLEAN = st.characters(exclude_categories=["Cs"], exclude_characters="\x00")
TEXTS = st.text(CLEAN, max_size=bounds.TEXT)
LABELS = st.text(CLEAN, min_size=1, max_size=64)
TIMES = st.datetimes(datetime(2020, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001
MILLISECONDS = st.floats(0, 86_400_000)
PROBABILITIES = st.floats(0, 1)

RECORD_FIELDS = {
    "run": RUNS,
    "seq": SEQS,
    "camera": NAMES,
    "captured_at": TIMES,
    "boot_ns": st.integers(0, bounds.SEQ_MAX),
    "clock": st.sampled_from(["synced", "unsure"]),
}
RESULTS = st.builds(
    Result,
    **RECORD_FIELDS,
    frame=SEQS,
    labels=st.lists(st.builds(Score, label=LABELS, score=PROBABILITIES), min_size=1, max_size=bounds.LABELS).map(tuple),
    decision=st.builds(
        Decision,
        label=LABELS,
        state=st.sampled_from(["confirmed", "pending", "unknown"]),
        changed=st.booleans(),
        reason=TEXTS,
    ),
    model=st.builds(
        ModelName,
        name=NAMES,
        version=TEXTS,
        release=st.integers(0, 2**31),
        digest=st.text("0123456789abcdef", min_size=64, max_size=64),
    ),
    runtime=NAMES,
    mode=st.sampled_from(["real-time", "serverless", "asynchronous", "batch"]),
    waiting_ms=MILLISECONDS,
    inference_ms=MILLISECONDS,
    total_ms=MILLISECONDS,
    truth=st.none() | LABELS,
)
ALERTS = st.builds(
    Alert,
    **RECORD_FIELDS,
    rule=NAMES,
    state=st.sampled_from(["raised", "cleared"]),
    label=LABELS,
    score=PROBABILITIES,
    since=TIMES,
    frame=SEQS,
    reason=TEXTS,
    thumbnail=st.none() | st.binary(min_size=1, max_size=99).map(lambda jpeg: base64.b64encode(jpeg).decode()),
)
SPANS = st.builds(lambda run, ends: Span(run=run, first=min(ends), last=max(ends)), RUNS, st.tuples(SEQS, SEQS))
CODES = st.from_regex(r"[a-z0-9-]{1,48}", fullmatch=True)
RECEIPTS = st.builds(
    Receipt,
    envelope=st.text(CLEAN, max_size=64),
    rejected=st.none() | CODES,
    committed=st.lists(SPANS, max_size=5).map(tuple),
    refused=st.lists(st.builds(Refusal, run=RUNS, seq=SEQS, code=CODES), max_size=5).map(tuple),
)


def there_and_back(kind: str, model: type[Record], origin: envelope.Origin, records: list[Record]) -> envelope.Records:
    bodies = [
        envelope.keyed(record.run, record.seq, record.model_dump_json(exclude={"run", "seq"}).encode())
        for record in records
    ]
    return envelope.open_records(envelope.seal_records(kind, origin, bodies, NOW, "e1"), kind, model, origin.device)


ORIGINS = st.builds(
    envelope.Origin,
    device=NAMES,
    store=TEXTS,
    agent=TEXTS,
    boot=st.text(CLEAN, max_size=64),
    sent_boot_ns=st.integers(0, bounds.SEQ_MAX),
)


@settings(deadline=None)
@given(ORIGINS, st.lists(RESULTS, min_size=1, max_size=3))
def test_results_come_back_as_they_were(origin: envelope.Origin, results: list[Record]) -> None:
    read = there_and_back("result", Result, origin, results)
    assert list(read.good) == results
    assert (read.refused, read.origin) == ((), origin)


@settings(deadline=None)
@given(ORIGINS, st.lists(ALERTS, min_size=1, max_size=3))
def test_alerts_come_back_as_they_were(origin: envelope.Origin, alerts: list[Record]) -> None:
    assert list(there_and_back("alert", Alert, origin, alerts).good) == alerts


@settings(deadline=None)
@given(RECEIPTS)
def test_a_receipt_comes_back_as_it_was(receipt: Receipt) -> None:
    payload = envelope.seal_message("receipt", envelope.CLOUD_SOURCE, receipt, NOW)
    assert envelope.open_message(payload, "receipt", Receipt, envelope.CLOUD_SOURCE)[1] == receipt


# -- arbitrary input ----------------------------------------------------------------------------------------------

GOOD = sealed(a_result(1), a_result(2))


def every_reader(payload: bytes) -> None:
    """Give `payload` to every reader there is: each may raise `WireError`, and nothing else."""
    for kind, record in envelope.RECORDS.items():
        try:
            envelope.open_records(payload, kind, record, DEVICE)
        except WireError as error:
            assert error.code
            str(error).encode()
    for kind, message in envelope.MESSAGES.items():
        try:
            envelope.open_message(payload, kind, message, SOURCE)
        except WireError as error:
            assert error.code
            str(error).encode()


@settings(deadline=None)
@given(st.binary(max_size=1_000))
def test_arbitrary_bytes_only_ever_raise_wire_error(payload: bytes) -> None:
    every_reader(payload)


@settings(deadline=None)
@given(st.integers(0, len(GOOD) - 1), st.binary(max_size=8), st.integers(0, 40))
def test_damaged_envelopes_only_ever_raise_wire_error(at: int, bytes_put: bytes, cut: int) -> None:
    every_reader(GOOD[:at] + bytes_put + GOOD[at + cut :])


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=6,
)


@settings(deadline=None)
@given(st.sampled_from(sorted(a_result())), JSON_VALUES, st.sampled_from([*envelope.RECORDS, *envelope.MESSAGES]))
def test_arbitrary_values_in_any_field_only_ever_raise_wire_error(name: str, value: object, kind: str) -> None:
    for body in ({"device": DEVICE, "records": [{**a_result(), name: value}]}, {**a_result(), name: value}):
        every_reader(envelope.seal(kind, SOURCE, json.dumps(body).encode(), NOW, "e1"))


STATUS_FIELDS = sorted(Status.model_fields)


@settings(deadline=None)
@given(st.sampled_from(STATUS_FIELDS), JSON_VALUES)
def test_arbitrary_values_in_a_status_only_ever_raise_wire_error(name: str, value: object) -> None:
    body = {"state": "online", "session": RUN, name: value}
    every_reader(envelope.seal("status", SOURCE, json.dumps(body).encode(), NOW, "e1"))
