"""A real mosquitto for tests, and a device reduced to its wire: it sends envelopes, collects receipts and verdicts."""

import json
import random
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cloud.broker import Broker
from wire import envelope, mqtt, topics
from wire.records import LateAnswer, Receipt, Refusal, Span, Status, rfc3339

DEVICES = ("shop-1", "shop-2", "shop-3")
START = datetime(2026, 3, 1, 9, 0, 0, tzinfo=UTC)
RUN = "00000000000000aa"
PATIENCE_S = 15.0


def make_broker(folder: Path, devices: Sequence[str] = DEVICES) -> Broker:
    """Start a broker of one's own; the caller stops it."""
    broker = Broker(folder, devices)
    broker.start()
    return broker


def result(seq: int, **other: object) -> dict[str, object]:
    """Make a record of a result; `other` replaces fields."""
    record: dict[str, object] = {
        "run": RUN,
        "seq": seq,
        "camera": f"cam-{seq % 2}",
        "captured_at": rfc3339(START + timedelta(milliseconds=100 * seq)),
        "boot_ns": 1_000_000_000 + seq * 100_000_000,
        "clock": "synced",
        "frame": seq,
        "labels": [{"label": "Banana", "score": 0.75}, {"label": "Lemon", "score": 0.125}],
        "decision": {"label": "Banana", "state": "confirmed", "changed": False, "reason": "3 in a row"},
        "model": {"name": "produce", "version": "1.0.0", "release": 1, "digest": "ab" * 32},
        "runtime": "openvino",
        "mode": "real-time",
        "waiting_ms": 0.5,
        "inference_ms": 4.25,
        "total_ms": 9.5,
        "truth": None,
    }
    return record | other


def alert(seq: int, **other: object) -> dict[str, object]:
    """Make a record of an alert; `other` replaces fields."""
    record: dict[str, object] = {
        "run": RUN,
        "seq": seq,
        "camera": "cam-0",
        "captured_at": rfc3339(START + timedelta(milliseconds=100 * seq)),
        "boot_ns": 1_000_000_000 + seq * 100_000_000,
        "clock": "synced",
        "rule": "bananas-seen",
        "state": "raised",
        "label": "Banana",
        "score": 0.75,
        "since": rfc3339(START),
        "frame": seq,
        "reason": "seen for 2 s",
        "thumbnail": None,
    }
    return record | other


def sealed(
    device: str,
    records: Iterable[dict[str, object]],
    *,
    kind: str = "result",
    envelope_id: str | None = None,
    boot: str = "",
    sent_boot_ns: int = 0,
) -> tuple[str, bytes]:
    """Seal records into an envelope; gives its id and its bytes."""
    name = envelope_id or envelope.new_id()
    origin = envelope.Origin(device=device, store="Main St", agent="0.1.0", boot=boot, sent_boot_ns=sent_boot_ns)
    return name, envelope.seal_records(kind, origin, [json.dumps(r).encode() for r in records], START, name)


class Device:
    """One device on the wire. It keeps no outbox: a test says what is sent, and how often.

    Nor does the broker keep anything for it, so that no test hears the receipts of another.
    """

    def __init__(self, broker: Broker, name: str, will: Status | None = None, *, verdicts: bool = False) -> None:
        self.name = name
        self.topic = topics.topic(name, topics.RESULTS)
        options = replace(
            broker.options(name),
            subscriptions=tuple(
                (topics.topic(name, rest), 1)
                for rest in (topics.RECEIPTS_DOWN, *((topics.VERDICTS,) if verdicts else ()))
            ),
            will=None if will is None else lambda: mqtt.Will(self._status_topic, self._status(will), 0),
        )
        self.session = mqtt.Session(options, random.Random(7))
        self.session.start()
        self.seen: list[Receipt] = []
        """Every receipt that has come, in order."""
        self.told: list[envelope.Records[LateAnswer]] = []
        """Every envelope of verdicts that has come, in order."""
        self._wait_up()

    @property
    def _status_topic(self) -> str:
        return topics.topic(self.name, topics.STATUS)

    def _status(self, status: Status) -> bytes:
        return envelope.seal_message("status", envelope.device_source(self.name), status, START)

    def _wait_up(self) -> None:
        deadline_s = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline_s:
            if isinstance(self.session.next_event(1.0), mqtt.Up):
                return
        raise AssertionError("the broker does not let the device in")

    def send(self, envelope_id: str, payload: bytes, rest: str = topics.RESULTS) -> None:
        """Publish an envelope once, waiting for the connection and the window."""
        self.publish(topics.topic(self.name, rest), payload, envelope_id.encode())

    def publish(
        self, topic: str, payload: bytes, correlation: bytes | None = None, *, qos: int = 1, retain: bool = False
    ) -> None:
        """Publish anything anywhere."""
        from wire.errors import WireError

        deadline_s = time.monotonic() + PATIENCE_S
        while True:
            try:
                self.session.publish(topic, payload, qos=qos, retain=retain, correlation=correlation)
            except WireError as error:
                if error.code == "too-large" or time.monotonic() > deadline_s:
                    raise
                self._collect(0.1)
            else:
                return

    def say(self, status: Status) -> None:
        """Publish the retained status."""
        self.publish(self._status_topic, self._status(status), retain=True)

    def _collect(self, timeout_s: float) -> None:
        event = self.session.next_event(timeout_s)
        if isinstance(event, mqtt.Message) and event.topic == topics.topic(self.name, topics.VERDICTS):
            self.told.append(
                envelope.open_records(event.payload, "verdict", LateAnswer, self.name, envelope.CLOUD_SOURCE)
            )
        elif isinstance(event, mqtt.Message):
            _, receipt = envelope.open_message(event.payload, "receipt", Receipt, envelope.CLOUD_SOURCE)
            self.seen.append(receipt)

    def receipts(self, *envelopes: str, timeout_s: float = PATIENCE_S) -> list[Receipt]:
        """Wait for the receipts of these envelopes, and give the last one of each, in this order."""
        deadline_s = time.monotonic() + timeout_s
        while True:
            found = {receipt.envelope: receipt for receipt in self.seen}
            if all(name in found for name in envelopes):
                return [found[name] for name in envelopes]
            left_s = deadline_s - time.monotonic()
            assert left_s > 0, f"no receipt for {[n for n in envelopes if n not in found]} within {timeout_s} s"
            self._collect(min(left_s, 1.0))

    @property
    def answers(self) -> list[LateAnswer]:
        """Every verdict that has come, copies included, in order."""
        return [answer for told in self.told for answer in told.good]

    def listen(self, until: Callable[[], bool], what: str, timeout_s: float = PATIENCE_S) -> None:
        """Take what comes until something holds."""
        deadline_s = time.monotonic() + timeout_s
        while not until():
            assert time.monotonic() < deadline_s, f"{what}: not within {timeout_s} s"
            self._collect(0.05)

    def confirm(self, *answers: LateAnswer, refuse: str | None = None, name: str = "e1") -> None:
        """Send the receipt of verdicts, or refuse them for good with this code."""
        keys = [(answer.run, answer.seq) for answer in answers]
        receipt = Receipt(
            envelope=name,
            committed=() if refuse else tuple(Span(run=run, first=seq, last=seq) for run, seq in keys),
            refused=tuple(Refusal(run=run, seq=seq, code=refuse) for run, seq in keys) if refuse else (),
        )
        source = envelope.device_source(self.name)
        self.send(name, envelope.seal_message("receipt", source, receipt, START), topics.RECEIPTS_UP)

    def deliver(self, envelopes: Sequence[tuple[str, bytes]], *, again_s: float = 2.0, timeout_s: float = 40.0) -> None:
        """Send envelopes until each has a receipt, as the uplink does: what has none within `again_s` is sent again."""
        deadline_s = time.monotonic() + timeout_s
        sent_s = dict.fromkeys((name for name, _ in envelopes), -1e9)
        while True:
            answered = {receipt.envelope for receipt in self.seen}
            missing = [(name, payload) for name, payload in envelopes if name not in answered]
            if not missing:
                return
            assert time.monotonic() < deadline_s, f"{len(missing)} envelopes without receipt after {timeout_s} s"
            for name, payload in missing[:20]:
                if time.monotonic() - sent_s[name] > again_s and self.session.connected:
                    self.send(name, payload)
                    sent_s[name] = time.monotonic()
            self._collect(0.05)

    def close(self) -> None:
        """Leave in good order."""
        self.session.stop()
