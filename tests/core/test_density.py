"""The rule of stream density, and the search for the largest number of cameras that it lets pass."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.core.density import MOST_STREAMS, Search, Window, first_guess


def full(streams: int, seconds: int = 6) -> list[list[float]]:
    return [[15.0] * seconds for _ in range(streams)]


def test_all_streams_at_their_rate_pass() -> None:
    assert Window(full(4)).passes


def test_five_of_a_hundred_samples_may_be_below_the_target_and_not_six() -> None:
    rates = full(10, 10)
    for n in range(5):
        rates[n][0] = 14.0
    assert Window(rates).passes
    rates[5][0] = 14.0
    assert not Window(rates).passes


def test_one_stream_does_not_starve_for_the_others() -> None:
    rates = full(40, 5)
    rates[0] = [10.0] * 5
    window = Window(rates)
    assert window.reached > 0.95
    assert not window.passes


def search(first: int, passes: "object") -> tuple[int, Search]:
    found, steps = Search(first), 0
    while (streams := found.next()) is not None and steps < 60:
        found.add(streams, passed=bool(passes(streams)))  # type: ignore[operator]
        steps += 1
    return steps, found


@settings(deadline=None)
@given(st.integers(0, 80), st.integers(1, 120))
def test_it_finds_the_number_from_wherever_it_begins(truth: int, first: int) -> None:
    steps, found = search(first, lambda streams: streams <= truth)
    assert found.density == truth
    assert found.next() is None
    assert steps <= 40


@pytest.mark.parametrize("seed", range(20))
def test_windows_that_contradict_each_other_do_not_keep_it_for_ever(seed: int) -> None:
    rng = random.Random(seed)
    steps, found = search(9, lambda streams: rng.random() < (0.95 if streams < 12 else 0.5 if streams < 14 else 0.05))
    assert found.next() is None
    assert steps < 60
    assert found.density <= 16


def test_there_is_a_bound() -> None:
    assert search(200, lambda streams: True)[1].density == MOST_STREAMS


def test_the_answer_is_given_only_after_two_windows_in_a_row() -> None:
    found = Search(1)
    found.add(1, passed=True)
    found.add(2, passed=False)
    assert found.next() == 2
    found.add(2, passed=False)
    assert found.next() == 1
    found.add(1, passed=True)
    assert found.next() is None
    assert found.density == 1


def test_of_two_windows_that_differ_a_third_decides_and_one_that_is_clear_counts_twice() -> None:
    found = Search(4)
    found.add(4, passed=True)
    found.add(5, passed=False, clear=True)
    assert found.next() == 4
    found.add(4, passed=False)
    assert found.next() == 4
    found.add(4, passed=True)
    assert (found.next(), found.density) == (None, 4)


def test_the_first_guess_follows_from_processor_time() -> None:
    assert first_guess(cores=2, cpu_ms_per_frame=10.0) == 13
    assert first_guess(cores=1, cpu_ms_per_frame=500.0) == 1
