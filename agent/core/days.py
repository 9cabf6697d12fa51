"""Which day a frame belongs to, and which days are over: the shop's local days, dated as well as can be known."""

import re
from dataclasses import dataclass
from datetime import date, time, tzinfo
from typing import Literal

from agent.core.alerting import is_quiet
from wire.envelope import utc

Trust = Literal["synced", "unsure"]

DatedBy = Literal["device", "boot-clock", "unsure"]
"""Whose word a date is: the wall clock of the capture, the frame's age by the boot clock, or none to be trusted."""

_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")


@dataclass(frozen=True, slots=True)
class Now:
    """The moment that a whole run agrees on, so that no frame changes its day while the run lasts.

    `zone` is the shop's; None is the one that this machine is set to.
    """

    wall_ns: int
    boot_ns: int
    clock: Trust
    boot_id: str
    zone: tzinfo | None = None

    @property
    def today(self) -> str:
        """The local day of this moment."""
        return local_day(self.wall_ns, self.zone)


@dataclass(frozen=True, slots=True)
class Dated:
    """When a frame was captured, as well as can be known, and the local day that it is sealed with.

    `floating`: nothing tells its day, so it takes that of the sealing, and does not wait for the end of any.
    """

    wall_ns: int
    by: DatedBy
    day: str
    floating: bool = False


def local_day(wall_ns: int, zone: tzinfo | None = None) -> str:
    """Give the local day of a moment as YYYY-MM-DD."""
    return utc(wall_ns).astimezone(zone).date().isoformat()


def local_time(wall_ns: int, zone: tzinfo | None = None) -> time:
    """Give the local time of day of a moment."""
    return utc(wall_ns).astimezone(zone).time()


def date_frame(wall_ns: int, boot_ns: int, clock: Trust, boot_id: str, now: Now) -> Dated:
    """Date a frame captured at these two times, by a wall clock of this trust, in this boot.

    A trusted wall clock is believed, unless a clock trusted now says that its day is still to come. Otherwise a frame
    of this boot is dated by its age, which is as good as the clock of now. What neither dates is floating.
    """
    if clock == "synced":
        day = local_day(wall_ns, now.zone)
        if day <= now.today or now.clock == "unsure":
            return Dated(wall_ns, "device", day)
    elif boot_id and boot_id == now.boot_id and boot_ns <= now.boot_ns:
        aged_ns = max(0, now.wall_ns - (now.boot_ns - boot_ns))
        return Dated(aged_ns, "boot-clock" if now.clock == "synced" else "unsure", local_day(aged_ns, now.zone))
    return Dated(max(0, wall_ns), "unsure", now.today, floating=True)


def is_due(dated: Dated, now: Now, *, day: str | None = None, today_too: bool = False) -> bool:
    """Tell whether a frame is to be sealed: its day is over, or it floats, or `today_too` takes the day that goes on.

    `day` asks for one day alone.
    """
    if day is not None and dated.day != day:
        return False
    return dated.floating or dated.day < now.today or (today_too and dated.day == now.today)


def read_day(text: str) -> str:
    """Read a day written as YYYY-MM-DD. Raises `ValueError`."""
    if not _DAY.fullmatch(text):
        raise ValueError(f"{text!r} is no day")
    return date.fromisoformat(text).isoformat()


def in_window(window: tuple[time, time], local: time) -> bool:
    """Tell whether a local time lies in a span, which may go over midnight; its last minute is outside."""
    return is_quiet((window,), local)
