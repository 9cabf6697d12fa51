"""What is wrong with this device, for a person at it: of the store's facts, the machine's and the configuration's."""

import os
import time
from dataclasses import dataclass
from datetime import UTC, datetime

from agent import identity
from agent.app.renewal import Renewal
from agent.config import Config
from agent.core import health, tallies
from agent.errors import Broken
from agent.store.inspect import Snapshot
from wire.records import HealthWarning


@dataclass(frozen=True, slots=True)
class Outside:
    """What the store does not say of itself."""

    room_bytes: int
    """How much more the spool takes."""
    clock: health.ClockTrust
    vision_silent_s: float | None
    """See `Snapshot.silent_s`."""


def room_bytes(config: Config, snapshot: Snapshot) -> int:
    """Give how much more the spool takes, as `agent.store.spool` reckons; a look from outside makes no folder."""
    disk = os.statvfs(config.device.state_dir)
    free_bytes = disk.f_bavail * disk.f_frsize - config.spool.keep_free
    return max(0, min(config.spool.max_bytes - snapshot.counters["pictures:bytes"], free_bytes))


def problems(config: Config, snapshot: Snapshot, outside: Outside) -> tuple[HealthWarning, ...]:
    """List what is wrong, the worst first: what sync tells the cloud, and what it cannot tell."""
    counters = snapshot.counters
    function = snapshot.function
    asked = config.frames_may_leave and snapshot.sync_runs
    facts = health.Facts(
        vision_age_s=0.0 if snapshot.vision_runs else None,
        store_trouble=snapshot.vision.get("store_trouble", ""),
        evicted=tallies.evicted(counters),
        dead=snapshot.dead,
        clock=outside.clock,
        cameras=len(snapshot.vision.get("cameras", ())),
        cameras_ill=tuple(camera["name"] for camera in snapshot.cameras_ill),
        cameras_unsound=health.unsound(snapshot.vision.get("cameras", ())),
        fallen_back=tuple(snapshot.vision.get("notes", ())),
        function_down=function.get("reason", "") if asked and function.get("health") != "up" else "",
        spool_full=config.frames_may_leave and outside.room_bytes < health.SPOOL_FULL_BYTES,
        frames_refused=snapshot.dead_frames,
        night=snapshot.night if config.frames_may_leave else None,
        wall_ns=time.time_ns(),
        vision_silent_s=outside.vision_silent_s,
        certificate_left_s=_certificate_left_s(config),
        renewal=snapshot.sync.get("renewal", ""),
    )
    found = health.warnings(facts)
    if not config.cloud.broker:
        return found
    alone = health.alone(snapshot.sync, sync_runs=snapshot.sync_runs)
    return (*(w for w in found if w.severity == "failure"), *alone, *(w for w in found if w.severity != "failure"))


def _certificate_left_s(config: Config) -> float | None:
    """Look how long this device's certificate counts yet; None where it has none, or nobody may read it."""
    if not Renewal.is_for(config):
        return None
    try:
        own = identity.read(config.device.state_dir)
    except Broken:
        return None
    return None if own is None else own.left(datetime.now(UTC)).total_seconds()
