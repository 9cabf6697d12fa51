"""Do vision and sync run, whoever started them?"""

from collections.abc import Iterator

from agent.checks.context import Context, run_as
from agent.checks.finding import Finding, fine, skipped, wrong
from agent.checks.runner import Check
from agent.checks.words import duration
from agent.errors import ShelfwireError
from agent.host.clock import boot_id


def check(context: Context) -> Iterator[Finding]:
    """Look at the locks that both hold, and at vision's last report."""
    if context.state_hidden:
        yield skipped("service", "vision and sync", run_as(context))
        return
    yield _vision(context)
    if context.config is None or context.config.cloud.broker:
        running = context.at_work("sync")
        yield fine("service", "sync runs") if running else wrong("service", "SVC-2")


def _vision(context: Context) -> Finding:
    if not context.at_work("vision"):
        return wrong("service", "SVC-1")
    silent_s = _silent_s(context)
    if silent_s is not None:
        return wrong("service", "SVC-3", f"its last report is {duration(silent_s)} old")
    return fine("service", "vision runs and reports")


def _silent_s(context: Context) -> float | None:
    try:
        return context.snapshot().silent_s(boot_id(), context.clock.now().boot_ns)
    except ShelfwireError:
        return None


CHECK = Check("processes", "service", "whether vision and sync run and report", check, late="SVC-10")
