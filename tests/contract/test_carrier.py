"""Page 3: frames on a real outbox and spool, over a real HTTP server that behaves well, badly or not at all."""

import hashlib
import json
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import apsw
import pytest
from api_server import ApiServer, Request, Say
from test_outbox import books_balance
from world import BOOT, FakeClock

from agent.carrier import BUSY_S, CALL_S, Carrier, Threads
from agent.core.breaker import FAILURES_IN_A_ROW
from agent.core.reply import HttpReply
from agent.errors import Retryable
from agent.link.https import MOST_ANSWER_BYTES, Https
from agent.ports import Draft, Http, Lane, Stamp
from agent.store.frames import FrameSender
from agent.store.inspect import look
from agent.store.sender import REFUSALS_BEFORE_DEAD
from agent.store.writer import Limits, Writer

DEVICE = "till-3"
JPEG = b"\xff\xd8\xff some picture"
S = 10**9


class Inline:
    """A pool that carries a call out at once, or when the test lets it."""

    def __init__(self) -> None:
        self.held: list[tuple[Lane, Callable[[], None]]] = []
        self.holding: set[Lane] = set()

    def start(self, lane: Lane, call: Callable[[], None]) -> None:
        if lane in self.holding:
            self.held.append((lane, call))
        else:
            call()

    def let_go(self) -> None:
        held, self.held = self.held, []
        for _, call in held:
            call()


class FakeApi:
    """An API in memory: answers with `say`, which is a status, a reply or an error to raise."""

    def __init__(self) -> None:
        self.say: dict[str, int | HttpReply | Exception] = {}
        self.asked: list[Request] = []
        self.timeouts_s: list[float] = []

    def send(self, method: str, path: str, headers: Mapping[str, str], body: bytes, timeout_s: float) -> HttpReply:
        self.asked.append(Request(method, path, dict(headers), body))
        self.timeouts_s.append(timeout_s)
        say = self.say.get(method, 200)
        if isinstance(say, Exception):
            raise say
        return HttpReply(say, {}, b"{}") if isinstance(say, int) else say


class World:
    def __init__(self, folder: Path, http: Http | None, pool: Any = None, clock: Any = None, window: int = 4) -> None:
        self.folder = folder
        self.clock = clock or FakeClock()
        self.writer = Writer(folder, Limits(), 0)
        self.run_id = self.writer.start_run(BOOT, 0, "test")
        self.frames = FrameSender(folder, self.writer.spool)
        self.pool = pool or Inline()
        self.carrier = Carrier(
            DEVICE, BOOT, self.frames, self.writer.spool, http, self.pool, self.clock, random.Random(1), window=window
        )

    def put(self, n: int = 1, lane: Lane = Lane.OFFLOAD, **more: object) -> list[int]:
        now = self.clock.now()
        expires_ns = now.boot_ns + 30 * S if lane == Lane.OFFLOAD else None
        drafts = []
        for number in range(1, n + 1):
            body = {"camera": "shelf", "frame": number, "captured_at": "2027-01-15T08:00:00.000000Z",
                    "boot_ns": now.boot_ns, "clock": "synced", "width": 8, "height": 8, "reason": "too-late",
                    **more}  # fmt: skip
            picture = self.writer.spool.keep(JPEG + b"%d" % number)
            drafts.append(Draft("frame", lane, json.dumps(body).encode(), now, "synced", picture, expires_ns))
        return self.writer.put(drafts)

    def turn(self, n: int = 1) -> None:
        for _ in range(n):
            self.carrier.ring()
            self.carrier.turn()

    def until(self, holds: Callable[[], bool], turns: int = 200) -> None:
        """Turn until something holds; each turn waits for what comes back."""
        for _ in range(turns):
            if holds():
                return
            self.carrier.turn()
        raise AssertionError(self.carrier.counts)

    def fact(self) -> dict[str, Any]:
        return look(self.folder).function

    def waiting(self, lane: Lane = Lane.OFFLOAD) -> int:
        return look(self.folder).counters[f"rows:{lane}"]

    def counter(self, name: str) -> int:
        return look(self.folder).counters[name]

    def close(self) -> None:
        self.frames.close()
        self.writer.close()
        books_balance(self.folder)


@pytest.fixture
def api() -> FakeApi:
    return FakeApi()


@pytest.fixture
def world(tmp_path: Path, api: FakeApi) -> Iterator[World]:
    made = World(tmp_path / "state", api)
    yield made
    made.close()


def reply(status: int, code: str = "", **headers: str) -> HttpReply:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    body = json.dumps({"code": code, "detail": "why"}).encode() if code else b""
    return HttpReply(status, {"content-type": "application/problem+json", **named}, body)


# -- what is sent --------------------------------------------------------------------------------------------


def test_a_frame_to_offload_says_whose_it_is_when_it_was_and_how_long_the_device_waits(
    world: World, api: FakeApi
) -> None:
    (seq,) = world.put(label="Crème fraîche")
    world.clock.advance(2)
    world.turn()
    (asked,) = api.asked
    assert (asked.method, asked.path) == ("PUT", f"/v1/frames/{DEVICE}/{world.run_id}/{seq}")
    assert asked.body == JPEG + b"1"
    assert asked.headers == {
        "Content-Type": "image/jpeg",
        "X-Shelfwire-Camera": "shelf",
        "X-Shelfwire-Number": "1",
        "X-Shelfwire-Captured-At": "2027-01-15T08:00:00.000000Z",
        "X-Shelfwire-Clock": "synced",
        "X-Shelfwire-Age-Ms": "2000",
        "X-Shelfwire-Local-Label": "Cr%C3%A8me%20fra%C3%AEche",
        "X-Shelfwire-Sha256": hashlib.sha256(JPEG + b"1").hexdigest(),
        "X-Shelfwire-Deadline-Ms": str(int(CALL_S * 1000)),
    }
    world.turn()
    assert (world.waiting(), world.counter("frame:delivered")) == (0, 1)


def test_a_frame_to_review_is_a_job_that_is_taken_once(world: World, api: FakeApi) -> None:
    api.say["POST"] = 202
    (seq,) = world.put(lane=Lane.REVIEW)
    world.turn(2)
    (asked,) = api.asked
    assert (asked.method, asked.path) == ("POST", f"/v1/jobs?sender={DEVICE}")
    key = f"{DEVICE}/{world.run_id}/{seq}"
    assert (asked.headers["Idempotency-Key"], asked.headers["X-Shelfwire-Frame"]) == (key, key)
    assert "X-Shelfwire-Local-Label" not in asked.headers
    assert (world.waiting(Lane.REVIEW), world.counter("frame:delivered")) == (0, 1)


def test_a_frame_of_another_boot_tells_no_age(world: World, api: FakeApi) -> None:
    world.writer.start_run("boot-0", 0, "test")
    world.put(lane=Lane.REVIEW)
    world.turn(2)
    assert "X-Shelfwire-Age-Ms" not in api.asked[0].headers


def test_a_frame_that_soon_expires_waits_no_longer_than_that(world: World, api: FakeApi) -> None:
    world.put()
    world.clock.advance(26)
    world.turn()
    assert api.asked[0].headers["X-Shelfwire-Deadline-Ms"] == "4000"
    assert api.timeouts_s[0] < 10


def test_a_frame_that_expires_before_its_call_begins_is_the_nights_and_not_called(world: World, api: FakeApi) -> None:
    world.pool.holding = {Lane.OFFLOAD}
    world.put(2)
    world.turn(2)
    assert len(world.pool.held) == 2
    world.clock.advance(31)
    world.pool.let_go()
    world.turn()
    assert api.asked == []
    assert (world.waiting(), world.waiting(Lane.BATCH), world.counter("frames:expired")) == (0, 2, 2)
    assert world.carrier.idle
    assert world.fact()["health"] == "up", "a call that was not made says nothing about the function"


def test_so_many_calls_are_under_way_at_once_and_no_more(world: World, api: FakeApi) -> None:
    world.pool.holding = {Lane.OFFLOAD, Lane.REVIEW}
    world.put(9)
    world.put(3, Lane.REVIEW)
    world.turn(3)
    assert sorted(lane for lane, _ in world.pool.held) == [Lane.OFFLOAD] * 4 + [Lane.REVIEW]
    world.pool.holding.clear()
    world.pool.let_go()
    world.turn(12)
    assert (world.waiting(), world.waiting(Lane.REVIEW)) == (0, 0)
    assert len(api.asked) == 12


def test_nothing_leaves_when_pictures_may_not_and_the_night_gets_what_expires(tmp_path: Path) -> None:
    world = World(tmp_path / "s", None)
    world.put(2)
    world.put(1, Lane.REVIEW)
    world.turn(3)
    assert (world.fact()["health"], world.fact()["reason"]) == ("down", "not-allowed")
    assert (world.waiting(), world.waiting(Lane.REVIEW)) == (2, 1)
    world.clock.advance(31)
    world.turn()
    assert (world.waiting(), world.waiting(Lane.BATCH)) == (0, 2)
    world.close()


# -- what comes back -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "say", [408, 425, 429, 500, 503, 301, 401, Retryable("api-timeout", "hangs"), Retryable("api-cut", "cut")]
)
def test_what_may_work_later_is_kept_and_tried_again(world: World, api: FakeApi, say: int | Exception) -> None:
    api.say["PUT"] = say if isinstance(say, Exception) else HttpReply(say, {}, b"")
    world.put()
    world.turn(2)
    assert (world.waiting(), len(api.asked)) == (1, 1)
    api.say["PUT"] = 200
    world.clock.advance(5)
    world.turn(2)
    assert (world.waiting(), world.counter("frame:delivered")) == (0, 1)


def test_come_back_later_is_honoured(world: World, api: FakeApi) -> None:
    api.say["POST"] = reply(429, "jobs-full", retry_after="60")
    world.put(3, Lane.REVIEW)
    world.turn(3)
    assert len(api.asked) == 1
    world.clock.advance(59)
    world.turn(3)
    assert len(api.asked) == 1
    api.say["POST"] = 202
    world.clock.advance(2)
    world.turn(5)
    assert world.waiting(Lane.REVIEW) == 0


def test_a_frame_refused_for_good_goes_aside_after_five_times_and_holds_nobody_up(world: World, api: FakeApi) -> None:
    (bad, *_) = world.put(4)
    send = api.send

    def picky(method: str, path: str, *rest: Any) -> HttpReply:
        api.say["PUT"] = reply(422, "picture-broken") if path.endswith(f"/{bad}") else 200
        return send(method, path, *rest)

    api.send = picky  # type: ignore[method-assign]
    for _ in range(REFUSALS_BEFORE_DEAD + 1):
        world.turn(2)
        world.clock.advance(5)
    snapshot = look(world.folder)
    assert (snapshot.dead, snapshot.counters["frame:delivered"], world.waiting()) == (1, 3, 0)
    assert sum(asked.path.endswith(f"/{bad}") for asked in api.asked) == REFUSALS_BEFORE_DEAD
    assert world.fact()["health"] == "up"


@pytest.mark.parametrize("harm", ["missing", "altered"])
def test_a_lost_picture_is_set_aside_at_once_and_nothing_is_sent(world: World, api: FakeApi, harm: str) -> None:
    world.put(2)
    for file in world.writer.spool.folder.iterdir():
        file.unlink() if harm == "missing" else file.write_bytes(b"else")
    world.turn(2)
    assert (look(world.folder).dead_frames, world.waiting(), api.asked) == (2, 0, [])
    assert world.fact()["health"] == "up"


def test_a_frame_that_cannot_be_carried_at_all_ends_nothing(world: World, api: FakeApi) -> None:
    api.say["PUT"] = ValueError("a fault in this program")
    world.put(1)
    for _ in range(REFUSALS_BEFORE_DEAD + 1):
        world.turn(2)
        world.clock.advance(5)
    assert look(world.folder).dead_frames == 1


def test_what_nobody_answers_in_time_becomes_the_nights(world: World, api: FakeApi) -> None:
    api.say["PUT"] = 503
    world.put(3)
    world.turn(4)
    world.clock.advance(31)
    world.turn(2)
    assert (world.waiting(), world.waiting(Lane.BATCH), world.counter("frames:expired")) == (0, 3, 3)


def test_a_disk_that_refuses_loses_no_outcome(world: World, monkeypatch: pytest.MonkeyPatch, api: FakeApi) -> None:
    world.put(2)
    world.turn()
    delivered = world.frames.delivered

    def full(*_: object) -> None:
        raise apsw.FullError("database or disk is full")

    monkeypatch.setattr(world.frames, "delivered", full)
    for _ in range(2):
        with pytest.raises(apsw.FullError):
            world.turn()
    assert not world.carrier.idle
    monkeypatch.setattr(world.frames, "delivered", delivered)
    world.turn()
    assert (world.counter("frame:delivered"), len(api.asked)) == (2, 2)


# -- breaker, lanes and health -------------------------------------------------------------------------------


def test_a_dead_function_is_asked_less_and_less_and_found_again(world: World, api: FakeApi) -> None:
    api.say["PUT"] = Retryable("api-timeout", "hangs")
    world.put(40)
    for _ in range(20):
        world.turn()
    assert FAILURES_IN_A_ROW <= len(api.asked) <= FAILURES_IN_A_ROW + 4
    assert (world.fact()["health"], world.fact()["reason"]) == ("down", "api-timeout")
    world.clock.advance(2.1)
    before = len(api.asked)
    world.turn(5)
    assert len(api.asked) == before + 1
    api.say["PUT"] = 200
    world.clock.advance(5)
    world.turn(30)
    assert (world.fact()["health"], world.waiting()) == ("up", 0)


def test_a_probe_is_asked_for_when_nothing_waits(world: World, api: FakeApi) -> None:
    api.say["PUT"] = 500
    world.put(5)
    world.turn(3)
    world.clock.advance(31)
    world.turn(2)
    assert (world.fact()["health"], world.waiting()) == ("probing", 0)
    assert world.carrier.why_down == "http-500"
    api.say["PUT"] = 200
    world.put(1)
    world.turn(2)
    assert world.fact()["health"] == "up"
    assert world.carrier.why_down == ""


def test_a_stuck_lane_never_holds_the_other_up(world: World, api: FakeApi) -> None:
    world.pool.holding = {Lane.OFFLOAD}
    api.say["POST"] = 202
    world.put(9)
    world.put(5, Lane.REVIEW)
    world.turn(8)
    assert (world.waiting(), world.waiting(Lane.REVIEW)) == (9, 0)
    api.say["POST"] = 500
    world.put(9, Lane.REVIEW)
    world.pool.holding.clear()
    world.pool.let_go()
    world.turn(10)
    assert world.waiting() == 0
    assert world.fact()["health"] == "up"


def test_it_learns_what_a_call_costs_and_lasts(world: World, api: FakeApi) -> None:
    api.say["PUT"] = HttpReply(200, {}, b'{"state":"answered","usd":0.00002,"billed_ms":80}')
    world.put(1)
    world.turn(2)
    world.clock.advance(1)
    world.turn()
    assert world.fact()["usd_per_call"] == 0.00002
    assert world.fact()["latency_ms"] is not None
    assert world.fact()["at_boot_ns"] == world.clock.boot_ns


def test_the_fact_is_fresh_even_when_nothing_happens(world: World) -> None:
    world.turn()
    world.clock.advance(11)
    world.turn()
    assert world.fact()["at_boot_ns"] == world.clock.boot_ns


# -- over a real server --------------------------------------------------------------------------------------


class RealClock(FakeClock):
    """Time as it passes."""

    def now(self) -> Stamp:
        return Stamp(time.time_ns(), time.monotonic_ns())


def test_no_more_frames_are_wanted_while_they_wait_for_their_turn_too_long(tmp_path: Path, api: FakeApi) -> None:
    pool = Inline()
    pool.holding = {Lane.OFFLOAD}
    world = World(tmp_path / "state", api, pool, window=1)
    world.put(3)
    world.turn()
    assert world.fact()["health"] == "up"
    world.clock.advance(BUSY_S + 0.5)
    pool.let_go()
    world.turn()
    assert (world.fact()["health"], world.waiting()) == ("busy", 2)
    pool.let_go()
    world.turn()
    pool.let_go()
    world.turn(2)
    assert (world.fact()["health"], world.waiting()) == ("up", 0)
    world.close()


@pytest.fixture
def server() -> Iterator[ApiServer]:
    made = ApiServer()
    yield made
    made.close()


def real(tmp_path: Path, server: ApiServer) -> World:
    pool = Threads({Lane.OFFLOAD: 4, Lane.REVIEW: 1})
    return World(tmp_path / "state", Https(server.url), pool, RealClock())


def test_a_real_server_gets_every_frame_once_and_whole(tmp_path: Path, server: ApiServer) -> None:
    world = real(tmp_path, server)
    seqs = world.put(30)
    jobs = world.put(5, Lane.REVIEW)
    world.until(lambda: world.counter("frame:delivered") == 35)
    paths = [r.path for r in server.requests]
    assert sorted(paths) == sorted(
        [f"/v1/frames/{DEVICE}/{world.run_id}/{seq}" for seq in seqs] + [f"/v1/jobs?sender={DEVICE}"] * len(jobs)
    )
    assert all(hashlib.sha256(r.body).hexdigest() == r.headers["x-shelfwire-sha256"] for r in server.requests)
    world.close()


def test_a_server_that_fails_now_and_then_gets_every_frame_in_the_end(tmp_path: Path, server: ApiServer) -> None:
    dice = random.Random(3)

    def behave(_: Request) -> Say:
        return dice.choice([Say(), Say(), Say(), Say(500), Say(429, headers=(("Retry-After", "0"),)), Say(cut=True)])

    server.behave = behave
    world = real(tmp_path, server)
    world.put(5)
    world.until(lambda: world.counter("frame:delivered") == 5, 400)
    world.close()


def test_a_server_that_hangs_holds_up_only_its_lane(tmp_path: Path, server: ApiServer) -> None:
    server.behave = lambda r: Say(hang=r.method == "PUT", status=202)
    world = real(tmp_path, server)
    world.put(6)
    world.put(5, Lane.REVIEW)
    world.until(lambda: world.waiting(Lane.REVIEW) == 0)
    assert world.waiting() == 6
    server.release.set()
    server.behave = lambda _: Say()
    world.until(lambda: world.waiting() == 0, 400)
    world.close()


@pytest.mark.parametrize(
    ("say", "code"),
    [(Say(hang=True), "api-timeout"), (Say(cut=True), "api-cut"), (Say(drip=True, body=b"x" * 400), "api-timeout")],
)
def test_every_silence_ends_by_a_deadline(
    server: ApiServer, say: Say, code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.link.https.CONNECT_TIMEOUT_S", 0.2)
    server.behave = lambda _: say
    with pytest.raises(Retryable) as error:
        Https(server.url).send("PUT", "/v1/frames/a/b/1", {}, JPEG, 0.4)
    assert error.value.code == code
    assert error.value.hint


def test_nobody_at_the_address(server: ApiServer) -> None:
    server.close()
    with pytest.raises(Retryable) as error:
        Https(server.url).send("PUT", "/x", {}, JPEG, 1)
    assert error.value.code == "api-refused"


def test_a_redirect_is_not_followed_with_a_picture(server: ApiServer) -> None:
    server.behave = lambda _: Say(307, b"", (("Location", server.url + "/elsewhere"),))
    assert Https(server.url).send("PUT", "/v1", {}, JPEG, 5).status == 307
    assert len(server.requests) == 1


def test_an_answer_without_end_is_read_so_far_and_no_further(server: ApiServer) -> None:
    server.behave = lambda _: Say(200, b"x" * (4 * MOST_ANSWER_BYTES))
    assert len(Https(server.url).send("GET", "/", {}, b"", 5).body) == MOST_ANSWER_BYTES


def test_a_session_outlives_a_cut_connection(server: ApiServer) -> None:
    https = Https(server.url)
    server.behave = lambda r: Say(cut=r.path == "/cut")
    for path in ("/fine", "/cut", "/fine"):
        if path == "/cut":
            with pytest.raises(Retryable):
                https.send("PUT", path, {}, JPEG, 5)
        else:
            assert https.send("PUT", path, {}, JPEG, 5).status == 200


def test_threads_of_a_lane_are_its_own() -> None:
    pool = Threads({Lane.OFFLOAD: 1, Lane.REVIEW: 1})
    release, ran = threading.Event(), threading.Event()
    pool.start(Lane.OFFLOAD, lambda: release.wait(20) and None)
    pool.start(Lane.REVIEW, ran.set)
    assert ran.wait(20)
    release.set()
