"""A circuit breaker: after some failures in a row nobody calls for a while, then one call tries whether it works again.

    closed --failures in a row, or "come back later"--> open --time--> half-open --the probe works--> closed
                                                          ^                |
                                                          +--- it fails ---+

Pure: the time is passed in.
"""

from typing import Literal

from agent.core.backoff import Backoff

Health = Literal["up", "probing", "down"]

FAILURES_IN_A_ROW = 5
SHORTEST_OPEN_S = 1.0
LONGEST_OPEN_S = 600.0
"""What the other side may ask for at most: it may be mistaken, and must not lock itself out for days."""


class Breaker:
    """Guards one way to the cloud. Outcomes of calls from before its last change of state count for nothing."""

    def __init__(self, backoff: Backoff) -> None:
        self._backoff = backoff
        self._failures = 0
        self._until_ns: int | None = None
        self._era = 0
        self._probe = False
        self.reason = ""
        """Code of the failure that opened it; empty while it is closed."""

    def take(self, now_ns: int) -> int | None:
        """Ask for one call: its era, to be named with its outcome, or None when there is none to be had now."""
        if self._until_ns is None:
            return self._era
        if now_ns < self._until_ns or self._probe:
            return None
        self._probe = True
        return self._era

    def untake(self, era: int) -> None:
        """Give a call back that was not made: there was nothing to send."""
        if era == self._era:
            self._probe = False

    def succeeded(self, era: int) -> None:
        """Note that a call was answered."""
        if era != self._era:
            return
        self._failures = 0
        if self._until_ns is not None:
            self._until_ns, self._probe, self.reason = None, False, ""
            self._era += 1
        self._backoff.reset()

    def failed(self, era: int, now_ns: int, code: str, retry_after_s: float | None = None) -> None:
        """Note that a call was not answered, and when the other side asked to come back, if it did."""
        if era != self._era:
            return
        self._failures += 1
        if self._until_ns is None and retry_after_s is None and self._failures < FAILURES_IN_A_ROW:
            return
        wait_s = SHORTEST_OPEN_S + self._backoff.next()
        if retry_after_s is not None:
            wait_s = min(max(wait_s, retry_after_s), LONGEST_OPEN_S)
        self._until_ns = now_ns + int(wait_s * 1e9)
        self._probe, self.reason = False, code
        self._era += 1

    def health(self, now_ns: int) -> Health:
        """Tell how it stands: ``up``, ``down``, or ``probing`` when a call is welcome that tries it."""
        if self._until_ns is None:
            return "up"
        return "probing" if now_ns >= self._until_ns and not self._probe else "down"
