"""With --deep: the invariants of ARCHITECTURE.md that can be seen on the device, and the store's file itself."""

import queue
import threading
from collections import Counter
from collections.abc import Iterator

from agent.checks.context import SPARE_S, Context
from agent.checks.finding import Finding, fine, skipped, wrong
from agent.checks.runner import Check
from agent.errors import ShelfwireError

CODES = {
    "store-damaged": "BOX-2", "store-foreign": "BOX-2", "store-version": "BOX-2", "store-schema": "BOX-2",
    "picture-missing": "BOX-9", "frame-bare": "BOX-9", "shard-rows": "BOX-9", "shard-file": "BOX-9",
    "spool-orphans": "BOX-10",
}  # fmt: skip
"""Codes of `agent.store.invariants`, and the doctor's; all others are books that do not balance."""

BOOKS = "BOX-8"
AT_MOST = 3
"""Flaws of one code that are told one by one."""


def check(context: Context) -> Iterator[Finding]:
    """Look through the store; nothing is said without --deep."""
    if not context.deep:
        return
    found: queue.SimpleQueue[list[Finding]] = queue.SimpleQueue()
    threading.Thread(target=lambda: found.put(list(_look(context))), name="check-deep", daemon=True).start()
    try:
        yield from found.get(timeout=max(0.1, context.left_s() - SPARE_S))
    except queue.Empty:
        yield skipped("outbox", "deep check", "the store is large: give it more time, --patience 60")


def _look(context: Context) -> Iterator[Finding]:
    from agent.store import invariants  # it loads what writes the night's files

    try:
        checks = invariants.check(context.state_dir)
    except ShelfwireError:
        return  # the outbox's own line says why it cannot be read
    told: Counter[str] = Counter()
    for _, flaws in checks:
        for flaw in flaws:
            code = CODES.get(flaw.code, BOOKS)
            told[code] += 1
            if told[code] <= AT_MOST:
                yield wrong("outbox", code, f"{flaw.text} (invariant {flaw.rule})", cure=flaw.cure)
    yield from (fine("outbox", f"deep: {name}") for name, flaws in checks if not flaws)


CHECK = Check("invariants", "outbox", "with --deep: invariants, the file itself", check, "BOX-3", quick=False)
