"""Waiting for what happens in other processes and tells nobody."""

import time
from collections.abc import Callable
from typing import Any

PATIENCE_S = 60.0


def wait_for(what: str, holds: Callable[[], Any], timeout_s: float = PATIENCE_S) -> Any:
    """Poll until `holds` gives something, and give that; `what` is told when it does not in time."""
    deadline_s = time.monotonic() + timeout_s
    while time.monotonic() < deadline_s:
        found = holds()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError(f"waited {timeout_s:.0f} s for: {what}")
