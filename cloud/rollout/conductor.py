"""Moves rollouts on, and tells the devices: one thread of `serve`, and one conductor in the whole cloud at a time.

It works on one connection to the database that holds an advisory lock. When that breaks, the lock is gone with it, and
so is whatever this conductor had not committed: another may go on. What is to be published stands in `desired`; it is
published retained at QoS 1 until the broker has it, and all of it again after a reconnect. A device that gets an order
twice knows it by its revision.
"""

import contextlib
import json
import logging
import random
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Final

import psycopg
from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge
from psycopg.rows import TupleRow

from cloud.crew import Crew
from cloud.rollout import rows, step
from cloud.store import Store
from wire import envelope, mqtt, topics
from wire.errors import WireError

log = logging.getLogger(__name__)

LOOK_EVERY_S: Final = 1.0
WAIT_FOR_LOCK_S: Final = 5.0
RECONNECT_MOST_S: Final = 5.0
LATE: Final = timedelta(days=30)
"""How far back to look at the start for words about rollouts that are over."""
OVERLAP: Final = timedelta(seconds=30)
"""Looked at again, because transactions commit in another order than they began in, and clocks differ."""
BODIES: Final = 100
"""Orders read from the database at once."""
STOP_S: Final = 5.0
_LOCK: Final = 0x5368656C663

Connection = psycopg.Connection[TupleRow]


class Metrics:
    """What a conductor counts for Prometheus; no label carries a device."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.orders = Counter("shelfwire_conductor_orders", "Orders handed to the broker", registry=registry)
        self.connected = Gauge("shelfwire_conductor_connected", "1 while the broker is connected", registry=registry)
        self.leading = Gauge("shelfwire_conductor_leading", "1 while this is the one that conducts", registry=registry)
        self.rollouts = Gauge("shelfwire_conductor_rollouts", "Rollouts that are open", registry=registry)


class Conductor:
    """Conducts from `start` to `stop`. `broker` says where the broker is and who we are there; `now` is wall time."""

    def __init__(
        self,
        store: Store,
        broker: mqtt.Options,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        rng: random.Random | None = None,
        registry: CollectorRegistry = REGISTRY,
        on_crash: Callable[[BaseException], None],
    ) -> None:
        self._rng = rng or random.Random()  # noqa: S311 - spreads retries, guards nothing
        options = replace(broker, clean_start=True, session_expiry_s=0, subscriptions=())
        self._session = mqtt.Session(options, random.Random(self._rng.random()))  # noqa: S311
        self._dsn, self._now = store.dsn, now
        self.metrics = Metrics(registry)
        self._heard_until = now() - LATE
        self._told: dict[str, int] = {}
        self._under_way: dict[int, tuple[str, int]] = {}
        self._crew = Crew({"conductor": self._run}, on_crash)

    def start(self) -> None:
        """Begin. Broker and database may both be away still."""
        self._session.start()
        self._crew.start()

    def stop(self) -> None:
        """End the thread; what is not published yet is published by whoever conducts next."""
        self._crew.stopping.set()
        self._session.nudge("stop")
        self._crew.join(STOP_S)

    def _run(self) -> None:
        try:
            while not self._crew.stopping.is_set():
                try:
                    self._conduct()
                except psycopg.Error as error:
                    log.warning("the database is away: %s; rollouts stand still", " ".join(str(error).split()))
                    self._pass_time(self._rng.uniform(0.2, RECONNECT_MOST_S))
        finally:
            self._session.stop()

    def _conduct(self) -> None:
        """Wait for the lock, then look again and again for as long as the connection lives."""
        with psycopg.connect(
            self._dsn, autocommit=True, connect_timeout=5, application_name="shelfwire-conductor",
            tcp_user_timeout=30_000,
        ) as connection:  # fmt: skip
            connection.execute(f"SET statement_timeout = {rows.STATEMENT_MS}".encode())
            try:
                self._lead(connection)
            finally:
                self.metrics.leading.set(0)

    def _lead(self, connection: Connection) -> None:
        leading = False
        while not self._crew.stopping.is_set():
            if not leading:
                row = connection.execute("SELECT pg_try_advisory_lock(%s)", (_LOCK,)).fetchone()
                leading = row is not None and bool(row[0])
                if not leading:
                    self._pass_time(WAIT_FOR_LOCK_S)
                    continue
                # Whoever conducted before may have committed orders and not published them.
                self._told.clear()
                self.metrics.leading.set(1)
                log.info("conducting rollouts")
            self.look(connection)
            self._publish(connection)
            self._pass_time(LOOK_EVERY_S)

    def look(self, connection: Connection) -> None:
        """Move every open rollout on, each in its own transaction."""
        with connection.transaction():
            for device in step.outrun(connection):
                log.warning("%s has seen newer orders than are kept here; they go on from there", device)
        opened = [rollout for (rollout,) in connection.execute(rows.SQL["open"]).fetchall()]
        self.metrics.rollouts.set(len(opened))
        for rollout in opened:
            with connection.transaction():
                done = step.advance(connection, rollout, self._now())
            if done.order:
                log.info("%s: ordered %s", rollout, ", ".join(done.order))
            if done.code:
                log.warning("%s is %s: %s", rollout, done.standing.state, done.reason)
        since, self._heard_until = self._heard_until, self._now() - OVERLAP
        for (rollout,) in connection.execute(rows.SQL["late_ends"], {"since": since}).fetchall():
            with connection.transaction():
                step.hear(connection, rows.read_one(connection, rollout), self._now())

    # -- the broker ------------------------------------------------------------------------------------------------

    def _publish(self, connection: Connection) -> None:
        """Publish every order that the broker may not have."""
        if not self._session.connected:
            return
        on_the_way = dict(self._under_way.values())
        due = [
            device
            for device, revision in connection.execute(rows.SQL["desired_revisions"]).fetchall()
            if self._told.get(device) != revision and on_the_way.get(device) != revision
        ]
        for first in range(0, len(due), BODIES):
            values = {"devices": due[first : first + BODIES]}
            for device, revision, body in connection.execute(rows.SQL["desired_bodies"], values).fetchall():
                if not self._send(device, revision, body):
                    return

    def _send(self, device: str, revision: int, body: str) -> bool:
        """Hand one order to the broker, waiting for room in the window; False when that has to wait for long."""
        order = rows.desired_of(revision, json.loads(body))
        payload = envelope.seal_message("desired", envelope.CLOUD_SOURCE, order, self._now())
        until_s = time.monotonic() + LOOK_EVERY_S
        while not self._crew.stopping.is_set() and time.monotonic() < until_s:
            try:
                mid = self._session.publish(
                    topics.topic(device, topics.DESIRED), payload, retain=True, content_type=envelope.CONTENT_TYPE
                )
            except WireError as error:
                if error.code == "window-full":
                    self._take(self._session.next_event(0.1))
                    continue
                if error.code != "not-connected":
                    log.error("the order of %s cannot be sent: %s", device, error)
                    self._told[device] = revision
                return error.code != "not-connected"
            self._under_way[mid] = (device, revision)
            return True
        return False

    def _pass_time(self, for_s: float) -> None:
        """Take what the broker says for a while."""
        until_s = time.monotonic() + for_s
        while not self._crew.stopping.is_set() and (left_s := until_s - time.monotonic()) > 0:
            self._take(self._session.next_event(min(left_s, 0.5)))

    def _take(self, event: mqtt.Event | None) -> None:
        match event:
            case mqtt.Up():
                self.metrics.connected.set(1)
                self._told.clear()  # A broker that lost its disk has lost what it kept.
                self._under_way.clear()
            case mqtt.Down():
                self.metrics.connected.set(0)
                self._under_way.clear()
            case mqtt.Acknowledged():
                self._acknowledged(event)
            case _:
                pass

    def _acknowledged(self, event: mqtt.Acknowledged) -> None:
        with contextlib.suppress(KeyError):
            device, revision = self._under_way.pop(event.mid)
            if event.failed:
                log.warning("the broker refused the order of %s: %s", device, event.text)
                return
            self._told[device] = revision
            self.metrics.orders.inc()
