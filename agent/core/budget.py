"""What may be spent: calls per hour, evenly but for a burst, and money per day. The time is passed in."""

import json
from dataclasses import dataclass

HOUR_NS = 3600 * 10**9
DAY_NS = 24 * HOUR_NS

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


@dataclass(frozen=True, slots=True)
class Account:
    """What was spent on one day. `day` is empty while no clock tells it; `since_ns` is when it began, boot clock."""

    day: str
    spent_usd: float
    since_ns: int

    def on(self, now_ns: int, day: str) -> "Account":
        """Let the time go on to `now_ns`, on `day`, which is empty when the wall clock is unsure.

        An account without a day is that of the day that a clock tells first: a device that starts each time with a
        wrong clock does not get a day's money twice. While none tells any, a day lasts 24 hours of this boot.
        """
        if day and self.day not in ("", day):
            return Account(day, 0.0, now_ns)
        if not day and now_ns - self.since_ns >= DAY_NS:
            return Account("", 0.0, now_ns)
        return Account(day or self.day, self.spent_usd, self.since_ns)


class Budget:
    """What calls of the function may still be made, by number and by money. Survives a restart as text.

    `day` is the date in UTC as text, empty when the wall clock is unsure; `usd_per_call` what a call is taken to cost
    until `learn` knows better.
    """

    def __init__(self, per_hour: int, burst: int, per_day_usd: float, usd_per_call: float, now_ns: int) -> None:
        self._bucket = Bucket.full(per_hour, burst, now_ns)
        self._per_day_usd = per_day_usd
        self._usd_per_call = usd_per_call
        self._account = Account("", 0.0, now_ns)

    def learn(self, usd_per_call: float) -> None:
        """Take what calls were billed of late."""
        self._usd_per_call = usd_per_call

    def why_not(self, now_ns: int, day: str) -> str:
        """Say why no call may be made now: ``budget-day`` or ``budget-hour``; empty when one may."""
        self._account = self._account.on(now_ns, day)
        if self._account.spent_usd + self._usd_per_call > self._per_day_usd:
            return BUDGET_DAY
        return BUDGET_HOUR if self._bucket.take(now_ns) is None else ""

    def spend(self, now_ns: int, day: str) -> None:
        """Pay for one call. `why_not` was asked at the same moment."""
        self._bucket = self._bucket.take(now_ns) or self._bucket
        account = self._account.on(now_ns, day)
        self._account = Account(account.day, account.spent_usd + self._usd_per_call, account.since_ns)

    def spent_usd(self, now_ns: int, day: str) -> float:
        """Give what was spent on `day`, the present one."""
        return self._account.on(now_ns, day).spent_usd

    def dump(self, now_ns: int, boot: str) -> str:
        """Write the budget down."""
        account = self._account
        return json.dumps(
            {
                "boot": boot,
                "at_ns": now_ns,
                "tokens": self._bucket.at(now_ns).tokens,
                "day": account.day,
                "spent_usd": account.spent_usd,
                "since_ns": account.since_ns,
            }
        )

    def take_up(self, text: str | None, now_ns: int, boot: str) -> None:
        """Go on from what `dump` wrote; text that is none of ours, or none at all, changes nothing.

        After a reboot nobody knows how long it took, so nothing has come back.
        """
        try:
            kept = json.loads(text or "")
            same_boot = kept["boot"] == boot
            at_ns = min(int(kept["at_ns"]), now_ns) if same_boot else now_ns
            since_ns = min(int(kept.get("since_ns", now_ns)), now_ns) if same_boot else now_ns
            account = Account(str(kept["day"]), float(kept["spent_usd"]), since_ns)
            tokens = float(kept["tokens"])
        except (ValueError, KeyError, TypeError):
            return
        bucket = self._bucket
        self._bucket = Bucket(bucket.per_hour, bucket.burst, tokens, at_ns).at(now_ns)
        self._account = account
