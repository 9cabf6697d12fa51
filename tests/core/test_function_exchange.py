"""What the function takes, what it refuses and how, and that its answer depends on nothing else."""

import base64
import json
import struct
import subprocess
import sys
from datetime import UTC, datetime

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud.function import handler
from cloud.function.exchange import Reply, reply_to_event, reply_to_request
from cloud.function.handler import About, Model
from models import BUILTIN, BundleError
from wire.records import Verdict

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
BANANA = (BUILTIN["produce"] / "golden" / "1-banana.png").read_bytes()
HEADERS = {
    "content-type": "image/png",
    "x-shelfwire-frame": "shop-1/00000000000000aa/17",
    "x-shelfwire-camera": "cam-1",
    "x-shelfwire-captured-at": "2026-03-01T11:59:59.250000Z",
}
EVENT = {
    "specversion": "1.0",
    "id": "00000000000000aa-17",
    "source": "/devices/shop-1",
    "type": "io.shelfwire.frame.v1",
    "datacontenttype": "image/png",
    "shelfwireframe": "shop-1/00000000000000aa/17",
    "shelfwirecamera": "cam-1",
    "shelfwirecapturedat": "2026-03-01T11:59:59.250000Z",
    "data_base64": base64.b64encode(BANANA).decode(),
}


@pytest.fixture(scope="module")
def model() -> Model:
    return Model.open({})


def ask(model: Model, body: bytes = BANANA, **changed: str | None) -> Reply:
    headers = HEADERS | {name.replace("_", "-"): value for name, value in changed.items()}
    return reply_to_request(model, "POST", {k: v for k, v in headers.items() if v is not None}, body, lambda: NOW)


def told(reply: Reply) -> dict[str, object]:
    document: dict[str, object] = json.loads(reply.body)
    return document


def small(kind: str, width: int = 64, height: int = 48) -> bytes:
    done, encoded = cv2.imencode(f".{kind}", np.full((height, width, 3), (40, 200, 90), np.uint8))
    assert done
    return encoded.tobytes()


def test_a_picture_becomes_a_verdict(model: Model) -> None:
    reply = ask(model, x_shelfwire_local_label="Banana")
    assert (reply.status, reply.headers["Content-Type"]) == (200, "application/json")
    verdict = Verdict.model_validate_json(reply.body)
    assert (verdict.device, verdict.run, verdict.seq) == ("shop-1", "00000000000000aa", 17)
    assert (verdict.camera, verdict.mode, verdict.label) == ("cam-1", "serverless", "Banana")
    assert len(verdict.labels) == 5
    assert verdict.labels[0].label == "Banana"
    assert verdict.labels[0].score > 0.99
    assert verdict.model.digest == model.classifier.model.digest
    assert (verdict.runtime, verdict.answered_at, verdict.agrees) == ("onnxruntime", NOW, True)


def test_an_event_gets_the_same_answer_as_a_request(model: Model) -> None:
    by_event = reply_to_event(model, EVENT, now=lambda: NOW)
    by_body = ask(model, json.dumps(EVENT).encode(), content_type="application/cloudevents+json; charset=utf-8")
    expected = told(ask(model)) | {"inference_ms": 0}
    assert told(by_event) | {"inference_ms": 0} == expected
    assert told(by_body) | {"inference_ms": 0} == expected


@pytest.mark.parametrize(
    ("label", "agrees"), [(None, None), ("Banana", True), ("Lemon", False), ("unknown", False), ("%42anana", True)]
)
def test_it_says_whether_it_agrees_with_the_device(model: Model, label: str | None, agrees: bool | None) -> None:
    assert told(ask(model, x_shelfwire_local_label=label))["agrees"] is agrees


def test_below_the_threshold_the_label_is_unknown(model: Model) -> None:
    verdict = told(ask(model, small("png"), x_shelfwire_local_label="unknown"))
    assert (verdict["label"], verdict["agrees"]) == ("unknown", True)
    assert verdict["labels"][0]["score"] < model.classifier.threshold  # type: ignore[index]


@pytest.mark.parametrize("top", [1, 10])
def test_as_many_labels_as_asked_for(model: Model, top: int) -> None:
    assert len(told(ask(model, x_shelfwire_top=str(top)))["labels"]) == top  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["jpg", "png", "webp"])
def test_each_kind_of_picture_is_taken(model: Model, kind: str) -> None:
    assert ask(model, small(kind)).status == 200


def png_header(width: int, height: int) -> bytes:
    return (
        b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + struct.pack(">II", width, height) + b"\x08\x02\x00\x00\x00" + bytes(64)
    )


@pytest.mark.parametrize(
    ("picture", "status", "code"),
    [
        (b"", 400, "picture-empty"),
        (b"no picture at all, but a text of some length", 415, "picture-not-a-picture"),
        (small("bmp"), 415, "picture-kind"),
        (BANANA[: len(BANANA) // 2], 422, "picture-truncated"),
        (small("jpg")[:-30], 422, "picture-truncated"),
        (small("jpg")[:8], 422, "picture-truncated"),
        (png_header(20_000, 20_000), 413, "picture-too-large"),
        (png_header(0, 20), 422, "picture-broken"),
        (BANANA + bytes(10_000_000), 413, "picture-too-large"),
    ],
    ids=["empty", "text", "bmp", "half", "cut", "header", "pixels", "nothing", "bytes"],
)
def test_bad_pictures_are_named(model: Model, picture: bytes, status: int, code: str) -> None:
    reply = ask(model, picture)
    problem = told(reply)
    assert (reply.status, problem["status"], problem["code"]) == (status, status, code)
    assert reply.headers["Content-Type"] == "application/problem+json"
    assert problem["hint"]


@pytest.mark.parametrize(
    ("header", "value", "code"),
    [
        ("x-shelfwire-frame", None, "bad-frame"),
        ("x-shelfwire-frame", "shop-1/17", "bad-frame"),
        ("x-shelfwire-frame", "shop-1/00000000000000aa/17/1", "bad-frame"),
        ("x-shelfwire-frame", "shop 1/00000000000000aa/17", "bad-frame"),
        ("x-shelfwire-frame", "shop-1/00000000000000AA/17", "bad-frame"),
        ("x-shelfwire-frame", "shop-1/00000000000000aa/0", "bad-frame"),
        ("x-shelfwire-frame", "shop-1/00000000000000aa/-1", "bad-frame"),
        ("x-shelfwire-frame", "shop-1/00000000000000aa/9223372036854775808", "bad-frame"),
        ("x-shelfwire-frame", "shop-1/00000000000000aa/١٧", "bad-frame"),
        ("x-shelfwire-frame", "../../etc/passwd", "bad-frame"),
        ("x-shelfwire-camera", None, "bad-camera"),
        ("x-shelfwire-camera", "a/b", "bad-camera"),
        ("x-shelfwire-captured-at", None, "bad-captured-at"),
        ("x-shelfwire-captured-at", "yesterday", "bad-captured-at"),
        ("x-shelfwire-captured-at", "2026-03-01 11:59", "bad-captured-at"),
        ("x-shelfwire-local-label", "", "bad-local-label"),
        ("x-shelfwire-local-label", "x" * 65, "bad-local-label"),
        ("x-shelfwire-top", "0", "bad-top"),
        ("x-shelfwire-top", "11", "bad-top"),
        ("x-shelfwire-top", "many", "bad-top"),
    ],
)
def test_bad_headers_are_named(model: Model, header: str, value: str | None, code: str) -> None:
    headers = {k: v for k, v in (HEADERS | {header: value}).items() if v is not None}
    reply = reply_to_request(model, "POST", headers, BANANA)
    assert (reply.status, told(reply)["code"]) == (400, code)
    assert header in str(told(reply)["detail"])
    assert told(reply)["hint"]


def test_only_post_and_only_pictures(model: Model) -> None:
    refused = reply_to_request(model, "GET", HEADERS, b"")
    assert (refused.status, refused.headers["Allow"]) == (405, "POST")
    for kind in (None, "", "text/html", "image/bmp", "multipart/form-data; boundary=x"):
        assert (ask(model, content_type=kind).status, told(ask(model, content_type=kind))["code"]) == (
            415,
            "content-type",
        )


@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        ({"specversion": "0.3"}, 400, "bad-event"),
        ({"id": ""}, 400, "bad-event"),
        ({"source": None}, 400, "bad-event"),
        ({"type": 7}, 400, "bad-event"),
        ({"data_base64": None}, 400, "bad-event"),
        ({"data_base64": "%%%"}, 400, "bad-event"),
        ({"data_base64": "aGFsbG8=aGFsbG8="}, 400, "bad-event"),
        ({"data_base64": "é"}, 400, "bad-event"),
        ({"data_base64": ""}, 400, "picture-empty"),
        ({"datacontenttype": "application/json"}, 415, "content-type"),
        ({"datacontenttype": ["image/png"]}, 415, "content-type"),
        ({"shelfwireframe": 7}, 400, "bad-frame"),
        ({"shelfwirecamera": ["cam-1"]}, 400, "bad-camera"),
        ({"shelfwirecapturedat": 0}, 400, "bad-captured-at"),
        ({"shelfwiretop": 2.5}, 400, "bad-top"),
    ],
)
def test_bad_events_are_named(model: Model, change: dict[str, object], status: int, code: str) -> None:
    reply = reply_to_event(model, EVENT | change)
    assert (reply.status, told(reply)["code"]) == (status, code)


@pytest.mark.parametrize("event", [None, [], "text", 7, {}])
def test_what_is_no_event_is_refused(model: Model, event: object) -> None:
    reply = reply_to_event(model, event)
    assert (reply.status, told(reply)["code"]) == (400, "bad-event")


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 400, "empty"),
        (b"{", 400, "bad-json"),
        (b'{"id": 1, "id": 2}', 400, "duplicate-key"),
        (b"[" * 100_000, 400, "too-deep"),
        (b" " * 6_000_000, 413, "too-large"),
        (b"[]", 400, "bad-event"),
    ],
)
def test_bodies_that_are_no_event_are_named(model: Model, body: bytes, status: int, code: str) -> None:
    reply = ask(model, body, content_type="application/cloudevents+json")
    assert (reply.status, told(reply)["code"]) == (status, code)


@given(st.binary(max_size=400), st.sampled_from([b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF0000WEBPVP8 "]))
def test_no_bytes_raise(rest: bytes, start: bytes) -> None:
    assert ask(SHARED, start + rest).status in (200, 400, 413, 415, 422)


@given(st.dictionaries(st.sampled_from(sorted(HEADERS)), st.text(max_size=80)))
def test_no_headers_raise(headers: dict[str, str]) -> None:
    assert reply_to_request(SHARED, "POST", HEADERS | headers, BANANA[:60]).status in (400, 415, 422)


SHARED = Model.open({})


def test_the_answer_depends_on_the_request_alone(model: Model) -> None:
    about = About(device="d", run="0" * 16, seq=1, camera="c", captured_at=NOW)
    first, *others = [handler.answer(model, BANANA, about, NOW) for _ in range(3)]
    for other in others:
        assert other.model_copy(update={"inference_ms": first.inference_ms}) == first


def test_the_other_modes_use_the_same_function(model: Model) -> None:
    about = About(device="d", run="0" * 16, seq=1, camera="c", captured_at=NOW, mode="batch")
    assert handler.answer(model, BANANA, about, NOW).mode == "batch"


def test_the_environment_names_bundle_and_runtime() -> None:
    openvino = Model.open({"SHELFWIRE_RUNTIME": "openvino", "SHELFWIRE_BUNDLE": str(BUILTIN["produce"])})
    verdict = told(ask(openvino))
    assert (verdict["runtime"], verdict["label"]) == ("openvino", "Banana")
    with pytest.raises(BundleError, match="no bundle"):
        Model.open({"SHELFWIRE_BUNDLE": "nowhere"})
    with pytest.raises(BundleError) as refused:
        Model.open({"SHELFWIRE_RUNTIME": "abacus"})
    assert refused.value.code == "bundle-runtime"


def test_the_entry_is_light() -> None:
    """Every package that it does not import starts the function sooner, and the server's have no place in it."""
    code = "import sys, cloud.function.aws as entry; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60).stdout
    heavy = {"fastapi", "starlette", "uvicorn", "psycopg", "openvino", "torch", "requests", "paho", "agent", "alembic"}
    assert heavy.isdisjoint(said.split())
