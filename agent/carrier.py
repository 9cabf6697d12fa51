"""Page 3: frames to the cloud by HTTP: lease -> send -> the cloud has it -> delete, or give back.

    offload   PUT /v1/frames/DEVICE/RUN/SEQ   a function answers now; what nobody answers in time is the night's
    review    POST /v1/jobs                   a worker answers when its turn comes

Either lane has its own threads, breaker and backoff, so that one that is stuck never holds up the other. The answer
itself comes back by MQTT (`agent.uplink`): here the cloud only says that its store has it.
"""

import contextlib
import json
import logging
import queue
import random
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import quote, urlencode

from agent.core.backoff import Backoff
from agent.core.breaker import Breaker
from agent.core.placement import Health
from agent.core.records import moment
from agent.core.reply import Never, NotNow, Taken, sort
from agent.errors import Broken, Rejected, Retryable
from agent.ports import Clock, FrameOutbox, Http, Lane, Row, Spool

log = logging.getLogger(__name__)

CALL_S = 10.0
"""What a device waits for a function's answer at most; a frame that expires sooner waits less."""

SHORTEST_CALL_S = 1.0
JOB_S = 30.0
GRACE_S = 2.0
"""How much longer than told the connection is held, so that the other side can say that it was late."""

RETRY_BASE_S = 0.5
RETRY_CEILING_S = {Lane.OFFLOAD: 30.0, Lane.REVIEW: 300.0}
IDLE_WAIT_S = 0.25
"""How long an idle carrier sleeps before it looks into the outbox by itself; the doorbell wakes it at once."""

DEFER_EVERY_S = 1.0
TELL_EVERY_S = 10.0
TELL_NUMBERS_EVERY_S = 1.0
DOWN_AFTER_S = 5.0
"""A function that asks for a second of peace is not called down yet."""

BUSY_S = 2.0
"""When a frame's turn comes so long after its capture, no more are wanted until the line is short again: answers that
are all equally late help nobody."""

CALM_S = 1.0

LEARN = 0.1
"""Weight of the newest call in what a call is taken to cost and to last."""

LANES = {Lane.OFFLOAD: frozenset({200}), Lane.REVIEW: frozenset({200, 202})}
"""Lanes that are sent by HTTP, and the statuses by which the cloud says that it has the frame."""


@dataclass(frozen=True, slots=True)
class Late:
    """The call did not begin: the frame has expired, and is the night's."""


Outcome = Taken | NotNow | Never | Late


class Pool(Protocol):
    """Threads that carry out calls, so many per lane that none waits."""

    def start(self, lane: Lane, call: Callable[[], None]) -> None:
        """Run `call` soon, on a thread of this lane."""
        ...


@dataclass(frozen=True, slots=True)
class _Finished:
    lane: Lane
    row: Row
    era: int
    outcome: Outcome
    took_ms: float
    lost: bool = False


@dataclass(slots=True)
class _Way:
    """What one lane knows about its way to the cloud."""

    breaker: Breaker
    retry: Backoff
    window: int
    under_way: int = 0
    trouble: str = ""


class Carrier:
    """Sends frames and learns how the cloud does. One thread; the calls themselves run in the pool."""

    def __init__(
        self,
        device: str,
        boot_id: str,
        outbox: FrameOutbox,
        spool: Spool,
        http: Http | None,
        pool: Pool,
        clock: Clock,
        rng: random.Random,
        *,
        window: int,
    ) -> None:
        self._device = device
        self._boot_id = boot_id
        self._outbox = outbox
        self._spool = spool
        self._http = http
        self._pool = pool
        self._clock = clock
        self._ways = {
            lane: _Way(
                Breaker(Backoff(1.0, RETRY_CEILING_S[lane], rng)),
                Backoff(RETRY_BASE_S, RETRY_CEILING_S[lane], rng),
                window if lane == Lane.OFFLOAD else 1,
            )
            for lane in LANES
        }
        self._finished: queue.SimpleQueue[_Finished | None] = queue.SimpleQueue()
        self._unsettled: list[_Finished] = []
        self._usd_per_call: float | None = None
        self._latency_ms: float | None = None
        self._busy = False
        self._defer_at_ns = 0
        self._tell_at_ns = 0
        self._told_ns = 0
        self._told: tuple[object, ...] = ()
        self._down_since_ns = clock.now().boot_ns
        self.why_down = ""
        """Code of what has kept the function from answering for some seconds; empty while it answers."""
        self.counts: Counter[str] = Counter()
        """What this process sent and what became of it, for the metrics."""

    def ring(self) -> None:
        """Wake the carrier, from any thread: there is something new."""
        self._finished.put(None)

    @property
    def idle(self) -> bool:
        """Whether nothing is on its way."""
        return not self._unsettled and not any(way.under_way for way in self._ways.values())

    def turn(self) -> None:
        """One turn of the loop: take what came back, hand over what expired, send what waits, say how it goes."""
        self.receive(IDLE_WAIT_S)
        now_ns = self._clock.now().boot_ns
        if now_ns >= self._defer_at_ns:
            self._defer_at_ns = now_ns + int(DEFER_EVERY_S * 1e9)
            self.counts["expired"] += self._outbox.defer_expired(now_ns, self._boot_id)
        if self._http is not None:
            for lane in LANES:
                self._send(lane, self._http)
        self._tell()

    # -- what comes back -------------------------------------------------------------------------------------

    def receive(self, timeout_s: float) -> None:
        """Wait for calls that are over, and act on all that are.

        When the store cannot be written this raises, and they are acted on in the next turn.
        """
        with contextlib.suppress(queue.Empty):
            self._note(self._finished.get(timeout=timeout_s))
            while True:
                self._note(self._finished.get_nowait())
        done = [f for f in self._unsettled if isinstance(f.outcome, Taken)]
        if done:
            self._outbox.delivered([f.row for f in done])
            self._unsettled = [f for f in self._unsettled if f not in done]
        for f in done:
            self._arrived(f)
        while self._unsettled:
            self._failed(self._unsettled[0])
            del self._unsettled[0]

    def _note(self, finished: _Finished | None) -> None:
        if finished is not None:
            self._ways[finished.lane].under_way -= 1
            self._unsettled.append(finished)
            self.counts[_NAMES[finished.lane, type(finished.outcome)]] += 1

    def _arrived(self, f: _Finished) -> None:
        way = self._ways[f.lane]
        way.breaker.succeeded(f.era)
        way.retry.reset()
        if way.trouble:
            log.info("%s: the cloud takes frames again", f.lane.name.lower())
            way.trouble = ""
            self._outbox.hurry(f.lane, self._clock.now().boot_ns)
        if f.lane == Lane.OFFLOAD:
            self._latency_ms = _blend(self._latency_ms, f.took_ms)
            usd = f.outcome.usd if isinstance(f.outcome, Taken) else None
            self._usd_per_call = self._usd_per_call if usd is None else _blend(self._usd_per_call, usd)

    def _failed(self, f: _Finished) -> None:
        """Act on a call that brought no success: the store first, so that nothing is half done when that fails."""
        way = self._ways[f.lane]
        now_ns = self._clock.now().boot_ns
        match f.outcome:
            case NotNow(code, text, retry_after_s):
                self._outbox.give_back(f.row, now_ns + int(max(way.retry.next(), retry_after_s or 0.0) * 1e9))
                way.breaker.failed(f.era, now_ns, code, retry_after_s)
                if way.trouble != code:
                    log.warning("%s: %s (%s); everything is kept and tried again", f.lane.name.lower(), text, code)
                way.trouble = code
            case Late():
                # The next look at what has expired, in this very turn, hands it to the night.
                self._outbox.give_back(f.row, now_ns)
                way.breaker.untake(f.era)
                self._defer_at_ns = now_ns
            case Never(code, text) if f.lost:
                self._outbox.bury(f.row, code)
                way.breaker.untake(f.era)
                log.error("a frame has lost its picture and was set aside: %s", text)
            case Never(code, text):
                buried = self._outbox.refuse(f.row, code, now_ns + int(way.retry.next() * 1e9))
                # The cloud did answer: its way is fine, and this frame must not close it for others.
                way.breaker.succeeded(f.era)
                if buried:
                    log.error("the cloud refused a frame for good and it was set aside: %s (%s)", text, code)

    def _is_late(self, row: Row, now_ns: int) -> bool:
        """Whether a frame to offload is the night's by now, as the store tells it (`FrameOutbox.defer_expired`)."""
        return row.expires_ns is None or row.expires_ns <= now_ns or row.boot_id != self._boot_id

    # -- what goes -------------------------------------------------------------------------------------------

    def _send(self, lane: Lane, http: Http) -> None:
        way = self._ways[lane]
        while way.under_way < way.window:
            now_ns = self._clock.now().boot_ns
            era = way.breaker.take(now_ns)
            if era is None:
                return
            try:
                rows = self._outbox.lease(lane, now_ns, 1)
            except BaseException:
                way.breaker.untake(era)
                raise
            if lane == Lane.OFFLOAD:
                self._look_at_line(rows, now_ns)
            if not rows:
                way.breaker.untake(era)
                return
            way.under_way += 1
            self._start(lane, rows[0], era, http)

    def _look_at_line(self, rows: Sequence[Row], now_ns: int) -> None:
        """Tell by the frame whose turn it is how long the line for the function is."""
        ours = [row for row in rows if row.boot_id == self._boot_id]
        waited_s = max(((now_ns - row.captured.boot_ns) / 1e9 for row in ours), default=0.0)
        self._busy = waited_s > (CALM_S if self._busy else BUSY_S)

    def _start(self, lane: Lane, row: Row, era: int, http: Http) -> None:
        def call() -> None:
            began_ns = self._clock.now().boot_ns
            outcome: Outcome
            if lane == Lane.OFFLOAD and self._is_late(row, began_ns):
                outcome, lost = Late(), False
            else:
                outcome, lost = self._carry(lane, row, http)
            took_ms = (self._clock.now().boot_ns - began_ns) / 1e6
            self._finished.put(_Finished(lane, row, era, outcome, took_ms, lost))

        self._pool.start(lane, call)

    def _carry(self, lane: Lane, row: Row, http: Http) -> tuple[Outcome, bool]:
        """Send one frame; gives what came of it, and whether its picture is lost. On a thread of the pool."""
        try:
            if row.picture is None:
                return Never("picture-lost", f"record {row.seq} has no picture"), True
            jpeg = self._spool.read(row.picture)
            method, path, headers, timeout_s = self._request(lane, row, row.picture.sha256)
            reply = http.send(method, path, headers, jpeg, timeout_s)
            return sort(reply, LANES[lane], self._clock.now().wall_ns), False
        except Rejected as error:
            return Never(error.code, str(error)), True
        except (Retryable, Broken) as error:
            return NotNow(error.code, f"{error}; {error.hint}"), False
        except Exception as error:
            # One frame that cannot be carried must not end sync: it counts as refused, and is set aside in the end.
            log.exception("a frame could not be carried")
            return Never("carrier-fault", f"{type(error).__name__} in this agent"), False

    def _request(self, lane: Lane, row: Row, sha256: str) -> tuple[str, str, dict[str, str], float]:
        """Give method, path, headers and the seconds to wait for the answer."""
        key = f"{self._device}/{row.run_id}/{row.seq}"
        headers = self._describe(row) | {"X-Shelfwire-Sha256": sha256}
        if lane == Lane.REVIEW:
            headers |= {"X-Shelfwire-Frame": key, "Idempotency-Key": key}
            return "POST", "/v1/jobs?" + urlencode({"sender": self._device}), headers, JOB_S
        left_s = CALL_S if row.expires_ns is None else (row.expires_ns - self._clock.now().boot_ns) / 1e9
        wait_s = min(CALL_S, max(SHORTEST_CALL_S, left_s))
        headers["X-Shelfwire-Deadline-Ms"] = str(int(wait_s * 1000))
        return "PUT", "/v1/frames/" + quote(key), headers, wait_s + GRACE_S

    def _describe(self, row: Row) -> dict[str, str]:
        body: Mapping[str, object] = json.loads(row.body)
        headers = {
            "Content-Type": "image/jpeg",
            "X-Shelfwire-Camera": str(body["camera"]),
            "X-Shelfwire-Number": str(body["frame"]),
            "X-Shelfwire-Captured-At": str(body.get("captured_at") or moment(row.captured.wall_ns)),
            "X-Shelfwire-Clock": str(body["clock"]),
        }
        if row.boot_id == self._boot_id:
            age_ns = max(0, self._clock.now().boot_ns - row.captured.boot_ns)
            headers["X-Shelfwire-Age-Ms"] = str(age_ns // 10**6)
        if body.get("label"):
            headers["X-Shelfwire-Local-Label"] = quote(str(body["label"]), safe="")
        return headers

    # -- how it goes -----------------------------------------------------------------------------------------

    def _tell(self) -> None:
        """Keep the function's health where vision and `status` read it."""
        now_ns = self._clock.now().boot_ns
        breaker = self._ways[Lane.OFFLOAD].breaker
        health: Health = breaker.health(now_ns)
        reason = breaker.reason
        if self._http is None:
            health, reason = "down", "not-allowed"
        if health == "up" and self._busy:
            health = "busy"
        self._down_since_ns = now_ns if not reason else self._down_since_ns
        self.why_down = reason if now_ns - self._down_since_ns > DOWN_AFTER_S * 1e9 else ""
        state = (health, reason)
        told = (*state, self._usd_per_call, self._latency_ms)
        changed = state != self._told[:2] or (
            told != self._told and now_ns - self._told_ns >= TELL_NUMBERS_EVERY_S * 1e9
        )
        if not changed and now_ns < self._tell_at_ns:
            return
        fact = {
            "health": health,
            "reason": reason,
            "usd_per_call": self._usd_per_call,
            "latency_ms": None if self._latency_ms is None else round(self._latency_ms, 1),
            "at_boot_ns": now_ns,
        }
        self._outbox.tell("function", json.dumps(fact))
        self._told, self._told_ns, self._tell_at_ns = told, now_ns, now_ns + int(TELL_EVERY_S * 1e9)


_NAMES: dict[tuple[Lane, type[Outcome]], str] = {
    (lane, kind): f"{lane.name.lower()}-{name}"
    for lane in LANES
    for kind, name in ((Taken, "taken"), (NotNow, "later"), (Never, "refused"), (Late, "expired"))
}


def _blend(old: float | None, new: float) -> float:
    return new if old is None else (1 - LEARN) * old + LEARN * new


class Threads:
    """A pool of daemon threads, some per lane: they wait for calls, and none outlives the process."""

    def __init__(self, threads: Mapping[Lane, int]) -> None:
        self._calls: dict[Lane, queue.SimpleQueue[Callable[[], None]]] = {lane: queue.SimpleQueue() for lane in threads}
        for lane, n in threads.items():
            for number in range(n):
                name = f"{lane.name.lower()}-{number + 1}"
                threading.Thread(target=self._work, args=(lane,), name=name, daemon=True).start()

    def start(self, lane: Lane, call: Callable[[], None]) -> None:
        """Run `call` soon, on a thread of this lane."""
        self._calls[lane].put(call)

    def _work(self, lane: Lane) -> None:
        while True:
            self._calls[lane].get()()
