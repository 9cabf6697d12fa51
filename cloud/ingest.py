"""THE page of the cloud: receive -> validate -> dedupe -> commit -> receipt -> acknowledge to the broker.

Two threads. `ingest` owns the connection to the broker: it opens every message as it comes (arrival.py has the rules),
hands batches over, and when a batch is committed sends the receipts and only then acknowledges to the broker.
`ingest-store` commits one batch at a time, and keeps trying while the database is away. What was not committed is
never acknowledged, and what was not acknowledged comes again; the keys of the records make that harmless. Any number
of ingesters share the load.
"""

import contextlib
import dataclasses
import itertools
import logging
import os
import queue
import random
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram

from cloud.arrival import Arrival, Settled, open_arrival, poisoned, receipt
from cloud.crew import Crew
from cloud.errors import CloudError
from cloud.store import Store
from cloud.store.write import Poison, Writer
from wire import envelope, mqtt, topics
from wire.errors import WireError

log = logging.getLogger(__name__)

GROUP = "ingest"
"""Name of the shared subscription: each envelope goes to one of its ingesters."""

BATCH_ENVELOPES = 20
"""As many as the broker lets be under way to one ingester."""

WINDOW_S = 0.02
"""How long the first envelope of a batch waits for others. An alert waits for nobody."""

WAITING_PICTURES = 200
"""Pictures kept while the database is away, one per camera: at most 20 MB."""

RECEIPT_EXPIRY_S = 300
"""A device that has not heard by then has sent the envelope again, and gets a receipt for that."""

BACKOFF_BASE_S = 0.25
BACKOFF_CEILING_S = 15.0
STOP_S = 5.0


class Metrics:
    """What ingest counts for Prometheus. No label carries a device: a fleet would make too many series."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def count(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"shelfwire_ingest_{name}", text, labels, registry=registry)

        self.received = count("received", "Messages from the broker", "topic")
        self.committed = count("committed", "Records committed for the first time")
        self.duplicates = count("duplicates", "Records that were committed already")
        self.refused = count("refused", "Records and messages refused for good", "code")
        self.quarantined = count("quarantined", "Rows put into quarantine")
        self.retries = count("store_retries", "Commits that failed because the database was away")
        self.receipts = count("receipts", "Receipts handed to the broker")
        self.waiting = Gauge("shelfwire_ingest_queue", "Messages opened and not yet committed", registry=registry)
        self.connected = Gauge("shelfwire_ingest_connected", "1 while the broker is connected", registry=registry)
        self.store_up = Gauge("shelfwire_ingest_store_up", "1 while the database answers", registry=registry)
        self.commit_s = Histogram(
            "shelfwire_ingest_commit_seconds", "Time of one commit", registry=registry,
            buckets=(0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 5, 30),
        )  # fmt: skip
        self.capture_to_commit_s = Histogram(
            "shelfwire_ingest_capture_to_commit_seconds",
            "From capture to commit, of the oldest record of each envelope, by the device's synced clock",
            registry=registry, buckets=(0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 1, 2, 5, 30, 300, 3600, 86_400),
        )  # fmt: skip


@dataclass(slots=True)
class _Gathering:
    """Arrivals that wait for the store, and since when the first of them waits (monotonic)."""

    arrivals: list[Arrival] = field(default_factory=list)
    pictures: dict[tuple[str, str], Arrival] = field(default_factory=dict)
    since_s: float = 0.0

    def __len__(self) -> int:
        return len(self.arrivals) + len(self.pictures)

    def add(self, arrival: Arrival, now_s: float) -> None:
        """Take an arrival in; of a camera's pictures only the newest is kept."""
        if not len(self):
            self.since_s = now_s
        shown = arrival.entry.shot
        if shown is not None:
            self.pictures[arrival.entry.device, shown.camera] = arrival
            while len(self.pictures) > WAITING_PICTURES:
                self.pictures.pop(next(iter(self.pictures)))
        elif arrival.message.token[2] > 0 or len(self.arrivals) < 10 * BATCH_ENVELOPES:
            # The broker's window bounds what must be acknowledged; the rest (bad pictures) is bounded here.
            self.arrivals.append(arrival)

    def due_s(self) -> float | None:
        """Tell when the batch is to be committed (monotonic); None when there is none."""
        if not len(self):
            return None
        full = len(self.arrivals) >= BATCH_ENVELOPES or any(a.urgent for a in self.arrivals)
        return 0.0 if full else self.since_s + WINDOW_S

    def take(self) -> list[Arrival]:
        """Give the batch away."""
        batch = self.arrivals[: 2 * BATCH_ENVELOPES]
        del self.arrivals[: 2 * BATCH_ENVELOPES]
        batch.extend(self.pictures.values())
        self.pictures.clear()
        return batch


def _end_process(error: BaseException) -> None:
    log.critical("ingest cannot go on: %s", error)
    logging.shutdown()
    os._exit(4)


class Ingest:
    """Takes what devices send into the store, from `start` to `stop`.

    `broker` says where the broker is and who we are there; what we subscribe to and how we acknowledge is set here.
    `on_crash` is called from a thread that dies, because a process with half its threads must not live on; by default
    it ends the process. `on_step` is told ``opened``, ``committed`` and ``receipted`` as they happen, for fault tests.
    """

    def __init__(
        self,
        store: Store,
        broker: mqtt.Options,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        monotonic: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
        registry: CollectorRegistry = REGISTRY,
        on_crash: Callable[[BaseException], None] = _end_process,
        on_step: Callable[[str], None] = lambda _: None,
    ) -> None:
        rng = rng or random.Random()  # noqa: S311 - spreads reconnects, guards nothing
        options = dataclasses.replace(
            broker,
            clean_start=True,
            session_expiry_s=0,
            manual_ack=True,
            subscriptions=(
                (topics.shared(GROUP, topics.ALERTS), 1),
                (topics.shared(GROUP, topics.RESULTS), 1),
                (topics.shared(GROUP, topics.RECEIPTS_UP), 1),
                (topics.every_device(topics.STATUS), 1),
                (topics.every_device(topics.REPORTED), 1),
                (topics.every_device(topics.PICTURES), 0),
            ),
        )
        self._session = mqtt.Session(options, random.Random(rng.random()))  # noqa: S311
        self._writer = Writer(store.dsn, store.revive)
        self._now, self._monotonic, self._rng = now, monotonic, rng
        self._on_step = on_step
        self.metrics = Metrics(registry)
        self._gathering = _Gathering()
        self._outgoing: deque[Settled] = deque()
        self._handed: queue.SimpleQueue[list[Arrival] | None] = queue.SimpleQueue()
        self._settled: queue.SimpleQueue[list[Settled]] = queue.SimpleQueue()
        self._busy = False
        self._crew = Crew({"ingest": self._run, "ingest-store": self._store}, on_crash)

    @property
    def connected(self) -> bool:
        """Whether the broker is connected now."""
        return self._session.connected

    def start(self) -> None:
        """Begin. Broker and database may both be away still."""
        self._session.start()
        self._crew.start()

    def stop(self) -> None:
        """Finish the batch under way, send its receipts, disconnect, and wait for the threads; at most `STOP_S`."""
        self._crew.stopping.set()
        self._session.nudge("stop")
        self.join(STOP_S)

    def join(self, timeout_s: float | None = None) -> bool:
        """Wait until both threads have ended; False when they have not within the time."""
        return self._crew.join(timeout_s)

    # -- thread `ingest`: everything that touches the broker ----------------------------------------------------

    def _run(self) -> None:
        while not self._crew.stopping.is_set():
            self._take(self._session.next_event(self._patience_s()))
            self._hand_over()
            self._answer()
        self._finish()

    def _patience_s(self) -> float:
        due_s = None if self._busy else self._gathering.due_s()
        return 0.5 if due_s is None else min(0.5, max(0.0, due_s - self._monotonic()))

    def _take(self, event: mqtt.Event | None) -> None:
        match event:
            case mqtt.Message():
                arrival = open_arrival(event, self._now())
                self.metrics.received.labels(_known(event.topic)).inc()
                self._gathering.add(arrival, self._monotonic())
                self._on_step("opened")
            case mqtt.Up():
                self.metrics.connected.set(1)
                log.info("broker connected")
            case mqtt.Down():
                self.metrics.connected.set(0)
                log.warning("broker away: %s (%s); cure: %s", event.text, event.code, event.hint)
                # The broker or the device sends these again; under a new connection we could not acknowledge them.
                self._gathering = _Gathering()
            case mqtt.Acknowledged() if event.failed:
                log.warning("the broker refused a receipt: %s", event.text)
            case _:
                pass
        self.metrics.waiting.set(len(self._gathering))

    def _hand_over(self) -> None:
        due_s = self._gathering.due_s()
        if not self._busy and due_s is not None and self._monotonic() >= due_s:
            self._busy = True
            self._handed.put(self._gathering.take())

    def _answer(self) -> None:
        """Send the receipts of what is committed, and acknowledge each message after its receipt."""
        with contextlib.suppress(queue.Empty):
            self._outgoing.extend(self._settled.get_nowait())
            self._busy = False
        while self._outgoing:
            settled = self._outgoing[0]
            if not self._send_receipt(settled):
                return
            self._on_step("receipted")
            if settled.arrival.message.token[2] > 0:
                self._session.ack(settled.arrival.message)
            self._outgoing.popleft()

    def _send_receipt(self, settled: Settled) -> bool:
        answer = receipt(settled)
        if answer is None:
            return True
        try:
            self._session.publish(
                topics.topic(settled.arrival.entry.device, topics.RECEIPTS_DOWN),
                envelope.seal_message("receipt", envelope.CLOUD_SOURCE, answer, self._now()),
                correlation=answer.envelope.encode(),
                content_type=envelope.CONTENT_TYPE,
                expiry_s=RECEIPT_EXPIRY_S,
            )
        except WireError as error:
            if error.code in {"not-connected", "window-full"}:
                return False  # It stays first in line; the next event tries again.
            log.warning("a receipt cannot be sent: %s", error)
        self.metrics.receipts.inc()
        return True

    def _finish(self) -> None:
        """Let the batch under way end, then leave; what was only gathered comes again."""
        self._handed.put(None)
        self._crew.join(STOP_S - 2, "ingest-store")
        self._answer()
        self._session.stop()

    # -- thread `ingest-store`: everything that touches the database ----------------------------------------------

    def _store(self) -> None:
        while (batch := self._handed.get()) is not None:
            settled = self._commit(batch)
            if settled is None:
                break
            self._on_step("committed")
            self._settled.put(settled)
            self._session.nudge("committed")
        self._writer.close()

    def _commit(self, batch: Sequence[Arrival]) -> list[Settled] | None:
        """Commit a batch; None when we were stopped before the database came back.

        A batch that holds poison is taken apart, so that one envelope never holds up the others.
        """
        try:
            return self._write(batch)
        except Poison as poison:
            if len(batch) > 1:
                parts = [self._commit([arrival]) for arrival in batch]
                return None if None in parts else [settled for part in parts if part for settled in part]
            log.warning("the database refuses a message on %s: %s", batch[0].message.topic, poison)
            return self._write([poisoned(batch[0], str(poison))])

    def _write(self, batch: Sequence[Arrival]) -> list[Settled] | None:
        """Commit in one transaction, again and again while the database is away."""
        entries = [arrival.entry for arrival in batch]
        for attempt in itertools.count():
            try:
                with self.metrics.commit_s.time():
                    committed = self._writer.commit(entries)
                break
            except CloudError as error:
                self.metrics.retries.inc()
                self.metrics.store_up.set(0)
                if attempt == 0:
                    log.warning("%s (%s); nothing is acknowledged; cure: %s", error, error.code, error.hint)
                ceiling_s = min(BACKOFF_BASE_S * 2**attempt, BACKOFF_CEILING_S)
                if self._crew.stopping.wait(self._rng.uniform(0.05, ceiling_s)):
                    return None
        if attempt:
            log.info("the database is back")
        self._count(batch, committed.new, committed.duplicates)
        return [Settled(arrival, keys) for arrival, keys in zip(batch, committed.conflicts, strict=True)]

    def _count(self, batch: Sequence[Arrival], new: int, duplicates: int) -> None:
        self.metrics.store_up.set(1)
        self.metrics.committed.inc(new)
        self.metrics.duplicates.inc(duplicates)
        now = self._now()
        for arrival in batch:
            self.metrics.quarantined.inc(len(arrival.entry.quarantined))
            for row in arrival.entry.quarantined:
                self.metrics.refused.labels(row.code).inc()
            if arrival.oldest is not None:
                self.metrics.capture_to_commit_s.observe(max(0.0, (now - arrival.oldest).total_seconds()))


def _known(topic: str) -> str:
    """Name the kind of topic, one of a few: a label must not carry what a stranger chose."""
    known = (topics.RESULTS, topics.ALERTS, topics.STATUS, topics.PICTURES, topics.REPORTED, topics.RECEIPTS_UP)
    return next((rest for rest in known if topic.endswith(f"/{rest}")), "other")
