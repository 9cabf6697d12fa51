"""Alerts: raised once after the dwell, silent in quiet hours, cleared when another label is confirmed."""

from datetime import time

import pytest

from agent.core.alerting import Change, Rule, Watch, is_quiet, watch
from agent.core.decide import Conclusion, State

RULE = Rule("no-bananas", "Banana", score=0.6, dwell_s=5.0)
NOON = time(12, 0)


def seen(label: str, state: State = "confirmed") -> Conclusion:
    return Conclusion(label, state, changed=False, reason=f"{label} was seen")


def run(rule: Rule, frames: list[tuple[float, str, float]], local: time = NOON) -> list[tuple[float, str]]:
    """Play (second, label, score) frames; gives (second, state) of every change."""
    state = Watch()
    quiet = is_quiet(rule.quiet, local)
    out = []
    for second, label, score in frames:
        state, change = watch(rule, state, seen(label), score, int(second * 1e9), int(second * 1e9), quiet)
        if change is not None:
            out.append((second, change.state))
    return out


def test_raised_once_after_the_dwell_and_cleared_once() -> None:
    frames = [(float(s), "Banana", 0.9) for s in range(10)] + [(10.0, "Lemon", 0.9), (11.0, "Lemon", 0.9)]
    assert run(RULE, frames) == [(5.0, "raised"), (10.0, "cleared")]


def test_a_label_that_leaves_in_time_raises_nothing() -> None:
    assert run(RULE, [(0, "Banana", 0.9), (4.9, "Banana", 0.9), (5.0, "Lemon", 0.9), (9, "Lemon", 0.9)]) == []


def test_a_low_score_neither_starts_nor_ends_the_dwell() -> None:
    assert run(RULE, [(0, "Banana", 0.5), (3, "Banana", 0.9), (6, "Banana", 0.5), (8, "Banana", 0.5)]) == []
    assert run(RULE, [(0, "Banana", 0.9), (3, "Banana", 0.5), (6, "Banana", 0.9)]) == [(6, "raised")]


def test_a_pending_label_does_not_start_the_dwell() -> None:
    state, change = watch(RULE, Watch(), seen("Banana", "pending"), 0.9, 0, 0, quiet=False)
    assert (state, change) == (Watch(), None)


def test_quiet_hours_hold_it_back_and_it_comes_afterwards_with_its_first_time() -> None:
    rule = Rule("r", "Banana", 0.6, 5.0, quiet=((time(22), time(6)),))
    state = Watch()
    for second in range(8):
        state, change = watch(rule, state, seen("Banana"), 0.9, int(second * 1e9), int(second * 1e9), quiet=True)
        assert change is None
    state, change = watch(rule, state, seen("Banana"), 0.9, int(9e9), int(9e9), is_quiet(rule.quiet, time(6)))
    assert change is not None
    assert (change.state, change.since_wall_ns) == ("raised", 0)


def test_the_reason_tells_the_time_and_the_rule() -> None:
    state, _ = watch(RULE, Watch(), seen("Banana"), 0.9, 0, 7, quiet=False)
    _, change = watch(RULE, state, seen("Banana"), 0.9, int(5e9), int(5e9) + 7, quiet=False)
    assert change == Change("raised", 7, "Banana for 5.0 s (rule: 5 s at 0.60 or more)")


@pytest.mark.parametrize(
    ("span", "inside", "outside"),
    [((time(22), time(6)), time(23, 59), time(6)), ((time(8), time(9)), time(8), time(9))],
)
def test_quiet_spans(span: tuple[time, time], inside: time, outside: time) -> None:
    assert is_quiet([span], inside)
    assert not is_quiet([span], outside)
    assert not is_quiet([], inside)


def test_an_alert_that_is_raised_after_the_clock_was_set_began_by_the_right_clock() -> None:
    """The dwell is counted by the boot clock, and so is its beginning: the wall clock stood in the year 1970 then."""
    right_ns = 1_800_000_000 * 10**9
    state, _ = watch(RULE, Watch(), seen("Banana"), 0.9, 10**9, 7, quiet=False)
    state, change = watch(RULE, state, seen("Banana"), 0.9, 7 * 10**9, right_ns, quiet=False)
    assert change is not None
    assert change.since_wall_ns == right_ns - 6 * 10**9
    _, over = watch(RULE, state, seen("Lemon"), 0.9, 9 * 10**9, right_ns + 2 * 10**9, quiet=False)
    assert over is not None
    assert over.since_wall_ns == change.since_wall_ns, "the cloud knows by it which alert is over"
