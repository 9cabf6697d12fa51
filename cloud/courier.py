"""Takes late answers to their devices: what is due in `outbound` -> an envelope on `verdicts` -> the device's receipt.

A row that is sent stays until ingest has the receipt of the device, and is sent again when none comes; the device keeps
each verdict once, by the frame's id. Any number of couriers share the work, and none holds anything that dies with it.

Two threads. `courier` owns the connection to the broker; `courier-listen` waits for the database's word that something
has become due.
"""

import dataclasses
import logging
import random
import threading
import time
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime

import psycopg
from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge
from psycopg_pool import PoolTimeout

from cloud.crew import Crew
from cloud.store import Store
from cloud.store.outbound import Lent, Outbound, Pace
from cloud.store.verdicts import OUTBOUND
from wire import bounds, envelope, mqtt, topics
from wire.errors import WireError

log = logging.getLogger(__name__)

PACE = Pace(patience_s=10.0, most_s=300.0)
"""A receipt takes a moment; a device that gives none is tried again ever more seldom."""
NO_SUBSCRIBERS = 0x10
"""PUBACK's reason "No matching subscribers" (MQTT 5.0, table 3-4): the device is away, and the broker keeps nothing."""
CHANNEL = "shelfwire_live"
POLL_S = 2.0
"""How often the database is asked without its word: for what has become due by time alone."""
COUNT_EVERY_S = 5.0
RECONNECT_MOST_S = 5.0
HEADROOM_BYTES = 4096
"""What topic, properties and the envelope's own fields take of the broker's largest packet."""
STOP_S = 5.0
AWAY = (psycopg.OperationalError, psycopg.InterfaceError, PoolTimeout)


class Metrics:
    """What a courier counts for Prometheus; no label carries a device."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def count(name: str, text: str) -> Counter:
            return Counter(f"shelfwire_courier_{name}", text, registry=registry)

        def gauge(name: str, text: str) -> Gauge:
            return Gauge(f"shelfwire_courier_{name}", text, registry=registry)

        self.envelopes = count("envelopes", "Envelopes of verdicts handed to the broker")
        self.verdicts = count("verdicts", "Verdicts in them, those that are sent again included")
        self.unheard = count("unheard", "Envelopes for which no device was there")
        self.connected = gauge("connected", "1 while the broker is connected")
        self.waiting = gauge("waiting", "Verdicts that wait for the receipt of their device")
        self.oldest_age_s = gauge("oldest_age_seconds", "Age of the oldest of them")
        self.refused = gauge("refused", "Verdicts that their device will never take")


@dataclasses.dataclass(frozen=True, slots=True)
class _Envelope:
    """An envelope to send, and the rows in it."""

    device: str
    ids: tuple[int, ...]
    id: str
    payload: bytes


class Courier:
    """Carries verdicts from `start` to `stop`. `broker` says where the broker is and who we are there.

    `on_crash` is called from a thread that dies. `pace` is shorter in tests.
    """

    def __init__(
        self,
        store: Store,
        broker: mqtt.Options,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        rng: random.Random | None = None,
        registry: CollectorRegistry = REGISTRY,
        on_crash: Callable[[BaseException], None],
        pace: Pace = PACE,
    ) -> None:
        self._rng = rng or random.Random()  # noqa: S311 - spreads retries, guards nothing
        options = dataclasses.replace(broker, clean_start=True, session_expiry_s=0, subscriptions=())
        self._session = mqtt.Session(options, random.Random(self._rng.random()))  # noqa: S311
        self._outbound = Outbound(store.pool)
        self._dsn = store.dsn
        self._now, self._pace = now, pace
        self.metrics = Metrics(registry)
        self._packet_bytes: int | None = None
        self._due = True
        self._newest = False
        self._outgoing: deque[_Envelope] = deque()
        self._under_way: dict[int, _Envelope] = {}
        self._poll_at_s = self._count_at_s = 0.0
        self._ill = False
        self._woken = threading.Event()
        self._crew = Crew({"courier": self._run, "courier-listen": self._listen}, on_crash)

    @property
    def connected(self) -> bool:
        """Whether the broker is connected now."""
        return self._session.connected

    def start(self) -> None:
        """Begin. Broker and database may both be away still."""
        self._session.start()
        self._crew.start()

    def stop(self) -> None:
        """Disconnect and wait for the threads, at most `STOP_S`. What has no receipt stays where it is."""
        self._crew.stopping.set()
        self._session.nudge("stop")
        self._crew.join(STOP_S)

    # -- thread `courier` ------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._crew.stopping.is_set():
            self._take(self._session.next_event(self._patience_s()))
            try:
                self._look_at_the_clock()
                self._carry()
            except AWAY as error:
                self._fall_ill(error)
            else:
                self._ill = False
        self._session.stop()

    def _patience_s(self) -> float:
        next_s = min(self._poll_at_s, self._count_at_s) - time.monotonic()
        return min(0.5, max(0.0, next_s))

    def _take(self, event: mqtt.Event | None) -> None:
        match event:
            case mqtt.Up():
                self.metrics.connected.set(1)
                self._packet_bytes = event.packet_bytes
                self._due = True
                log.info("broker connected")
            case mqtt.Down():
                self.metrics.connected.set(0)
                log.warning("broker away: %s (%s); cure: %s", event.text, event.code, event.hint)
                # What it has not acknowledged may never have reached it: first in line once it is back.
                self._outgoing.extendleft(reversed(self._under_way.values()))
                self._under_way.clear()
            case mqtt.Acknowledged():
                self._acknowledged(event)
            case mqtt.Nudge():
                self._woken.clear()
                self._due = True
            case _:
                pass

    def _acknowledged(self, event: mqtt.Acknowledged) -> None:
        sent = self._under_way.pop(event.mid, None)
        if sent is None:
            return
        if event.failed:
            log.warning("the broker refused verdicts for %s: %s", sent.device, event.text)
        elif event.reason == NO_SUBSCRIBERS:
            self.metrics.unheard.inc()
            try:
                self._outbound.delay(sent.ids, self._pace.most_s * self._jitter())
            except AWAY as error:
                self._fall_ill(error)

    def _look_at_the_clock(self) -> None:
        now_s = time.monotonic()
        if now_s >= self._poll_at_s:
            self._poll_at_s = now_s + POLL_S
            self._due = True
        if now_s >= self._count_at_s:
            self._count_at_s = now_s + COUNT_EVERY_S
            waiting = self._outbound.waiting()
            self.metrics.waiting.set(waiting.rows)
            self.metrics.oldest_age_s.set(waiting.oldest_age_s)
            self.metrics.refused.set(waiting.refused)

    def _carry(self) -> None:
        """Send what is due, as far as the window goes; an acknowledgement of the broker goes on from there."""
        while self._session.connected and not self._crew.stopping.is_set():
            if not self._outgoing:
                if not self._due:
                    return
                self._newest = not self._newest
                lent = self._outbound.lend(bounds.SEND_RECORDS, self._pace, self._jitter(), newest=self._newest)
                if lent is None:
                    self._due = False
                    return
                self._outgoing.extend(self._pack(lent))
            elif not self._send(self._outgoing[0]):
                return
            else:
                self._outgoing.popleft()

    def _pack(self, lent: Lent) -> list[_Envelope]:
        """Put rows into as few envelopes as the limits allow."""
        limit_bytes = bounds.SEND_BYTES
        if self._packet_bytes is not None:
            limit_bytes = min(limit_bytes, self._packet_bytes - HEADROOM_BYTES)
        made: list[_Envelope] = []
        part: list[tuple[int, bytes]] = []
        size_bytes = 0
        for key, body in lent.rows:
            record = envelope.keyed(lent.run, key, b'{"verdict":%s}' % body)
            if part and size_bytes + len(record) > limit_bytes:
                made.append(self._seal(lent.device, part))
                part, size_bytes = [], 0
            part.append((key, record))
            size_bytes += len(record) + 1
        if part:
            made.append(self._seal(lent.device, part))
        return made

    def _seal(self, device: str, part: list[tuple[int, bytes]]) -> _Envelope:
        name = envelope.new_id()
        origin = envelope.Origin(device=device)
        records = [record for _, record in part]
        payload = envelope.seal_records("verdict", origin, records, self._now(), name, envelope.CLOUD_SOURCE)
        return _Envelope(device, tuple(key for key, _ in part), name, payload)

    def _send(self, sealed: _Envelope) -> bool:
        """Hand an envelope to the broker; False when it has to wait."""
        try:
            mid = self._session.publish(
                topics.topic(sealed.device, topics.VERDICTS),
                sealed.payload,
                correlation=sealed.id.encode(),
                content_type=envelope.CONTENT_TYPE,
                # By then it is sent again: the broker need not keep copies for a device that is away.
                expiry_s=int(self._pace.most_s),
            )
        except WireError as error:
            if error.code in {"not-connected", "window-full"}:
                return False
            log.error("a verdict for %s cannot be sent: %s", sealed.device, error)
            self._outbound.refuse(sealed.ids, error.code)
            return True
        self._under_way[mid] = sealed
        self.metrics.envelopes.inc()
        self.metrics.verdicts.inc(len(sealed.ids))
        return True

    def _jitter(self) -> float:
        return self._rng.uniform(0.5, 1.0)

    def _fall_ill(self, error: Exception) -> None:
        if not self._ill:
            log.warning("the database is away: %s; verdicts wait", " ".join(str(error).split()))
        self._ill = True
        self._poll_at_s = self._count_at_s = time.monotonic() + self._rng.uniform(0.2, RECONNECT_MOST_S)
        self._due = False

    # -- thread `courier-listen` -----------------------------------------------------------------------------------

    def _listen(self) -> None:
        while not self._crew.stopping.is_set():
            try:
                self._listen_once()
            except psycopg.Error as error:
                log.debug("the database does not tell what is due: %s", error)  # it is asked all the same
            self._crew.stopping.wait(self._rng.uniform(0.2, RECONNECT_MOST_S))

    def _listen_once(self) -> None:
        with psycopg.connect(
            self._dsn, autocommit=True, connect_timeout=5, application_name="shelfwire-courier"
        ) as connection:
            connection.execute(f"LISTEN {CHANNEL}".encode())
            self._wake()
            while not self._crew.stopping.is_set():
                for told in connection.notifies(timeout=0.5):
                    if OUTBOUND in told.payload:
                        self._wake()
                    if self._crew.stopping.is_set():
                        return

    def _wake(self) -> None:
        if not self._woken.is_set():
            self._woken.set()
            self._session.nudge(OUTBOUND)
