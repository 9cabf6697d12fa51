"""The serverless way with everything real: server, function host with its workers, database, broker, and what fails."""

import contextlib
import hashlib
import json
import os
import signal
import socket
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import psycopg
import pytest
from broker import Device
from conftest import Postgres
from prometheus_client.parser import text_string_to_metric_families
from test_ingest import rows
from test_web_api import problem
from waiting import wait_for
from web_shop import serving, shelf

from cloud.broker import CLOUD, Broker
from cloud.errors import Rejected
from cloud.function import host
from cloud.function.pool import Options
from cloud.gateway import Function
from cloud.gateway import gateway as gateway_module
from cloud.store import Store
from models import BUILTIN

HERE = Path(__file__).parent
RUN = "00000000000000aa"
JPEG = shelf(3, "Banana")
BANANA = (BUILTIN["produce"] / "golden" / "1-banana.png").read_bytes()
PATIENCE_S = 30.0


@dataclass
class Hosted:
    """A function host in a thread of this process."""

    url: str

    def meter(self, *names: str) -> list[object]:
        shown = httpx.get(f"{self.url}meter").json()
        return [shown[name] for name in names]


@contextlib.contextmanager
def hosting(entry: str, **wanted: float) -> Iterator[Hosted]:
    opened = socket.create_server(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{opened.getsockname()[1]}/"
    options = Options(
        concurrency=int(wanted.get("concurrency", 2)), idle_s=20.0, timeout_s=wanted.get("timeout_s", 10.0), entry=entry
    )
    ready, stop = threading.Event(), threading.Event()
    thread = threading.Thread(
        target=host.serve, args=(options, opened), kwargs={"on_ready": ready.set, "stop": stop.is_set}
    )
    thread.start()
    assert ready.wait(PATIENCE_S)
    yield Hosted(url)
    stop.set()
    thread.join(PATIENCE_S)
    assert not thread.is_alive()


@dataclass
class House:
    """A server with its function on one database."""

    api: httpx.Client
    store: Store
    function: Hosted
    url: str

    def metrics(self) -> dict[str, float]:
        text = self.api.get("/metrics").text
        return {
            sample.name + "".join(sample.labels.values()): sample.value
            for family in text_string_to_metric_families(text) if family.name.startswith("shelfwire_gateway")
            for sample in family.samples
        }  # fmt: skip


def make_house(postgres: Postgres, folder: Path, stack: contextlib.ExitStack, entry: str, **wanted: float) -> House:
    dsn = postgres.create()
    stack.callback(postgres.drop, dsn)
    store = Store.open(dsn, folder)
    stack.callback(store.close)
    function = stack.enter_context(hosting(entry, **wanted))
    served = stack.enter_context(serving(store, function=function.url))
    api = stack.enter_context(httpx.Client(base_url=served.url, timeout=PATIENCE_S))
    return House(api, store, function, served.url)


@pytest.fixture(scope="module")
def real(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """The function itself."""
    with contextlib.ExitStack() as stack:
        yield make_house(postgres, tmp_path_factory.mktemp("real"), stack, "cloud.function.aws.lambda_handler")


@pytest.fixture(scope="module")
def toy(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A function that does as the camera's name says."""
    with contextlib.ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        folder = tmp_path_factory.mktemp("toy")
        os.mkfifo(folder / "pipe")
        patch.setenv("PYTHONPATH", os.pathsep.join((str(HERE.parents[1]), str(HERE))))
        patch.setenv("SHELFWIRE_TEST_PIPE", str(folder / "pipe"))
        yield make_house(postgres, folder, stack, "function_toys.frames", timeout_s=3.0)


def put(
    api: httpx.Client, seq: int, picture: bytes = JPEG, *, kind: str = "image/jpeg", device: str = "shop-1",
    **headers: str | None,
) -> httpx.Response:  # fmt: skip
    """Ask about a frame as a device does; headers are named without their beginning, None leaves one out."""
    said: dict[str, str | None] = {
        "camera": "cam-1", "number": str(seq), "captured_at": "2026-03-01T11:59:59.250000Z", "clock": "synced",
        "sha256": hashlib.sha256(picture).hexdigest(), "deadline_ms": "20000", **headers,
    }  # fmt: skip
    sent = {f"X-Shelfwire-{name.replace('_', '-')}": value for name, value in said.items() if value is not None}
    return api.put(f"/v1/frames/{device}/{RUN}/{seq}", content=picture, headers={"Content-Type": kind, **sent})


def kept(house: House, device: str = "shop-1") -> list[tuple[object, ...]]:
    return rows(house.store.dsn, "SELECT seq, label FROM verdict WHERE device = %s ORDER BY seq", device)


# -- the straight way --------------------------------------------------------------------------------------------------


def test_a_frame_is_answered_kept_and_on_its_way_to_its_device(real: House) -> None:
    answer = put(real.api, 17, BANANA, kind="image/png", local_label="L%C3%A9mon", device="shop-9")
    assert answer.status_code == 200, answer.text
    told = answer.json()
    assert told["state"] == "answered"
    assert told["billed_ms"] > 0
    assert 0 < told["usd"] < 0.01
    assert real.function.meter("invocations", "billed_ms", "usd") == [1, told["billed_ms"], pytest.approx(told["usd"])]
    ((*row,),) = rows(
        real.store.dsn,
        "SELECT device, run, seq, camera, frame, captured_at, mode, label, agrees, model_name, runtime, picture_bytes,"
        " billed_ms, usd, asked_at <= committed_at FROM verdict WHERE device = 'shop-9'",
    )
    assert row == [
        "shop-9", RUN, 17, "cam-1", 17, datetime(2026, 3, 1, 11, 59, 59, 250000, UTC), "serverless", "Banana", False,
        "produce", "onnxruntime", len(BANANA), told["billed_ms"], told["usd"], True,
    ]  # fmt: skip
    ((body,),) = rows(real.store.dsn, "SELECT body FROM outbound WHERE device = 'shop-9'")
    assert (body["seq"], body["label"], body["agrees"]) == (17, "Banana", False)  # type: ignore[index]


def test_asked_again_the_function_is_not_called_again(real: House) -> None:
    first = put(real.api, 20)
    before = real.function.meter("invocations")
    again = put(real.api, 20)
    assert (again.status_code, again.json()) == (200, first.json())
    assert real.function.meter("invocations") == before
    assert real.api.put(f"/api/v1/frames/shop-1/{RUN}/20").status_code == 415, "the same call under /api/v1"


def test_the_same_frame_asked_twice_at_once_is_kept_once(real: House) -> None:
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: put(real.api, 30), range(4)))
    assert {answer.status_code for answer in answers} <= {200, 429}  # two workers: others may be sent away
    assert 200 in {answer.status_code for answer in answers}
    assert [seq for seq, _ in kept(real) if seq == 30] == [30]
    assert rows(real.store.dsn, "SELECT count(*) FROM outbound WHERE (body->>'seq')::int = 30") == [(1,)]


def test_an_unsure_clock_is_corrected_by_the_age_of_the_frame(real: House) -> None:
    began = datetime.now(UTC)
    said = {"captured_at": "1970-01-01T00:00:09Z", "clock": "unsure", "age_ms": "60000"}
    assert put(real.api, 40, device="shop-2", **said).status_code == 200
    ((captured_at,),) = rows(real.store.dsn, "SELECT captured_at FROM verdict WHERE device = 'shop-2'")
    assert began - timedelta(seconds=60) <= captured_at <= datetime.now(UTC) - timedelta(seconds=60)  # type: ignore[operator]


def test_the_outcomes_are_counted(real: House) -> None:
    put(real.api, 50)
    put(real.api, 50)
    put(real.api, 51, camera=None)
    found = real.metrics()
    names = ("answered", "known", "refused")
    assert all(found[f"shelfwire_gateway_calls_total{name}"] >= 1 for name in names)
    assert found["shelfwire_gateway_usd_total"] > 0
    assert found["shelfwire_gateway_call_seconds_count"] >= 1
    assert found["shelfwire_gateway_under_way"] == 0


# -- bad questions -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({"camera": None}, 400, "bad-camera"),
        ({"camera": "a b"}, 400, "bad-camera"),
        ({"number": None}, 400, "bad-number"),
        ({"number": "0"}, 400, "bad-number"),
        ({"captured_at": "today"}, 400, "bad-captured-at"),
        ({"captured_at": "1969-01-01T00:00:00Z"}, 400, "bad-captured-at"),
        ({"clock": None}, 400, "bad-clock"),
        ({"clock": "slow"}, 400, "bad-clock"),
        ({"age_ms": "-1"}, 400, "bad-age-ms"),
        ({"age_ms": "1" * 30}, 400, "bad-age-ms"),
        ({"local_label": "%ff"}, 400, "bad-local-label"),
        ({"local_label": "x" * 65}, 400, "bad-local-label"),
        ({"deadline_ms": "0"}, 400, "bad-deadline-ms"),
        ({"sha256": "abc"}, 400, "bad-sha256"),
        ({"sha256": "ab" * 32}, 422, "bad-sha256"),
        ({"kind": "text/plain"}, 415, "content-type"),
        ({"picture": b""}, 422, "picture-empty"),
        ({"picture": b"no picture"}, 415, "picture-not-a-picture"),
        ({"picture": b"BM" + bytes(60)}, 422, "picture-broken"),
        ({"picture": JPEG[:4]}, 422, "picture-truncated"),
        ({"device": "a b"}, 422, "bad-parameter"),
    ],
)
def test_what_is_wrong_is_refused_before_the_function_is_called(
    real: House, headers: dict[str, str], status: int, code: str
) -> None:
    before = real.function.meter("invocations", "throttles")
    problem(put(real.api, 99, **headers), status, code)  # type: ignore[arg-type]
    assert real.function.meter("invocations", "throttles") == before


def test_a_picture_that_only_the_decoder_can_judge_is_refused_by_the_function(real: House) -> None:
    problem(put(real.api, 98, JPEG[: len(JPEG) // 2]), 422, "picture-truncated")
    assert 98 not in [seq for seq, _ in kept(real)]


def test_a_body_that_is_too_large_is_given_up_while_it_is_read(real: House) -> None:
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        while True:
            sent += 1 << 20
            yield bytes(1 << 20)

    headers = {
        "Content-Type": "image/jpeg", "X-Shelfwire-Camera": "c", "X-Shelfwire-Number": "1",
        "X-Shelfwire-Captured-At": "2026-03-01T11:59:59Z", "X-Shelfwire-Clock": "synced",
    }  # fmt: skip
    with contextlib.suppress(httpx.WriteError, httpx.ReadError):
        answer = real.api.put(f"/v1/frames/shop-1/{RUN}/97", content=endless(), headers=headers)
        problem(answer, 413, "picture-too-large")
    assert sent < 64 << 20


def test_a_page_of_another_site_cannot_ask(real: House) -> None:
    answer = real.api.put(f"/v1/frames/shop-1/{RUN}/96", content=JPEG, headers={"Origin": "https://evil.example"})
    problem(answer, 403, "foreign-page")


def test_a_sender_that_hangs_up_leaves_nothing_behind(real: House) -> None:
    with socket.create_connection((real.api.base_url.host, real.api.base_url.port or 80)) as raw:
        head = (
            f"PUT /v1/frames/shop-1/{RUN}/95 HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/jpeg\r\n"
            "X-Shelfwire-Camera: c\r\nX-Shelfwire-Number: 1\r\nX-Shelfwire-Captured-At: 2026-03-01T11:59:59Z\r\n"
            "X-Shelfwire-Clock: synced\r\nContent-Length: 100000\r\n\r\n"
        )
        raw.sendall(head.encode() + JPEG[:1000])
        wait_for("it is under way", lambda: real.metrics()["shelfwire_gateway_under_way"] == 1)
    wait_for("its place is free again", lambda: real.metrics()["shelfwire_gateway_under_way"] == 0)


def test_without_a_function_the_device_is_told_so(store: Store) -> None:
    with serving(store) as served, httpx.Client(base_url=served.url) as api:
        answer = put(api, 1)
        told = problem(answer, 503, "function-missing")
        assert "--function" in str(told["hint"])
        assert answer.headers["retry-after"] == "60"


def test_what_is_in_the_store_needs_no_function(real: House) -> None:
    first = put(real.api, 60)
    with serving(real.store) as served, httpx.Client(base_url=served.url) as api:
        again = put(api, 60)
        problem(put(api, 61), 503, "function-missing")
    assert (again.status_code, again.json()) == (200, first.json())


def test_the_api_is_described(real: House) -> None:
    path = real.api.get("/api/v1/openapi.json").json()["paths"]["/api/v1/frames/{device}/{run}/{seq}"]["put"]
    assert {"200", "400", "413", "429", "502", "503", "504"} <= set(path["responses"])
    assert "image/jpeg" in path["requestBody"]["content"]
    assert "X-Shelfwire-Camera" in {one["name"] for one in path["parameters"]}
    assert real.api.get("/api/v1/docs").status_code == 200


@pytest.mark.parametrize("url", ["", "127.0.0.1:9000", "ftp://x/", "http://u:p@x/", "http://x:y/", "http://x/ y"])
def test_a_wrong_function_url_is_refused(url: str) -> None:
    with pytest.raises(Rejected) as refused:
        Function(url)
    assert refused.value.code == "bad-function-url"
    assert refused.value.hint


# -- what the function may do ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("camera", "status", "code"),
    [
        ("other-frame", 502, "function-reply"),
        ("other-mode", 502, "function-reply"),
        ("garbage", 502, "function-reply"),
        ("too-sure", 502, "function-reply"),
        ("too-new", 502, "function-reply"),
        ("nul", 502, "function-reply"),
        ("raises", 502, "function-failed"),
        ("dies", 502, "function-crashed"),
        ("hangs", 504, "function-timeout"),
    ],
)
def test_a_function_that_goes_wrong_leaves_nothing_in_the_store(
    toy: House, camera: str, status: int, code: str
) -> None:
    problem(put(toy.api, 1, camera=camera, device="shop-3"), status, code)
    assert kept(toy, "shop-3") == []
    assert put(toy.api, 2).status_code == 200, "and the next one is answered"


def test_the_device_is_not_kept_waiting_beyond_its_deadline(toy: House) -> None:
    began_s = time.monotonic()
    problem(put(toy.api, 3, camera="hangs", deadline_ms="300"), 504, "function-timeout")
    assert time.monotonic() - began_s < 2.5


def test_a_function_that_is_busy_asks_to_come_again(toy: House) -> None:
    wait_for("the call given up before has ended", lambda: "busy" not in httpx.get(f"{toy.function.url}healthz").text)
    with ThreadPoolExecutor(3) as pool:
        answers = list(pool.map(lambda n: put(toy.api, n, camera="hangs", device="shop-3"), (10, 11, 12)))
    codes = sorted(answer.status_code for answer in answers)
    assert codes == [429, 504, 504]
    (busy,) = [answer for answer in answers if answer.status_code == 429]
    problem(busy, 429, "function-busy")
    assert busy.headers["retry-after"] == "1"


def test_what_waits_for_the_function_does_not_hold_up_the_pages(toy: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateway_module, "MOST_UNDER_WAY", 2)
    with ThreadPoolExecutor(2) as pool:
        held = [pool.submit(put, toy.api, n, camera="hangs", device="shop-3") for n in (20, 21)]
        wait_for("both are under way", lambda: toy.metrics()["shelfwire_gateway_under_way"] == 2)
        busy = put(toy.api, 22)
        problem(busy, 429, "gateway-busy")
        assert busy.headers["retry-after"] == "1"
        assert toy.api.get("/healthz").status_code == 200
        assert toy.api.get("/api/v1/cameras").status_code == 200
        assert {one.result().status_code for one in held} == {504}


class Odd(socketserver.StreamRequestHandler):
    """A server that is no function: it says what the test wants to be said, once per connection."""

    def handle(self) -> None:
        assert isinstance(self.server, OddServer)
        length = 0
        while (line := self.rfile.readline()) not in (b"\r\n", b""):
            name, _, value = line.partition(b":")
            length = int(value) if name.lower() == b"content-length" else length
        self.rfile.read(length)
        self.server.calls += 1
        for part in self.server.says:
            self.wfile.write(part)
            self.wfile.flush()
            if self.server.drips:
                self.server.stop.wait(0.1)


class OddServer(socketserver.ThreadingTCPServer):
    daemon_threads = True
    says: tuple[bytes, ...] = ()
    drips = False
    calls = 0
    stop = threading.Event()


def said(status: int, body: bytes, *headers: str) -> bytes:
    lines = (f"HTTP/1.1 {status} x", f"Content-Length: {len(body)}", *headers)
    return "".join(f"{line}\r\n" for line in (*lines, "")).encode() + body


def trouble(code: str, **more: str) -> bytes:
    return json.dumps({"code": code, "detail": "so it is", "hint": "do this", **more}).encode()


@pytest.fixture
def odd(store: Store) -> Iterator[Callable[..., httpx.Response]]:
    """Asks a function that answers with the bytes given."""
    server = OddServer(("127.0.0.1", 0), Odd)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    url = f"http://127.0.0.1:{server.server_address[1]}/"
    with serving(store, function=url) as served, httpx.Client(base_url=served.url, timeout=PATIENCE_S) as api:

        def ask(*parts: bytes, drips: bool = False, **headers: str) -> httpx.Response:
            server.says, server.drips = parts, drips
            return put(api, 1, **headers)

        yield ask
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("answer", "status", "code", "retry_after"),
    [
        (said(429, trouble("function-busy"), "Retry-After: 7"), 429, "function-busy", "7"),
        (said(429, b"slow down"), 429, "function-busy", "1"),
        (said(429, b"", "Retry-After: 86400"), 429, "function-busy", "60"),
        (said(500, b"oops"), 502, "function-failed", None),
        (said(500, trouble("model-output")), 502, "model-output", None),
        (said(503, trouble("function-stopping"), "Retry-After: 2"), 503, "function-stopping", "2"),
        (said(504, b""), 504, "function-timeout", None),
        (said(408, trouble("body-timeout")), 504, "body-timeout", None),
        (said(422, trouble("picture-broken")), 422, "picture-broken", None),
        (said(413, b'{"Message": "too large"}'), 413, "picture-too-large", None),
        (said(400, trouble("bad-frame")), 502, "function-refused", None),
        (said(403, b'{"Message": "Forbidden"}'), 502, "function-refused", None),
        (said(404, b"<html>"), 502, "function-refused", None),
        (said(302, b"", "Location: http://127.0.0.1:1/"), 502, "function-refused", None),
        (said(200, b"<html>"), 502, "function-reply", None),
        (said(200, b"{" * 1000), 502, "function-reply", None),
        (said(200, b" " * 70_000), 502, "function-reply", None),
        (said(200, b"{}")[:-1], 502, "function-lost", None),
        (b"", 502, "function-lost", None),
        (b"SSH-2.0-x\r\n", 502, "function-lost", None),
        (b"HTTP/1.1 200 x\r\nA: " + b"x" * 70_000, 502, "function-lost", None),
    ],
)
def test_every_answer_that_is_none_is_told_with_its_cure(
    odd: Callable[..., httpx.Response], answer: bytes, status: int, code: str, retry_after: str | None
) -> None:
    told = odd(answer)
    problem(told, status, code)
    if retry_after is not None:
        assert told.headers["retry-after"] == retry_after


def test_an_answer_that_drips_is_cut_at_the_deadline(odd: Callable[..., httpx.Response]) -> None:
    began_s = time.monotonic()
    problem(odd(*[b"H"] * 100, drips=True, deadline_ms="500"), 504, "function-timeout")
    assert time.monotonic() - began_s < 3


def test_nobody_who_listens_is_told_as_away(store: Store) -> None:
    with serving(store, function="http://127.0.0.1:1/") as served, httpx.Client(base_url=served.url) as api:
        answer = put(api, 1)
        problem(answer, 503, "function-away")
        assert answer.headers["retry-after"] == "5"


def test_a_connection_that_the_function_has_closed_is_not_an_error(toy: House) -> None:
    """Connections are kept; a host that is started anew has closed them all."""
    with contextlib.ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setenv("PYTHONPATH", os.pathsep.join((str(HERE.parents[1]), str(HERE))))
        with hosting("function_toys.frames") as first:
            served = stack.enter_context(serving(toy.store, function=first.url))
            api = stack.enter_context(httpx.Client(base_url=served.url, timeout=PATIENCE_S))
            assert put(api, 1, device="shop-2").status_code == 200
        problem(put(api, 2, device="shop-2"), 503, "function-away")


# -- kills and the whole way -------------------------------------------------------------------------------------------


@contextlib.contextmanager
def serve_process(
    dsn: str, function: str, *more: str, fail_at: str = ""
) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    command = [
        sys.executable, str(HERE / "failing_serve.py"), "serve", "--json", "--port", "0", "--dsn", dsn,
        "--function", function, *more,
    ]  # fmt: skip
    environment = os.environ | {"FAIL_AT": fail_at, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield json.loads(process.stdout.readline())["url"], process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.wait(20)
        process.stdout.close()


@pytest.mark.parametrize(("step", "calls"), [("called", 2), ("committed", 1)])
def test_a_server_killed_in_the_middle_answers_once_in_the_end(
    step: str, calls: int, postgres: Postgres, toy: House
) -> None:
    dsn = postgres.create()
    before = toy.function.meter("invocations")[0]
    with serve_process(dsn, toy.function.url, fail_at=step) as (url, process):
        with httpx.Client(base_url=url, timeout=PATIENCE_S) as api, pytest.raises(httpx.TransportError):
            put(api, 5)
        assert process.wait(PATIENCE_S) == 137
    with serve_process(dsn, toy.function.url) as (url, _), httpx.Client(base_url=url, timeout=PATIENCE_S) as api:
        assert put(api, 5).status_code == 200
    assert toy.function.meter("invocations") == [before + calls]  # type: ignore[operator]
    assert rows(dsn, "SELECT seq FROM verdict") == [(5,)]
    assert rows(dsn, "SELECT count(*) FROM outbound") == [(1,)]
    postgres.drop(dsn)


def test_the_whole_way_from_a_picture_to_its_device(broker: Broker, postgres: Postgres, real: House) -> None:
    dsn = postgres.create()
    shop = Device(broker, "shop-1", verdicts=True)
    way = (
        "--broker", f"mqtt://{CLOUD}@127.0.0.1:{broker.cloud_port}",
        "--password-file", str(broker.password_file(CLOUD)),
    )  # fmt: skip
    try:
        with serve_process(dsn, real.function.url, *way) as (url, _), httpx.Client(base_url=url, timeout=30) as api:
            for seq in range(1, 21):
                assert put(api, seq, BANANA, kind="image/png").status_code == 200
            shop.listen(lambda: len(shop.answers) >= 20, "the verdicts come")
            assert {one.verdict.label for one in shop.answers} == {"Banana"}
            shop.confirm(*shop.answers)
            wait_for("the receipts are taken", lambda: rows(dsn, "SELECT count(*) FROM outbound") == [(0,)])
            assert len(shop.answers) == 20
            assert "shelfwire_courier_verdicts_total 20" in api.get("/metrics").text
    finally:
        shop.close()
    postgres.drop(dsn)


def test_a_database_that_is_away_is_told_before_the_function_is_called(
    postgres: Postgres, toy: House, tmp_path: Path
) -> None:
    dsn = postgres.create()
    name = dsn.split("?", maxsplit=1)[0].rsplit("/", 1)[1]
    store = Store.open(dsn, tmp_path)
    before = toy.function.meter("invocations")
    with serving(store, function=toy.function.url) as served, httpx.Client(base_url=served.url, timeout=30) as api:
        with psycopg.connect(postgres._admin, autocommit=True) as admin:
            admin.execute(f"ALTER DATABASE {name} WITH ALLOW_CONNECTIONS false".encode())
            admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])
            problem(put(api, 1), 503, "database-away")
            admin.execute(f"ALTER DATABASE {name} WITH ALLOW_CONNECTIONS true".encode())
        assert toy.function.meter("invocations") == before
        deadline_s = time.monotonic() + PATIENCE_S
        while put(api, 1).status_code != 200:
            assert time.monotonic() < deadline_s
            threading.Event().wait(0.2)
    store.close()
    postgres.drop(dsn)
