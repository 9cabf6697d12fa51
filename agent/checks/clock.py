"""Is the clock right? Certificates and the times of all records depend on it."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import agent
from agent.checks.context import Context
from agent.checks.finding import Finding, fine, wrong
from agent.checks.runner import Check
from agent.checks.words import duration
from agent.errors import ShelfwireError

WRONG_S = 300.0
"""Certificates and signed addresses fail for clocks that are further off."""
UNSURE_S = 30.0


def check(context: Context) -> Iterator[Finding]:
    """Compare the clock with what it cannot be before, and ask the kernel whether a time server keeps it."""
    now_s = context.clock.now().wall_ns / 1e9
    earliest_s = installed_s()
    shown = datetime.fromtimestamp(now_s, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    off = None if context.quick else _beside_the_cloud(context)
    if off is not None:
        yield off
    elif now_s < earliest_s:
        yield wrong("time", "TIME-1", f"it says {shown}, which is before this agent was installed")
    elif context.clock.trust() == "unsure":
        yield wrong("time", "TIME-2", f"it says {shown}")
    else:
        yield fine("time", "a time server keeps the clock", shown)


def installed_s() -> float:
    """When this agent was installed, in seconds since 1970: no right clock is before that."""
    return Path(agent.__file__).stat().st_mtime


def _beside_the_cloud(context: Context) -> Finding | None:
    """Compare with the API's clock; None when it is near enough, or not known."""
    try:
        ways = context.ways(context.left_s())
    except ShelfwireError:
        return None
    skews = [way.skew_s for way in ways if way.skew_s is not None]
    if any(way.broken and way.broken.code == "TIME-1" for way in ways) or not skews:
        return None  # the network's line says it
    return skew(skews[0])


def skew(skew_s: float) -> Finding | None:
    """Judge how far this clock is from the cloud's, in seconds; None when it is near enough."""
    where = "ahead" if skew_s > 0 else "behind"
    if abs(skew_s) > WRONG_S:
        return wrong("time", "TIME-1", f"it is {duration(abs(skew_s))} {where} of the cloud's")
    if abs(skew_s) > UNSURE_S:
        return wrong("time", "TIME-1", f"it is {duration(abs(skew_s))} {where} of the cloud's", severity="warning")
    return None


CHECK = Check("clock", "time", "the clock: possible, kept by a time server, near the cloud's", check)
