"""Asynchronous jobs end to end: a real server, real workers with their limited processes, a real PostgreSQL, a webhook
receiver that verifies signatures, and a mail server."""

import contextlib
import ctypes
import hashlib
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from email import message_from_bytes
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import MappingProxyType
from typing import Any
from uuid import uuid4

import httpx
import psycopg
import pytest
from aiosmtpd.controller import Controller
from conftest import Postgres
from standardwebhooks import Webhook
from test_web_api import Events, problem
from web_shop import Served, serving, shelf

from cloud.cli.worker import parse_mail
from cloud.errors import Rejected
from cloud.jobs import notices
from cloud.jobs.callback import ALLOW, Allowed
from cloud.jobs.look import Lookers
from cloud.jobs.rows import Fault, Found, Jobs, Submission
from cloud.jobs.work import MOST_ATTEMPTS, Again, Work
from cloud.store import Store
from cloud.web import wall_clock
from models import BUILTIN, Classifier, decode_picture
from wire.records import ModelName, Verdict

BANANA = next((BUILTIN["produce"] / "golden").glob("*banana*")).read_bytes()
LEMON = next((BUILTIN["produce"] / "golden").glob("*lemon*")).read_bytes()
MODEL = ModelName(name="m", version="1", release=1, digest="ab" * 32)
WITHIN_S = 20.0
FAST = ("--stalled-after", "1.5", "--retry-base", "0.1")


class Worker:
    """`shelfwire-cloud worker` as a process of its own."""

    def __init__(self, dsn: str, *arguments: str) -> None:
        command = [sys.executable, "-m", "cloud.cli", "worker", "--dsn", dsn, "--json", *FAST, *arguments]
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
            preexec_fn=_end_with_the_tests,  # noqa: PLW1509 - a single system call
        )

    def ready(self) -> "Worker":
        assert self.process.stdout is not None
        told = json.loads(self.process.stdout.readline())
        assert told["ready"], told
        return self

    def children(self) -> list[int]:
        threads = Path(f"/proc/{self.process.pid}/task").iterdir()
        return [int(pid) for thread in threads for pid in (thread / "children").read_text().split()]

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def stop(self) -> tuple[int, str]:
        self.process.send_signal(signal.SIGTERM)
        out, _ = self.process.communicate(timeout=20)
        return self.process.returncode, out


def _end_with_the_tests() -> None:
    """A worker outlives its database: one that a broken test run left behind would work in the next run's."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


@dataclass
class Hooks:
    """A webhook receiver: verifies every call, and answers by path: /ok, /twice (500 first), /gone, /away, /never."""

    verify: Callable[[bytes, dict[str, str]], Any]
    came: list[tuple[str, str, dict[str, Any]]] = field(default_factory=list)
    server: ThreadingHTTPServer | None = None

    def url(self, path: str) -> str:
        assert self.server is not None
        return f"http://127.0.0.1:{self.server.server_address[1]}{path}"

    def at(self, path: str) -> list[tuple[str, dict[str, Any]]]:
        return [(key, said) for where, key, said in self.came if where == path]

    def take(self, path: str, body: bytes, headers: dict[str, str]) -> int:
        said = self.verify(body, headers)
        self.came.append((path, headers["webhook-id"], said))
        if path.startswith("/twice") and len(self.at(path)) == 1:
            return 500
        return {"/gone": 410, "/away": 302, "/never": 503}.get(path, 204)


class Mails:
    """A mail sink."""

    def __init__(self) -> None:
        self.came: list[tuple[list[str], bytes]] = []

    async def handle_RCPT(  # noqa: N802
        self, server: object, session: object, envelope: Any, address: str, options: object
    ) -> str:
        if address.startswith("nobody"):
            return "550 no such user"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(  # noqa: N802
        self, server: object, session: object, envelope: Any
    ) -> str:
        self.came.append((envelope.rcpt_tos, envelope.content))
        return "250 OK"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def receiving(secret: str) -> Iterator[Hooks]:
    hooks = Hooks(Webhook(secret).verify)

    class Answering(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            self.send_response(hooks.take(self.path, body, dict(self.headers)))
            self.send_header("Location", hooks.url("/ok"))
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    hooks.server = ThreadingHTTPServer(("127.0.0.1", 0), Answering)
    thread = threading.Thread(target=hooks.server.serve_forever, daemon=True)
    thread.start()
    yield hooks
    hooks.server.shutdown()
    hooks.server.server_close()
    thread.join(5)


@dataclass
class House:
    """Server, one worker, receiver and mail sink on one database."""

    dsn: str
    store: Store
    served: Served
    api: httpx.Client
    worker: Worker
    hooks: Hooks
    mails: Mails


@pytest.fixture(scope="module")
def house(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    dsn = postgres.create()
    mails, port = Mails(), free_port()
    with contextlib.ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setenv(ALLOW, "127.0.0.1")
        store = Store.open(dsn, tmp_path_factory.mktemp("jobs"))
        stack.callback(postgres.drop, dsn)
        stack.callback(store.close)
        mail = ("--smtp", f"smtp+plain://127.0.0.1:{port}", "--mail-from", "shelfwire@example.com")
        worker = Worker(dsn, "--concurrency", "2", "--picture-limit", "1", *mail)
        stack.callback(worker.kill)
        sink = Controller(mails, hostname="127.0.0.1", port=port)
        sink.start()
        stack.callback(sink.stop)
        hooks = stack.enter_context(receiving(Jobs(store.pool).secret()))
        served = stack.enter_context(serving(store))
        api = stack.enter_context(httpx.Client(base_url=served.url, timeout=20))
        worker.ready()
        yield House(dsn, store, served, api, worker, hooks, mails)
        code, out = worker.stop()
        assert code == 0
        assert json.loads(out)["jobs"]["done"] > 0


@pytest.fixture
def api(house: House) -> httpx.Client:
    return house.api


def post(api: httpx.Client, picture: bytes = BANANA, key: str | None = None, **wishes: str) -> httpx.Response:
    headers = {"Content-Type": "image/png", **({"Idempotency-Key": key} if key else {})}
    return api.post("/v1/jobs", content=picture, headers=headers, params=wishes)


def submit(api: httpx.Client, picture: bytes = BANANA, key: str | None = None, **wishes: str) -> str:
    answer = post(api, picture, key, **wishes)
    assert answer.status_code == 202, answer.text
    return str(answer.headers["location"])


def until(api: httpx.Client, url: str, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    deadline_s = time.monotonic() + WITHIN_S
    while not wanted(job := api.get(url).json()):
        assert time.monotonic() < deadline_s, job
        threading.Event().wait(0.05)  # the state is asked for, as a client does
    return dict(job)


def wait_until(holds: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + WITHIN_S
    while not holds():
        assert time.monotonic() < deadline_s
        threading.Event().wait(0.05)


def over(job: dict[str, Any]) -> bool:
    return job["finished_at"] is not None


def told(job: dict[str, Any]) -> bool:
    return over(job) and all(notice["state"] != "waiting" for notice in job["notices"])


# -- the way of one picture -------------------------------------------------------------------------------------------


def test_a_picture_is_taken_in_at_once_and_answered_later(house: House, api: httpx.Client) -> None:
    taken = post(api, name="shelf.png")
    assert taken.status_code == 202
    assert taken.headers["retry-after"] == "1"
    assert taken.json()["state"] == "queued"
    job = until(api, taken.headers["location"], over)
    with Classifier.open(BUILTIN["produce"], "onnxruntime") as classifier:
        own = classifier.worker().classify(decode_picture(BANANA))
    assert job["state"] == "done"
    assert [entry["label"] for entry in job["result"]["top"]] == [label for label, _ in own.top]
    assert job["result"]["score"] == pytest.approx(own.score, abs=1e-3)
    assert (job["name"], job["kind"], job["attempts"]) == ("shelf.png", "png", 1)
    assert job["sha256"] == hashlib.sha256(BANANA).hexdigest()
    assert job["model"]["name"] == "produce"
    assert 0 <= job["waited_ms"] <= job["took_ms"]
    small = api.get(job["picture_url"])
    assert small.headers["content-type"] == "image/jpeg"
    assert max(decode_picture(small.content).shape) <= 512
    assert api.get(f"/v1/jobs/{job['id']}").json() == api.get(job["url"]).json()


def test_a_form_works_as_curl_sends_it_and_its_file_name_is_made_plain(api: httpx.Client) -> None:
    files = {"picture": ("../../../etc/cron.d/\u202egpj.evil<b>.png", BANANA, "application/octet-stream")}
    taken = api.post("/api/v1/jobs", files=files, data={"sender": "till-7"})
    assert taken.status_code == 202, taken.text
    assert taken.headers["location"].startswith("/api/v1/jobs/")
    job = until(api, taken.headers["location"], over)
    assert (job["name"], job["submitted_by"], job["state"]) == ("gpj.evil<b>.png", "till-7", "done")


def test_the_stream_tells_of_a_job(house: House, api: httpx.Client) -> None:
    events = Events(house.served.url)
    events.next("snapshot")
    job = submit(api).rsplit("/", 1)[1]
    while job not in (events.next("jobs")["jobs"] or []):  # type: ignore[operator]
        pass


def test_a_picture_that_cannot_be_decoded_fails_with_the_cure(api: httpx.Client) -> None:
    whole = shelf(3, "Banana")
    job = until(api, submit(api, whole[: len(whole) // 2]), over)
    assert (job["state"], job["attempts"], job["error"]["code"]) == ("failed", 1, "picture-truncated")
    assert job["error"]["hint"]
    problem(api.get(f"{job['url']}/picture.jpg"), 404, "no-such-picture")


# -- a device asks for a frame ----------------------------------------------------------------------------------------

FRAME = {
    "X-Shelfwire-Frame": "shop-1/00000000000000aa/17",
    "X-Shelfwire-Camera": "cam-1",
    "X-Shelfwire-Number": "400",
    "X-Shelfwire-Captured-At": "2026-03-01T11:59:59.250000Z",
    "X-Shelfwire-Clock": "synced",
    "X-Shelfwire-Local-Label": "Lemon",
}


def ask(
    api: httpx.Client, key: str, sender: str = "shop-1", picture: bytes = BANANA,
    wishes: Mapping[str, str] = MappingProxyType({}), **headers: str,
) -> httpx.Response:  # fmt: skip
    """Submit a frame as a device does."""
    said = {"Content-Type": "image/png", "Idempotency-Key": key, **FRAME, **headers}
    return api.post("/v1/jobs", content=picture, params={"sender": sender, **wishes}, headers=said)


def test_a_device_that_asks_gets_a_verdict(house: House, api: httpx.Client) -> None:
    taken = ask(api, "shop-1/00000000000000aa/17")
    assert taken.status_code == 202, taken.text
    job = until(api, taken.headers["location"], over)
    assert (job["state"], job["frame"]) == ("done", "shop-1/00000000000000aa/17")
    assert job["name"] == "cam-1, frame 400", "people see what it is"
    with psycopg.connect(house.dsn) as connection:
        (row,) = connection.execute("SELECT body FROM outbound WHERE device = 'shop-1'").fetchall()
        kept = connection.execute(
            "SELECT mode, label, agrees, picture_bytes, asked_at, committed_at FROM verdict WHERE device = 'shop-1'"
        ).fetchall()
    verdict = Verdict.model_validate(row[0])
    assert (verdict.device, verdict.run, verdict.seq) == ("shop-1", "00000000000000aa", 17)
    assert (verdict.camera, verdict.frame, verdict.mode) == ("cam-1", 400, "asynchronous")
    assert (verdict.label, verdict.agrees) == ("Banana", False)
    assert [one.label for one in verdict.labels] == [one["label"] for one in job["result"]["top"]]
    assert verdict.model.release >= 1
    assert verdict.runtime == "onnxruntime"
    ((mode, label, agrees, size_bytes, asked_at, committed_at),) = kept
    assert (mode, label, agrees, size_bytes) == ("asynchronous", "Banana", False, len(BANANA))
    assert asked_at <= committed_at
    again = ask(api, "shop-1/00000000000000aa/17")
    assert (again.status_code, again.json()["id"]) == (200, job["id"])


def test_whoever_wants_to_hear_of_a_devices_job_is_told_all_the_same(house: House, api: httpx.Client) -> None:
    wishes = {"callback": house.hooks.url("/ok-frame"), "email": "frames@example.com"}
    taken = ask(api, "told", "shop-3", wishes=wishes, **{"X-Shelfwire-Frame": "shop-3/00000000000000aa/1"})
    job = until(api, taken.headers["location"], told)
    assert sorted((notice["way"], notice["state"]) for notice in job["notices"]) == [
        ("email", "sent"), ("webhook", "sent"),
    ]  # fmt: skip
    ((_, said),) = house.hooks.at("/ok-frame")
    assert (said["type"], said["data"]["idempotency_key"], said["data"]["submitted_by"]) == (
        "job.done",
        "told",
        "shop-3",
    )
    with psycopg.connect(house.dsn) as connection:
        assert connection.execute("SELECT count(*) FROM verdict WHERE device = 'shop-3'").fetchone() == (1,)


def test_a_devices_job_that_fails_says_why_and_sends_nothing(house: House, api: httpx.Client) -> None:
    whole = shelf(3, "Banana")
    frame = {"X-Shelfwire-Frame": "shop-4/00000000000000aa/1", "Content-Type": "image/jpeg"}
    taken = ask(api, "broken", "shop-4", whole[: len(whole) // 2], **frame)
    job = until(api, taken.headers["location"], over)
    assert (job["state"], job["error"]["code"], job["frame"]) == (
        "failed", "picture-truncated", "shop-4/00000000000000aa/1",
    )  # fmt: skip
    with psycopg.connect(house.dsn) as connection:
        for table in ("verdict", "outbound"):
            found = connection.execute(f"SELECT count(*) FROM {table} WHERE device = 'shop-4'".encode())
            assert found.fetchone() == (0,)


def test_an_unsure_clock_is_corrected_by_the_age_of_the_frame(house: House, api: httpx.Client) -> None:
    wrong = {"X-Shelfwire-Captured-At": "1970-01-01T00:00:09Z", "X-Shelfwire-Clock": "unsure"}
    known = {"X-Shelfwire-Frame": "shop-2/00000000000000aa/1", "X-Shelfwire-Age-Ms": "60000"}
    until(api, ask(api, "age", "shop-2", **wrong, **known).headers["location"], over)
    with psycopg.connect(house.dsn) as connection:
        ((age_s,),) = connection.execute(
            "SELECT extract(epoch FROM committed_at - captured_at) FROM verdict WHERE device = 'shop-2'"
        ).fetchall()
    assert 60 <= age_s < 60 + WITHIN_S


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({"X-Shelfwire-Frame": "shop-1/17"}, 400, "bad-frame"),
        ({"X-Shelfwire-Frame": "shop-1/00000000000000aa/0"}, 400, "bad-frame"),
        ({"X-Shelfwire-Frame": "shop-2/00000000000000aa/17"}, 422, "bad-sender"),
        ({"X-Shelfwire-Camera": "a b"}, 400, "bad-camera"),
        ({"X-Shelfwire-Number": "1.5"}, 400, "bad-number"),
        ({"X-Shelfwire-Clock": "right"}, 400, "bad-clock"),
        ({"X-Shelfwire-Captured-At": "yesterday"}, 400, "bad-captured-at"),
        ({"X-Shelfwire-Local-Label": "%00"}, 400, "bad-local-label"),
        ({"X-Shelfwire-Sha256": "ab" * 32}, 422, "bad-sha256"),
    ],
)
def test_a_frame_that_is_not_named_well_is_refused(
    api: httpx.Client, headers: dict[str, str], status: int, code: str
) -> None:
    problem(ask(api, str(uuid4()), **headers), status, code)


# -- the same picture again -------------------------------------------------------------------------------------------


def test_the_same_key_gives_the_same_job(api: httpx.Client) -> None:
    key = str(uuid4())
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: post(api, key=key), range(8)))
    assert {answer.status_code for answer in answers} <= {200, 202}
    assert len({answer.json()["id"] for answer in answers}) == 1
    until(api, answers[0].headers["location"], over)
    again = post(api, key=key)
    assert (again.status_code, again.json()["state"]) == (200, "done")
    problem(post(api, LEMON, key=key), 422, "key-reused")
    assert post(api, LEMON, key=key, sender="another").status_code == 202


def test_without_a_key_every_picture_is_a_job(api: httpx.Client) -> None:
    assert submit(api) != submit(api)


# -- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "kind", "status", "code"),
    [
        (b"", "image/png", 422, "picture-empty"),
        (b"no picture", "image/png", 415, "picture-not-a-picture"),
        (b"%PDF-1.7", "application/pdf", 415, "picture-content-type"),
        (BANANA, "", 415, "picture-content-type"),
        (b"junk", "multipart/form-data; boundary=x", 422, "bad-form"),
        (b"--x--\r\n", "multipart/form-data; boundary=x", 422, "picture-missing"),
        (b"--x\r\n", "multipart/form-data", 422, "bad-form"),
    ],
)
def test_what_is_no_picture_is_refused_at_once(
    api: httpx.Client, content: bytes, kind: str, status: int, code: str
) -> None:
    answer = api.post("/v1/jobs", content=content, headers={"Content-Type": kind} if kind else {})
    problem(answer, status, code)


def test_a_body_that_is_too_long_is_given_up_while_it_is_read(api: httpx.Client) -> None:
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        while True:
            sent += 1 << 20
            yield bytes(1 << 20)

    with contextlib.suppress(httpx.WriteError, httpx.ReadError):  # the server may hang up before its answer is read
        problem(
            api.post("/v1/jobs", content=endless(), headers={"Content-Type": "image/png"}), 413, "picture-too-large"
        )
    assert sent < 64 << 20
    told_length = {"Content-Type": "image/png", "Content-Length": str(1 << 40)}
    with socket.create_connection((api.base_url.host, api.base_url.port or 80)) as raw:
        head = "".join(f"{name}: {value}\r\n" for name, value in {"Host": "localhost", **told_length}.items())
        raw.sendall(f"POST /v1/jobs HTTP/1.1\r\n{head}\r\n".encode())
        assert b" 413 " in raw.recv(4096)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site", "Origin": "http://127.0.0.1:1"}, 403),
        ({"Sec-Fetch-Site": "same-origin"}, 202),
        ({}, 202),
    ],
)
def test_pages_of_other_sites_cannot_submit(api: httpx.Client, headers: dict[str, str], status: int) -> None:
    answer = api.post("/v1/jobs", content=BANANA, headers={"Content-Type": "image/png", **headers})
    assert answer.status_code == status
    if status == 403:
        problem(answer, 403, "foreign-page")


def test_unknown_jobs_and_bad_questions(api: httpx.Client) -> None:
    problem(api.get(f"/v1/jobs/{uuid4()}"), 404, "no-such-job")
    problem(api.get("/v1/jobs/nonsense"), 422, "bad-parameter")
    problem(api.get("/v1/jobs?state=lost"), 422, "bad-parameter")
    problem(api.get("/v1/jobs?cursor=AAAA"), 400, "bad-cursor")


def test_jobs_are_listed_page_by_page_and_by_state(api: httpx.Client) -> None:
    made = [submit(api).rsplit("/", 1)[1] for _ in range(5)]
    seen: list[str] = []
    cursor = None
    while len(seen) < 5:
        page = api.get("/v1/jobs", params={"limit": 2, **({"cursor": cursor} if cursor else {})}).json()
        seen += [job["id"] for job in page["jobs"]]
        cursor = page["next"]
        if len(seen) == 2:
            submit(api, LEMON)  # comes while somebody is reading
    assert seen[:5] == made[::-1]
    until(api, f"/v1/jobs/{made[-1]}", over)
    assert {job["state"] for job in api.get("/v1/jobs", params={"state": "done"}).json()["jobs"]} == {"done"}
    counts = api.get("/v1/jobs-summary").json()
    assert counts["done"] >= 5


def test_the_api_is_described(api: httpx.Client) -> None:
    paths = api.get("/api/v1/openapi.json").json()["paths"]
    assert {"202", "413", "415", "422", "403", "503"} <= set(paths["/api/v1/jobs"]["post"]["responses"])
    assert "multipart/form-data" in paths["/api/v1/jobs"]["post"]["requestBody"]["content"]
    assert {"X-Shelfwire-Frame", "X-Shelfwire-Clock"} <= {
        one["name"] for one in paths["/api/v1/jobs"]["post"]["parameters"]
    }
    assert "/api/v1/jobs/{job}" in paths
    assert api.get("/api/v1/docs").status_code == 200


# -- notices ----------------------------------------------------------------------------------------------------------


def test_a_webhook_is_signed_tried_again_and_logged(house: House, api: httpx.Client) -> None:
    job = until(api, submit(api, key="hook-1", callback=house.hooks.url("/twice?a=b")), told)
    (notice,) = job["notices"]
    assert (notice["way"], notice["state"], notice["attempts"]) == ("webhook", "sent", 2)
    assert [one["code"] for one in notice["deliveries"]] == ["callback-refused", "delivered"]
    first, second = house.hooks.at("/twice?a=b")
    assert first[0] == second[0] == notice["id"]  # a copy can be known
    said = second[1]
    assert said["type"] == "job.done"
    assert said["data"]["id"] == job["id"]
    assert said["data"]["idempotency_key"] == "hook-1"
    assert said["data"]["result"]["label"] == job["result"]["label"]


@pytest.mark.parametrize(("path", "code"), [("/gone", "callback-gone"), ("/away", "callback-redirect")])
def test_a_receiver_that_is_gone_or_redirects_is_not_asked_again(
    house: House, api: httpx.Client, path: str, code: str
) -> None:
    job = until(api, submit(api, callback=house.hooks.url(path)), told)
    (notice,) = job["notices"]
    assert (notice["state"], notice["deliveries"][0]["code"], len(house.hooks.at(path))) == ("dead", code, 1)
    assert house.hooks.at("/ok") == []


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost:1/", "http://10.0.0.1/", "http://[::1]:1/", "http://[::ffff:10.0.0.1]/", "http://167772161/",
        "http://0x0a.1/", "http://169.254.169.254/latest/meta-data/", "http://[fd00::1]/",
    ],
)  # fmt: skip
def test_a_callback_to_an_inside_address_is_refused_when_submitted(api: httpx.Client, url: str) -> None:
    problem(post(api, callback=url), 422, "callback-internal")


def test_a_name_that_turns_out_to_be_inside_is_never_called(store: Store) -> None:
    """As after DNS has changed: the server took the name, the worker asks where it leads."""
    jobs = Jobs(store.pool)
    hook = "http://hooks.example.com:1/x"
    row, _ = jobs.accept(Submission(LEMON, bytes(32), "png", 1, 1, "t", None, "", hook, None))
    started = jobs.start(row.id)
    assert started is not None
    jobs.finish(row.id, started.attempts, Found({"label": "Lemon"}, b"jpeg", MODEL, "onnxruntime"))
    (notice,) = jobs.notices([row.id])[row.id]
    ways = notices.Ways(jobs.secret, Allowed(), None, wall_clock, lambda host, port: ["10.9.8.7"])
    lookers = Lookers(0, 1.0)
    Work(jobs, lookers, ways, random.Random(1), 1.0).notify(str(notice.id))
    (notice,) = jobs.notices([row.id])[row.id]
    assert (notice.state, notice.attempts) == ("dead", 1)
    assert notice.deliveries[0]["code"] == "callback-internal"
    assert "--allow-callback" in str(notice.deliveries[0]["detail"])


def test_a_mail_says_what_the_picture_shows(house: House, api: httpx.Client) -> None:
    job = until(api, submit(api, email="shop@example.com", name="façade.png"), told)
    (notice,) = job["notices"]
    assert (notice["way"], notice["state"]) == ("email", "sent")
    ((_to, raw),) = [mail for mail in house.mails.came if mail[0] == ["shop@example.com"]]
    mail = message_from_bytes(raw)
    assert mail["Message-ID"] == f"<{notice['id']}@jobs.shelfwire>"
    assert mail["From"] == "shelfwire@example.com"
    text = mail.get_payload(decode=True).decode()  # type: ignore[union-attr]
    assert job["id"] in text
    assert job["result"]["top"][4]["label"] in text
    assert "façade.png" in text


def test_a_mail_that_nobody_takes_is_given_up(api: httpx.Client) -> None:
    job = until(api, submit(api, email="nobody@example.com"), told)
    (notice,) = job["notices"]
    assert (notice["state"], notice["deliveries"][0]["code"]) == ("dead", "mail-refused")


# -- bad days ---------------------------------------------------------------------------------------------------------


def test_a_killed_worker_loses_and_doubles_nothing(store: Store, dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed in mid-job; another takes over: one result, one notice, the killed run counted."""
    monkeypatch.setenv(ALLOW, "127.0.0.1")
    first, second = Worker(dsn).ready(), None
    try:
        (child,) = first.children()
        os.kill(child, signal.SIGSTOP)  # the picture lies in its lap
        with (
            receiving(Jobs(store.pool).secret()) as hooks,
            serving(store) as served,
            httpx.Client(base_url=served.url, timeout=10) as api,
        ):
            url = submit(api, callback=hooks.url("/ok"))
            asked = ask(api, "frame").headers["location"]
            until(api, url, lambda job: job["state"] == "running")
            first.kill()
            second = Worker(dsn).ready()
            job = until(api, url, told)
            assert (job["state"], job["attempts"]) == ("done", 2)
            assert [notice["attempts"] for notice in job["notices"]] == [1]
            assert len(hooks.at("/ok")) == 1
            until(api, asked, over)
            os.kill(child, signal.SIGCONT)
            wait_until(lambda: not Path(f"/proc/{child}").exists() or ") Z " in Path(f"/proc/{child}/stat").read_text())
            with psycopg.connect(dsn) as connection:
                assert connection.execute("SELECT count(*) FROM procrastinate_jobs").fetchone() == (0,)
                assert connection.execute("SELECT seq FROM verdict").fetchall() == [(17,)]
                assert connection.execute("SELECT body->'seq' FROM outbound").fetchall() == [(17,)]
    finally:
        first.kill()
        if second is not None:
            second.kill()


def test_a_crash_and_a_hang_cost_their_own_job_an_attempt(house: House, api: httpx.Client) -> None:
    for child in house.worker.children():
        os.kill(child, signal.SIGSTOP)
    urls = [submit(api), submit(api, LEMON)]
    for url in urls:
        until(api, url, lambda job: job["state"] == "running")
    os.kill(house.worker.children()[0], signal.SIGSEGV)
    os.kill(house.worker.children()[0], signal.SIGCONT)  # the other one stays as if it hung
    jobs = [until(api, url, over) for url in urls]
    assert [(job["state"], job["attempts"]) for job in jobs] == [("done", 2)] * 2
    assert until(api, submit(api), over)["state"] == "done"


def test_a_picture_that_always_kills_is_buried_with_the_reason(store: Store, tmp_path: Path) -> None:
    """The rule itself, with a child that always dies."""
    dying = tmp_path / "dying.py"
    said = json.dumps({"model": MODEL.model_dump(), "runtime": "none"})
    dying.write_text(
        "import os, sys\nfrom multiprocessing.connection import Connection\n"
        f"pipe = Connection(int(sys.argv[2]))\npipe.send_bytes({said.encode()!r})\n"
        "pipe.recv_bytes()\nos.abort()\n"
    )
    jobs = Jobs(store.pool)
    given = Submission(BANANA, hashlib.sha256(BANANA).digest(), "png", 1, 1, "t", None, "", None, "a@b.example")
    row, _ = jobs.accept(given)
    lookers = Lookers(1, 5.0, command=(sys.executable, str(dying)))
    work = Work(jobs, lookers, notices.Ways(jobs.secret, Allowed(), None, wall_clock), random.Random(1), 1.0)
    pauses = []
    for _ in range(MOST_ATTEMPTS - 1):
        with pytest.raises(Again) as again:
            work.classify(str(row.id))
        pauses.append(again.value.in_s)
        waiting = jobs.find(row.id)
        assert waiting is not None
        assert (waiting.state, waiting.error_code) == ("queued", "picture-crash")
    work.classify(str(row.id))
    work.classify(str(row.id))  # a second run of the same task changes nothing
    lookers.close()
    dead = jobs.find(row.id)
    assert dead is not None
    assert (dead.state, dead.attempts, dead.error_code) == ("dead", MOST_ATTEMPTS, "picture-crash")
    assert "SIGABRT" in (dead.error_detail or "")
    assert 0.5 <= pauses[0] <= 1.0
    assert 2.0 <= pauses[1] <= 4.0
    assert len(jobs.notices([row.id])[row.id]) == 1  # its sender is told that it is dead


def test_a_run_that_was_overtaken_writes_nothing(store: Store) -> None:
    jobs = Jobs(store.pool)
    row, _ = jobs.accept(Submission(LEMON, bytes(32), "png", 1, 1, "t", None, "", None, None))
    slow, quick = jobs.start(row.id), jobs.start(row.id)
    assert slow is not None
    assert quick is not None
    found = Found({"label": "Lemon"}, b"jpeg", MODEL, "onnxruntime")
    assert jobs.finish(row.id, quick.attempts, found)
    assert not jobs.finish(row.id, slow.attempts, Found({"label": "Lime"}, b"jpeg", MODEL, "onnxruntime"))
    assert not jobs.stop(row.id, quick.attempts, "bury", Fault("x", "x", "x"))
    done = jobs.find(row.id)
    assert done is not None
    assert done.result == {"label": "Lemon"}


def test_old_pictures_and_old_jobs_are_forgotten(store: Store) -> None:
    jobs = Jobs(store.pool)
    rows = [jobs.accept(Submission(LEMON, bytes(32), "png", 1, 1, "t", None, "", None, None))[0] for _ in range(2)]
    started = jobs.start(rows[0].id)
    assert started is not None
    jobs.finish(rows[0].id, started.attempts, Found({"label": "Lemon"}, b"jpeg", MODEL, "onnxruntime"))
    assert jobs.forget(3600, 3600) == (0, 0)
    assert jobs.forget(0, 3600) == (1, 0)
    assert jobs.thumbnail(rows[0].id) is None
    assert jobs.picture(rows[1].id) is not None  # what waits keeps its picture
    assert jobs.forget(0, 0) == (0, 1)


def test_the_worker_outlives_its_database(house: House, api: httpx.Client, postgres: Postgres) -> None:
    name = house.dsn.split("?", maxsplit=1)[0].rsplit("/", 1)[1]
    with psycopg.connect(postgres._admin, autocommit=True) as admin:
        admin.execute(f"ALTER DATABASE {name} WITH ALLOW_CONNECTIONS false".encode())
        admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])
        away = post(api)
        problem(away, 503, "database-away")
        assert away.headers["retry-after"]
        admin.execute(f"ALTER DATABASE {name} WITH ALLOW_CONNECTIONS true".encode())
    deadline_s = time.monotonic() + WITHIN_S
    while (taken := post(api)).status_code == 503:
        assert time.monotonic() < deadline_s
        threading.Event().wait(0.1)
    assert until(api, taken.headers["location"], over)["state"] == "done"
    assert house.worker.process.poll() is None


@pytest.mark.parametrize(
    ("url", "sender", "code"),
    [
        ("mail.example.com", "a@b.example", "bad-smtp-url"),
        ("smtp://user:secret@mail.example.com", "a@b.example", "bad-smtp-url"),
        ("smtp://mail.example.com", None, "mail-from"),
        ("smtp://mail.example.com", "a\n@b.example", "mail-from"),
        (None, "a@b.example", "bad-smtp-url"),
    ],
)
def test_a_wrong_mail_server_is_refused(url: str | None, sender: str | None, code: str) -> None:
    with pytest.raises(Rejected) as refused:
        parse_mail(url, None, sender)
    assert refused.value.code == code
    assert refused.value.hint


def test_the_secret_is_shown_and_stays(store: Store, dsn: str) -> None:
    command = [sys.executable, "-m", "cloud.cli", "worker", "--dsn", dsn, "--json", "--show-secret"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    secret = json.loads(done.stdout)["secret"]
    assert re.fullmatch(r"whsec_[A-Za-z0-9+/=]{44}", secret)
    assert Jobs(store.pool).secret() == secret


def test_a_wrong_count_is_refused() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "cloud.cli", "worker", "--json", "--concurrency", "0"],
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert json.loads(done.stdout)["error"]["code"] == "worker-concurrency"
