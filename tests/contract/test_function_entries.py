"""One suite over every entry: the same request gets the same answer, wherever the function runs."""

import base64
import json
import struct
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests
from function_entries import (
    EVENT_TYPE,
    Call,
    Document,
    Server,
    bare,
    framework_command,
    free_port,
    function_url_event,
    host_command,
    lambda_url,
    server,
    uvicorn_command,
)

from cloud.function import aws
from models import BUILTIN
from wire.records import Verdict

BANANA = (BUILTIN["produce"] / "golden" / "1-banana.png").read_bytes()
HEADERS = {
    "content-type": "image/png",
    "x-shelfwire-frame": "shop-1/00000000000000aa/17",
    "x-shelfwire-camera": "cam-1",
    "x-shelfwire-captured-at": "2026-03-01T11:59:59.250000Z",
    "x-shelfwire-local-label": "Lemon",
}
EVENT = {
    "specversion": "1.0",
    "id": "shop-1/00000000000000aa/17",
    "source": "/devices/shop-1",
    "type": "io.shelfwire.frame.v1",
    "time": "2026-03-01T12:00:00Z",
    "datacontenttype": "image/png",
    "shelfwireframe": "shop-1/00000000000000aa/17",
    "shelfwirecamera": "cam-1",
    "shelfwirecapturedat": "2026-03-01T11:59:59.250000Z",
    "shelfwirelocallabel": "Lemon",
}
ENTRIES = ["bare", "lambda-url", "asgi", "functions-framework", "host"]


@pytest.fixture(scope="module")
def asgi() -> Iterator[Server]:
    port = free_port()
    with server(uvicorn_command(port), port) as started:
        yield started


@pytest.fixture(scope="module")
def framework() -> Iterator[Server]:
    port = free_port()
    with server(framework_command(port, "classify"), port) as started:
        yield started


@pytest.fixture(scope="module")
def framework_events() -> Iterator[Server]:
    port = free_port()
    with server(framework_command(port, "on_picture"), port) as started:
        yield started


@pytest.fixture(scope="module")
def host() -> Iterator[Server]:
    port = free_port()
    with server(host_command(port, "--concurrency", "1"), port) as started:
        yield started


@pytest.fixture(params=ENTRIES)
def call(request: pytest.FixtureRequest) -> Call:
    fixtures = {"asgi": "asgi", "functions-framework": "framework", "host": "host"}
    if request.param in fixtures:
        started: Server = request.getfixturevalue(fixtures[request.param])
        return started.call
    return bare if request.param == "bare" else lambda_url


def lasting(answer: Mapping[str, object]) -> Document:
    """What of an answer stays the same when it is asked for again."""
    return {name: value for name, value in answer.items() if name not in ("inference_ms", "answered_at")}


def expected() -> Document:
    return lasting(bare("POST", HEADERS, BANANA)[1])


def event_body(**changed: object) -> bytes:
    return json.dumps({**EVENT, "data_base64": base64.b64encode(BANANA).decode(), **changed}).encode()


def test_a_picture_gets_its_verdict(call: Call) -> None:
    status, answer = call("POST", HEADERS, BANANA)
    assert status == 200
    verdict = Verdict.model_validate_json(json.dumps(answer))
    assert (verdict.device, verdict.seq, verdict.label, verdict.agrees) == ("shop-1", 17, "Banana", False)
    assert lasting(answer) == expected()


def test_the_same_frame_again_gets_the_same_verdict(call: Call) -> None:
    answers = [call("POST", HEADERS, BANANA)[1] for _ in range(3)]
    assert [lasting(answer) for answer in answers] == [expected()] * 3


def test_a_cloudevent_gets_the_same_verdict(call: Call) -> None:
    status, answer = call("POST", {"content-type": EVENT_TYPE}, event_body())
    assert (status, lasting(answer)) == (200, expected())


def test_a_label_in_any_script(call: Call) -> None:
    status, answer = call("POST", HEADERS | {"x-shelfwire-local-label": "%D0%B1%D0%B0%D0%BD%D0%B0%D0%BD"}, BANANA)
    assert (status, answer["agrees"]) == (200, False)


PIXELS = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + struct.pack(">II", 20_000, 20_000) + b"\x08\x02\0\0\0" + bytes(64)


@pytest.mark.parametrize(
    ("change", "body", "status", "code"),
    [
        ({}, b"", 400, "picture-empty"),
        ({}, b"this is a text and no picture", 415, "picture-not-a-picture"),
        ({}, BANANA[:50_000], 422, "picture-truncated"),
        ({}, PIXELS, 413, "picture-too-large"),
        ({}, BANANA + bytes(4_400_000), 413, "picture-too-large"),
        ({}, BANANA + bytes(10_000_000), 413, "picture-too-large"),
        ({"content-type": "text/html"}, BANANA, 415, "content-type"),
        ({"x-shelfwire-frame": "shop-1"}, BANANA, 400, "bad-frame"),
        ({"x-shelfwire-camera": "no/camera"}, BANANA, 400, "bad-camera"),
        ({"x-shelfwire-captured-at": "soon"}, BANANA, 400, "bad-captured-at"),
        ({"content-type": EVENT_TYPE}, b'{"specversion": "1.0"', 400, "bad-json"),
        ({"content-type": EVENT_TYPE}, event_body(data_base64="?"), 400, "bad-event"),
        ({"content-type": EVENT_TYPE}, event_body(shelfwireframe="x"), 400, "bad-frame"),
    ],
    ids=[
        "empty", "text", "half", "pixels", "4-megabytes", "10-megabytes", "html", "frame", "camera", "time", "json",
        "base64", "event-frame",
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_with_its_cure(
    call: Call, change: dict[str, str], body: bytes, status: int, code: str
) -> None:
    given, problem = call("POST", HEADERS | change, body)
    assert (given, problem["status"], problem["code"]) == (status, status, code)
    assert problem["hint"]


def test_a_call_without_headers_is_named(call: Call) -> None:
    status, problem = call("POST", {"content-type": "image/png"}, BANANA)
    assert (status, problem["code"]) == (400, "bad-frame")


def test_only_post(call: Call) -> None:
    assert call("PUT", HEADERS, BANANA)[0] == 405


@pytest.mark.parametrize("entry", ["asgi", "framework", "host"])
def test_calls_at_the_same_time_do_not_mix(entry: str, request: pytest.FixtureRequest) -> None:
    started: Server = request.getfixturevalue(entry)
    folder = BUILTIN["produce"] / "golden"
    pictures = {path.stem[2:]: path.read_bytes() for path in sorted(folder.glob("*.png"))[:3]}

    def ask(number: int) -> tuple[str, int, Document]:
        name = list(pictures)[number % 3]
        frame = {"x-shelfwire-frame": f"shop-1/00000000000000aa/{number + 1}"}
        for _ in range(50):
            status, answer = started.call("POST", HEADERS | frame, pictures[name])
            if status != 429:
                break
        return name, number + 1, answer

    with ThreadPoolExecutor(4) as threads:
        for name, seq, answer in threads.map(ask, range(12)):
            assert (str(answer["label"]).lower(), answer["seq"]) == (name, seq)


# -- what only one platform does ---------------------------------------------------------------------------------------


def test_lambda_called_directly_with_an_event() -> None:
    assert lasting(aws.lambda_handler(json.loads(event_body()), None)) == expected()
    refused = aws.lambda_handler(json.loads(event_body(shelfwireframe="x")), None)
    assert (refused["status"], refused["code"]) == (400, "bad-frame")


def test_lambda_called_directly_through_its_own_invoke(host: Server) -> None:
    url = f"{host.url}2015-03-31/functions/shelfwire/invocations"
    answer = requests.post(url, data=event_body(), timeout=30)
    assert (answer.status_code, "X-Amz-Function-Error" in answer.headers) == (200, False)
    assert lasting(answer.json()) == expected()


def test_lambda_behind_api_gateway() -> None:
    """API Gateway's HTTP API sends the same format with a route of its own, cookies, and names as the client wrote."""
    event = function_url_event("POST", {}, BANANA)
    event |= {"routeKey": "POST /classify", "rawPath": "/classify", "cookies": ["a=b"], "stageVariables": None}
    event["headers"] = {name.title(): value for name, value in HEADERS.items()}
    answer = aws.lambda_handler(event, None)
    assert lasting(json.loads(str(answer["body"]))) == expected()


@pytest.mark.parametrize("event", [None, [], "text", {}, {"requestContext": {}}, {"requestContext": {"http": 1}}])
def test_lambda_refuses_what_it_does_not_know(event: object) -> None:
    assert aws.lambda_handler(event, None)["code"] == "bad-event"


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"body": "not base64!"}, "bad-event"),
        ({"body": "plain text", "isBase64Encoded": False}, "picture-not-a-picture"),
        ({"body": None}, "picture-empty"),
        ({"headers": None}, "content-type"),
    ],
)
def test_lambda_refuses_broken_calls(change: dict[str, object], code: str) -> None:
    event = function_url_event("POST", HEADERS, BANANA) | change
    answer = aws.lambda_handler(event, None)
    assert json.loads(str(answer["body"]))["code"] == code


@pytest.mark.parametrize("binary", [True, False], ids=["binary", "structured"])
def test_the_framework_gives_events_to_the_function(framework_events: Server, binary: bool) -> None:
    """Eventarc sends events in binary mode; the framework itself answers OK, and the verdict goes to the log."""
    seq = 100 + binary
    frame = f"shop-1/00000000000000aa/{seq}"
    if binary:
        headers = {f"ce-{name}": value for name, value in (EVENT | {"shelfwireframe": frame}).items()}
        headers["content-type"] = headers.pop("ce-datacontenttype")
        answer = requests.post(framework_events.url, headers=headers, data=BANANA, timeout=30)
    else:
        body = event_body(shelfwireframe=frame)
        answer = requests.post(framework_events.url, headers={"content-type": EVENT_TYPE}, data=body, timeout=30)
    assert (answer.status_code, answer.text) == (200, "OK")
    told = json.loads(framework_events.line(f'"seq": {seq}'))
    assert told["severity"] == "INFO"
    assert lasting(told["answer"]) == expected() | {"seq": seq}


def test_a_bad_event_is_logged_and_does_not_come_again(framework_events: Server) -> None:
    body = event_body(shelfwirecamera="not a camera")
    answer = requests.post(framework_events.url, headers={"content-type": EVENT_TYPE}, data=body, timeout=30)
    assert answer.status_code == 200
    assert json.loads(framework_events.line('"bad-camera"'))["severity"] == "ERROR"
