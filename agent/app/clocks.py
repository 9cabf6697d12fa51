"""The clocks as page 4 asks for them."""

from datetime import datetime

from agent.core.updates import When
from agent.ports import Clock
from agent.update import Now


def now_of(clock: Clock, boot: str) -> Now:
    """Read the clocks, and the shop's local time."""
    stamp = clock.now()
    local = datetime.fromtimestamp(stamp.wall_ns / 1e9).astimezone().time()
    return Now(When(wall_ns=stamp.wall_ns, boot_ns=stamp.boot_ns, boot=boot), local, clock.trust() == "synced")
