"""The device's API of a real vision process: with a stock client, tritonclient, and with clients that mean harm."""

import asyncio
import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio
from local_device import NO_NETWORK, Running, camera, can_be_without_network, running, wait_for_answers
from tritonclient.utils import InferenceServerException
from waiting import wait_for

from agent.store.inspect import look
from models import BUILTIN, Classifier, decode_picture

GOLDEN = sorted((BUILTIN["produce"] / "golden").glob("*.*"))


@pytest.fixture(scope="module")
def device(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A device that has no network of its own, as in a shop, where this machine lets us make that."""
    cameras = camera("cam-1", "synthetic:1?width=320&height=180")
    before = NO_NETWORK if can_be_without_network() else ()
    with running(tmp_path_factory.mktemp("device"), cameras, before=before) as one:
        yield one


@pytest.fixture
def client(device: Running) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(device.host, concurrency=4) as opened:
        yield opened


@pytest.fixture(scope="module")
def expected() -> dict[Path, np.ndarray]:
    """What the model itself says of the bundle's golden pictures, by the other runtime."""
    with Classifier.open(BUILTIN["produce"], "onnxruntime") as classifier:
        worker = classifier.worker()
        return {path: worker.scores(decode_picture(path.read_bytes())) for path in GOLDEN}


def image(*paths: Path) -> triton.InferInput:
    given = triton.InferInput("image", [len(paths), 1], "BYTES")
    given.set_data_from_numpy(np.array([[path.read_bytes()] for path in paths], np.object_))
    return given


def test_a_stock_client_learns_what_there_is(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("produce")
    assert not client.is_model_ready("else")
    server = client.get_server_metadata()
    assert server["name"] == "shelfwire"
    assert "binary_tensor_data" in server["extensions"]
    model = client.get_model_metadata("produce")
    (version,) = model["versions"]
    assert client.is_model_ready("produce", version)
    assert client.get_model_metadata("produce", version) == model
    assert model["outputs"] == [{"name": "scores", "datatype": "FP32", "shape": [-1, 81]}]
    config = client.get_model_config("produce")
    assert config["max_batch_size"] == 16
    assert len(config["parameters"]["labels"]["string_value"].split("\n")) == 81
    assert [entry["state"] for entry in client.get_model_repository_index()] == ["READY"]


def test_it_classifies_as_the_model_does_however_the_picture_comes(
    client: triton.InferenceServerClient, expected: dict[Path, np.ndarray]
) -> None:
    paths = GOLDEN[:3]
    wanted = np.stack([expected[path] for path in paths])
    scores = client.infer("produce", [image(*paths)]).as_numpy("scores")
    assert scores.shape == (3, 81)
    assert np.allclose(scores, wanted, atol=1e-3)
    # Plain pixels in both types and layouts, binary and JSON; RGB, unless it is said.
    small = decode_picture(paths[0].read_bytes())[..., ::-1]
    for values, kind in ((small, "UINT8"), (small.astype(np.float32), "FP32"), (small.transpose(2, 0, 1), "UINT8")):
        given = triton.InferInput("pixels", [1, *values.shape], kind)
        given.set_data_from_numpy(np.ascontiguousarray(values[None]))
        plain = client.infer("produce", [given], outputs=[triton.InferRequestedOutput("scores", binary_data=False)])
        assert np.allclose(plain.as_numpy("scores"), wanted[:1], atol=1e-3)
    tiny = np.ascontiguousarray(small[:40, :40])[None]
    given = triton.InferInput("pixels", list(tiny.shape), "UINT8")
    given.set_data_from_numpy(tiny, binary_data=False)
    as_json = client.infer("produce", [given]).as_numpy("scores")
    given.set_data_from_numpy(tiny)
    assert np.array_equal(client.infer("produce", [given]).as_numpy("scores"), as_json)


def test_it_takes_files_as_the_samples_of_openvino_model_server_send_them(
    device: Running, expected: dict[Path, np.ndarray]
) -> None:
    files = [path.read_bytes() for path in GOLDEN[:2]]
    entry = {"name": "image", "shape": [2], "datatype": "BYTES"}
    entry["parameters"] = {"binary_data_size": ",".join(str(len(file)) for file in files)}
    head = json.dumps({"inputs": [entry]}).encode()
    headers = {"Inference-Header-Content-Length": str(len(head))}
    url = f"{device.url}/v2/models/produce/infer"
    output = requests.post(url, head + b"".join(files), headers=headers, timeout=60).json()["outputs"][0]
    scores = np.reshape(output["data"], output["shape"])
    assert np.allclose(scores, [expected[path] for path in GOLDEN[:2]], atol=1e-3)


@pytest.mark.parametrize("packing", ["gzip", "deflate"])
def test_it_gives_the_best_labels_as_triton_does_packed_both_ways(
    client: triton.InferenceServerClient, expected: dict[Path, np.ndarray], packing: str
) -> None:
    output = triton.InferRequestedOutput("scores", class_count=3)
    result = client.infer(
        "produce",
        [image(*GOLDEN)],
        outputs=[output],
        request_id="seven",
        request_compression_algorithm=packing,
        response_compression_algorithm=packing,
    )
    assert result.get_response()["id"] == "seven"
    labels = client.get_model_config("produce")["parameters"]["labels"]["string_value"].split("\n")
    for row, path in zip(result.as_numpy("scores"), GOLDEN, strict=True):
        score, index, label = row[0].decode().split(":", 2)
        assert labels[int(index)] == label
        assert float(score) == pytest.approx(float(expected[path].max()), abs=1e-3)


def test_it_classifies_for_asynchronous_clients(
    client: triton.InferenceServerClient, device: Running, expected: dict[Path, np.ndarray]
) -> None:
    waiting = [client.async_infer("produce", [image(path)]) for path in GOLDEN]
    for path, one in zip(GOLDEN, waiting, strict=True):
        assert np.allclose(one.get_result().as_numpy("scores")[0], expected[path], atol=1e-3)

    async def by_asyncio() -> Any:
        async with triton_aio.InferenceServerClient(device.host) as other:
            assert await other.is_server_ready()
            return (await other.infer("produce", [image(GOLDEN[0])])).as_numpy("scores")

    assert np.allclose(asyncio.run(by_asyncio())[0], expected[GOLDEN[0]], atol=1e-3)


def test_it_counts_what_it_did(client: triton.InferenceServerClient) -> None:
    def count() -> tuple[int, int, int]:
        (entry,) = client.get_inference_statistics("produce")["model_stats"]
        stats = entry["inference_stats"]
        return int(entry["inference_count"]), int(stats["success"]["count"]), int(stats["fail"]["count"])

    before = count()
    client.infer("produce", [image(*GOLDEN[:2])])
    with pytest.raises(InferenceServerException):
        client.infer("produce", [triton.InferInput("image", [1, 1], "BYTES")])
    assert count() == (before[0] + 2, before[1] + 1, before[2] + 1)


def test_a_shell_is_client_enough(device: Running, tmp_path: Path) -> None:
    address = f"{device.url}/v2/models/produce/infer?classification=2"
    words = ["curl", "-sS", "-H", "Inference-Header-Content-Length: 0", "--data-binary", f"@{GOLDEN[0]}", address]
    answer = json.loads(subprocess.run(words, capture_output=True, check=True, timeout=30).stdout)
    assert answer["outputs"][0]["shape"] == [1, 2]


def test_status_says_where_it_is(device: Running) -> None:
    config = device.state.parent / "device.toml"
    words = [sys.executable, "-m", "agent.cli", "status", "--config", str(config)]
    wait_for("vision's first report", lambda: look(device.state).vision)
    said = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60).stdout
    assert f"{device.url}/" in said


def test_what_it_does_not_have_it_refuses_by_the_protocol(client: triton.InferenceServerClient) -> None:
    for ask, text in (
        (lambda: client.get_model_metadata("else"), "no-such-model"),
        (lambda: client.get_model_metadata("produce", "9"), "no-such-version"),
        (lambda: client.load_model("produce"), "wrong-method"),
        (client.get_system_shared_memory_status, "no-such-address"),
        (lambda: client.infer("produce", [triton.InferInput("else", [1], "BYTES")]), "inference-request"),
    ):
        with pytest.raises(InferenceServerException, match=text):
            ask()


def raw(device: Running, data: bytes, *, shut: bool = False) -> bytes:
    """Send bytes to a device, and give all it answers until it closes."""
    host, port = device.host.split(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.sendall(data)
        if shut:
            connection.shutdown(socket.SHUT_WR)
        got = b""
        while part := connection.recv(65536):
            got += part
        return got


INFER = b"POST /v2/models/produce/infer HTTP/1.1\r\nHost: localhost\r\n"


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"\x00\xff\r\n\r\n", 400),
        (b"GET /v2\r\n\r\n", 400),
        (b"GET /v2 HTTP/1.1\r\nConnection: close\r\n\r\n", 421),
        (b"GET /v2 HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n", 421),
        (b"GET /v2 HTTP/9.9\r\nHost: localhost\r\n\r\n", 505),
        (b"GET /" + b"a" * 40_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", 431),
        (b"GET /v2 HTTP/1.1\r\nHost: localhost\r\n" + b"".join(b"a%d: b\r\n" % n for n in range(200)) + b"\r\n", 431),
        (b"GET /v2 HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 40_000 + b"\r\n\r\n", 431),
        (b"GET /%ff HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", 400),
        (INFER + b"Content-Length: -1\r\n\r\n", 400),
        (INFER + b"Content-Length: 1e3\r\n\r\n", 400),
        (INFER + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello", 400),
        (INFER + b"Content-Length: 99999999999\r\n\r\n", 413),
        (INFER + b"Content-Length: 999999999999999999999999\r\n\r\n", 400),
        (INFER + b"Content-Length: 99999999\r\nExpect: 100-continue\r\n\r\n", 413),
        (INFER + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", 411),
        (INFER + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\nhello", 411),
        (INFER + b"Inference-Header-Content-Length: -1\r\nContent-Length: 2\r\n\r\n{}", 400),
        (INFER + b"Origin: http://evil.example\r\nContent-Length: 2\r\n\r\n{}", 403),
        (b"BREW /v2 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", 405),
    ],
)  # fmt: skip
def test_a_request_that_is_none_is_refused_and_the_connection_closed(device: Running, data: bytes, status: int) -> None:
    answer = raw(device, data)
    assert answer.startswith(b"HTTP/1.1 %d " % status), answer[:200]
    assert b"Content-Security-Policy" in answer


def test_a_body_that_never_ends_holds_nobody_up(device: Running, client: triton.InferenceServerClient) -> None:
    host, port = device.host.split(":")
    with socket.create_connection((host, int(port))) as slow:
        slow.sendall(INFER + b"Content-Length: 1000000\r\n\r\n{")
        assert client.is_server_live()
        assert client.infer("produce", [image(GOLDEN[0])]).as_numpy("scores").shape == (1, 81)


def test_too_many_at_once_are_told_to_come_again_and_the_cameras_go_on(device: Running) -> None:
    def state() -> Any:
        return requests.get(f"{device.url}/local/state", timeout=10).json()["cameras"][0]

    body = GOLDEN[0].read_bytes()
    go = threading.Barrier(24)

    def ask(_: int) -> requests.Response:
        go.wait(20)
        headers = {"Inference-Header-Content-Length": "0"}
        return requests.post(f"{device.url}/v2/models/produce/infer", body, headers=headers, timeout=60)

    wait_for_answers(device.url, "cam-1")
    before = state()["captured"]
    with ThreadPoolExecutor(24) as pool:
        answers = list(pool.map(ask, range(24)))
    codes = {answer.status_code for answer in answers}
    assert 200 in codes
    assert codes <= {200, 429, 503}
    for answer in answers:
        if answer.status_code != 200:
            assert int(answer.headers["Retry-After"]) >= 1
            assert ("[busy]" if answer.status_code == 503 else "[too-many-requests]") in answer.json()["error"]
    assert state()["phase"] == "streaming"
    assert state()["captured"] >= before


def test_more_connections_than_it_serves_are_turned_away(device: Running) -> None:
    host, port = device.host.split(":")
    held = [socket.create_connection((host, int(port)), timeout=20) for _ in range(40)]
    try:
        turned_away = [one for one in held if one in readable(held)]
        assert turned_away
        assert all(one.recv(100).startswith(b"HTTP/1.1 503 ") for one in turned_away)
    finally:
        for one in held:
            one.close()


def readable(connections: list[socket.socket]) -> list[socket.socket]:
    """Wait until some of these have been answered."""
    import select

    poll = select.poll()
    by_number = {one.fileno(): one for one in connections}
    for number in by_number:
        poll.register(number, select.POLLIN)
    return [by_number[number] for number, _ in poll.poll(10_000)]
