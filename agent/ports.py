"""What the device's pages need from the outside, in our words. Adapters implement these; `app.py` joins them."""

import enum
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

from agent.core.reply import HttpReply
from agent.core.value import value
from wire import mqtt
from wire.records import Verdict

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Picture = NDArray[np.uint8]
else:
    Picture = object  # sync uses these ports too and needs no pictures: 20 MB less
"""Height x width x 3, blue-green-red, 8 bits. Nobody writes into a picture once it was handed on."""

ClockTrust = Literal["synced", "unsure"]


@value
class Stamp:
    """One moment on two clocks: wall time for people, CLOCK_BOOTTIME (counts suspend, never jumps) for logic."""

    wall_ns: int
    boot_ns: int


class Clock(Protocol):
    """Time, passed in, so that tests own it."""

    def now(self) -> Stamp:
        """Read both clocks."""
        ...

    def trust(self) -> ClockTrust:
        """Whether the wall clock was synchronised with a time server."""
        ...

    def wait(self, event: threading.Event, timeout_s: float) -> bool:
        """Wait until `event` is set or the time is over; True when it is set."""
        ...


@dataclass(frozen=True, slots=True)
class Shot:
    """One picture as a source gave it. `truth` is the label that a rendered or labelled source knows."""

    picture: Picture
    truth: str | None = None


class Source(Protocol):
    """Anything that yields pictures. Blocking; used by one thread; every call returns within its deadline."""

    live: bool
    """False for files and folders: the end is the end, and no stall is meant when it pauses."""

    def open(self) -> None:
        """Connect. Raises `agent.errors.Retryable` or `Rejected` with a camera code and its cure."""
        ...

    def read(self) -> Shot | None:
        """Give the next picture, or None at the end of a source that ends. Raises as `open` does."""
        ...

    def close(self) -> None:
        """Let go of the device or connection; may be called twice, and after a failed open."""
        ...


@runtime_checkable
class Stream(Source, Protocol):
    """A source that sends at its own rate: all its pictures are grabbed, so that none is old; those due are decoded."""

    def grab(self) -> None:
        """Wait for the next picture without decoding it. Raises as `read` does."""
        ...

    def retrieve(self) -> Shot:
        """Decode the picture grabbed last. Raises as `read` does."""
        ...


@value
class Frame:
    """A picture with its place and time: `number` counts one camera's frames in this process from 1."""

    camera: str
    number: int
    picture: Picture
    captured: Stamp
    truth: str | None = None


class Frames(Protocol):
    """Where frames wait: one mailbox per camera, newest wins, cameras served in turn."""

    def put(self, frame: Frame) -> Frame | None:
        """Leave the newest frame of its camera; gives the older one that it displaces. Never blocks."""
        ...

    def ahead(self, camera: str) -> int:
        """Count what comes before a new frame of `camera`: frames in work, and those that are served first."""
        ...

    def end(self, camera: str) -> None:
        """Say that this camera's source has ended; what waits is still served."""
        ...

    def take(self, timeout_s: float) -> Frame | None:
        """Give the next frame of the camera that has waited longest since it was served, or None.

        A camera whose frame is being worked on is not served again before `done`: its frames stay in order.
        """
        ...

    def done(self, frame: Frame) -> None:
        """Say that the frame's answer is decided, so that its camera may be served again."""
        ...

    def collect_drops(self) -> Mapping[str, int]:
        """Frames dropped since the last call, by reason. They are counted once."""
        ...

    @property
    def finished(self) -> bool:
        """True when every source has ended and no frame waits or is being worked on."""
        ...


@dataclass(frozen=True, slots=True)
class Spooled:
    """A JPEG that lies in the spool, safe against a power cut. `name` is its file's."""

    name: str
    size_bytes: int
    sha256: str


class Spool(Protocol):
    """Where pictures wait for the cloud, beside the outbox: first the file, then the row that speaks of it."""

    def room_bytes(self) -> int:
        """How much more may be kept now, by the spool's limit and the disk's free space. Cheap: asked per frame."""
        ...

    def keep(self, jpeg: bytes) -> Spooled:
        """Write a picture durably. Raises `agent.errors.Broken`: ``spool-full``, ``disk-full``, ``spool-folder``.

        Its row must follow within minutes: a file without one is swept.
        """
        ...

    def read(self, picture: Spooled) -> bytes:
        """Read a picture back.

        Raises `agent.errors.Rejected` (``picture-lost``) when it is gone or altered, `Broken` (``spool-folder``).
        """
        ...


@value
class Draft:
    """A record on its way into the outbox: its key is given by the commit.

    `kind` is the wire's record kind, or "frame" for a picture that the cloud shall answer; `lane` the outbox lane,
    `body` a JSON object without run and seq. A frame has its `picture`, and in the offload lane the boot time at
    which it `expires_ns`: from then on it is the night's.
    """

    kind: str
    lane: "Lane"
    body: bytes
    captured: Stamp
    clock: ClockTrust
    picture: Spooled | None = None
    expires_ns: int | None = None


Later = Callable[[], Draft]
"""Makes a draft on the store's thread, once, with the others of its group. Between two frames, when a resize and the
model have filled the processor's caches, the same work costs ten times as much. It holds no picture: many wait."""


class Recorder(Protocol):
    """The one way into the outbox for the pipeline. Never blocks longer than its deadline."""

    def record(
        self,
        drafts: Sequence[Draft | Later],
        counts: Mapping[str, int] | None = None,
        facts: Mapping[str, str] | None = None,
    ) -> bool:
        """Hand over one frame's records, counters and decision state, for one transaction.

        An alert is a draft, not one for later: it is seen to be urgent, and does not wait for the group. Returns False
        when the store cannot take them now; the caller counts the frame as dropped.
        """
        ...


class Lane(enum.IntEnum):
    """Ways through the outbox, most urgent first. A stuck lane never holds another up."""

    ALERT = 0
    RESULT = 1
    RECEIPT = 2
    OFFLOAD = 3
    REVIEW = 4
    BATCH = 5
    TELEMETRY = 6


@dataclass(frozen=True, slots=True)
class Row:
    """One record as it lies in the outbox. `refusals`: how often the cloud has refused it for good."""

    seq: int
    run_id: str
    boot_id: str
    kind: str
    captured: Stamp
    refusals: int
    body: bytes
    picture: Spooled | None = None
    expires_ns: int | None = None


@dataclass(frozen=True, slots=True)
class Lease:
    """Records of one kind lent to a sender. `token` is the envelope's id: a receipt must name it."""

    token: str
    lane: Lane
    kind: str
    rows: tuple[Row, ...]


@dataclass(frozen=True, slots=True)
class Settled:
    """What a receipt changed. `known` is False for a token that was never given out or is forgotten."""

    known: bool
    delivered: int = 0
    refused: int = 0
    buried: int = 0
    given_back: int = 0


class Outbox(Protocol):
    """The outbox as the sender sees it: lease, do not pop."""

    def begin(self) -> None:
        """Start over from what is stored: no lease holds any more."""
        ...

    def lease(self, lane: Lane, now_ns: int, max_rows: int, max_bytes: int, *, backlog: bool = True) -> Lease | None:
        """Lease the next records of a lane, of one kind, oldest first; None when none is ready at `now_ns` (boot)."""
        ...

    def settle(
        self,
        token: str,
        committed: Iterable[tuple[str, int, int]],
        refused: Mapping[tuple[str, int], str],
        retry_at_ns: int,
    ) -> Settled:
        """Act on a receipt: delete what is committed, mark or bury what is refused, give the rest back."""
        ...

    def give_back(self, token: str, retry_at_ns: int) -> int:
        """End a lease without a receipt; its records are ready again at `retry_at_ns`. A late receipt still counts."""
        ...

    def hurry(self, now_ns: int) -> None:
        """Let everything that was given back be ready now."""
        ...

    def split(self, token: str, retry_at_ns: int) -> int:
        """End a lease so that each of its records goes alone next time."""
        ...

    def bury(self, token: str, code: str) -> int:
        """Set the records of a lease aside for good."""
        ...

    def waiting(self) -> bool:
        """Whether any record is ready or leased."""
        ...


class FrameOutbox(Protocol):
    """The outbox as the carrier sees it: pictures are lent one by one, and go on the cloud's word alone."""

    def lease(self, lane: Lane, now_ns: int, most: int) -> Sequence[Row]:
        """Lease up to `most` frames of a lane, oldest first; none that was given back until later than `now_ns`."""
        ...

    def delivered(self, rows: Sequence[Row]) -> None:
        """Delete frames that the cloud has, then their pictures."""
        ...

    def give_back(self, row: Row, retry_at_ns: int) -> None:
        """End a lease without an answer; the frame is ready again at `retry_at_ns`."""
        ...

    def hurry(self, lane: Lane, now_ns: int) -> None:
        """Let every frame of a lane that was given back be ready now: what it waited for is over."""
        ...

    def refuse(self, row: Row, code: str, retry_at_ns: int) -> bool:
        """Note that the cloud refused a frame for good; True when it was set aside for that."""
        ...

    def bury(self, row: Row, code: str) -> None:
        """Set a frame aside for good."""
        ...

    def defer_expired(self, now_ns: int, boot_id: str) -> int:
        """Hand frames to offload that nobody answered in time to the night; gives how many."""
        ...

    def tell(self, name: str, value: str) -> None:
        """Keep a fact that vision and `status` read."""
        ...


class Verdicts(Protocol):
    """Where the cloud's late answers are kept on the device."""

    def keep(self, verdicts: Sequence[Verdict], received_ns: int) -> int:
        """Commit verdicts, each once however often it comes; gives how many were new. `received_ns`: wall clock."""
        ...


class Http(Protocol):
    """The way to the cloud's API. Any thread may call it."""

    def send(self, method: str, path: str, headers: Mapping[str, str], body: bytes, timeout_s: float) -> HttpReply:
        """Send one request and give its answer, whatever its status; follows no redirect.

        Raises `agent.errors.Retryable` when no answer came, with the reason as its code.
        """
        ...


class Link(Protocol):
    """The connection to the broker; `wire.mqtt.Session` is the real one."""

    @property
    def connected(self) -> bool:
        """Whether a publication can be tried now."""
        ...

    def next_event(self, timeout_s: float) -> mqtt.Event | None:
        """Wait for the next event."""
        ...

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
        """Hand over a message; raises `wire.WireError`."""
        ...
