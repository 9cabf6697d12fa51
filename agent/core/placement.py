"""Who answers a frame: this device, the function now, the night, or nobody. One pure rule, asked frame by frame.

in time, or a worker is free     LOCAL
the function is open             SERVERLESS
pictures may leave               DEFERRED    to the night
the newest of its camera         LOCAL       late beats never
else                             DROP
"""

import enum
from dataclasses import dataclass
from typing import Literal

from agent.core.budget import BUDGET_DAY, BUDGET_HOUR
from agent.core.value import value

Overflow = Literal["auto", "night", "drop"]
Health = Literal["up", "probing", "busy", "down"]
"""``busy``: it answers, and frames for it wait so long already that one more would be late."""

# Reasons: short codes that stand in counters, bodies and reports.
IN_TIME = "in-time"
WORKER_FREE = "worker-free"
LATE = "late"
TOO_LATE = "too-late"
DISPLACED = "displaced"
SUPERSEDED = "superseded"
NOT_ALLOWED = "not-allowed"
OVERFLOW_DROP = "overflow-drop"
OVERFLOW_NIGHT = "overflow-night"
ENCODER_BUSY = "encoder-busy"
SPOOL_FULL = "spool-full"
LINK_DOWN = "link-down"
FUNCTION_DOWN = "function-down"
FUNCTION_BUSY = "function-busy"
BUDGET_REASONS = (BUDGET_HOUR, BUDGET_DAY)


class Where(enum.StrEnum):
    """Who answers."""

    LOCAL = "local"
    SERVERLESS = "serverless"
    DEFERRED = "deferred"
    DROP = "dropped"


@value
class Demand:
    """What the frame wants. `displaced`: a newer one of its camera has taken its place in the mailbox."""

    age_ms: float
    deadline_ms: float
    displaced: bool


@value
class Load:
    """How busy this device is. `ahead`: frames in work, and those that will be served before this one."""

    ahead: int
    workers: int
    service_ms: float
    """What one worker takes for one frame; 0 until it was measured."""


@dataclass(frozen=True, slots=True)
class Ways:
    """What is open beside the device. `budget` is why no call may be paid for, empty when one may."""

    frames_may_leave: bool
    overflow: Overflow
    encoder_has_room: bool
    spool_has_room: bool
    link_up: bool
    function: Health
    budget: str = ""


@dataclass(frozen=True, slots=True)
class Placement:
    """Who answers, and why."""

    where: Where
    reason: str


_IN_TIME = Placement(Where.LOCAL, IN_TIME)
_WORKER_FREE = Placement(Where.LOCAL, WORKER_FREE)


def completion_ms(demand: Demand, load: Load) -> float:
    """Predict the frame's age when its local answer stands: its age, its wait for a worker, its own service."""
    rounds = max(0, load.ahead - load.workers + 1) / load.workers
    return demand.age_ms + load.service_ms * (rounds + 1.0)


def place(demand: Demand, load: Load, ways: Ways) -> Placement:
    """Choose who answers a frame."""
    return here(demand, load) or elsewhere(demand, ways)


def here(demand: Demand, load: Load) -> Placement | None:
    """LOCAL for a frame that nothing beside the device has to be looked at for; None for the others."""
    if demand.displaced:
        return None
    if completion_ms(demand, load) <= demand.deadline_ms:
        return _IN_TIME
    return at_once(load.ahead, load.workers)


def at_once(ahead: int, workers: int) -> Placement | None:
    """LOCAL for a new frame when a worker is free for it, whatever the deadline; None when none is.

    No other way is sooner, and an idle device sends nothing away. It may be asked before anything else is looked at.
    """
    return _WORKER_FREE if ahead < workers else None


def elsewhere(demand: Demand, ways: Ways) -> Placement:
    """Choose for a frame that is not answered `here` in time."""
    stuck = why_nothing_leaves(ways)
    if stuck:
        if not demand.displaced:
            return Placement(Where.LOCAL, LATE)
        wanted = stuck in (NOT_ALLOWED, OVERFLOW_DROP)
        return Placement(Where.DROP, SUPERSEDED if wanted else stuck)
    closed = why_no_function(ways)
    if closed:
        return Placement(Where.DEFERRED, closed)
    return Placement(Where.SERVERLESS, DISPLACED if demand.displaced else TOO_LATE)


def why_nothing_leaves(ways: Ways) -> str:
    """Say why no picture can leave the device now; empty when one can."""
    if not ways.frames_may_leave:
        return NOT_ALLOWED
    if ways.overflow == "drop":
        return OVERFLOW_DROP
    if not ways.spool_has_room:
        return SPOOL_FULL
    return "" if ways.encoder_has_room else ENCODER_BUSY


def why_no_function(ways: Ways) -> str:
    """Say why a picture that may leave is not for the function; empty when it is."""
    if ways.overflow != "auto":
        return OVERFLOW_NIGHT
    if not ways.link_up:
        return LINK_DOWN
    if ways.function == "down":
        return FUNCTION_DOWN
    return FUNCTION_BUSY if ways.function == "busy" else ways.budget
