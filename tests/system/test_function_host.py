"""The function host with real processes of AWS's runtime client: from none to the limit and back, and what fails."""

import asyncio
import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import requests
from prometheus_client.parser import text_string_to_metric_families
from waiting import wait_for

from cloud.function import host as host_module
from cloud.function import pool
from cloud.function.host import serve
from cloud.function.meter import Meter
from cloud.function.pool import Options
from models import BUILTIN

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PATIENCE_S = 30.0
BANANA = (BUILTIN["produce"] / "golden" / "1-banana.png").read_bytes()
HEADERS = {
    "content-type": "image/png",
    "x-shelfwire-frame": "shop-1/00000000000000aa/17",
    "x-shelfwire-camera": "cam-1",
    "x-shelfwire-captured-at": "2026-03-01T11:59:59.250000Z",
}


def lives(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


class Client:
    """A caller of a host."""

    def __init__(self, url: str) -> None:
        self.url = url

    def get(self, path: str) -> dict[str, object]:
        answer = requests.get(self.url + path, timeout=PATIENCE_S)
        assert answer.status_code == 200
        document: dict[str, object] = answer.json()
        return document

    def classify(self) -> requests.Response:
        return requests.post(self.url, headers=HEADERS, data=BANANA, timeout=PATIENCE_S)

    def invoke(self, event: object) -> requests.Response:
        url = f"{self.url}2015-03-31/functions/shelfwire/invocations"
        return requests.post(url, json=event, timeout=PATIENCE_S)

    def workers(self) -> dict[int, str]:
        """State by pid."""
        listed = self.get("healthz")["processes"]
        assert isinstance(listed, list)
        return {worker["pid"]: worker["state"] for worker in listed}

    def wait_for_states(self, *states: str) -> list[int]:
        """Wait until the workers stand like that; gives their pids."""
        wait_for(f"workers {states}", lambda: sorted(self.workers().values()) == sorted(states))
        return list(self.workers())

    def meter(self, *names: str) -> list[object]:
        shown = self.get("meter")
        return [shown[name] for name in names]


@dataclass(slots=True)
class Running:
    """A host in a thread of this process."""

    thread: threading.Thread
    stop: threading.Event = field(default_factory=threading.Event)


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Client]]:
    """Starts hosts of toys, and stops them after the test; no worker may be left then."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join((str(ROOT), str(HERE))))
    running: list[Running] = []
    clients: list[Client] = []

    def start(entry: str, *, concurrency: int = 2, idle_s: float = 20.0, timeout_s: float = 20.0) -> Client:
        opened = socket.create_server(("127.0.0.1", 0))
        options = Options(concurrency, idle_s, timeout_s, 512, f"function_toys.{entry}")
        ready, stop = threading.Event(), threading.Event()
        port = opened.getsockname()[1]
        work = {"on_ready": ready.set, "stop": stop.is_set}
        thread = threading.Thread(target=serve, args=(options, opened), kwargs=work, name=f"host-of-{entry}")
        thread.start()
        running.append(Running(thread, stop))
        assert ready.wait(PATIENCE_S)
        clients.append(Client(f"http://127.0.0.1:{port}/"))
        return clients[-1]

    yield start
    pids = [pid for client in clients for pid in client.workers() if pid]
    for one in running:
        one.stop.set()
        one.thread.join(PATIENCE_S)
        assert not one.thread.is_alive()
    assert not any(map(lives, pids))


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    """A named pipe: who reads it waits until `release`."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    return path


def release(pipe: Path) -> None:
    """Let all go that wait at the pipe."""
    pipe.open("wb").close()


# -- from none to the limit and back -----------------------------------------------------------------------------------


def test_workers_come_with_calls_and_go_when_idle(host: Callable[..., Client], pipe: Path) -> None:
    client = host("hold", concurrency=3, idle_s=0.5)
    assert client.workers() == {}
    with ThreadPoolExecutor(3) as callers:
        calls: list[Future[requests.Response]] = []
        for number in (1, 2, 3):
            calls.append(callers.submit(client.invoke, {"pipe": str(pipe)}))
            pids = client.wait_for_states(*["busy"] * number)
        assert len(pids) == 3
        release(pipe)
        assert {call.result().json()["pid"] for call in calls} == set(pids)
    assert client.wait_for_states() == []
    wait_for("the processes have ended", lambda: not any(map(lives, pids)))
    assert client.meter("invocations", "cold_starts", "errors", "throttles") == [3, 3, 0, 0]


def test_one_caller_keeps_one_worker(host: Callable[..., Client]) -> None:
    client = host("echo", concurrency=4)
    pids = {client.invoke({"number": number}).json()["pid"] for number in range(40)}
    assert len(pids) == 1
    assert client.meter("invocations", "cold_starts") == [40, 1]


def test_the_next_call_after_the_idle_time_starts_cold(
    host: Callable[..., Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bounds that hold on any machine: a start takes what its import waits for, and less than its caller waits."""
    monkeypatch.setenv("SHELFWIRE_TEST_START_S", "0.2")
    client = host("echo", idle_s=0.3)
    took_ms: list[float] = []

    def call() -> object:
        began_s = time.monotonic()
        pid = client.invoke({}).json()["pid"]
        took_ms.append((time.monotonic() - began_s) * 1000)
        return pid

    first = call()
    client.wait_for_states()
    assert call() != first
    shown = client.get("meter")
    assert shown["cold_starts"] == 2
    calls = shown["calls"]
    assert isinstance(calls, list)
    for one, waited_ms in zip(reversed(calls), took_ms, strict=True):
        assert 200 <= one["init_ms"] <= one["init_ms"] + one["duration_ms"] <= waited_ms
    assert shown["billed_ms"] == sum(one["billed_ms"] for one in calls)


def test_at_the_limit_a_call_is_sent_away(host: Callable[..., Client], pipe: Path) -> None:
    client = host("hold", concurrency=1)
    with ThreadPoolExecutor(1) as callers:
        held = callers.submit(client.invoke, {"pipe": str(pipe)})
        client.wait_for_states("busy")
        began_s = time.monotonic()
        refused = client.classify()
        assert time.monotonic() - began_s < 5
        assert (refused.status_code, refused.headers["Retry-After"]) == (429, "1")
        assert (refused.json()["code"], bool(refused.json()["hint"])) == ("function-busy", True)
        release(pipe)
        assert held.result().status_code == 200
    assert client.meter("invocations", "throttles") == [1, 1]


def test_at_the_limit_a_call_waits_a_moment(
    host: Callable[..., Client], pipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "WAIT_S", PATIENCE_S)
    client = host("hold", concurrency=1)
    with ThreadPoolExecutor(2) as callers:
        first = callers.submit(client.invoke, {"pipe": str(pipe)})
        client.wait_for_states("busy")
        second = callers.submit(client.invoke, {"pipe": str(pipe)})
        release(pipe)
        assert first.result().status_code == 200
        client.wait_for_states("busy")
        release(pipe)
        assert second.result().json() == first.result().json()
    assert client.meter("invocations", "cold_starts", "throttles") == [2, 1, 0]


# -- what goes wrong in a worker ---------------------------------------------------------------------------------------


def test_a_call_that_hangs_is_ended_and_its_worker_replaced(host: Callable[..., Client], pipe: Path) -> None:
    client = host("hold", concurrency=1, timeout_s=0.5)
    with ThreadPoolExecutor(1) as callers:
        held = callers.submit(client.invoke, {"pipe": str(pipe)})
        (pid,) = client.wait_for_states("busy")
        late = held.result()
    assert (late.status_code, late.json()["code"]) == (504, "function-timeout")
    wait_for("the worker has ended", lambda: not lives(pid))
    client.wait_for_states()
    assert client.meter("invocations", "timeouts", "errors") == [1, 1, 0]
    with ThreadPoolExecutor(1) as callers:
        again = callers.submit(client.invoke, {"pipe": str(pipe)})
        client.wait_for_states("busy")
        release(pipe)
        assert again.result().json()["pid"] != pid


@pytest.mark.parametrize("how", ["exit", "kill"])
def test_a_worker_that_dies_in_a_call_is_replaced(host: Callable[..., Client], pipe: Path, how: str) -> None:
    client = host("misbehave" if how == "exit" else "hold", concurrency=1)
    with ThreadPoolExecutor(1) as callers:
        event = {"do": "exit", "pipe": str(pipe)}
        call = callers.submit(client.invoke, event)
        if how == "kill":
            (pid,) = client.wait_for_states("busy")
            os.kill(pid, signal.SIGKILL)
        died = call.result()
        assert (died.status_code, died.json()["code"]) == (502, "function-crashed")
        client.wait_for_states()
        again = callers.submit(client.invoke, {"pipe": str(pipe)})
        if how == "kill":
            client.wait_for_states("busy")
            release(pipe)
        assert again.result().status_code == 200
    assert client.meter("invocations", "cold_starts", "errors") == [2, 2, 1]


def test_a_worker_that_dies_between_calls_is_not_missed(host: Callable[..., Client]) -> None:
    client = host("echo", concurrency=1)
    pid = client.invoke({}).json()["pid"]
    client.wait_for_states("idle")
    os.kill(pid, signal.SIGKILL)
    client.wait_for_states()
    assert client.invoke({}).json()["pid"] != pid
    assert client.meter("invocations", "errors") == [2, 0]


def test_an_error_that_the_function_raises(host: Callable[..., Client]) -> None:
    client = host("misbehave")
    direct = client.invoke({"do": "raise"})
    assert (direct.status_code, direct.headers["X-Amz-Function-Error"]) == (200, "Unhandled")
    assert (direct.json()["errorType"], direct.json()["errorMessage"]) == ("RuntimeError", "no fruit today")
    assert client.invoke({}).status_code == 200, "the same worker goes on"
    assert client.meter("invocations", "cold_starts", "errors") == [2, 1, 1]


def test_an_answer_that_is_none_by_http(host: Callable[..., Client]) -> None:
    answer = host("no_http").classify()
    assert (answer.status_code, answer.json()["code"]) == (502, "function-reply")


def test_a_function_that_does_not_start(host: Callable[..., Client]) -> None:
    client = host("no_such_function")
    refused = client.classify()
    assert (refused.status_code, refused.json()["code"]) == (502, "function-init")
    assert "no_such_function" in refused.json()["detail"]
    client.wait_for_states()
    assert client.meter("invocations", "cold_starts", "errors") == [1, 1, 1]


def test_a_caller_that_goes_away_leaves_no_trace(host: Callable[..., Client], pipe: Path) -> None:
    client = host("hold", concurrency=1)
    gone = threading.Thread(target=_call_and_leave, args=(client.url, str(pipe)), name="impatient")
    gone.start()
    client.wait_for_states("busy")
    gone.join()
    release(pipe)
    client.wait_for_states("idle")
    assert client.meter("invocations", "errors") == [1, 0]


def _call_and_leave(url: str, pipe: str) -> None:
    with socket.create_connection(("127.0.0.1", int(url.rstrip("/").rsplit(":", 1)[1]))) as connection:
        body = json.dumps({"pipe": pipe}).encode()
        head = (
            f"POST /2015-03-31/functions/f/invocations HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
        )
        connection.sendall(head.encode() + b"\r\n" + body)
        deadline_s = time.monotonic() + PATIENCE_S
        while "busy" not in Client(url).workers().values():
            assert time.monotonic() < deadline_s
            time.sleep(0.02)


def test_the_books_balance_while_workers_are_killed(host: Callable[..., Client]) -> None:
    """Eight callers, two workers, and one that kills: every call has one answer, and the meter knows them all."""
    client = host("echo", concurrency=2)
    done = threading.Event()

    def kill() -> None:
        rng = random.Random(7)
        while not done.wait(0.05):
            if pids := [pid for pid in client.workers() if pid]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(rng.choice(pids), signal.SIGKILL)

    killer = threading.Thread(target=kill, name="killer")
    killer.start()
    with ThreadPoolExecutor(8) as callers:
        answers = list(callers.map(lambda number: client.invoke({"number": number}), range(160)))
    done.set()
    killer.join()
    counted = Counter(answer.status_code for answer in answers)
    assert set(counted) <= {200, 429, 502}
    for number, answer in enumerate(answers):
        assert answer.status_code != 200 or answer.json()["event"] == {"number": number}
    invocations, errors, throttles = client.meter("invocations", "errors", "throttles")
    assert (errors, throttles) == (counted[502], counted[429])
    assert invocations == counted[200] + counted[502]
    assert client.invoke({}).status_code == 200


def test_a_start_that_fails_when_no_call_waits_any_more_is_no_failed_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """The caller hangs up during the start: the start is billed, and neither an invocation nor an error."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join((str(ROOT), str(HERE))))

    async def hang_up() -> dict[str, object]:
        workers = pool.Pool(Options(entry="function_toys.there_is_no_such_function"), Meter())
        call = asyncio.create_task(workers.invoke(b"{}"), name="call")
        while not workers.workers:
            await asyncio.sleep(0)
        call.cancel()
        async with asyncio.timeout(PATIENCE_S):
            while workers.workers:
                await asyncio.sleep(0.01)
        return workers.meter.shown()

    shown = asyncio.run(hang_up())
    assert (shown["invocations"], shown["errors"], shown["cold_starts"]) == (0, 0, 1)
    assert isinstance(shown["billed_ms"], int)
    assert shown["billed_ms"] > 0


# -- what the function and its callers see -----------------------------------------------------------------------------


def test_the_function_sees_its_deadline_and_nothing_secret(
    host: Callable[..., Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGPASSWORD", "secret")
    monkeypatch.setenv("SHELFWIRE_RUNTIME", "onnxruntime")
    seen = host("environment").invoke({}).json()
    assert "PGPASSWORD" not in seen
    assert (seen["SHELFWIRE_RUNTIME"], seen["AWS_LAMBDA_FUNCTION_MEMORY_SIZE"]) == ("onnxruntime", "512")
    said = host("context", timeout_s=7.0).invoke({}).json()
    assert 5_000 < said["left_ms"] <= 7_000
    assert (len(said["aws_request_id"]), said["memory_limit_in_mb"]) == (36, "512")


def test_large_events_pass_and_larger_ones_are_refused(host: Callable[..., Client]) -> None:
    client = host("echo")
    assert client.invoke({"large": "x" * (host_module.MOST_PAYLOAD_BYTES - 200)}).status_code == 200
    grown = client.invoke({"large": "x" * (host_module.MOST_PAYLOAD_BYTES - 20)})
    assert (grown.status_code, grown.json()["code"]) == (502, "function-crashed"), "its answer is over the limit"
    half = "x" * (host_module.MOST_PAYLOAD_BYTES // 2)
    assert client.invoke({"half": half}).json()["event"] == {"half": half}
    refused = client.invoke({"larger": "x" * host_module.MOST_PAYLOAD_BYTES})
    assert (refused.status_code, refused.json()["code"]) == (413, "picture-too-large")
    assert requests.post(client.url, data=bytes(10_000_000), timeout=PATIENCE_S).status_code == 413


def test_requests_that_are_wrong_for_the_host_itself(
    host: Callable[..., Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    client = host("echo")
    assert requests.get(client.url + "healthz", headers={"Host": "evil.example"}, timeout=9).status_code == 421
    invoke = f"{client.url}2015-03-31/functions/f/invocations"
    assert requests.post(invoke, data=b"{", timeout=9).json()["code"] == "bad-json"
    late = requests.post(invoke, data=b"{}", headers={"X-Amz-Invocation-Type": "Event"}, timeout=9)
    assert (late.status_code, late.json()["code"]) == (400, "invocation-type")
    assert requests.get(client.url + "nowhere", timeout=9).status_code == 404
    monkeypatch.setattr(host_module, "BODY_S", 0.2)
    with socket.create_connection(("127.0.0.1", int(client.url.rstrip("/").rsplit(":", 1)[1]))) as slow:
        slow.sendall(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nhalf")
        assert slow.recv(100).startswith(b"HTTP/1.1 408")
    assert client.workers() == {}


def test_metrics_for_prometheus(host: Callable[..., Client]) -> None:
    client = host("echo")
    client.invoke({})
    client.wait_for_states("idle")
    text = requests.get(client.url + "metrics", timeout=9).text
    values = {s.name: s.value for family in text_string_to_metric_families(text) for s in family.samples}
    assert values["shelfwire_function_invocations_total"] == 1
    assert values["shelfwire_function_workers"] == 1
    assert values["shelfwire_function_usd_total"] > 0


# -- the command -------------------------------------------------------------------------------------------------------


def command(*more: str) -> list[str]:
    return [sys.executable, "-m", "cloud.cli", "function", "--json", *more]


@dataclass(slots=True)
class Command:
    """The command, running."""

    process: "subprocess.Popen[str]"
    client: Client
    log: Path


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Command]:
    log = tmp_path / "log"
    with (
        log.open("wb") as output,
        subprocess.Popen(
            command("--port", "0", "--idle", "20"), stdout=subprocess.PIPE, stderr=output, text=True, cwd=ROOT
        ) as process,
    ):
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, log.read_text()
        yield Command(process, Client(json.loads(line)["url"]), log)
        process.kill()


def test_the_command_classifies_and_reports(running: Command) -> None:
    answer = running.client.classify()
    assert (answer.status_code, answer.json()["label"], answer.json()["seq"]) == (200, "Banana", 17)
    running.process.send_signal(signal.SIGTERM)
    said, _ = running.process.communicate(timeout=PATIENCE_S)
    assert running.process.returncode == 0
    meter = json.loads(said)["meter"]
    assert (meter["invocations"], meter["cold_starts"]) == (1, 1)
    (report,) = [line for line in running.log.read_text().splitlines() if "REPORT RequestId: " in line]
    assert meter["billed_ms"] >= float(report.split("Init Duration: ")[1].split(" ms")[0]) > 0
    assert "Memory Size: 1024 MB" in report


def test_sigterm_ends_everything_within_three_seconds(running: Command) -> None:
    assert running.client.classify().status_code == 200
    (pid,) = running.client.wait_for_states("idle")
    os.kill(pid, signal.SIGSTOP)
    with ThreadPoolExecutor(1) as callers:
        hanging = callers.submit(running.client.classify)
        running.client.wait_for_states("busy")
        began_s = time.monotonic()
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(PATIENCE_S) == 0
        took_s = time.monotonic() - began_s
        refused = hanging.result()
    assert (refused.status_code, refused.json()["code"]) == (503, "function-stopping")
    assert took_s < 3.0
    assert not lives(pid)
    assert "Traceback" not in running.log.read_text()


def test_workers_do_not_outlive_a_host_that_is_killed(running: Command) -> None:
    assert running.client.classify().status_code == 200
    (pid,) = running.client.wait_for_states("idle")
    running.process.kill()
    running.process.wait(PATIENCE_S)
    wait_for("the worker has ended", lambda: not lives(pid))


def test_a_stopped_worker_is_replaced(running: Command) -> None:
    """kill -9 in the middle of a call to the real function: 502, and the next call is answered by a new process."""
    running.client.classify()
    (pid,) = running.client.wait_for_states("idle")
    os.kill(pid, signal.SIGSTOP)
    with ThreadPoolExecutor(1) as callers:
        call = callers.submit(running.client.classify)
        running.client.wait_for_states("busy")
        os.kill(pid, signal.SIGKILL)
        assert (call.result().status_code, call.result().json()["code"]) == (502, "function-crashed")
    assert running.client.classify().json()["label"] == "Banana"


def test_a_bundle_that_is_missing_is_named(tmp_path: Path) -> None:
    environment = {**os.environ, "SHELFWIRE_BUNDLE": str(tmp_path / "none")}
    with subprocess.Popen(
        command("--port", "0"), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=ROOT, env=environment
    ) as process:
        assert process.stdout is not None
        refused = Client(json.loads(process.stdout.readline())["url"]).classify()
        process.terminate()
    assert refused.status_code == 502
    assert "there is no bundle" in refused.json()["detail"]


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (["--host", "0.0.0.0"], "host-not-loopback"),
        (["--port", "70000"], "bad-port"),
        (["--concurrency", "0"], "function-option"),
        (["--idle", "0"], "function-option"),
        (["--timeout", "nan"], "function-option"),
        (["--memory-mb", "64"], "function-option"),
    ],
)
def test_wrong_options_are_named(options: list[str], code: str, capsys: pytest.CaptureFixture[str]) -> None:
    from cloud.cli import main

    assert main(["function", "--json", *options]) == 2
    error = json.loads(capsys.readouterr().out)["error"]
    assert (error["code"], bool(error["hint"])) == (code, True)


def test_a_port_in_use_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    from cloud.cli import main

    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert main(["function", "--json", "--port", str(taken.getsockname()[1])]) == 2
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "port-in-use"
