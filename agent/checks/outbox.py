"""What waits for the cloud, since when, what was refused, and whether the books balance."""

from collections.abc import Iterator

from agent.checks.context import Context, run_as
from agent.checks.finding import Finding, fine, skipped, wrong
from agent.checks.runner import Check
from agent.checks.words import duration, many, size
from agent.config import Config
from agent.core import tallies
from agent.errors import ShelfwireError
from agent.store.inspect import Snapshot

OLD_S = 900.0
"""Records that should be on their way and are older than this point at the connection."""

NEARLY_FULL = 0.8


def check(context: Context) -> Iterator[Finding]:
    """Look at the outbox, from outside."""
    try:
        snapshot = context.snapshot()
    except ShelfwireError as error:
        yield unreadable(context, error)
        return
    found = list(_troubles(context, snapshot))
    yield from found
    if not any(finding.bad for finding in found):
        yield fine("outbox", _waiting(snapshot, context), "the books balance")


def unreadable(context: Context, error: ShelfwireError) -> Finding:
    """Say why the store cannot be looked into."""
    if context.state_hidden:
        return skipped("outbox", "the store is not for this user's eyes", run_as(context))
    if error.code == "no-store" and context.config is None:
        return skipped("outbox", "the store", "there is none yet, and no configuration to make it by")
    if error.code == "late":
        return wrong("outbox", "BOX-3", str(context.state_dir))
    if error.code == "disk-full":
        return wrong("outbox", "BOX-12", str(error))
    damaged = any(words in str(error) for words in ("malformed", "not a database"))
    return wrong("outbox", "BOX-2" if damaged else "BOX-1", str(error), cure="" if damaged else error.hint)


def _troubles(context: Context, snapshot: Snapshot) -> Iterator[Finding]:
    counters, config = snapshot.counters, context.config
    trouble = snapshot.vision.get("store_trouble", "")
    if trouble and snapshot.vision_runs:
        yield wrong("outbox", "BOX-12", str(trouble))
    yield from _books(snapshot)
    if config is not None and config.cloud.broker and _oldest_s(snapshot, context) > OLD_S:
        yield wrong("outbox", "BOX-4", _waiting(snapshot, context))
    if config is not None:
        yield from _fullness(config, snapshot)
        night = snapshot.night
        if config.frames_may_leave and night.upload_is_late(context.clock.now().wall_ns):
            yield wrong("outbox", "BOX-11", f"{many(night.files, 'file')}, the oldest of {night.oldest_day}")
    if snapshot.dead:
        yield wrong("outbox", "BOX-6", f"{many(snapshot.dead, 'record')} set aside")
    if evicted := tallies.evicted(counters):
        yield wrong("outbox", "BOX-7", f"{many(evicted, 'record')} since this store was made")


def _books(snapshot: Snapshot) -> Iterator[Finding]:
    """Check invariant 2 of ARCHITECTURE.md, which the counters alone can tell."""
    frames = snapshot.frames
    fates = frames.classified + frames.serverless + frames.deferred + sum(frames.dropped.values())
    if frames.captured != fates:
        yield wrong("outbox", "BOX-8", f"{frames.captured:,} frames were captured, {fates:,} have a fate")
    below = sorted(name for name, n in snapshot.counters.items() if n < 0)
    if below:
        yield wrong("outbox", "BOX-8", f"counters below nothing: {', '.join(below)}")


def _fullness(config: Config, snapshot: Snapshot) -> Iterator[Finding]:
    spool_bytes = snapshot.counters["pictures:bytes"]
    for what, used, most in (
        ("outbox", snapshot.waiting_bytes, config.outbox.max_bytes),
        ("spool", spool_bytes, config.spool.max_bytes),
    ):
        if most and used > NEARLY_FULL * most:
            yield wrong("outbox", "BOX-5", f"the {what} holds {size(used)} of {size(most)}")


def _oldest_s(snapshot: Snapshot, context: Context) -> float:
    if snapshot.oldest_wall_ns is None:
        return 0.0
    return max(0.0, (context.clock.now().wall_ns - snapshot.oldest_wall_ns) / 1e9)


def _waiting(snapshot: Snapshot, context: Context) -> str:
    if not snapshot.waiting:
        return "nothing waits for the cloud"
    waited = duration(_oldest_s(snapshot, context))
    wait = "waits" if snapshot.waiting == 1 else "wait"
    size_text = size(snapshot.waiting_bytes)
    return f"{many(snapshot.waiting, 'record')} {wait} for the cloud ({size_text}), the oldest for {waited}"


CHECK = Check("outbox", "outbox", "what waits for the cloud, what was refused, the books", check, late="BOX-3")
