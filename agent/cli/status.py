"""Show what this device is doing, on one screen, from its store; works with the daemons dead.

Exit code 0 when vision runs and reports, nothing fails and every camera shows what it should, 1 otherwise.
"""

import argparse
import json
import time
from typing import Any

from agent.app.troubles import Outside, problems, room_bytes
from agent.cli import status_text
from agent.cli.common import add_config, add_json, load_config
from agent.config import Config
from agent.core import health, tallies
from agent.host.clock import SystemClock, boot_id
from agent.store.inspect import Snapshot, look
from wire.records import HealthWarning


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_config(parser)
    add_json(parser)


def run(options: argparse.Namespace) -> int:
    """Print the status."""
    config = load_config(options)
    snapshot = look(config.device.state_dir)
    clock = SystemClock()
    outside = Outside(room_bytes(config, snapshot), clock.trust(), snapshot.silent_s(boot_id(), clock.now().boot_ns))
    wrong = problems(config, snapshot, outside)
    if options.json:
        print(json.dumps(as_json(config, snapshot, outside, wrong), indent=2))
    else:
        print(status_text.write(config, snapshot, wrong, time.time_ns(), outside.vision_silent_s))
    at_work = snapshot.vision_runs and outside.vision_silent_s is None
    seeing = not snapshot.cameras_ill and not health.unsound(snapshot.vision.get("cameras", ()))
    return 0 if at_work and seeing and not snapshot.vision.get("store_trouble") else 1


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
