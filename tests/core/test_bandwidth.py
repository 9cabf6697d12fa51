"""The shop's line is never given more than its share."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.bandwidth import Bandwidth


@given(
    rate=st.integers(1_000, 10**8), pieces=st.lists(st.tuples(st.integers(1, 1 << 16), st.floats(0, 2)), max_size=60)
)
def test_no_span_of_time_carries_more_than_its_rate_and_one_burst(rate: int, pieces: list[tuple[int, float]]) -> None:
    """Who waits as told sends at most rate * time + burst + one piece, counted from any piece to any later one."""
    bucket = Bandwidth(rate, 1 << 16)
    now_ns, sent, log = 0, 0, [(0, 0)]
    for size, pause_s in pieces:
        now_ns += int(pause_s * 1e9)
        sent += size
        log.append((now_ns, sent))
        now_ns += int(bucket.take(size, now_ns) * 1e9) + 1
    for n, (start_ns, before) in enumerate(log):
        for end_ns, after in log[n:]:
            assert after - before <= rate * (end_ns - start_ns) / 1e9 + 2 * (1 << 16)


def test_a_long_upload_takes_as_long_as_the_rate_says() -> None:
    bucket, now_ns = Bandwidth(1_000_000, 1 << 16), 0
    for _ in range(160):
        now_ns += int(bucket.take(1 << 16, now_ns) * 1e9)
    assert now_ns / 1e9 == pytest.approx(159 * (1 << 16) / 1e6, rel=0.01)


def test_a_quiet_time_earns_no_more_than_one_burst() -> None:
    bucket = Bandwidth(1000, 500)
    bucket.take(500, 0)
    assert bucket.take(500, 3600 * 10**9) == 0
    assert bucket.take(500, 3600 * 10**9) == pytest.approx(0.5)


def test_a_rate_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError):
        Bandwidth(0, 1)
