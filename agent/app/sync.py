"""The sync process: outbox -> cloud, receipts -> outbox. It sees no camera and no model."""

import json
import logging
import random
import secrets
import threading
from collections.abc import Callable, Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from agent.app import Stop
from agent.app.fetching import Ordering
from agent.app.lives import Lives
from agent.app.renewal import Renewal
from agent.app.shipping import Shipping
from agent.carrier import Carrier, Threads
from agent.config import Config
from agent.core import health, tallies
from agent.core.backlog import Backlog
from agent.core.pulse import link_words, sync_sentence
from agent.core.records import moment
from agent.host import heap
from agent.host.clock import SystemClock, boot_id
from agent.host.metrics import Metrics, Sample
from agent.host.notify import Notifier
from agent.host.process import disk_bytes, rss_bytes
from agent.host.sensors import hottest_c
from agent.link.doorbell import Doorbell
from agent.link.https import Https
from agent.link.mqtt import WILL_DELAY_S, options
from agent.link.pictures import PictureReader
from agent.ports import Lane
from agent.store.database import BUSY_ERRORS, DISK_ERRORS
from agent.store.frames import FrameSender
from agent.store.sender import Sender
from agent.store.spool import Spool
from agent.store.verdicts import VerdictStore
from agent.uplink import Uplink, Who
from wire import envelope, topics
from wire.mqtt import Session, Will
from wire.records import (
    CameraCondition,
    CameraStatus,
    FramesStatus,
    HostStatus,
    ModelName,
    NightStatus,
    OutboxStatus,
    Status,
)

log = logging.getLogger(__name__)

STOP_DRAIN_S = 3.0
"""What a stop waits for receipts of what is on its way."""

DISK_PAUSE_S = 1.0

NOTE_RECEIPT_EVERY_S = 30.0
"""How often the store learns that the cloud still confirms what is sent: each time is a commit."""

SAY_EVERY_S = 1.0

THIN_EVERY_S = 600.0
"""How often old verdicts are thinned out."""


class Sync:
    """Everything sync is made of, started and stopped in order."""

    def __init__(self, config: Config, stop: Stop, lives: Lives | None = None) -> None:
        self._config = config
        self._stop = stop
        self._lives = lives or Lives(config, stop, Notifier("", 0))
        self._clock = SystemClock()
        self._boot = boot_id()
        rng = random.Random(f"{config.device.id}/{secrets.token_hex(4)}")  # noqa: S311 - spreads retries
        opts = options(config, self._make_will)
        self._sender = Sender(config.device.state_dir, config.outbox.reserve)
        self._connection_id = secrets.token_hex(8)
        self._link = Session(opts, rng)
        self._doorbell = Doorbell(config.device.runtime_dir / "doorbell", self._ring)
        state_dir = config.device.state_dir
        self._verdicts = VerdictStore(state_dir)
        self._thin_at_ns = 0
        self._say_at_ns = 0
        self._heap = heap.Returned()
        own = random.Random(rng.random())  # noqa: S311 - spreads retries
        self._ordering = Ordering(config, self._clock, own, lambda: self._report().get("model"), stop, self._lives)
        who = Who(config.device.id, config.device.store, version("shelfwire"), self._boot)
        self._uplink = Uplink(
            who,
            self._sender,
            self._link,
            self._clock,
            rng,
            verdicts=self._verdicts,
            receipt_timeout_s=config.cloud.receipt_timeout,
            describe=self.describe,
            pictures=PictureReader(config.device.runtime_dir / "pictures").changed,
            orders=self._ordering,
        )
        self._spool = Spool(state_dir, max_bytes=config.spool.max_bytes, keep_free_bytes=config.spool.keep_free)
        self._frames = FrameSender(state_dir, self._spool)
        self._carrier = self._make_carrier()
        self._carrying = threading.Thread(target=self._carry, name="carrier", daemon=True)
        own = random.Random(rng.random())  # noqa: S311 - spreads retries
        self._shipping = Shipping(config, self._clock, own, stop.crash) if config.frames_may_leave else None
        try:
            self._metrics = Metrics(config.metrics.sync_port, self._samples)
        except BaseException:
            self._sender.close()
            raise
        self._renewal = self._make_renewal()
        self._noted_link: dict[str, object] = {}
        self._noted_receipt_ns = -int(NOTE_RECEIPT_EVERY_S * 1e9)
        self._busy = False

    def _make_carrier(self) -> Carrier:
        config = self._config
        http = None
        if config.frames_may_leave and config.cloud.api is not None:
            http = Https(config.cloud.api, config.cloud.ca_file, version("shelfwire"), own=config.cloud.own)
        window = config.serverless.window
        pool = Threads({Lane.OFFLOAD: window, Lane.REVIEW: 1} if http is not None else {})
        rng = random.Random(f"{config.device.id}/{secrets.token_hex(4)}")  # noqa: S311 - spreads retries
        return Carrier(
            config.device.id, self._boot, self._frames, self._spool, http, pool, self._clock, rng, window=window
        )

    def _make_renewal(self) -> Renewal | None:
        if not Renewal.is_for(self._config):
            return None
        rng = random.Random(f"{self._config.device.id}/{secrets.token_hex(4)}")  # noqa: S311 - spreads retries
        return Renewal(self._config, self._clock, rng, on_renewed=self._link.drop, on_crash=self._stop.crash)

    def _ring(self) -> None:
        self._link.nudge("doorbell")
        self._carrier.ring()

    def run(self) -> bool:
        """Work until stopped; True when a reload ended it."""
        self._link.start()
        self._carrying.start()
        if self._shipping is not None:
            self._shipping.start()
        if self._renewal is not None:
            self._renewal.start()
        self._ordering.start()
        self._doorbell.start()
        again = False
        while not again and not self._stop.event.is_set():
            self._turn()
            self._lives.notifier.alive()
            again = self._lives.reload_due()
        self._stop.event.set()
        if not again:
            self._lives.notifier.stopping()
        self._shut_down("reload" if again else "stopped")
        return again

    def _say(self) -> None:
        """Tell the service manager how it goes, once a second at most. Ready is whoever can send or keep trying."""
        now_ns = self._clock.now().boot_ns
        if now_ns < self._say_at_ns:
            return
        self._say_at_ns = now_ns + int(SAY_EVERY_S * 1e9)
        self._heap.tick(now_ns)
        link, delivered = link_words(self._noted_link), self._uplink.counts["delivered"]
        self._lives.notifier.ready()
        self._lives.notifier.status(sync_sentence(link, self._sender.due(), delivered, self._lives.kept))

    def _turn(self) -> None:
        try:
            self._uplink.turn()
            self._sender.take_up_retried(self._clock.now().boot_ns)
            self._note_link()
            self._thin()
            self._say()
            self._busy = False
        except BUSY_ERRORS as error:
            # What could not be deleted is sent again and suppressed in the cloud; a verdict comes again.
            if not self._busy:
                log.error("the store is in use by another process that does not let go (%s); it is tried again", error)
            self._busy = True
            self._sender.begin()
        except DISK_ERRORS as error:
            # A DELETE needs space too. What could not be deleted is sent again and suppressed in the cloud.
            log.error("the store cannot be written: %s", error)
            self._sender.reserve.give_up()
            self._sender.begin()
            self._clock.wait(self._stop.event, DISK_PAUSE_S)

    def _carry(self) -> None:
        """Run the carrier on its thread, and end it in order: what is on its way may still come back."""
        try:
            while not self._stop.event.is_set():
                try:
                    self._carrier.turn()
                    self._frames.take_up_retried(self._clock.now().boot_ns)
                except (*BUSY_ERRORS, *DISK_ERRORS) as error:
                    log.error("the store cannot be written: %s", error)
                    self._clock.wait(self._stop.event, DISK_PAUSE_S)
            deadline_ns = self._clock.now().boot_ns + int(STOP_DRAIN_S * 1e9)
            while not self._carrier.idle and self._clock.now().boot_ns < deadline_ns:
                self._carrier.receive(0.1)
        except (*BUSY_ERRORS, *DISK_ERRORS) as error:
            log.error("the store cannot be written at the stop: %s; what came back is sent again", error)
        except Exception:
            log.exception("the carrier died")
            self._stop.crash()

    def _thin(self) -> None:
        """Thin out old verdicts now and then, by a clock that can be trusted."""
        now = self._clock.now()
        if now.boot_ns >= self._thin_at_ns and self._clock.trust() == "synced":
            self._thin_at_ns = now.boot_ns + int(THIN_EVERY_S * 1e9)
            self._verdicts.thin(now.wall_ns)

    def _note_link(self, *, stopped: bool = False) -> None:
        """Keep the state of the connection in the store when it changes, for `status`."""
        down = self._uplink.down or self._uplink.refused
        link: dict[str, object] = {
            "connected": self._link.connected and not stopped,
            "broker": self._config.cloud.broker,
            "code": down.code if down else "",
            "message": down.text if down else "",
            "hint": down.hint if down else "",
            "renewal": self._renewal.trouble if self._renewal is not None else "",
        }
        if link != self._noted_link:
            self._sender.set_fact("sync", json.dumps({**link, "at": moment(self._clock.now().wall_ns)}))
            self._noted_link = link
        self._note_receipt()

    def _note_receipt(self) -> None:
        """Keep in the store when the cloud last confirmed something, for the doctor, who may not log in beside us."""
        confirmed = self._uplink.confirmed
        if confirmed is None or confirmed[0] - self._noted_receipt_ns < NOTE_RECEIPT_EVERY_S * 1e9:
            return
        note = {"boot": self._boot, "boot_ns": confirmed[0], "ms": round(confirmed[1], 1)}
        self._sender.set_fact("receipt", json.dumps(note))
        self._noted_receipt_ns = confirmed[0]

    def _shut_down(self, reason: str) -> None:
        """Take the receipts that are on their way, say goodbye, leave."""
        self._ordering.stop()
        if self._renewal is not None:
            self._renewal.stop()
        if self._shipping is not None:
            self._shipping.stop()
        try:
            self._take_leave(reason)
        except (*BUSY_ERRORS, *DISK_ERRORS) as error:
            log.error("the store cannot be written at the stop: %s; what was on its way is sent again", error)
        self._doorbell.stop()
        self._link.stop()
        self._carrying.join(STOP_DRAIN_S + 1.0)
        self._metrics.close()
        if not self._carrying.is_alive():
            self._frames.close()
        self._verdicts.close()
        self._sender.close()

    def _take_leave(self, reason: str) -> None:
        deadline_ns = self._clock.now().boot_ns + int(STOP_DRAIN_S * 1e9)
        while self._link.connected and not self._uplink.idle and self._clock.now().boot_ns < deadline_ns:
            self._uplink.receive_only()
        self._uplink.say_goodbye(self.describe(state="offline", reason=reason))
        self._note_link(stopped=True)

    def _make_will(self) -> Will:
        """Make the last will of a new connection: it counts only as long as no later connection has spoken."""
        self._connection_id = secrets.token_hex(8)
        source = envelope.device_source(self._config.device.id)
        status = Status(state="offline", session=self._connection_id, reason="connection lost")
        stamp = self._clock.now()
        payload = envelope.seal_message("status", source, status, envelope.utc(stamp.wall_ns))
        name = topics.topic(self._config.device.id, topics.STATUS)
        return Will(name, payload, WILL_DELAY_S, envelope.CONTENT_TYPE)

    def describe(self, state: str = "online", reason: str = "") -> Status:
        """Put the device's status together from the outbox and vision's last report."""
        report = self._report()
        cameras = tuple(_camera(item) for item in report.get("cameras", ()))
        counters = self._sender.counters()
        dead = self._sender.dead()
        frames = tallies.frames(counters)
        self._spool.committed((), counters["pictures:bytes"])
        facts = health.Facts(
            vision_age_s=self._vision_age_s(report),
            store_trouble=report.get("store_trouble", ""),
            evicted=tallies.evicted(counters),
            dead=dead,
            clock=self._clock.trust(),
            cameras=len(cameras),
            cameras_ill=tuple(c.name for c in cameras if c.phase in ("failed", "stalled")),
            cameras_unsound=health.unsound(report.get("cameras", ())),
            fallen_back=tuple(report.get("notes", ())),
            function_down=self._carrier.why_down if self._config.frames_may_leave else "",
            spool_full=self._config.frames_may_leave and self._spool.room_bytes() < health.SPOOL_FULL_BYTES,
            frames_refused=self._sender.dead_frames(),
            night=self._shipping.backlog if self._shipping is not None else None,
            wall_ns=self._clock.now().wall_ns,
            certificate_left_s=self._renewal.left_s() if self._renewal is not None else None,
            renewal=self._renewal.trouble if self._renewal is not None else "",
        )
        model = report.get("model")
        return Status(
            state="online" if state == "online" else "offline",
            session=self._connection_id,
            reason=reason,
            store=self._config.device.store,
            agent=version("shelfwire"),
            model=ModelName.model_validate(model) if model else None,
            runtime=report.get("setup") or report.get("runtime", ""),
            clock=facts.clock,
            vision="running" if health.vision_runs(facts) else "stopped",
            cameras=cameras,
            outbox=OutboxStatus(
                rows=sum(n for name, n in counters.items() if name.startswith("rows:")),
                bytes=sum(n for name, n in counters.items() if name.startswith("bytes:")),
                dead=dead,
                oldest_age_s=self._oldest_age_s(),
            ),
            frames=FramesStatus(
                captured=frames.captured,
                local=frames.classified,
                serverless=frames.serverless,
                deferred=frames.deferred,
                dropped=sum(frames.dropped.values()),
                unanswered=frames.unanswered,
            ),
            night=_night(facts.night) if facts.night is not None else None,
            host=_host(self._config.device.state_dir),
            warnings=health.warnings(facts),
        )

    def _report(self) -> dict[str, Any]:
        text = self._sender.fact("vision")
        report: dict[str, Any] = json.loads(text) if text else {}
        return report

    def _vision_age_s(self, report: dict[str, Any]) -> float | None:
        if not report or report["stopped"] or report["boot"] != self._boot:
            return None
        return float(self._clock.now().boot_ns - report["boot_ns"]) / 1e9

    def _oldest_age_s(self) -> float:
        oldest = self._sender.oldest()
        if oldest is None:
            return 0.0
        now = self._clock.now()
        wall_ns, boot_ns = oldest
        # The boot clock tells the age of this boot's rows; for others only the wall clock is left.
        age_ns = now.boot_ns - boot_ns if now.boot_ns - boot_ns >= 0 else now.wall_ns - wall_ns
        return max(0.0, age_ns / 1e9)

    def _samples(self) -> Iterable[Sample]:
        yield Sample("shelfwire_broker_connected", "1 while connected to the broker.", float(self._link.connected))
        for name, n in self._uplink.counts.items():
            yield Sample("shelfwire_uplink", "What the uplink did.", n, counter=True, label=("what", name))
        for name, n in (self._shipping.counts if self._shipping is not None else {}).items():
            yield Sample("shelfwire_shipper", "What the shipper did.", n, counter=True, label=("what", name))
        for name, n in self._carrier.counts.items():
            yield Sample("shelfwire_carrier", "What became of frames sent.", n, counter=True, label=("what", name))
        yield Sample("shelfwire_function_up", "1 while the function answers.", float(not self._carrier.why_down))
        yield Sample("shelfwire_memory_rss_bytes", "Resident memory of sync.", rss_bytes())


def _host(folder: Path) -> HostStatus:
    free_bytes, whole_bytes = disk_bytes(folder)
    return HostStatus(disk_free_bytes=free_bytes, disk_bytes=whole_bytes, temperature_c=hottest_c())


def _night(night: Backlog) -> NightStatus:
    return NightStatus(
        files=night.files,
        rows=night.rows,
        bytes=night.bytes,
        unsealed=night.unsealed,
        oldest_day=night.oldest_day or "",
    )


def _camera(item: dict[str, Any]) -> CameraStatus:
    """Shorten vision's report of one camera to what the wire carries."""
    return CameraStatus(
        name=item["name"],
        kind=item["kind"],
        phase=item["phase"],
        code=(item["code"] or "")[:48],
        message=(item["message"] or "")[:256],
        cure=(item["hint"] or "")[:256],
        captured=item["captured"],
        dropped=item["dropped"],
        rate_fps=round(item["rate_fps"], 2),
        last_frame_age_s=item["last_frame_age_s"],
        conditions=tuple(_condition(condition) for condition in item.get("conditions", ())),
    )


def _condition(item: dict[str, Any]) -> CameraCondition:
    """Shorten what vision says of a camera's pictures to what the wire carries."""
    fields = {"message": item["message"][:256], "cure": item["hint"][:256]}
    return CameraCondition.model_validate({"code": item["code"], "since": item["since"], **fields})


def check_reload(new: Config) -> None:
    """Refuse a configuration that sync could not run with. Raises `Rejected` with the cure."""
    options(new, lambda: Will("", b"", 0, ""))


def run_sync(config: Config, stop: Stop, read: Callable[..., Config] | None = None) -> int:
    """Run the sync process; gives its exit code. Raises what a person must mend before it can start.

    `read` reads the configuration again, for a reload.
    """
    lives = Lives(config, stop, Notifier.from_environment(), read, check_reload)
    return lives.run(lambda: Sync(lives.config, stop, lives).run)
