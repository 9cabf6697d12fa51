"""The circuit breaker: open after failures in a row, one probe at a time, and old news counts for nothing."""

import random

from hypothesis import given
from hypothesis import strategies as st

from agent.core.backoff import Backoff
from agent.core.breaker import FAILURES_IN_A_ROW, LONGEST_OPEN_S, SHORTEST_OPEN_S, Breaker

S = 10**9


class Highest(random.Random):
    def uniform(self, a: float, b: float) -> float:
        return b


def breaker() -> Breaker:
    return Breaker(Backoff(1.0, 60.0, Highest()))


def fail(b: Breaker, now_ns: int, n: int = 1, retry_after_s: float | None = None) -> None:
    for _ in range(n):
        era = b.take(now_ns)
        assert era is not None
        b.failed(era, now_ns, "api-timeout", retry_after_s)


def test_it_opens_after_five_failures_in_a_row() -> None:
    b = breaker()
    fail(b, 0, FAILURES_IN_A_ROW - 1)
    assert b.health(0) == "up"
    fail(b, 0)
    assert (b.health(0), b.reason) == ("down", "api-timeout")
    assert b.take(0) is None


def test_a_success_between_starts_the_count_again() -> None:
    b = breaker()
    for _ in range(3):
        fail(b, 0, FAILURES_IN_A_ROW - 1)
        era = b.take(0)
        assert era is not None
        b.succeeded(era)
    assert b.health(0) == "up"


def test_then_one_probe_decides() -> None:
    b = breaker()
    fail(b, 0, FAILURES_IN_A_ROW)
    until = 2 * S
    assert b.take(until - 1) is None
    assert b.health(until) == "probing"
    era = b.take(until)
    assert era is not None
    assert b.take(until) is None
    assert b.health(until) == "down"
    b.failed(era, until, "http-500")
    assert (b.health(until), b.reason) == ("down", "http-500")
    later = until + 3 * S
    again = b.take(later)
    assert again is not None
    b.succeeded(again)
    assert (b.health(later), b.reason) == ("up", "")
    assert b.take(later) is not None
    assert b.take(later) is not None


def test_a_probe_that_found_nothing_to_send_leaves_room_for_the_next() -> None:
    b = breaker()
    fail(b, 0, FAILURES_IN_A_ROW)
    era = b.take(9 * S)
    assert era is not None
    b.untake(era)
    assert b.health(9 * S) == "probing"
    assert b.take(9 * S) is not None


def test_come_back_later_opens_at_once_and_for_so_long() -> None:
    b = breaker()
    fail(b, 0, 1, retry_after_s=30.0)
    assert b.take(30 * S - 1) is None
    assert b.take(30 * S) is not None


def test_nobody_can_lock_it_for_days() -> None:
    b = breaker()
    fail(b, 0, 1, retry_after_s=1e9)
    assert b.take(int(LONGEST_OPEN_S * S)) is not None


def test_outcomes_of_calls_from_before_it_opened_count_for_nothing() -> None:
    b = breaker()
    old = [b.take(0) for _ in range(8)]
    for era in old[:5]:
        assert era is not None
        b.failed(era, 0, "api-cut")
    assert old[5] is not None
    b.succeeded(old[5])
    assert b.health(0) == "down"
    probe = b.take(10 * S)
    assert probe is not None
    b.failed(old[5], 10 * S, "api-cut")
    b.succeeded(probe)
    assert b.health(10 * S) == "up"


@given(st.lists(st.tuples(st.sampled_from(["take", "ok", "fail", "later", "wait"]), st.integers(0, 5)), max_size=80))
def test_never_more_than_one_call_while_it_is_not_up_and_it_always_opens_again(steps: list[tuple[str, int]]) -> None:
    b = breaker()
    now = 0
    under_way: list[int] = []
    for step, which in steps:
        if step == "wait":
            now += which * S
        elif step == "take":
            era = b.take(now)
            if era is not None:
                under_way.append(era)
        elif under_way:
            era = under_way.pop(which % len(under_way))
            if step == "ok":
                b.succeeded(era)
            else:
                b.failed(era, now, "x", 2.0 if step == "later" else None)
        if b.health(now) != "up":
            assert under_way.count(b._era) <= 1
    for era in under_way:
        b.failed(era, now, "x")
    now += int((LONGEST_OPEN_S + SHORTEST_OPEN_S) * S)
    assert b.take(now) is not None
