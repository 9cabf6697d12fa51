"""What the counters of the store say, in words. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass

MODES = ("serverless", "asynchronous", "batch")
"""Ways of the cloud to answer."""


@dataclass(frozen=True, slots=True)
class Frames:
    """What became of captured frames: `captured` is the sum of `classified`, `serverless`, `deferred` and `dropped`."""

    captured: int
    classified: int
    serverless: int
    deferred: int
    dropped: Mapping[str, int]
    """By reason."""
    answered: int
    """Of `serverless` and `deferred`, those with a verdict."""

    @property
    def unanswered(self) -> int:
        """Frames placed elsewhere that no verdict has come for yet."""
        return max(0, self.serverless + self.deferred - self.answered)


def frames(counters: Mapping[str, int]) -> Frames:
    """Read the books of frames."""
    return Frames(
        counters.get("frames:captured", 0),
        counters.get("frames:classified", 0),
        counters.get("frames:serverless", 0),
        counters.get("frames:deferred", 0),
        by_reason(counters, "frames:dropped:"),
        counters.get("frames:answered", 0),
    )


def by_reason(counters: Mapping[str, int], head: str) -> dict[str, int]:
    """Give the counters whose names begin with `head`, by the rest of the name."""
    return {name.removeprefix(head): n for name, n in sorted(counters.items()) if name.startswith(head) and n}


def evicted(counters: Mapping[str, int]) -> int:
    """Give how many waiting records of all kinds were thinned out."""
    return sum(n for name, n in counters.items() if name.endswith(":dropped:evicted"))
