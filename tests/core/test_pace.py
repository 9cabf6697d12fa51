from hypothesis import given
from hypothesis import strategies as st

from agent.core.pace import Pace

MS = 1_000_000


def taken(pace, moments_ms):
    return [m for m in moments_ms if pace.take(round(m * MS))]


def test_the_first_frame_is_taken_at_once():
    pace = Pace(1.0)
    assert pace.wait_s(5 * MS) == 0.0
    assert pace.take(5 * MS)
    assert pace.wait_s(5 * MS) == 1.0


def test_a_fast_camera_is_thinned_to_its_rate():
    assert len(taken(Pace(5.0), range(0, 10_000, 40))) == 50


def test_jitter_does_not_halve_the_rate_of_a_camera_read_at_its_own_rate():
    moments_ms = [40 * i + (-0.4 if i % 2 else 0.4) for i in range(250)]
    assert len(taken(Pace(25.0), moments_ms)) >= 248


def test_a_long_gap_is_not_made_up_for_by_a_burst():
    pace = Pace(10.0)
    taken(pace, range(0, 1000, 20))
    assert len(taken(pace, range(60_000, 60_500, 20))) <= 6


@given(st.lists(st.floats(0, 500), min_size=1, max_size=200), st.floats(0.5, 60))
def test_no_stretch_holds_more_frames_than_its_rate_allows(gaps_ms, rate_fps):
    moments, now_ms = [], 0.0
    for gap_ms in gaps_ms:
        now_ms += gap_ms
        moments.append(now_ms)
    frames = taken(Pace(rate_fps), moments)
    span_s = (frames[-1] - frames[0]) / 1000
    # One for the fence post, one for a frame that came late on the grid.
    assert len(frames) <= span_s * rate_fps + 2.001
