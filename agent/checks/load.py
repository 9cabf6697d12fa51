"""Has the device more to do than it can?"""

import os
from collections.abc import Iterator

from agent.checks.context import Context
from agent.checks.finding import Finding, fine, wrong
from agent.checks.runner import Check

MOST_PER_CORE = 3.0
"""Threads that want a core, per core: the agent alone keeps it at one or two."""


def check(_: Context) -> Iterator[Finding]:
    """Look at the load of the last five minutes."""
    cores = os.cpu_count() or 1
    load = os.getloadavg()[1]
    detail = f"{load:.1f} threads wanted a core in the last 5 minutes, and there are {cores}"
    if load > MOST_PER_CORE * cores:
        yield wrong("host", "HOST-9", detail)
    else:
        yield fine("host", f"load {load:.1f} on {cores} cores")


CHECK = Check("load", "host", "the processor's load", check)
