"""Frames get the day they belong to, whatever was wrong with the clock; and none waits for ever."""

from datetime import UTC, datetime, time, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.days import Dated, Now, Trust, date_frame, in_window, is_due, local_day, local_time, read_day

HOUR_NS = 3600 * 10**9
BERLIN = timezone(timedelta(hours=1))


def ns(year: int, month: int, day: int, hour: int = 0, minute: int = 0) -> int:
    return int(datetime(year, month, day, hour, minute, tzinfo=BERLIN).timestamp()) * 10**9


def at(wall_ns: int, clock: Trust = "synced") -> Now:
    return Now(wall_ns, 1000 * HOUR_NS, clock, "this", BERLIN)


NIGHT = at(ns(2026, 11, 25, 1, 30))


def test_a_trusted_clock_says_the_day_of_the_shop_not_of_utc() -> None:
    late = ns(2026, 11, 24, 0, 20)  # 23:20 of the 23rd in UTC
    assert date_frame(late, 0, "synced", "other", NIGHT) == Dated(late, "device", "2026-11-24")


def test_an_unsure_clock_is_mended_by_the_age_when_the_clock_is_right_now() -> None:
    dated = date_frame(ns(1970, 1, 2), NIGHT.boot_ns - 3 * HOUR_NS, "unsure", "this", NIGHT)
    assert dated == Dated(NIGHT.wall_ns - 3 * HOUR_NS, "boot-clock", "2026-11-24")


def test_the_age_counts_also_when_the_clock_of_now_is_unsure_but_nobody_vouches_for_it() -> None:
    unsure = at(NIGHT.wall_ns, "unsure")
    dated = date_frame(0, unsure.boot_ns - 3 * HOUR_NS, "unsure", "this", unsure)
    assert (dated.by, dated.day, dated.floating) == ("unsure", "2026-11-24", False)


@pytest.mark.parametrize("boot", ["before", ""])
def test_what_nothing_dates_is_of_the_day_of_sealing_and_waits_for_no_end(boot: str) -> None:
    dated = date_frame(ns(1970, 1, 2), 5, "unsure", boot, NIGHT)
    assert (dated.by, dated.day) == ("unsure", "2026-11-25")
    assert is_due(dated, NIGHT)


def test_a_time_still_to_come_is_not_waited_for_when_the_clock_is_right_now() -> None:
    assert is_due(date_frame(ns(2031, 1, 1), 0, "synced", "other", NIGHT), NIGHT)


def test_a_device_that_wakes_in_1970_waits_for_its_clock_before_it_seals_what_was_dated_well() -> None:
    lost = at(ns(1970, 1, 1, 5), "unsure")
    dated = date_frame(ns(2026, 11, 24, 12), 0, "synced", "other", lost)
    assert dated.by == "device"
    assert not is_due(dated, lost)
    assert is_due(dated, NIGHT)


def test_only_days_that_are_over_are_due_unless_today_is_asked_for() -> None:
    today = date_frame(NIGHT.wall_ns, 0, "synced", "this", NIGHT)
    yesterday = date_frame(NIGHT.wall_ns - 2 * HOUR_NS, 0, "synced", "this", NIGHT)
    assert [is_due(d, NIGHT) for d in (today, yesterday)] == [False, True]
    assert [is_due(d, NIGHT, today_too=True) for d in (today, yesterday)] == [True, True]
    assert [is_due(d, NIGHT, day="2026-11-24") for d in (today, yesterday)] == [False, True]
    assert [is_due(d, NIGHT, day="2026-11-25", today_too=True) for d in (today, yesterday)] == [True, False]


@given(
    wall_ns=st.integers(0, ns(2200, 1, 1)),
    age_ns=st.integers(-(10**15), 10**15),
    clock=st.sampled_from(["synced", "unsure"]),
    boot=st.sampled_from(["this", "other", ""]),
    trust=st.sampled_from(["synced", "unsure"]),
)
def test_every_frame_has_a_day_and_is_due_two_days_later_at_the_latest(
    wall_ns: int, age_ns: int, clock: Trust, boot: str, trust: Trust
) -> None:
    """With a clock that is right by then, whatever it was before."""
    now = at(NIGHT.wall_ns, trust)
    dated = date_frame(wall_ns, max(0, now.boot_ns - age_ns), clock, boot, now)
    assert read_day(dated.day) == dated.day
    later = Now(now.wall_ns + 48 * HOUR_NS, now.boot_ns + 48 * HOUR_NS, "synced", "this", BERLIN)
    captured_boot_ns = max(0, now.boot_ns - age_ns)
    if captured_boot_ns <= later.boot_ns - 48 * HOUR_NS or boot != "this" or clock == "synced":
        assert is_due(date_frame(wall_ns, captured_boot_ns, clock, boot, later), later)


def test_the_day_that_the_clocks_change_has_its_25_hours() -> None:
    zone = ZoneInfo("Europe/Berlin")
    moments = [datetime(2026, 10, 24, 22, tzinfo=UTC) + timedelta(hours=h) for h in range(26)]
    days = [local_day(int(m.timestamp()) * 10**9, zone) for m in moments]
    assert days == ["2026-10-25"] * 25 + ["2026-10-26"]


@pytest.mark.parametrize("text", ["", "today", "2026-1-3", "2026-02-30", "20260131", "2026-01-31T00:00"])
def test_what_is_no_day(text: str) -> None:
    with pytest.raises(ValueError):
        read_day(text)


def test_a_window_may_go_over_midnight() -> None:
    assert in_window((time(22), time(6)), time(23, 59))
    assert in_window((time(22), time(6)), time(5, 59, 59))
    assert not in_window((time(22), time(6)), time(6))
    assert in_window((time(1), time(6)), local_time(ns(2026, 11, 25, 1), BERLIN))
