"""One stream for all viewers: the database says what changed, the hub reads it once and tells everybody.

The hub keeps what it has told last. A viewer who comes (or comes back) gets all of it as one `snapshot`, then only
what changes, as `update`; nothing is replayed, so a gap of any length costs one snapshot.
"""

import asyncio
import json
import logging
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import psycopg
from fastapi.sse import format_sse_event
from psycopg_pool import PoolTimeout

from cloud.store.read import AnsweredRow, Reader
from cloud.web import live, shapes
from wire.records import rfc3339

log = logging.getLogger(__name__)

CHANNEL = "shelfwire_live"
PUSH_EVERY_S = 0.2
"""At most five pushes a second: more than an eye takes in, and the price of a busy store stays flat."""
BEAT_EVERY_S = 3.0
"""A viewer who hears nothing for a few of these knows that what it shows is old."""
ANSWERED_EVERY_S = 5.0
"""How often it is counted which way gave how many answers: a count of thousands, unlike all else that is read here."""
RELOAD_EVERY_S = 30.0
"""Everything is read anew this often, for what changes without a word: devices that fall silent."""
WAITING_EVENTS = 16
"""A viewer who is this many events behind is dropped: it comes back and gets a snapshot."""
MOST_VIEWERS = 500
RETRY_MS = 1_000
RECONNECT_MOST_S = 5.0
PROBE_EVERY_S = 20.0
"""A listening connection that hears nothing for so long is asked whether it lives."""

AWAY = (psycopg.OperationalError, PoolTimeout)

DATABASE_AWAY = shapes.Trouble(
    code="database-away",
    severity="failure",
    text="The server cannot reach its database",
    cure="it tries again by itself; if this stays, start PostgreSQL, or see the server's log",
)


@dataclass(eq=False, slots=True)
class Viewer:
    """One open stream. `gone` is set when the hub drops it."""

    events: asyncio.Queue[bytes] = field(default_factory=lambda: asyncio.Queue(WAITING_EVENTS))
    gone: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(slots=True)
class Changes:
    """What the database has named since the last push."""

    devices: set[str] = field(default_factory=set)
    jobs: set[str] = field(default_factory=set)
    alerts: bool = False
    everything: bool = False

    def note(self, payload: str) -> None:
        """Add one notification; one that cannot be read means that anything may have changed."""
        try:
            told = json.loads(payload)
            device, what = told["device"], told["what"]
        except (ValueError, TypeError, KeyError):
            self.everything = True
            return
        if isinstance(device, str):
            self.devices.add(device)
        self.alerts = self.alerts or "alerts" in what
        if isinstance(job := told.get("job"), str):
            self.jobs.add(job)

    def __bool__(self) -> bool:
        return bool(self.devices) or bool(self.jobs) or self.alerts or self.everything


class Hub:
    """Lives in one event loop: `start` and `stop` it there. `listening` says whether the database tells changes."""

    def __init__(
        self, reader: Reader, dsn: str, *, now: Callable[[], datetime], rng: random.Random, version: str
    ) -> None:
        self._reader = reader
        self._dsn = dsn
        self._now = now
        self._version = version
        self._random = rng
        self._boot = f"{rng.getrandbits(32):08x}"
        self._count = 0
        self._viewers: set[Viewer] = set()
        self._cameras: dict[tuple[str, str], shapes.Camera] = {}
        self._devices: dict[str, shapes.Device] = {}
        self._alerts = shapes.Alerts(open=[], recent=[])
        self._answered: list[AnsweredRow] = []
        self._answered_at: datetime | None = None
        self._changes = Changes(everything=True)
        self._changed = asyncio.Event()
        self._reading = asyncio.Lock()
        self._trouble: shapes.Trouble | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._closed = False
        self.listening = False
        self.dropped = 0
        self.pushes = 0

    @property
    def viewers(self) -> int:
        """How many streams are open."""
        return len(self._viewers)

    async def start(self) -> None:
        """Start listening to the database and pushing to viewers."""
        loops = {"hub-listen": self._listen, "hub-push": self._push, "hub-beat": self._beat}
        self._tasks = [asyncio.create_task(loop(), name=name) for name, loop in loops.items()]

    async def stop(self) -> None:
        """End all streams and stop. Safe to call twice."""
        self._closed = True
        for viewer in list(self._viewers):
            self._drop(viewer)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []

    @property
    def full(self) -> bool:
        """Whether no more viewers are taken."""
        return self._closed or len(self._viewers) >= MOST_VIEWERS

    async def join(self) -> Viewer:
        """Add a viewer; its first event is the snapshot, read now if anything has changed since the last push."""
        async with self._reading:
            if self._changes:
                await self._refresh()
            viewer = Viewer()
            viewer.events.put_nowait(self._snapshot())
            if self._trouble is not None:
                viewer.events.put_nowait(self._tell_trouble())
            self._viewers.add(viewer)
        return viewer

    def leave(self, viewer: Viewer) -> None:
        """Forget a viewer, who may be gone already."""
        self._viewers.discard(viewer)

    async def _push(self) -> None:
        """Tell viewers what has changed, the first change at once and the following in their turn."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            if self._viewers:
                async with self._reading:
                    await self._refresh()
            await asyncio.sleep(PUSH_EVERY_S)

    async def _beat(self) -> None:
        """Say at short intervals that the stream lives, and look at everything at long ones."""
        beats = 0
        while True:
            await asyncio.sleep(BEAT_EVERY_S)
            beats += 1
            self._publish(self._event("beat", {"now": rfc3339(self._now())}))
            if beats % round(RELOAD_EVERY_S / BEAT_EVERY_S) == 0 or self._trouble is not None:
                self._note_everything()

    async def _listen(self) -> None:
        """Hold the one connection that hears what has changed, and make it anew when it breaks."""
        pauses = 0
        while True:
            try:
                await self._listen_once()
                pauses = 0
            except psycopg.Error as error:
                log.warning("the database does not tell changes: %s", " ".join(str(error).split()))
            finally:
                self.listening = False
            self._note_everything()
            pauses = min(pauses + 1, 6)
            await asyncio.sleep(self._random.uniform(0, min(RECONNECT_MOST_S, 0.1 * 2**pauses)))

    async def _listen_once(self) -> None:
        connection = await psycopg.AsyncConnection.connect(
            self._dsn, autocommit=True, connect_timeout=5, application_name="shelfwire-live"
        )
        async with connection:
            await connection.execute(f"LISTEN {CHANNEL}".encode())
            self.listening = True
            self._note_everything()
            while True:
                async for told in connection.notifies(timeout=PROBE_EVERY_S):
                    self._changes.note(told.payload)
                    self._changed.set()
                await connection.execute("SELECT 1")

    def _note_everything(self) -> None:
        self._changes.everything = True
        self._changed.set()

    async def _refresh(self) -> None:
        """Read what has changed and tell it. Needs the lock. When the database is away, say so and keep the changes."""
        changes, self._changes = self._changes, Changes()
        try:
            update = await asyncio.to_thread(self._read, changes)
        except AWAY as error:
            self._changes.everything = True
            self._fall_ill(error)
            return
        self._apply(update)
        if self._trouble is not None:
            self._trouble = None
            log.info("the database answers again")
            self._publish(self._snapshot())
        elif update.cameras or update.devices or update.gone or update.alerts is not None:
            self._publish(self._event("update", update.model_dump(mode="json")))
        if changes.jobs or changes.everything:
            told = None if changes.everything else sorted(changes.jobs)
            self._publish(self._event("jobs", {"now": rfc3339(self._now()), "jobs": told}))

    def _read(self, changes: Changes) -> shapes.Update:
        """Read the rows behind the changes and keep what differs from what was told last. Runs in a thread."""
        now = self._now()
        names = None if changes.everything else sorted(changes.devices)
        rows = live.read_rows(self._reader, names, self._count_answered(now))
        cameras, devices = live.cameras(rows, now), live.devices(rows, now)
        alerts = None
        if changes.everything or changes.alerts:
            stores = {device.device: device.store for device in (*self._devices.values(), *devices)}
            alerts = live.read_alerts(self._reader, stores, now)
        known = {key for key in self._cameras if names is None or key[0] in changes.devices}
        gone = known - {(camera.device, camera.camera) for camera in cameras}
        return shapes.Update(
            now=now,
            cameras=[c for c in cameras if self._cameras.get((c.device, c.camera)) != c],
            devices=[d for d in devices if self._devices.get(d.device) != d],
            alerts=alerts if alerts != self._alerts else None,
            gone=[shapes.CameraKey(device=device, camera=camera) for device, camera in sorted(gone)],
        )

    def _count_answered(self, now: datetime) -> list[AnsweredRow]:
        last = self._answered_at
        if last is None or not timedelta() <= now - last < timedelta(seconds=ANSWERED_EVERY_S):
            self._answered, self._answered_at = live.read_answered(self._reader, now), now
        return self._answered

    def _apply(self, update: shapes.Update) -> None:
        self._cameras.update({(camera.device, camera.camera): camera for camera in update.cameras})
        self._devices.update({device.device: device for device in update.devices})
        self._alerts = update.alerts or self._alerts
        for key in update.gone:
            self._cameras.pop((key.device, key.camera), None)

    def _fall_ill(self, error: Exception) -> None:
        if self._trouble is not None:
            return
        log.warning("the database is away: %s", " ".join(str(error).split()))
        self._trouble = DATABASE_AWAY
        self._publish(self._tell_trouble())

    def _tell_trouble(self) -> bytes:
        trouble = self._trouble.model_dump(mode="json") if self._trouble else None
        return self._event("trouble", {"now": rfc3339(self._now()), "trouble": trouble})

    def _snapshot(self) -> bytes:
        everything = shapes.Live(
            now=self._now(),
            version=self._version,
            cameras=[self._cameras[key] for key in sorted(self._cameras)],
            devices=sorted(self._devices.values(), key=lambda device: (device.store, device.device)),
            alerts=self._alerts,
        )
        return self._event("snapshot", everything.model_dump(mode="json"))

    def _event(self, name: str, content: object) -> bytes:
        self._count += 1
        text = json.dumps(content, separators=(",", ":"), allow_nan=False)
        return format_sse_event(data_str=text, event=name, id=f"{self._boot}-{self._count}", retry=RETRY_MS)

    def _publish(self, event: bytes) -> None:
        self.pushes += 1
        for viewer in list(self._viewers):
            try:
                viewer.events.put_nowait(event)
            except asyncio.QueueFull:
                self.dropped += 1
                self._drop(viewer)

    def _drop(self, viewer: Viewer) -> None:
        viewer.gone.set()
        self._viewers.discard(viewer)
