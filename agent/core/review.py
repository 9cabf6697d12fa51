"""Which local answers leave a copy of their picture: the uncertain, a random part of the others, some for the night."""

import random as _random
from collections.abc import Callable
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

    def why(self, camera: str, score: float, now_ns: int, has_room: Callable[[], bool]) -> Why | None:
        """Say why this answer leaves a copy, None when it leaves none; what it takes up of the hour is counted.

        `has_room` is asked only for one that would.
        """
        looked_at: Why | None = None
        if score < self._terms.below:
            looked_at = "uncertain"
        elif self._random.random() < self._terms.audit:
            looked_at = "audit"
        due = self._is_due(camera, now_ns)
        if not ((looked_at or due) and has_room()):
            return None
        if looked_at is not None:
            left = self._bucket.take(now_ns)
            if left is not None:
                self._bucket = left
                return looked_at
        if due:
            self._kept_ns[camera] = now_ns
            return "kept"
        return None

    def _is_due(self, camera: str, now_ns: int) -> bool:
        """Whether it is time to keep a picture of this camera for the night."""
        if self._terms.keep_every_s <= 0:
            return False
        last_ns = self._kept_ns.get(camera)
        return last_ns is None or now_ns - last_ns >= self._terms.keep_every_s * 1e9
