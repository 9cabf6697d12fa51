"""What is open beside the device, kept up to date from what sync says; asks the rule and pays for what it chooses."""

import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from agent.core import placement
from agent.core.budget import Budget
from agent.core.placement import Demand, Load, Placement, Where
from agent.ports import ClockTrust, Frame, Spool, Stamp

FACT_STALE_S = 25.0
"""Sync writes the function's health at least every 10 s: after two misses nobody sends."""

PROBE_EVERY_S = 2.0
"""While the function is only probed, a frame at most this often goes there: the probes need some."""

ROOM_BYTES_PER_PIXEL = 0.5
LEAST_ROOM_BYTES = 64 << 10
"""What a JPEG is taken to need at most. A spool that fills up all the same refuses, and that is counted."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What was configured. `deadline_ms` per camera; `max_side` of spooled pictures in pixels."""

    frames_may_leave: bool
    overflow: placement.Overflow
    deadline_ms: Mapping[str, float]
    max_side: int


class Ways:
    """The ways beside the device. Any thread may ask."""

    def __init__(self, terms: Terms, budget: Budget, spool: Spool, boot: str, trust: Callable[[], ClockTrust]) -> None:
        self._terms = terms
        self._trust = trust
        self._budget = budget
        self._spool = spool
        self._boot = boot
        self._lock = threading.Lock()
        self._link_up = False
        self._function: placement.Health = "down"
        self._heard_ns: int | None = None
        self._probed_ns: int | None = None

    def heed(self, function: str | None, sync: str | None) -> None:
        """Take sync's facts: JSON of the function's health and of the link. What cannot be read counts as down."""
        told, link = _read(function), _read(sync)
        health, at_ns, usd = told.get("health"), told.get("at_boot_ns"), told.get("usd_per_call")
        with self._lock:
            self._link_up = link.get("connected") is True
            self._function = health if health in ("up", "probing", "busy") else "down"
            self._heard_ns = at_ns if isinstance(at_ns, int) else None
            if isinstance(usd, int | float) and usd >= 0:
                self._budget.learn(float(usd))

    def place(
        self, frame: Frame, load: Load, now: Stamp, *, displaced: bool, has_room: Callable[[Frame], bool]
    ) -> Placement:
        """Choose who answers a frame, and pay when it is the function. `has_room`: the overflow queue would take it."""
        age_ms = (now.boot_ns - frame.captured.boot_ns) / 1e6
        demand = Demand(age_ms, self._terms.deadline_ms[frame.camera], displaced)
        placed = placement.here(demand, load)
        if placed is None:
            room, need_bytes = has_room(frame), self._need_bytes(frame)
            with self._lock:
                placed = placement.elsewhere(demand, self._open(now, need_bytes, has_room=room))
                if placed.where is Where.SERVERLESS:
                    self._budget.spend(now.boot_ns, self._day(now))
                    self._probed_ns = now.boot_ns
        return placed

    def describe(self, now: Stamp) -> dict[str, object]:
        """Say for people what is open: empty text for an open way, else why it is shut."""
        with self._lock:
            ways = self._open(now, LEAST_ROOM_BYTES, has_room=True)
            shut = placement.why_nothing_leaves(ways)
            return {
                "function": shut or placement.why_no_function(ways),
                "night": shut,
                "spent_usd": round(self._budget.spent_usd(now.boot_ns, self._day(now)), 6),
            }

    def budget_fact(self, now: Stamp) -> str:
        """Write down what is left of the budget."""
        with self._lock:
            return self._budget.dump(now.boot_ns, self._boot)

    def _open(self, now: Stamp, need_bytes: float, *, has_room: bool) -> placement.Ways:
        may = self._terms.frames_may_leave
        return placement.Ways(
            frames_may_leave=may,
            overflow=self._terms.overflow,
            encoder_has_room=has_room,
            spool_has_room=may and self._spool.room_bytes() >= need_bytes,
            link_up=self._link_up,
            function=self._health(now.boot_ns),
            budget=self._budget.why_not(now.boot_ns, self._day(now)),
        )

    def _health(self, now_ns: int) -> placement.Health:
        if self._heard_ns is None or not 0 <= now_ns - self._heard_ns <= FACT_STALE_S * 1e9:
            return "down"
        probed = self._probed_ns is not None and now_ns - self._probed_ns < PROBE_EVERY_S * 1e9
        return "down" if self._function == "probing" and probed else self._function

    def _day(self, now: Stamp) -> str:
        """Tell the day in UTC; empty while no time service keeps the wall clock."""
        if self._trust() == "unsure":
            return ""
        return datetime.fromtimestamp(now.wall_ns // 10**9, UTC).date().isoformat()

    def _need_bytes(self, frame: Frame) -> float:
        height, width = frame.picture.shape[:2]
        scale = min(1.0, self._terms.max_side / max(height, width))
        return float(max(LEAST_ROOM_BYTES, height * width * scale * scale * ROOM_BYTES_PER_PIXEL))


def _read(text: str | None) -> dict[str, Any]:
    try:
        told = json.loads(text) if text else {}
    except ValueError:
        return {}
    return told if isinstance(told, dict) else {}
