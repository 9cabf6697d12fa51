"""Wire v1, held fast: exact bytes in ``golden/wire-v1`` that both sides keep writing and reading.

A change that makes one of these tests fail breaks the devices that are already in stores. It needs a v2 beside v1, not
new files. After a change that readers cannot notice (a new optional field), ``python tests/core/test_wire_golden.py``
writes the files anew.
"""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cloudevents.http import from_json

from wire import WireError, envelope
from wire.orders import ConfigOrder, Desired, Disagreement, ModelOrder, Reported, Update
from wire.records import (
    Alert,
    CameraCondition,
    CameraStatus,
    Decision,
    FramesStatus,
    HealthWarning,
    HostStatus,
    Keyed,
    LateAnswer,
    ModelName,
    NightStatus,
    OutboxStatus,
    Part,
    Picture,
    Receipt,
    Refusal,
    Result,
    Score,
    Span,
    Status,
    Verdict,
)

GOLDEN = Path(__file__).parent / "golden" / "wire-v1"

DEVICE = "store-0042-a"
RUN = "00112233aabbccdd"
SENT_AT = datetime(2026, 1, 31, 12, 0, 1, 250_000, tzinfo=UTC)
CAPTURED_AT = datetime(2026, 1, 31, 12, 0, 0, 7, tzinfo=UTC)
ENVELOPE_ID = "0123456789abcdef01234567"
JPEG = (
    "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAA0JCgsKCA0LCgsODg0PEyAVExISEyccHhcgLikxMC4pLSwzOko+MzZGNywtQFdBRkxOUlNSMj5aYVpQ"
    "YEpRUk//wAALCAAIAAgBAREA/8QAFAABAAAAAAAAAAAAAAAAAAAAAP/EABQQAQAAAAAAAAAAAAAAAAAAAAD/2gAIAQEAAD8AP//Z"
)

MODEL = ModelName(name="produce", version="2026.1", release=7, digest="ab" * 32)
ORIGIN = envelope.Origin(
    device=DEVICE,
    store="Zürich HB",
    agent="0.1.0",
    boot="6f2c6f0e-2b1d-4f0e-9d56-0d6f5a1f4c11",
    sent_boot_ns=81_250_000_000,
)

RESULTS = (
    Result(
        run=RUN,
        seq=1,
        camera="shelf-1",
        captured_at=CAPTURED_AT,
        boot_ns=80_000_000_000,
        clock="synced",
        frame=17,
        labels=(Score(label="Granny-Smith", score=0.9375), Score(label="Ananas", score=0.0625)),
        decision=Decision(label="Granny-Smith", state="confirmed", changed=True, reason="3 of 3 frames agree"),
        model=MODEL,
        runtime="openvino",
        mode="real-time",
        waiting_ms=1.5,
        inference_ms=4.25,
        total_ms=7.0,
        truth="Granny-Smith",
    ),
    Result(
        run=RUN,
        seq=2**53 + 1,  # more than a float holds: a reader that goes through floats gets it wrong
        camera="shelf-2",
        captured_at=CAPTURED_AT + timedelta(microseconds=33_333),
        boot_ns=80_033_333_000,
        clock="unsure",
        frame=18,
        labels=(Score(label="Käse 🧀", score=0.125),),
        decision=Decision(label="unknown", state="unknown", changed=False, reason="0.125 is below the threshold 0.5"),
        model=MODEL,
        runtime="onnxruntime",
        mode="batch",
        waiting_ms=0.0,
        inference_ms=86_400_000.0,
        total_ms=86_400_000.0,
    ),
)
ALERT = Alert(
    run=RUN,
    seq=3,
    camera="shelf-1",
    captured_at=CAPTURED_AT,
    boot_ns=80_000_000_000,
    clock="synced",
    rule="wrong-product",
    state="raised",
    label="Ananas",
    score=0.75,
    since=CAPTURED_AT - timedelta(seconds=5),
    frame=17,
    reason="seen for 5.0 s",
    thumbnail=JPEG,
)
ONLINE = Status(
    state="online",
    session=RUN,
    store="Zürich HB",
    agent="0.1.0",
    model=MODEL,
    runtime="openvino",
    clock="synced",
    vision="running",
    cameras=(
        CameraStatus(
            name="shelf-1",
            kind="rtsp",
            phase="streaming",
            captured=1_000,
            dropped=3,
            rate_fps=29.97,
            last_frame_age_s=0.02,
            conditions=(
                CameraCondition(
                    code="camera-covered",
                    message="camera shelf-1: something covers it",
                    cure="take it away",
                    since=CAPTURED_AT,
                ),
            ),
        ),
        CameraStatus(
            name="shelf-2",
            kind="usb",
            phase="failed",
            code="camera-not-found",
            message="/dev/video7 is not there",
            cure="plug it in",
        ),
    ),
    outbox=OutboxStatus(rows=12, bytes=9_000, dead=1, oldest_age_s=1.5),
    frames=FramesStatus(captured=1_000, local=900, serverless=60, deferred=30, dropped=10, unanswered=2),
    night=NightStatus(files=2, rows=250, bytes=9_000_000, unsealed=30, oldest_day="2026-11-24"),
    host=HostStatus(disk_free_bytes=40_000_000_000, disk_bytes=64_000_000_000, temperature_c=61.5),
    warnings=(HealthWarning(code="clock-unsure", severity="warning", text="no time source", cure="allow NTP"),),
)
OFFLINE = Status(state="offline", session=RUN, reason="the connection was lost")
RECEIPT = Receipt(
    envelope=ENVELOPE_ID,
    committed=(Span(run=RUN, first=1, last=2), Span(run=RUN, first=9_007_199_254_740_993, last=9_007_199_254_740_993)),
    refused=(Refusal(run=RUN, seq=3, code="bad-record"),),
)
PICTURE = Picture(camera="shelf-1", frame=17, captured_at=CAPTURED_AT, width=8, height=8, jpeg=JPEG)

ORDER = ModelOrder(name="produce", version="2026.2", release=8, digest="cd" * 32)
DESIRED = Desired(
    revision=12,
    ordered_at=SENT_AT,
    rollout="produce-2026.2",
    model=ORDER,
    config=ConfigOrder(text="[decide]\nconfirm_frames = 5\n"),
    deadline_at=SENT_AT + timedelta(days=2),
    download_window="22:00-06:00",
)
REPORTED = Reported(
    model=MODEL,
    previous=MODEL,
    config_revision=11,
    updates=(
        Update(
            what="model",
            revision=12,
            rollout="produce-2026.2",
            state="rejected",
            code="update-disagrees",
            text="the new model names another label for 41 of 120 frames; the limit is 10 %",
            numbers={"frames": 120.0, "differ": 41.0, "limit": 0.1},
            disagreements=(Disagreement(label="Granny-Smith", frames=60, differ=40),),
            target=ORDER,
            attempt=1,
            since=SENT_AT,
        ),
    ),
)

CLOUD_RUN = "c10d00000000c10d"
LATE = LateAnswer(
    run=CLOUD_RUN,
    seq=41,
    verdict=Verdict(
        device=DEVICE,
        run=RUN,
        seq=4,
        camera="shelf-1",
        frame=19,
        captured_at=CAPTURED_AT,
        mode="serverless",
        label="Granny-Smith",
        labels=(Score(label="Granny-Smith", score=0.9375), Score(label="Ananas", score=0.0625)),
        model=MODEL,
        runtime="onnxruntime",
        inference_ms=5.25,
        answered_at=SENT_AT,
    ),
)
ADDRESSEE = envelope.Origin(device=DEVICE)


def encoded(record: Keyed) -> bytes:
    """Encode a record as the outbox keeps it: without its key, which it gets when it is stored."""
    return envelope.keyed(record.run, record.seq, record.model_dump_json(exclude={"run", "seq"}).encode())


def sealed_records(kind: str, *records: Keyed) -> bytes:
    return envelope.seal_records(kind, ORIGIN, map(encoded, records), SENT_AT, ENVELOPE_ID)


def sealed(kind: str, source: str, message: Part) -> bytes:
    return envelope.seal_message(kind, source, message, SENT_AT, ENVELOPE_ID)


SOURCE = envelope.device_source(DEVICE)

WRITERS: dict[str, Callable[[], bytes]] = {
    "results.json": lambda: sealed_records("result", *RESULTS),
    "alert.json": lambda: sealed_records("alert", ALERT),
    "status-online.json": lambda: sealed("status", SOURCE, ONLINE),
    "status-offline.json": lambda: sealed("status", SOURCE, OFFLINE),
    "receipt.json": lambda: sealed("receipt", envelope.CLOUD_SOURCE, RECEIPT),
    "picture.json": lambda: sealed("picture", SOURCE, PICTURE),
    "desired.json": lambda: sealed("desired", envelope.CLOUD_SOURCE, DESIRED),
    "reported.json": lambda: sealed("reported", SOURCE, REPORTED),
    "verdicts.json": lambda: envelope.seal_records(
        "verdict", ADDRESSEE, [encoded(LATE)], SENT_AT, ENVELOPE_ID, envelope.CLOUD_SOURCE
    ),
}
FROM_THE_FUTURE = ["newer-results.json", "newer-receipt.json"]


def newer_results() -> bytes:
    """Results by a device that knows more than we: a field more on every level."""
    document = json.loads(WRITERS["results.json"]())
    document["traceparent"] = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    document["data"]["zone"] = {"floor": 2}
    record = document["data"]["records"][0]
    record["boxes"] = [[1, 2, 3, 4]]
    record["model"]["family"] = "b"
    record["labels"][0]["shelf_life_days"] = 4.5
    record["decision"]["episode"] = None
    return json.dumps(document).encode()


def newer_receipt() -> bytes:
    document = json.loads(WRITERS["receipt.json"]())
    document["data"]["store_lag_ms"] = 12
    document["data"]["committed"][0]["shard"] = "eu"
    return json.dumps(document).encode()


def read_message(name: str, kind: str, source: str) -> object:
    return envelope.open_message((GOLDEN / name).read_bytes(), kind, envelope.MESSAGES[kind], source)[1]


@pytest.mark.parametrize("name", WRITERS)
def test_we_still_write_the_same_bytes(name: str) -> None:
    assert WRITERS[name]() == (GOLDEN / name).read_bytes()


def test_every_golden_file_is_tested() -> None:
    assert {path.name for path in GOLDEN.iterdir()} == {*WRITERS, *FROM_THE_FUTURE}


def test_results_are_read() -> None:
    opened = envelope.open_records((GOLDEN / "results.json").read_bytes(), "result", Result, DEVICE)
    assert opened.good == RESULTS
    assert opened.refused == ()
    assert opened.origin == ORIGIN
    assert opened.event.id == ENVELOPE_ID
    assert opened.event.time == SENT_AT


def test_an_alert_is_read() -> None:
    opened = envelope.open_records((GOLDEN / "alert.json").read_bytes(), "alert", Alert, DEVICE)
    assert opened.good == (ALERT,)


def test_a_late_answer_is_read_by_its_addressee_alone() -> None:
    payload = (GOLDEN / "verdicts.json").read_bytes()
    opened = envelope.open_records(payload, "verdict", LateAnswer, DEVICE, envelope.CLOUD_SOURCE)
    assert opened.good == (LATE,)
    with pytest.raises(WireError, match="on the topic of 'shop-2'"):
        envelope.open_records(payload, "verdict", LateAnswer, "shop-2", envelope.CLOUD_SOURCE)
    with pytest.raises(WireError, match="source"):  # a device cannot speak for the cloud
        envelope.open_records(payload, "verdict", LateAnswer, DEVICE)


def test_messages_are_read() -> None:
    assert read_message("status-online.json", "status", SOURCE) == ONLINE
    assert read_message("status-offline.json", "status", SOURCE) == OFFLINE
    assert read_message("receipt.json", "receipt", envelope.CLOUD_SOURCE) == RECEIPT
    assert read_message("picture.json", "picture", SOURCE) == PICTURE
    assert read_message("desired.json", "desired", envelope.CLOUD_SOURCE) == DESIRED
    assert read_message("reported.json", "reported", SOURCE) == REPORTED


def test_fields_of_a_newer_device_are_ignored_but_kept_in_the_body() -> None:
    opened = envelope.open_records((GOLDEN / "newer-results.json").read_bytes(), "result", Result, DEVICE)
    assert opened.good == RESULTS
    assert opened.bodies[0]["boxes"] == [[1, 2, 3, 4]]


def test_fields_of_a_newer_cloud_are_ignored() -> None:
    assert read_message("newer-receipt.json", "receipt", envelope.CLOUD_SOURCE) == RECEIPT


@pytest.mark.parametrize("name", [*WRITERS, *FROM_THE_FUTURE])
def test_the_cloudevents_sdk_reads_it(name: str) -> None:
    payload = (GOLDEN / name).read_bytes()
    event = from_json(payload)
    document = json.loads(payload)
    assert event["specversion"] == "1.0"
    assert event["id"] == document["id"]
    assert event["source"] == document["source"]
    assert event["type"] == document["type"]
    assert event["time"] == document["time"]
    assert event["datacontenttype"] == "application/json"
    assert event.data == document["data"]


def main() -> None:
    GOLDEN.mkdir(parents=True, exist_ok=True)
    newer = dict(zip(FROM_THE_FUTURE, (newer_results, newer_receipt), strict=True))
    for name, write in {**WRITERS, **newer}.items():
        (GOLDEN / name).write_bytes(write())


if __name__ == "__main__":
    main()
