"""Which local answers leave a copy of their picture: the uncertain, a random part of the others, some for the night."""

import random as _random
from dataclasses import dataclass
from typing import Literal

from agent.core.budget import Bucket

Why = Literal["uncertain", "audit", "kept"]

BURST_PART = 10
"""A tenth of the hour's reviews may go at once."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What was configured. `below`, `audit`: 0 is none; `keep_every_s`: 0 is never."""

    below: float
    audit: float
    per_hour: int
    keep_every_s: float


class Review:
    """Chooses copies. One thread at a time; the time and the randomness are passed in."""

    def __init__(self, terms: Terms, random: _random.Random, now_ns: int) -> None:
        self._terms = terms
        self._random = random
        self._bucket = Bucket.full(terms.per_hour, max(1, terms.per_hour // BURST_PART), now_ns)
        self._kept_ns: dict[str, int] = {}

    def why(self, camera: str, score: float, now_ns: int) -> Why | None:
        """Say why this answer leaves a copy, None when it leaves none; what it takes up of the hour is counted."""
        looked_at: Why | None = None
        if score < self._terms.below:
            looked_at = "uncertain"
        elif self._random.random() < self._terms.audit:
            looked_at = "audit"
        if looked_at is not None:
            left = self._bucket.take(now_ns)
            if left is not None:
                self._bucket = left
                return looked_at
        return "kept" if self._keep(camera, now_ns) else None

    def _keep(self, camera: str, now_ns: int) -> bool:
        if self._terms.keep_every_s <= 0:
            return False
        last_ns = self._kept_ns.get(camera)
        if last_ns is not None and now_ns - last_ns < self._terms.keep_every_s * 1e9:
            return False
        self._kept_ns[camera] = now_ns
        return True
