"""What may be spent: calls per hour, evenly but for a burst, and money per day. The time is passed in."""

import json
from dataclasses import dataclass

HOUR_NS = 3600 * 10**9

BUDGET_HOUR = "budget-hour"
BUDGET_DAY = "budget-day"


@dataclass(frozen=True, slots=True)
class Bucket:
    """Tokens that come back evenly: never more than `per_hour` in any hour, at most about `burst` of them at once.

    A full bucket and one hour of what comes back make `per_hour` together, so at most half of it is burst.
    """

    per_hour: int
    burst: int
    tokens: float
    at_ns: int

    @classmethod
    def full(cls, per_hour: int, burst: int, now_ns: int) -> "Bucket":
        """Make a bucket that holds all it can."""
        return cls(per_hour, burst, _capacity(per_hour, burst), now_ns)

    def at(self, now_ns: int) -> "Bucket":
        """Let the time go on to `now_ns`; a clock that goes back gives nothing."""
        capacity = _capacity(self.per_hour, self.burst)
        per_hour = max(self.per_hour - capacity, self.per_hour / 2)
        gained = per_hour * max(0, now_ns - self.at_ns) / HOUR_NS
        return Bucket(self.per_hour, self.burst, min(capacity, self.tokens + gained), max(now_ns, self.at_ns))

    def take(self, now_ns: int) -> "Bucket | None":
        """Take a token; None when there is none."""
        now = self.at(now_ns)
        return None if now.tokens < 1 else Bucket(self.per_hour, self.burst, now.tokens - 1, now.at_ns)


def _capacity(per_hour: int, burst: int) -> float:
    return 0.0 if per_hour == 0 else max(1.0, min(float(burst), per_hour / 2))


class Budget:
    """What calls of the function may still be made, by number and by money. Survives a restart as text.

    `day` is the date in UTC as text; `usd_per_call` what a call is taken to cost until `learn` knows better.
    """

    def __init__(self, per_hour: int, burst: int, per_day_usd: float, usd_per_call: float, now_ns: int) -> None:
        self._bucket = Bucket.full(per_hour, burst, now_ns)
        self._per_day_usd = per_day_usd
        self._usd_per_call = usd_per_call
        self._day = ""
        self._spent_usd = 0.0

    def learn(self, usd_per_call: float) -> None:
        """Take what calls were billed of late."""
        self._usd_per_call = usd_per_call

    def why_not(self, now_ns: int, day: str) -> str:
        """Say why no call may be made now: ``budget-day`` or ``budget-hour``; empty when one may."""
        if self.spent_usd(day) + self._usd_per_call > self._per_day_usd:
            return BUDGET_DAY
        return BUDGET_HOUR if self._bucket.take(now_ns) is None else ""

    def spend(self, now_ns: int, day: str) -> None:
        """Pay for one call. `why_not` was asked at the same moment."""
        self._bucket = self._bucket.take(now_ns) or self._bucket
        self._spent_usd = self.spent_usd(day) + self._usd_per_call
        self._day = day

    def spent_usd(self, day: str) -> float:
        """Give what was spent on `day`, the present one."""
        return self._spent_usd if day == self._day else 0.0

    def dump(self, now_ns: int, boot: str) -> str:
        """Write the budget down."""
        tokens = self._bucket.at(now_ns).tokens
        return json.dumps(
            {"boot": boot, "at_ns": now_ns, "tokens": tokens, "day": self._day, "spent_usd": self._spent_usd}
        )

    def take_up(self, text: str | None, now_ns: int, boot: str) -> None:
        """Go on from what `dump` wrote; text that is none of ours, or none at all, changes nothing.

        After a reboot nobody knows how long it took, so nothing has come back.
        """
        try:
            kept = json.loads(text or "")
            at_ns = min(int(kept["at_ns"]), now_ns) if kept["boot"] == boot else now_ns
            tokens, day, spent_usd = float(kept["tokens"]), str(kept["day"]), float(kept["spent_usd"])
        except (ValueError, KeyError, TypeError):
            return
        bucket = self._bucket
        self._bucket = Bucket(bucket.per_hour, bucket.burst, tokens, at_ns).at(now_ns)
        self._day, self._spent_usd = day, spent_usd
