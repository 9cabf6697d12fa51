"""When somebody must be told: a label that stays, outside quiet hours; and when it is over."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import time
from typing import Literal

from agent.core.decide import Conclusion


@dataclass(frozen=True, slots=True)
class Rule:
    """One alert rule. `quiet` are spans of local time; a span may go over midnight."""

    name: str
    label: str
    score: float
    dwell_s: float
    cameras: tuple[str, ...] = ()
    quiet: tuple[tuple[time, time], ...] = ()


@dataclass(frozen=True, slots=True)
class Watch:
    """How far one rule is on one camera. The boot clock counts the dwell; the wall time is for people."""

    since_boot_ns: int | None = None
    since_wall_ns: int = 0
    raised: bool = False


@dataclass(frozen=True, slots=True)
class Change:
    """An alert to send."""

    state: Literal["raised", "cleared"]
    since_wall_ns: int
    reason: str


def is_quiet(spans: Sequence[tuple[time, time]], local: time) -> bool:
    """Tell whether a local time lies in one of the spans; the first minute is inside, the last is not."""
    return any(a <= local < b if a < b else local >= a or local < b for a, b in spans)


def watch(
    rule: Rule, before: Watch, conclusion: Conclusion, score: float, boot_ns: int, wall_ns: int, quiet: bool
) -> tuple[Watch, Change | None]:
    """Advance one rule on one camera by one frame.

    A low score or a label still pending neither starts the dwell nor ends it: only another confirmed label does. While
    it is `quiet` the dwell goes on and nothing is raised.
    """
    holds = conclusion.label == rule.label and not (conclusion.state == "pending" and before.since_boot_ns is None)
    if not holds:
        over = Change("cleared", before.since_wall_ns, conclusion.reason) if before.raised else None
        return Watch(), over
    if before.since_boot_ns is None:
        if score < rule.score:
            return before, None
        before = replace(before, since_boot_ns=boot_ns, since_wall_ns=before.since_wall_ns or wall_ns)
    began = before.since_boot_ns if before.since_boot_ns is not None else boot_ns
    stayed_s = (boot_ns - began) / 1e9
    if before.raised or stayed_s < rule.dwell_s or score < rule.score or quiet:
        return before, None
    reason = f"{rule.label} for {stayed_s:.1f} s (rule: {rule.dwell_s:g} s at {rule.score:.2f} or more)"
    # By the wall clock of now: it may have been set since the label came.
    since_wall_ns = max(0, wall_ns - (boot_ns - began))
    return replace(before, raised=True, since_wall_ns=since_wall_ns), Change("raised", since_wall_ns, reason)
