"""A small world for the device's pages: a clock that stands still, a link that a test can cut, a cloud that answers."""

import threading
from collections import deque
from dataclasses import dataclass, field

from agent.ports import ClockTrust, Stamp
from wire import WireError, envelope, mqtt, topics
from wire.envelope import CLOUD_SOURCE, Records
from wire.records import Receipt, Record, Refusal, Span

BOOT = "boot-1"


class FakeClock:
    """Both clocks, moved by the test."""

    def __init__(self) -> None:
        self.wall_ns = 1_800_000_000 * 10**9
        self.boot_ns = 5_000 * 10**9

    def now(self) -> Stamp:
        return Stamp(self.wall_ns, self.boot_ns)

    def trust(self) -> ClockTrust:
        return "synced"

    def wait(self, event: threading.Event, timeout_s: float) -> bool:
        self.advance(timeout_s)
        return event.is_set()

    def advance(self, seconds: float) -> None:
        self.boot_ns += int(seconds * 1e9)
        self.wall_ns += int(seconds * 1e9)


@dataclass
class Published:
    topic: str
    payload: bytes
    retain: bool
    qos: int
    correlation: bytes | None
    mid: int


@dataclass
class FakeLink:
    """A link that keeps what was published. `connected` is the test's."""

    packet_bytes: int = 1 << 20
    events: deque[mqtt.Event] = field(default_factory=deque)
    published: list[Published] = field(default_factory=list)
    connected: bool = False
    mid: int = 0

    def up(self) -> None:
        self.connected = True
        self.events.append(mqtt.Up(None))

    def down(self, code: str = "broker-lost") -> None:
        self.connected = False
        self.events.append(mqtt.Down(code, "cut", "mend it"))

    def next_event(self, timeout_s: float) -> mqtt.Event | None:
        return self.events.popleft() if self.events else None

    def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        qos: int = 1,
        retain: bool = False,
        expiry_s: int | None = None,
        correlation: bytes | None = None,
        content_type: str = "",
    ) -> int:
        if not self.connected:
            raise WireError("not-connected", "away")
        if len(payload) > self.packet_bytes:
            raise WireError("too-large", "too large", "raise it")
        self.mid += 1
        self.published.append(Published(topic, payload, retain, qos, correlation, self.mid))
        return self.mid

    def on(self, rest: str) -> list[Published]:
        return [p for p in self.published if p.topic.endswith("/" + rest)]

    def take(self, rest: str) -> list[Published]:
        found = self.on(rest)
        self.published = [p for p in self.published if p not in found]
        return found


def opened(message: Published, device: str) -> Records:
    """Open a published envelope of records as the cloud would."""
    kind = "alert" if message.topic.endswith("alerts") else "result"
    return envelope.open_records(message.payload, kind, envelope.RECORDS[kind], device)


def receipt(
    device: str, token: str, records: list[Record], refused: dict[int, str] | None = None, rejected: str | None = None
) -> mqtt.Message:
    """Make the cloud's receipt for records."""
    refused = refused or {}
    message = Receipt(
        envelope=token,
        rejected=rejected,
        committed=tuple(Span(run=r.run, first=r.seq, last=r.seq) for r in records if r.seq not in refused),
        refused=tuple(Refusal(run=r.run, seq=r.seq, code=refused[r.seq]) for r in records if r.seq in refused),
    )
    payload = envelope.seal_message("receipt", CLOUD_SOURCE, message, envelope.utc(0))
    name = topics.topic(device, topics.RECEIPTS_DOWN)
    return mqtt.Message(name, payload, retained=False, duplicate=False, correlation=None, token=(1, 1, 1))
