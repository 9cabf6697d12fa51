"""Show what this device is doing, on one screen, from its store; works with the daemons dead.

Exit code 0 when vision runs and reports, and nothing fails, 1 otherwise.
"""

import argparse
import json
import os
import time
from dataclasses import dataclass
from typing import Any

from agent.cli import status_text
from agent.cli.common import add_config, add_json, load_config
from agent.config import Config
from agent.core import health, tallies
from agent.host.clock import SystemClock, boot_id
from agent.store.inspect import Snapshot, look
from wire.records import HealthWarning


@dataclass(frozen=True, slots=True)
class Outside:
    """What the store does not say of itself."""

    room_bytes: int
    """How much more the spool takes."""
    clock: health.ClockTrust
    vision_silent_s: float | None
    """See `Snapshot.silent_s`."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_config(parser)
    add_json(parser)


def run(options: argparse.Namespace) -> int:
    """Print the status."""
    config = load_config(options)
    snapshot = look(config.device.state_dir)
    room_bytes = _room_bytes(config, snapshot)
    clock = SystemClock()
    outside = Outside(room_bytes, clock.trust(), snapshot.silent_s(boot_id(), clock.now().boot_ns))
    wrong = problems(config, snapshot, outside)
    if options.json:
        print(json.dumps(as_json(config, snapshot, outside, wrong), indent=2))
    else:
        print(status_text.write(config, snapshot, wrong, time.time_ns(), outside.vision_silent_s))
    at_work = snapshot.vision_runs and outside.vision_silent_s is None
    return 0 if at_work and not snapshot.cameras_ill and not snapshot.vision.get("store_trouble") else 1


def _room_bytes(config: Config, snapshot: Snapshot) -> int:
    """How much more the spool takes, as `agent.store.spool` reckons; a look from outside makes no folder."""
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
        function_down=function.get("reason", "") if asked and function.get("health") != "up" else "",
        spool_full=config.frames_may_leave and outside.room_bytes < health.SPOOL_FULL_BYTES,
        frames_refused=snapshot.dead_frames,
        night=snapshot.night if config.frames_may_leave else None,
        wall_ns=time.time_ns(),
        vision_silent_s=outside.vision_silent_s,
    )
    found = health.warnings(facts)
    if not config.cloud.broker:
        return found
    alone = health.alone(snapshot.sync, sync_runs=snapshot.sync_runs)
    return (*(w for w in found if w.severity == "failure"), *alone, *(w for w in found if w.severity != "failure"))


def as_json(config: Config, snapshot: Snapshot, outside: Outside, wrong: tuple[HealthWarning, ...]) -> dict[str, Any]:
    """Give the status for programs. Counts are since this store was made."""
    counters = snapshot.counters
    frames = snapshot.frames
    return {
        "device": config.device.id,
        "vision_runs": snapshot.vision_runs,
        "vision_silent_s": outside.vision_silent_s,
        "sync_runs": snapshot.sync_runs,
        "warnings": [warning.model_dump() for warning in wrong],
        "frames": {
            "captured": frames.captured,
            "classified": frames.classified,
            "serverless": frames.serverless,
            "deferred": frames.deferred,
            "dropped": frames.dropped,
            "expired": counters["frames:expired"],
            "copied": tallies.by_reason(counters, "frames:copied:"),
        },
        "answers": {
            "real-time": frames.classified,
            **{mode: counters[f"answers:{mode}"] for mode in tallies.MODES},
        },
        "unanswered": frames.unanswered,
        "pictures": {
            "produced": counters["frame:produced"],
            "delivered": counters["frame:delivered"],
            "waiting": snapshot.waiting_frames,
            "for_the_night": snapshot.for_the_night,
            "dead": snapshot.dead_frames,
            "dropped": tallies.by_reason(counters, "frame:dropped:"),
        },
        "spool": {
            "files": counters["pictures:files"],
            "bytes": counters["pictures:bytes"],
            "max_bytes": config.spool.max_bytes,
            "room_bytes": outside.room_bytes,
        },
        "night": {
            "files": snapshot.night.files,
            "rows": snapshot.night.rows,
            "bytes": snapshot.night.bytes,
            "oldest_day": snapshot.night.oldest_day,
            "unsealed": snapshot.night.unsealed,
            "error": snapshot.night.error,
        },
        "function": snapshot.function,
        "results": {
            "produced": counters["result:produced"],
            "delivered": counters["result:delivered"],
            "evicted": counters["result:dropped:evicted"],
        },
        "alerts": {"produced": counters["alert:produced"], "delivered": counters["alert:delivered"]},
        "outbox": {
            "waiting": snapshot.waiting,
            "bytes": snapshot.waiting_bytes,
            "dead": snapshot.dead,
            "oldest_age_s": status_text.oldest_age_s(snapshot, time.time_ns()),
        },
        "sync": snapshot.sync,
        "vision": snapshot.vision,
    }
