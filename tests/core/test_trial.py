"""Whether a device does as well as it did before: each way to be worse is seen, and a quiet or a new world is not."""

import random

import pytest

from agent.core.gates import Terms
from agent.core.trial import Complaint, Tally, complaints, summary, total

TERMS = Terms(deadline_ms=250.0, trial_frames=50)


def tally(
    frames: int = 2000,
    *,
    labels: dict[str, int] | None = None,
    unknown: float = 0.1,
    took_ms: float = 20.0,
    failed: int = 0,
    captured: int | None = None,
    seconds: float = 7200.0,
) -> Tally:
    made = Tally(seconds=seconds, failed=failed)
    rng = random.Random(3)
    for n in range(frames):
        names = list(labels or {"Banana": 3, "Lemon": 1})
        label = None if n < unknown * frames else rng.choices(names, (labels or {"Banana": 3, "Lemon": 1}).values())[0]
        made.add(label, took_ms * rng.uniform(0.8, 1.0))
    made.captured = frames + failed if captured is None else captured
    return made


def found(now: Tally, before: Tally | None = None) -> list[Complaint]:
    return list(complaints(before if before is not None else tally(), now, TERMS))


def test_the_same_as_before_is_well() -> None:
    assert found(tally(200, seconds=60)) == []


@pytest.mark.parametrize(
    ("now", "number"),
    [
        (tally(200, failed=20), "failed_part"),
        (tally(200, captured=400), "answered_part"),
        (tally(200, took_ms=90.0), "p95_ms"),
        (tally(200, unknown=0.6), "unknown_part"),
        (tally(200, labels={"Kiwi": 1, "Lime": 1}), "strange_part"),
    ],
)
def test_each_way_to_be_worse_is_told_with_its_number_and_limit(now: Tally, number: str) -> None:
    (complaint,) = found(now)
    assert complaint.text
    assert set(complaint.numbers) == {number, f"limit_{number}"}


def test_too_few_frames_say_nothing_but_failures_alone_do() -> None:
    assert found(tally(20, took_ms=900.0)) == []
    assert [c.numbers["failed_part"] for c in found(Tally(seconds=5, captured=12, failed=12))] == [1.0]


def test_one_label_alone_proves_nothing_for_a_shelf_shows_one_product() -> None:
    assert found(tally(200, labels={"Lemon": 1})) == []


def test_a_device_without_a_past_is_held_to_its_deadline() -> None:
    assert found(tally(200, unknown=0.9, labels={"Kiwi": 1}), Tally()) == []
    assert [set(c.numbers) for c in found(tally(200, took_ms=400.0), Tally())] == [{"p95_ms", "limit_p95_ms"}]


def test_a_slow_past_allows_no_worse() -> None:
    assert found(tally(200, took_ms=300.0), tally(took_ms=280.0)) == []
    assert found(tally(200, took_ms=600.0), tally(took_ms=280.0))


def test_it_is_kept_and_added_up() -> None:
    first, second = tally(300), tally(100, unknown=0.5, failed=3)
    again = Tally.load(first.dump())
    assert again == first
    both = total([first, second])
    assert (both.answered, both.failed, both.unknown) == (400, 3, 80)
    assert 16.0 <= both.p95_ms <= 22.0
    assert summary(both, first)["frames"] == 300


def test_a_tally_of_nothing_has_no_parts() -> None:
    nothing = Tally()
    assert (nothing.p95_ms, nothing.unknown_part, nothing.failed_part, nothing.answered_part) == (0, 0, 0, 0)
