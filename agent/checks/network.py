"""Is the cloud reached? Both ways, to the broker and to the API, are walked hop by hop, up to the first that fails."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from agent.checks.context import Context, run_as
from agent.checks.finding import Finding, fine, skipped, wrong
from agent.checks.runner import Check
from agent.core.codes import AREAS, CODES
from agent.errors import ShelfwireError
from agent.link.echo import CODES as OF_SYNC
from agent.link.hops import Hop, Way

ENDS_SOON_DAYS = 14.0
NAMES = {"broker": "broker", "api": "API"}


def check(context: Context) -> Iterator[Finding]:
    """Look at the ways to the cloud."""
    config = context.config
    if config is None or not (config.cloud.broker or config.cloud.api):
        yield skipped("network", "the way to the cloud", "neither broker nor API is configured")
    elif context.quick:
        yield by_sync(context)
    else:
        yield from judge(context.ways(context.left_s()))
        yield from _function(context)


def by_sync(context: Context) -> Finding:
    """Judge the connection by what sync last said of it."""
    if context.state_hidden:
        return skipped("network", "the way to the cloud", run_as(context))
    sync = context.sync()
    link = sync.link
    if not sync.runs or not link:
        return skipped("network", "the way to the cloud", "sync does not run, and --quick walks no way itself")
    if link["code"]:
        code = OF_SYNC.get(link["code"], "NET-20")
        return wrong("network", code, f"{link['message']} [{link['code']}]", cure=link["hint"])
    if link["connected"]:
        return fine("network", f"sync is connected to {link['broker']}")
    return skipped("network", "sync is connecting", "ask again in a few seconds")


def judge(ways: Sequence[Way]) -> Iterator[Finding]:
    """Give a finding for each way; one for both when the same hop stops them."""
    broken = [(way, way.broken) for way in ways if way.broken is not None]
    told: set[tuple[str, str]] = set()
    for _, hop in broken:
        if (hop.name, hop.code) in told:
            continue
        told.add((hop.name, hop.code))
        names = [NAMES[way.target] for way, other in broken if (other.name, other.code) == (hop.name, hop.code)]
        yield _broken(" and ".join(names), hop)
    for way in ways:
        if way.broken is None:
            yield _whole(way)


def _broken(names: str, hop: Hop) -> Finding:
    area = next(area for area, head in AREAS.items() if hop.code.startswith(f"{head}-"))
    return wrong(area, hop.code, hop.detail, title=f"{names}: {CODES[hop.code].means}", cure=hop.cure)


def _whole(way: Way) -> Finding:
    name = NAMES[way.target]
    if way.days_left is not None and way.days_left < ENDS_SOON_DAYS:
        return wrong("network", "NET-19", f"{name} {way.address}: {way.days_left:.0f} days left")
    last = way.hops[-1]
    if last.ok is None and last.name not in ("login", "echo"):
        return skipped("network", f"{name} {way.address}", f"{last.name}: {last.detail}")
    if last.ok is None:
        return fine("network", f"{name} {way.address} can be reached; {last.name}: {last.detail}")
    took_ms = sum(hop.ms or 0.0 for hop in way.hops)
    return fine("network", f"{name} {way.address} is well: {last.detail} ({took_ms:.0f} ms)")


def _function(context: Context) -> Iterator[Finding]:
    """The cloud's function, as sync finds it."""
    config = context.config
    if config is None or not config.frames_may_leave or not context.sync().runs:
        return
    try:
        function: Mapping[str, Any] = context.snapshot().function
    except ShelfwireError:
        return
    if function.get("health") == "down":
        yield wrong("network", "NET-21", f"reason: {function.get('reason', '?')}")


CHECK = Check("network", "network", "link, address, DNS, TCP, TLS, login and echo, to broker and API", check)
