"""Page 2: from the outbox to the cloud: lease -> publish -> receipt -> settled, or give back; and verdicts back.

A record leaves the device only when the receipt says that the cloud's store has committed it. The broker's own
acknowledgement proves nothing: here it only tells of refusals. The other way the same holds: a verdict is committed
first, then the cloud gets its receipt; when that is lost the verdict comes again, and counts once.
"""

import json
import logging
import random
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime

from agent.core.backoff import Backoff
from agent.ports import Clock, Lane, Lease, Link, Outbox, Verdicts
from agent.update_ports import Orders
from wire import WireError, bounds, envelope, mqtt, topics
from wire.orders import Desired, Reported
from wire.records import LateAnswer, Receipt, Refusal, Span, Status

log = logging.getLogger(__name__)

WINDOW = 20
"""Envelopes on their way at once."""

BACKLOG_WINDOW = 14
"""Of these, what a backlog may take: live results always find room beside it."""

LANES = (Lane.ALERT, Lane.RESULT)
"""Lanes that are sent over MQTT, most urgent first."""

TOPICS = {"result": topics.RESULTS, "alert": topics.ALERTS}

NO_SUBSCRIBERS = 0x10
"""MQTT 5 reason code: the broker has the message and nobody to give it to."""

CLOUD_AWAY_CEILING_S = 10.0
"""How long a lane rests at most while no ingest listens: soon after one is back, results flow again."""

RETRY_BASE_S = 1.0
RETRY_CEILING_S = 300.0
STATUS_EVERY_S = 10.0
PICTURES_EVERY_S = 0.5
BUSY_WAIT_S = 0.05
IDLE_WAIT_S = 0.25
"""How long an idle uplink sleeps before it looks into the outbox by itself; the doorbell wakes it at once."""


@dataclass(frozen=True, slots=True)
class Who:
    """What envelopes say about their sender."""

    device: str
    store: str
    agent: str
    boot_id: str


@dataclass(slots=True)
class _Sent:
    lease: Lease
    expires_ns: int
    backlog: bool
    mid: int


class Uplink:
    """Sends what waits, and takes receipts. One thread; nothing in here blocks longer than `IDLE_WAIT_S`."""

    def __init__(
        self,
        who: Who,
        outbox: Outbox,
        link: Link,
        clock: Clock,
        rng: random.Random,
        *,
        verdicts: Verdicts,
        receipt_timeout_s: float,
        describe: Callable[[], Status],
        pictures: Callable[[], Iterable[bytes]],
        orders: Orders | None = None,
    ) -> None:
        self._who = who
        self._outbox = outbox
        self._link = link
        self._clock = clock
        self._receipt_timeout_ns = int(receipt_timeout_s * 1e9)
        self._verdicts = verdicts
        self._describe = describe
        self._pictures = pictures
        self._orders = orders
        self._reported: Reported | None = None
        self._retry = {lane: Backoff(RETRY_BASE_S, RETRY_CEILING_S, rng) for lane in LANES}
        self._paused_until_ns = dict.fromkeys(LANES, 0)
        self._sent: dict[str, _Sent] = {}
        self._status_at_ns = 0
        self._pictures_at_ns = 0
        self._last_status = b""
        self._silent = False
        self.down: mqtt.Down | None = None
        """Why there is no connection now; None when there is one or none was tried."""
        self.refused: mqtt.Down | None = None
        """Why the broker, though connected, does not pass records on; None since the last receipt."""
        self.confirmed: tuple[int, float] | None = None
        """When the last receipt came (boot clock, ns), and how many milliseconds its envelope took there and back."""
        self.counts: Counter[str] = Counter()
        """What this process sent and got back, for the metrics."""
        self.progress = 0
        """Turns of the loop; the watchdog looks at it."""

    def turn(self) -> None:
        """One turn of the loop: take what came, send what waits, say how it goes."""
        event = self._link.next_event(BUSY_WAIT_S if self._sent else IDLE_WAIT_S)
        while event is not None:
            self._take(event)
            event = self._link.next_event(0)
        now_ns = self._clock.now().boot_ns
        self._expire(now_ns)
        if self._link.connected:
            try:
                self._send(now_ns)
                self._tell(now_ns)
            except WireError as error:
                if error.code not in ("not-connected", "window-full"):
                    raise
        self.progress += 1

    def receive_only(self) -> None:
        """One turn that sends nothing new: for the stop."""
        event = self._link.next_event(BUSY_WAIT_S)
        if event is not None:
            self._take(event)

    @property
    def idle(self) -> bool:
        """Whether nothing is on its way."""
        return not self._sent

    # -- what comes ------------------------------------------------------------------------------------------

    def _take(self, event: mqtt.Event) -> None:
        match event:
            case mqtt.Up():
                log.info("connected to the broker")
                self.down = None
                self._start_over()
            case mqtt.Down():
                if self.down is None or self.down.code != event.code:
                    log.warning("no connection: %s (%s); %s", event.text, event.code, event.hint)
                self.down = event
                self._start_over()
            case mqtt.Message():
                self._receive(event)
            case mqtt.Acknowledged() if event.failed or event.reason == NO_SUBSCRIBERS:
                self._refused_by_broker(event)
            case _:
                pass

    def _start_over(self) -> None:
        """Forget every lease: what was on its way is gone with the connection, and is sent again."""
        self._sent.clear()
        self._outbox.begin()
        self._status_at_ns = 0
        self._last_status = b""
        self._reported = None

    def _receive(self, message: mqtt.Message) -> None:
        try:
            device, rest = topics.split(message.topic)
            if device != self._who.device or rest not in (topics.RECEIPTS_DOWN, topics.VERDICTS, topics.DESIRED):
                raise WireError("bad-topic", f"nothing for us: {message.topic[:80]}")
            if rest == topics.DESIRED:
                self._ordered(message.payload)
                return
            if rest == topics.VERDICTS:
                self._answered(message.payload)
                return
            _, receipt = envelope.open_message(message.payload, "receipt", Receipt, envelope.CLOUD_SOURCE)
        except WireError as error:
            self.counts["messages-refused"] += 1
            log.warning("ignored a message: %s (%s)", error, error.code)
            return
        self._settle(receipt)

    def _ordered(self, payload: bytes) -> None:
        """Pass an order on; an empty message only takes back what the broker keeps. Raises `WireError`."""
        if self._orders is not None and payload:
            _, order = envelope.open_message(payload, "desired", Desired, envelope.CLOUD_SOURCE)
            self._orders.heard(order)

    def _answered(self, payload: bytes) -> None:
        """Commit late answers, then tell the cloud so. Raises `WireError` for an envelope that cannot be read."""
        records = envelope.open_records(payload, "verdict", LateAnswer, self._who.device, envelope.CLOUD_SOURCE)
        mine: list[LateAnswer] = []
        foreign: list[LateAnswer] = []
        for answer in records.good:
            (mine if answer.verdict.device == self._who.device else foreign).append(answer)
        new = self._verdicts.keep([answer.verdict for answer in mine], self._clock.now().wall_ns)
        self.counts["verdicts"] += new
        self.counts["verdict-copies"] += len(mine) - new
        refused = [(answer.run, answer.seq, "not-mine") for answer in foreign]
        refused += [(r.run, r.seq, r.code) for r in records.refused if r.run is not None and r.seq is not None]
        self.counts["verdicts-refused"] += len(foreign) + len(records.refused)
        receipt = Receipt(
            envelope=records.event.id,
            committed=_spans((answer.run, answer.seq) for answer in mine),
            refused=tuple(Refusal(run=run, seq=seq, code=code) for run, seq, code in refused),
        )
        sealed = envelope.seal_message("receipt", envelope.device_source(self._who.device), receipt, self._wall())
        name = topics.topic(self._who.device, topics.RECEIPTS_UP)
        try:
            self._link.publish(name, sealed, content_type=envelope.CONTENT_TYPE)
        except WireError as error:
            # The cloud sends again what no receipt came for.
            log.debug("no receipt could be sent: %s", error)

    def _settle(self, receipt: Receipt) -> None:
        sent = self._sent.pop(receipt.envelope, None)
        lane = sent.lease.lane if sent else Lane.RESULT
        if receipt.rejected is not None:
            self._rejected(receipt.envelope, sent, receipt.rejected)
            return
        settled = self._outbox.settle(
            receipt.envelope,
            [(span.run, span.first, span.last) for span in receipt.committed],
            {(r.run, r.seq): r.code for r in receipt.refused},
            self._later(lane) if receipt.refused else self._clock.now().boot_ns,
        )
        if not receipt.refused:
            self._retry[lane].reset()
        self._cloud_is_back()
        if sent is not None:
            now_ns = self._clock.now().boot_ns
            self.confirmed = (now_ns, (now_ns - sent.expires_ns + self._receipt_timeout_ns) / 1e6)
        self.counts["receipts"] += 1
        self.counts["delivered"] += settled.delivered
        self.counts["refused"] += settled.refused
        if settled.buried:
            codes = ", ".join(sorted({r.code for r in receipt.refused}))
            log.error("the cloud refused %d records for good (%s): set aside as dead letters", settled.buried, codes)

    def _cloud_is_back(self) -> None:
        """After a silence the first receipt ends every wait that the silence caused."""
        if self.refused is None and not self._silent:
            return
        log.info("the cloud takes records again")
        self.refused = None
        self._silent = False
        self._paused_until_ns = dict.fromkeys(LANES, 0)
        self._outbox.hurry(self._clock.now().boot_ns)

    def _rejected(self, token: str, sent: _Sent | None, code: str) -> None:
        """The cloud could not read the envelope as a whole. Alone, its record is at fault."""
        self.counts["envelopes-rejected"] += 1
        if sent is None:
            return
        rows = sent.lease.rows
        if len(rows) == 1:
            self._outbox.settle(token, (), {(rows[0].run_id, rows[0].seq): code}, self._later(sent.lease.lane))
            return
        log.warning("the cloud could not read an envelope (%s): its %d records go one by one", code, len(rows))
        self._outbox.split(token, self._clock.now().boot_ns)

    def _refused_by_broker(self, event: mqtt.Acknowledged) -> None:
        """The broker did not pass the message on (quota, access list, nobody there): keep the records, slow down."""
        for token, sent in list(self._sent.items()):
            if sent.mid == event.mid:
                lane = sent.lease.lane
                later_ns = self._later(lane)
                if event.reason == NO_SUBSCRIBERS:
                    later_ns = min(later_ns, self._clock.now().boot_ns + int(CLOUD_AWAY_CEILING_S * 1e9))
                self._note_refusal(sent, event)
                del self._sent[token]
                self._paused_until_ns[lane] = later_ns
                self._outbox.give_back(token, later_ns)

    def _note_refusal(self, sent: _Sent, event: mqtt.Acknowledged) -> None:
        code, text, hint = ("broker-refused", f"the broker refused {TOPICS[sent.lease.kind]}: {event.text}",
                            "check the broker's access list and limits")  # fmt: skip
        if event.reason == NO_SUBSCRIBERS:
            code, text, hint = "cloud-away", "nobody takes results from the broker", "start shelfwire-cloud ingest"
        if self.refused is None or self.refused.code != code:
            log.warning("%s (%s); everything is kept; %s", text, code, hint)
        self.refused = mqtt.Down(code, text, hint)
        self.counts[code] += 1

    def _later(self, lane: Lane) -> int:
        return self._clock.now().boot_ns + int(self._retry[lane].next() * 1e9)

    def _expire(self, now_ns: int) -> None:
        """Give back what no receipt came for. Its receipt still counts when it comes late."""
        for token, sent in list(self._sent.items()):
            if sent.expires_ns <= now_ns:
                del self._sent[token]
                self.counts["receipts-missed"] += 1
                self._silent = True
                self._outbox.give_back(token, self._later(sent.lease.lane))

    # -- what goes -------------------------------------------------------------------------------------------

    def _send(self, now_ns: int) -> None:
        for lane in LANES:
            while len(self._sent) < WINDOW and self._paused_until_ns[lane] <= now_ns:
                room = sum(sent.backlog for sent in self._sent.values()) < BACKLOG_WINDOW
                lease = self._outbox.lease(lane, now_ns, bounds.SEND_RECORDS, bounds.SEND_BYTES, backlog=room)
                if lease is None:
                    break
                self._publish(lease, now_ns)

    def _publish(self, lease: Lease, now_ns: int) -> None:
        rows = lease.rows
        stamp = self._clock.now()
        # Records of another boot cannot be dated by this boot's clock, so an envelope names the boot of all or none.
        boots = {row.boot_id for row in rows}
        origin = envelope.Origin(
            device=self._who.device,
            store=self._who.store,
            agent=self._who.agent,
            boot=self._who.boot_id if boots == {self._who.boot_id} else "",
            sent_boot_ns=stamp.boot_ns if boots == {self._who.boot_id} else 0,
        )
        records = (envelope.keyed(row.run_id, row.seq, row.body) for row in rows)
        payload = envelope.seal_records(lease.kind, origin, records, envelope.utc(stamp.wall_ns), lease.token)
        try:
            mid = self._link.publish(
                topics.topic(self._who.device, TOPICS[lease.kind]),
                payload,
                expiry_s=max(1, self._receipt_timeout_ns // 10**9),
                correlation=lease.token.encode(),
                content_type=envelope.CONTENT_TYPE,
            )
        except WireError as error:
            if error.code == "too-large":
                self._too_large(lease, error)
                return
            self._outbox.give_back(lease.token, now_ns)
            raise
        backlog = stamp.boot_ns - rows[0].captured.boot_ns > 10 * 10**9 or boots != {self._who.boot_id}
        self._sent[lease.token] = _Sent(lease, now_ns + self._receipt_timeout_ns, backlog, mid)
        self.counts["envelopes"] += 1
        self.counts["records"] += len(rows)
        self.counts["bytes"] += len(payload)

    def _too_large(self, lease: Lease, error: WireError) -> None:
        """This broker takes only smaller packets. A record that is too large alone would block the line: bury it."""
        if len(lease.rows) > 1:
            self._outbox.split(lease.token, 0)
            return
        log.error("a record is too large for this broker and was set aside: %s; %s", error, error.hint)
        self._outbox.bury(lease.token, "too-large")

    def _tell(self, now_ns: int) -> None:
        """Send status and last pictures. Both are newest-wins: nothing is kept for later."""
        if now_ns >= self._pictures_at_ns:
            self._pictures_at_ns = now_ns + int(PICTURES_EVERY_S * 1e9)
            self._tell_status(now_ns)
            self._tell_reported()
            for message in self._pictures():
                payload = envelope.seal(
                    "picture", envelope.device_source(self._who.device), message, self._wall(), envelope.new_id()
                )
                name = topics.topic(self._who.device, topics.PICTURES)
                self._link.publish(name, payload, qos=0, expiry_s=10, content_type=envelope.CONTENT_TYPE)

    def _tell_status(self, now_ns: int) -> None:
        status = self._describe()
        # Numbers move all the time; a change of anything else is told at once.
        kernel = json.dumps(
            [status.state, status.vision, [(c.name, c.phase, c.code) for c in status.cameras],
             [w.code for w in status.warnings]]
        ).encode()  # fmt: skip
        if now_ns < self._status_at_ns and kernel == self._last_status:
            return
        self._status_at_ns = now_ns + int(STATUS_EVERY_S * 1e9)
        self._last_status = kernel
        payload = envelope.seal_message("status", envelope.device_source(self._who.device), status, self._wall())
        name = topics.topic(self._who.device, topics.STATUS)
        self._link.publish(name, payload, retain=True, content_type=envelope.CONTENT_TYPE)

    def _tell_reported(self) -> None:
        """Say what became of orders, on every change and after each connecting; the broker keeps the newest."""
        said = self._orders.reported() if self._orders is not None else None
        if said is None or said == self._reported:
            return
        payload = envelope.seal_message("reported", envelope.device_source(self._who.device), said, self._wall())
        name = topics.topic(self._who.device, topics.REPORTED)
        self._link.publish(name, payload, retain=True, content_type=envelope.CONTENT_TYPE)
        self._reported = said

    def say_goodbye(self, status: Status) -> None:
        """Publish the last status before a stop in good order."""
        if self._link.connected:
            payload = envelope.seal_message("status", envelope.device_source(self._who.device), status, self._wall())
            name = topics.topic(self._who.device, topics.STATUS)
            self._link.publish(name, payload, retain=True, content_type=envelope.CONTENT_TYPE)

    def _wall(self) -> datetime:
        return envelope.utc(self._clock.now().wall_ns)


def _spans(keys: Iterable[tuple[str, int]]) -> tuple[Span, ...]:
    """Write keys as spans that hold these and no others."""
    spans: list[Span] = []
    for run, seq in sorted(set(keys)):
        if spans and spans[-1].run == run and spans[-1].last == seq - 1:
            spans[-1] = spans[-1].model_copy(update={"last": seq})
        else:
            spans.append(Span(run=run, first=seq, last=seq))
    return tuple(spans)
