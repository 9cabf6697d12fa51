"""The rule that places every frame: what it must never do, whatever the device's state."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.placement import (
    BUDGET_REASONS,
    ENCODER_BUSY,
    FUNCTION_BUSY,
    FUNCTION_DOWN,
    IN_TIME,
    LATE,
    LINK_DOWN,
    NOT_ALLOWED,
    OVERFLOW_NIGHT,
    SPOOL_FULL,
    SUPERSEDED,
    Demand,
    Load,
    Placement,
    Ways,
    Where,
    completion_ms,
    place,
    why_no_function,
    why_nothing_leaves,
)

OPEN = Ways(
    frames_may_leave=True, overflow="auto", encoder_has_room=True, spool_has_room=True, link_up=True, function="up"
)
QUICK, SLOW = Load(0, 2, 5.0), Load(40, 2, 100.0)
FRESH, OLDER = Demand(1.0, 250.0, displaced=False), Demand(30.0, 250.0, displaced=True)

demands = st.builds(Demand, st.floats(0, 5000), st.floats(1, 5000), st.booleans())
loads = st.builds(Load, st.integers(0, 200), st.integers(1, 64), st.floats(0, 2000))
ways = st.builds(
    Ways,
    frames_may_leave=st.booleans(),
    overflow=st.sampled_from(["auto", "night", "drop"]),
    encoder_has_room=st.booleans(),
    spool_has_room=st.booleans(),
    link_up=st.booleans(),
    function=st.sampled_from(["up", "probing", "busy", "down"]),
    budget=st.sampled_from(["", *BUDGET_REASONS]),
)


def worth(placed: Placement) -> int:
    """How much a placement is worth to whoever waits for the answer."""
    if placed.where is Where.LOCAL:
        return 1 if placed.reason == LATE else 4
    return {Where.DROP: 0, Where.DEFERRED: 2, Where.SERVERLESS: 3}[placed.where]


@pytest.mark.parametrize(
    ("demand", "load", "change", "expected"),
    [
        (FRESH, QUICK, {}, (Where.LOCAL, IN_TIME)),
        (FRESH, Load(1, 2, 900.0), {}, (Where.LOCAL, "worker-free")),
        (FRESH, SLOW, {}, (Where.SERVERLESS, "too-late")),
        (OLDER, QUICK, {}, (Where.SERVERLESS, "displaced")),
        (OLDER, QUICK, {"function": "probing"}, (Where.SERVERLESS, "displaced")),
        (OLDER, QUICK, {"function": "down"}, (Where.DEFERRED, FUNCTION_DOWN)),
        (OLDER, QUICK, {"function": "busy"}, (Where.DEFERRED, FUNCTION_BUSY)),
        (OLDER, QUICK, {"link_up": False}, (Where.DEFERRED, LINK_DOWN)),
        (OLDER, QUICK, {"budget": "budget-hour"}, (Where.DEFERRED, "budget-hour")),
        (OLDER, QUICK, {"overflow": "night"}, (Where.DEFERRED, OVERFLOW_NIGHT)),
        (OLDER, QUICK, {"overflow": "drop"}, (Where.DROP, SUPERSEDED)),
        (OLDER, QUICK, {"frames_may_leave": False}, (Where.DROP, SUPERSEDED)),
        (OLDER, QUICK, {"spool_has_room": False}, (Where.DROP, SPOOL_FULL)),
        (OLDER, QUICK, {"encoder_has_room": False}, (Where.DROP, ENCODER_BUSY)),
        (FRESH, SLOW, {"spool_has_room": False}, (Where.LOCAL, LATE)),
        (FRESH, SLOW, {"frames_may_leave": False}, (Where.LOCAL, LATE)),
    ],
)
def test_a_technician_can_tell_why(
    demand: Demand, load: Load, change: dict[str, object], expected: tuple[Where, str]
) -> None:
    placed = place(demand, load, replace(OPEN, **change))  # type: ignore[arg-type]
    assert (placed.where, placed.reason) == expected


@given(demands, loads, ways)
def test_every_frame_has_a_place_and_a_reason(demand: Demand, load: Load, ways: Ways) -> None:
    placed = place(demand, load, ways)
    assert placed.where in Where
    assert placed.reason


@given(demands, loads, ways)
def test_nothing_leaves_when_anything_says_no(demand: Demand, load: Load, ways: Ways) -> None:
    placed = place(demand, load, ways)
    if placed.where in (Where.SERVERLESS, Where.DEFERRED):
        assert ways.frames_may_leave
        assert ways.overflow != "drop"
        assert ways.encoder_has_room
        assert ways.spool_has_room
    if placed.where is Where.SERVERLESS:
        assert (ways.overflow, ways.link_up, ways.budget) == ("auto", True, "")
        assert ways.function in ("up", "probing")


@given(demands, loads, ways)
def test_what_this_device_can_answer_in_time_it_answers(demand: Demand, load: Load, ways: Ways) -> None:
    placed = place(demand, load, ways)
    if not demand.displaced and completion_ms(demand, load) <= demand.deadline_ms:
        assert placed == Placement(Where.LOCAL, IN_TIME)
    if not demand.displaced and load.ahead < load.workers:
        assert placed.where is Where.LOCAL, "an idle device sends nothing away"
    if demand.displaced:
        assert placed.where is not Where.LOCAL, "a newer frame has its place"


@given(demands, loads, ways)
def test_the_newest_of_its_camera_is_never_dropped(demand: Demand, load: Load, ways: Ways) -> None:
    if not demand.displaced:
        assert place(demand, load, ways).where is not Where.DROP


@given(demands, loads, ways, st.integers(0, 200), st.floats(0, 2000))
def test_a_less_busy_device_never_serves_worse(
    demand: Demand, load: Load, ways: Ways, less: int, faster_ms: float
) -> None:
    easier = replace(load, ahead=max(0, load.ahead - less), service_ms=max(0.0, load.service_ms - faster_ms))
    assert worth(place(demand, easier, ways)) >= worth(place(demand, load, ways))


@given(demands, loads, ways, st.sampled_from(["budget", "link", "function", "spool", "encoder", "privacy", "policy"]))
def test_opening_a_way_never_makes_it_worse(demand: Demand, load: Load, ways: Ways, opened: str) -> None:
    wider = replace(
        ways,
        **{
            "budget": {"budget": ""},
            "link": {"link_up": True},
            "function": {"function": "up"},
            "spool": {"spool_has_room": True},
            "encoder": {"encoder_has_room": True},
            "privacy": {"frames_may_leave": True},
            "policy": {"overflow": "auto"},
        }[opened],  # type: ignore[arg-type]
    )
    assert worth(place(demand, load, wider)) >= worth(place(demand, load, ways))


@given(ways)
def test_a_reason_is_given_exactly_when_a_way_is_shut(ways: Ways) -> None:
    placed = place(OLDER, QUICK, ways)
    assert (placed.where is Where.DROP) == bool(why_nothing_leaves(ways))
    if placed.where is Where.DEFERRED:
        assert placed.reason == why_no_function(ways)
    assert why_nothing_leaves(replace(ways, frames_may_leave=False)) == NOT_ALLOWED
