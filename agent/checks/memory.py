"""Is there memory left, and was something killed for want of it?"""

from collections.abc import Iterator
from pathlib import Path

from agent.checks.context import Context
from agent.checks.finding import Finding, fine, skipped, wrong
from agent.checks.runner import Check
from agent.checks.words import size

LEAST_SHARE = 0.08
"""With less of the memory available the kernel begins to throw out what is in use."""


def check(context: Context) -> Iterator[Finding]:
    """Look at the memory of the machine."""
    memory = _table(context.proc / "meminfo")
    whole, available = memory.get("MemTotal", 0) * 1024, memory.get("MemAvailable", 0) * 1024
    if not whole:
        yield skipped("host", "memory", "the kernel does not tell")
        return
    killed = _table(context.proc / "vmstat").get("oom_kill", 0)
    if killed:
        yield wrong("host", "HOST-5", f"{killed} since this device was started")
    if available < LEAST_SHARE * whole:
        yield wrong("host", "HOST-4", f"{size(available)} of {size(whole)} available")
    elif not killed:
        yield fine("host", f"memory: {size(available)} of {size(whole)} available")


def _table(path: Path) -> dict[str, int]:
    """Read a table of /proc: a name, a number and perhaps a unit per line. Empty when it cannot be read."""
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except OSError:
        return {}
    rows = (line.replace(":", " ").split() for line in lines)
    return {row[0]: int(row[1]) for row in rows if len(row) >= 2 and row[1].isdecimal()}


CHECK = Check("memory", "host", "memory that is left, processes killed for want of it", check)
