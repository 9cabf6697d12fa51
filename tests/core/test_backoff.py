import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.backoff import Backoff


class Highest(random.Random):
    """Always draws the upper end, so that the window shows."""

    def uniform(self, a: float, b: float) -> float:
        return b


def test_the_window_doubles_up_to_the_ceiling_and_starts_again_after_a_reset():
    backoff = Backoff(1.0, 10.0, Highest())
    assert [backoff.next() for _ in range(6)] == [1.0, 2.0, 4.0, 8.0, 10.0, 10.0]
    backoff.reset()
    assert backoff.next() == 1.0


@given(seed=st.integers(), base_s=st.floats(0.01, 5), factor=st.floats(1, 1000), tries=st.integers(1, 40))
def test_every_wait_lies_between_nothing_and_its_window(seed, base_s, factor, tries):
    backoff = Backoff(base_s, base_s * factor, random.Random(seed))
    for attempt in range(tries):
        assert 0 <= backoff.next() <= min(base_s * factor, base_s * 2.0**attempt) * (1 + 1e-12)


@given(seed=st.integers())
def test_what_a_person_must_mend_is_never_tried_in_quick_succession(seed):
    backoff = Backoff(1.0, 60.0, random.Random(seed))
    assert all(30.0 <= backoff.at_ceiling() <= 60.0 for _ in range(20))


def test_after_the_ceiling_an_ordinary_wait_stays_in_the_widest_window():
    backoff = Backoff(1.0, 60.0, Highest())
    backoff.at_ceiling()
    assert backoff.next() == 60.0


def test_two_devices_do_not_try_together():
    first, second = Backoff(1, 60, random.Random(1)), Backoff(1, 60, random.Random(2))
    assert [first.next() for _ in range(5)] != [second.next() for _ in range(5)]


def test_the_full_jitter_spreads_evenly():
    backoff = Backoff(8.0, 8.0, random.Random(7))
    waits = [backoff.next() for _ in range(4000)]
    assert 3.7 < sum(waits) / len(waits) < 4.3
    assert min(waits) < 0.1
    assert max(waits) > 7.9


@pytest.mark.parametrize(("base_s", "ceiling_s"), [(0, 1), (-1, 1), (2, 1)])
def test_a_window_that_makes_no_sense_is_refused(base_s, ceiling_s):
    with pytest.raises(ValueError, match="base"):
        Backoff(base_s, ceiling_s, random.Random())
