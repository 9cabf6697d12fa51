"""Which time counts when signed metadata may have run out: never earlier than what is proven to have passed."""

from dataclasses import dataclass
from datetime import UTC, datetime

BUILT = datetime(2026, 11, 28, tzinfo=UTC)
"""When this release was made; set it anew with each. No device runs it before that day, whatever its clock says."""


@dataclass(frozen=True, slots=True)
class Reading:
    """The time to judge by, and by how much the clock of this machine is behind it (0: not at all)."""

    now: datetime
    behind_s: float


def reading(wall: datetime, accepted: datetime | None, oldest: datetime = BUILT) -> Reading:
    """Judge by the clock, but never by a time before this release or before metadata that was accepted.

    A clock that stands at 1970 would find nothing expired, and old metadata could be shown to the device for ever.
    `accepted` is when the newest accepted metadata was signed, `oldest` when this release was made.
    """
    floor = oldest if accepted is None else max(oldest, accepted)
    return Reading(max(wall, floor), max(0.0, (floor - wall).total_seconds()))


def believable(signed_at: datetime, expires_at: datetime) -> bool:
    """Whether metadata may raise the floor: whoever signs must not date it later than it lasts."""
    return signed_at <= expires_at
