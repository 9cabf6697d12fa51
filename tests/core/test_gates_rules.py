"""What a new model is measured against: limits, and a test of disagreement that errs as seldom as it says."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.gates import PROCESS_BYTES, Disagreement, latency_limit_ms, memory_limit_bytes, p95


def run(rng: random.Random, part: float, limit: float = 0.1, most: int = 5_000) -> Disagreement:
    test = Disagreement(limit, least=50)
    while test.verdict() == "open" and test.frames < most:
        test.add("Banana", "Lemon" if rng.random() < part else "Banana")
    return test


@pytest.mark.parametrize(("part", "verdict"), [(0.0, "agrees"), (0.05, "agrees"), (0.2, "differs"), (1.0, "differs")])
def test_it_errs_in_one_case_of_a_hundred(part: float, verdict: str) -> None:
    rng = random.Random(7)
    wrong = sum(run(rng, part).verdict() != verdict for _ in range(500))
    assert wrong <= 10


def test_it_stops_early_when_all_is_clear() -> None:
    rng = random.Random(1)
    assert run(rng, 1.0).frames == 10
    assert run(rng, 0.0).frames == 50


def test_when_the_time_is_over_the_part_decides_and_too_few_frames_decide_nothing() -> None:
    near = Disagreement(0.1, least=50)
    for n in range(60):
        near.add("Banana", "Lemon" if n % 9 == 0 else "Banana")
    assert near.verdict() == "open"
    assert near.final() == "differs"  # 7 of 60
    few = Disagreement(0.1, least=50)
    few.add("Banana", "Banana")
    assert few.final() == "open"


def test_it_tells_the_worst_labels_first() -> None:
    test = Disagreement(0.1, least=50)
    for running, new in (("Banana", "Lemon"), ("Banana", "Banana"), ("Kiwi", "Lime"), ("Kiwi", "Lime")):
        test.add(running, new)
    assert test.worst(5) == [("Kiwi", 2, 2), ("Banana", 2, 1)]


def test_limits() -> None:
    assert latency_limit_ms(250.0, 10.0) == 125.0
    assert latency_limit_ms(250.0, 200.0) == 300.0
    assert memory_limit_bytes(1000, 0) == 1000
    assert memory_limit_bytes(1 << 30, 100 << 20) == PROCESS_BYTES + (200 << 20)
    assert memory_limit_bytes(1 << 20, 100 << 20) == 1 << 20


@given(st.lists(st.floats(0, 1e6), min_size=1))
def test_ninety_five_of_a_hundred_do_not_exceed_it(values: list[float]) -> None:
    found = p95(values)
    assert found in values
    assert sum(v <= found for v in values) >= 0.95 * len(values)
