"""The budget: never more calls in any hour, nor more money in a day, than was allowed; also over restarts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.budget import BUDGET_DAY, BUDGET_HOUR, HOUR_NS, Bucket, Budget

S = 10**9
DAY = "2026-11-25"


@given(
    per_hour=st.integers(0, 40),
    burst=st.integers(1, 60),
    gaps=st.lists(st.integers(0, 40 * 60 * S), min_size=1, max_size=300),
)
def test_no_hour_sees_more_than_was_allowed(per_hour: int, burst: int, gaps: list[int]) -> None:
    now, taken = 0, []
    bucket = Bucket.full(per_hour, burst, now)
    for gap in gaps:
        now += gap
        left = bucket.take(now)
        if left is not None:
            bucket = left
            taken.append(now)
    for n, first in enumerate(taken):
        assert sum(first <= moment < first + HOUR_NS for moment in taken[n:]) <= per_hour


@pytest.mark.parametrize(("per_hour", "burst", "at_once"), [(3600, 60, 60), (60, 60, 30), (1, 5, 1), (0, 5, 0)])
def test_a_quiet_time_allows_a_burst(per_hour: int, burst: int, at_once: int) -> None:
    bucket: Bucket | None = Bucket.full(per_hour, burst, 0)
    count = 0
    while bucket is not None and (bucket := bucket.take(0)) is not None:
        count += 1
    assert count == at_once


def test_what_was_taken_comes_back_evenly() -> None:
    bucket = Bucket.full(3600, 60, 0)
    for _ in range(60):
        bucket = bucket.take(0) or bucket
    assert bucket.take(S) is None
    assert bucket.take(2 * S) is not None
    taken = 0
    for second in range(1, 3601):
        left = bucket.take(second * S)
        taken += left is not None
        bucket = left or bucket
    assert taken == 3600 - 60


def test_a_clock_that_goes_back_gives_nothing() -> None:
    bucket = Bucket.full(2, 1, 10 * HOUR_NS).take(10 * HOUR_NS)
    assert bucket is not None
    assert bucket.take(HOUR_NS) is None
    assert bucket.take(11 * HOUR_NS) is not None


def test_money_ends_with_the_day_and_begins_with_the_next() -> None:
    budget = Budget(3600, 60, 0.03, 0.01, 0)
    for _ in range(3):
        assert budget.why_not(0, DAY) == ""
        budget.spend(0, DAY)
    assert budget.why_not(0, DAY) == BUDGET_DAY
    assert budget.why_not(0, "2026-11-26") == ""


def test_a_dearer_function_is_called_less() -> None:
    budget = Budget(3600, 60, 0.03, 0.00001, 0)
    budget.learn(0.02)
    budget.spend(0, DAY)
    assert budget.why_not(0, DAY) == BUDGET_DAY
    budget.learn(0.01)
    assert budget.why_not(0, DAY) == ""


def test_a_restart_neither_refills_nor_forgets() -> None:
    budget = Budget(10, 2, 1.0, 0.4, 0)
    budget.spend(0, DAY)
    budget.spend(0, DAY)
    text = budget.dump(5 * S, "boot-1")
    after = Budget(10, 2, 1.0, 0.4, 6 * S)
    after.take_up(text, 6 * S, "boot-1")
    assert after.why_not(6 * S, DAY) == BUDGET_DAY
    assert after.why_not(6 * S, "2026-11-26") == BUDGET_HOUR
    assert after.why_not(HOUR_NS, "2026-11-26") == ""

    rebooted = Budget(10, 2, 1.0, 0.4, 3 * HOUR_NS)
    rebooted.take_up(text, 3 * HOUR_NS, "boot-2")
    assert rebooted.spent_usd(3 * HOUR_NS, DAY) == pytest.approx(0.8)
    assert rebooted.why_not(3 * HOUR_NS, "2026-11-26") == BUDGET_HOUR, "how long the reboot took nobody knows"


@pytest.mark.parametrize("text", [None, "", "no json", "[]", "{}", '{"boot": "b", "at_ns": "x"}'])
def test_what_was_kept_and_cannot_be_read_changes_nothing(text: str | None) -> None:
    budget = Budget(10, 2, 1.0, 0.4, 0)
    budget.take_up(text, 0, "b")
    assert budget.why_not(0, DAY) == ""


# -- a clock that is wrong -----------------------------------------------------------------------------------


def spend(budget: Budget, now_ns: int, day: str) -> int:
    """Spend until nothing may be spent any more; gives how often."""
    n = 0
    while budget.why_not(now_ns, day) == "":
        budget.spend(now_ns, day)
        n += 1
    return n


def test_a_clock_that_is_set_late_gives_no_second_allowance() -> None:
    budget = Budget(10**6, 10**6, 0.03, 0.01, 0)
    assert spend(budget, 0, "") == 3
    assert budget.why_not(S, DAY) == BUDGET_DAY
    assert spend(budget, 2 * S, "2026-11-26") == 3


def test_boots_with_a_wrong_clock_share_one_day() -> None:
    """As a device without a battery does that is switched off and on: the wall clock says 2000 each time."""
    text, spent = None, 0
    for boot in range(20):
        budget = Budget(10**6, 10**6, 0.03, 0.01, 0)
        budget.take_up(text, 0, f"boot-{boot}")
        spent += spend(budget, S, "")
        spent += spend(budget, 60 * S, DAY)
        text = budget.dump(61 * S, f"boot-{boot}")
    assert spent == 3


def test_a_device_that_no_clock_tells_the_day_gets_its_money_every_24_hours() -> None:
    budget = Budget(10**6, 10**6, 0.03, 0.01, 0)
    assert [spend(budget, hour * HOUR_NS, "") for hour in (0, 12, 23, 24, 30, 48)] == [3, 0, 0, 3, 0, 3]
    assert spend(budget, 49 * HOUR_NS, DAY) == 0


def test_a_budget_of_an_earlier_agent_is_taken_up() -> None:
    budget = Budget(10**6, 10**6, 0.03, 0.01, 5 * S)
    budget.take_up(f'{{"boot": "b", "at_ns": 1, "tokens": 9, "day": "{DAY}", "spent_usd": 0.02}}', 5 * S, "b")
    assert spend(budget, 6 * S, DAY) == 1
