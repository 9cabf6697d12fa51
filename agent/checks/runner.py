"""Runs checks side by side, each with its own time. One that hangs is given up and does not hold up the others."""

import logging
import queue
import threading
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass

from agent.checks.context import Context
from agent.checks.finding import CHECK_FAILED, CHECK_LATE, Finding, skipped, wrong
from agent.core.codes import AREAS

log = logging.getLogger(__name__)

CHECK_S = 3.0
"""How long one check may take."""


@dataclass(frozen=True, slots=True)
class Check:
    """One check. `late` is the code of what it means when the check does not end in time."""

    name: str
    area: str
    looks_at: str
    run: Callable[[Context], Iterable[Finding]]
    late: str = CHECK_LATE
    quick: bool = True
    """Whether it is made with --quick as well."""
    turn: int = 0
    """Checks of one turn run side by side. What is heavy has a turn of its own, so that it gets the processor."""


def run_checks(checks: Sequence[Check], context: Context, deadline_s: float) -> list[Finding]:
    """Run `checks`; give what they found within `deadline_s`, in the order of the areas and checks."""
    until_s = time.monotonic() + deadline_s
    found: dict[str, list[Finding]] = {}
    for turn in sorted({check.turn for check in checks}):
        now = [check for check in checks if check.turn == turn]
        turn_until_s = min(until_s, time.monotonic() + context.patience_s)
        found |= _side_by_side(now, context.until(turn_until_s))
    order = list(AREAS)
    ordered = sorted(checks, key=lambda check: order.index(check.area))
    return [finding for check in ordered for finding in found[check.name]]


def _side_by_side(checks: Collection[Check], context: Context) -> dict[str, list[Finding]]:
    """Give what each check found, by its name; what is not there in time is late."""
    ended: queue.SimpleQueue[tuple[str, list[Finding]]] = queue.SimpleQueue()

    def run(check: Check) -> None:
        try:
            found = list(check.run(context))
        except Exception as error:
            log.exception("the check %s failed", check.name)
            found = [wrong(check.area, CHECK_FAILED, f"{check.name}: {type(error).__name__}: {error}")]
        ended.put((check.name, found))

    began_s = time.monotonic()
    for check in checks:
        # Daemons: one that hangs in the kernel or in a library ends with the process.
        threading.Thread(target=run, args=(check,), name=f"check-{check.name}", daemon=True).start()
    found: dict[str, list[Finding]] = {}
    while len(found) < len(checks):
        try:
            name, findings = ended.get(timeout=max(0.001, context.until_s - time.monotonic()))
        except queue.Empty:
            break
        found[name] = findings
    took_s = time.monotonic() - began_s
    return {check.name: found.get(check.name, [_late(check, took_s, quick=context.quick)]) for check in checks}


def _late(check: Check, took_s: float, *, quick: bool) -> Finding:
    said = f"the check {check.name} did not end within {took_s:.1f} s"
    return (
        skipped(check.area, check.name, f"{said}: run it without --quick")
        if quick
        else wrong(check.area, check.late, said)
    )


def choose(checks: Sequence[Check], areas: Collection[str], *, quick: bool) -> list[Check]:
    """Give the checks of some areas (empty: of all)."""
    return [check for check in checks if (not areas or check.area in areas) and (check.quick or not quick)]
