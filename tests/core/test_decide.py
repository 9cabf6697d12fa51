"""Decisions: a label is confirmed after n frames in a row, and every decision says why."""

from hypothesis import given
from hypothesis import strategies as st

from agent.core.decide import UNKNOWN, Standing, decide


def follow(labels: list[str], confirm_frames: int = 3) -> list[tuple[str, str, bool]]:
    standing = Standing()
    out = []
    for label in labels:
        standing, conclusion = decide(standing, label, 0.9, 0.5, confirm_frames)
        out.append((conclusion.label, conclusion.state, conclusion.changed))
        assert conclusion.reason
    return out


def test_a_new_label_is_pending_until_it_was_seen_often_enough() -> None:
    assert follow(["Banana"] * 4) == [
        ("Banana", "pending", False),
        ("Banana", "pending", False),
        ("Banana", "confirmed", True),
        ("Banana", "confirmed", False),
    ]


def test_one_odd_frame_changes_nothing() -> None:
    answers = follow(["Banana"] * 3 + ["Lemon"] + ["Banana"] * 2 + ["Lemon"] * 2)
    assert [label for label, _, _ in answers] == ["Banana"] * 8
    assert sum(changed for _, _, changed in answers) == 1


def test_unknown_is_debounced_like_any_label() -> None:
    answers = follow(["Banana"] * 3 + [UNKNOWN] * 3)
    assert answers[-2] == ("Banana", "pending", False)
    assert answers[-1] == (UNKNOWN, "unknown", True)


def test_the_reason_counts_the_frames_and_names_the_score() -> None:
    _, conclusion = decide(Standing("Banana", "Lemon", 1), "Lemon", 0.77, 0.5, 3)
    assert conclusion.reason == "Lemon in 2 of 3 frames (0.77); still Banana"


def test_a_low_score_is_named_in_the_reason() -> None:
    _, conclusion = decide(Standing(), UNKNOWN, 0.31, 0.5, 1)
    assert "0.31 is below 0.50" in conclusion.reason


@given(st.lists(st.sampled_from(["A", "B", "C", UNKNOWN]), max_size=60), st.integers(1, 5))
def test_a_change_always_follows_a_full_row(labels: list[str], confirm_frames: int) -> None:
    standing = Standing()
    for i, label in enumerate(labels):
        before = standing.confirmed
        standing, conclusion = decide(standing, label, 0.9, 0.5, confirm_frames)
        assert conclusion.changed == (standing.confirmed != before)
        if conclusion.changed:
            assert set(labels[i + 1 - confirm_frames : i + 1]) == {label}
        if before is not None and not conclusion.changed:
            assert conclusion.label == before
