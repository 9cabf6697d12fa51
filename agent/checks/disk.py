"""Is there room on the disk that holds the store, and for how long?"""

import os
from collections.abc import Iterator
from pathlib import Path

from agent.checks.context import Context
from agent.checks.finding import Finding, fine, wrong
from agent.checks.runner import Check
from agent.checks.words import duration, size
from agent.errors import ShelfwireError
from agent.store.database import LEAST_FREE_BYTES
from agent.store.inspect import Snapshot

LOW_BYTES = 256 << 20
"""With less free space a person should look, whatever the rate."""

SOON_S = 3 * 86_400.0
DAY_S = 86_400.0
LEAST_FREE_FILES = 1000


def check(context: Context) -> Iterator[Finding]:
    """Look at the disk of the state folder, or of its nearest parent that is there."""
    folder = _nearest(context.state_dir)
    disk = os.statvfs(folder)
    free_bytes, whole_bytes = disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize
    detail = f"{size(free_bytes)} of {size(whole_bytes)} free at {folder}"
    if disk.f_flag & os.ST_RDONLY:
        yield wrong("host", "HOST-3", str(folder))
    elif free_bytes < LEAST_FREE_BYTES:
        yield wrong("host", "HOST-1", detail)
    elif disk.f_files and disk.f_favail < LEAST_FREE_FILES:
        yield wrong("host", "HOST-11", f"room for {disk.f_favail} at {folder}")
    else:
        left_s = _left_s(context, free_bytes)
        lasts = f", at the present rate for {duration(left_s)}" if left_s < 1000 * DAY_S else ""
        if free_bytes < LOW_BYTES or left_s < SOON_S:
            yield wrong("host", "HOST-2", detail + lasts)
        else:
            yield fine("host", f"the disk has room: {size(free_bytes)} of {size(whole_bytes)} free{lasts}", str(folder))


def _nearest(folder: Path) -> Path:
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder


def _left_s(context: Context, free_bytes: int) -> float:
    """Say for how long the room lasts, in seconds, by how fast what waits now has come; infinite when it never ends.

    Outbox and spool stop growing at their own limits: where these are reached first, the disk is not filled.
    """
    config = context.config
    try:
        snapshot = context.snapshot()
    except ShelfwireError:
        return float("inf")
    rate_bytes_s = _growth_bytes_s(snapshot, context.clock.now().wall_ns)
    if config is None or rate_bytes_s <= 0:
        return float("inf")
    outbox_bytes = config.outbox.max_bytes - snapshot.waiting_bytes
    spool_bytes = config.spool.max_bytes - snapshot.counters["pictures:bytes"]
    if max(0, outbox_bytes) + max(0, spool_bytes) < free_bytes:
        return float("inf")
    return free_bytes / rate_bytes_s


def _growth_bytes_s(snapshot: Snapshot, wall_ns: int) -> float:
    """Give what has piled up per second since the oldest record that waits; 0 when hardly anything does."""
    if snapshot.oldest_wall_ns is None:
        return 0.0
    age_s = (wall_ns - snapshot.oldest_wall_ns) / 1e9
    piled_bytes = snapshot.waiting_bytes + snapshot.counters["pictures:bytes"]
    return piled_bytes / age_s if age_s > 600 else 0.0


CHECK = Check("disk", "host", "free space, days left, read-only, files", check, late="HOST-10")
