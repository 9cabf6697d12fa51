"""Which local answers leave a copy."""

import random
from collections import Counter

from agent.core.review import Review, Terms, Why

S = 10**9
OFF = Terms(below=0.0, audit=0.0, per_hour=60, keep_every_s=0.0)


def review(terms: Terms) -> Review:
    return Review(terms, random.Random(7), 0)


def why(chooser: Review, camera: str, score: float, now_ns: int) -> Why | None:
    return chooser.why(camera, score, now_ns, lambda: True)


def test_the_uncertain_are_looked_at_again_up_to_the_hours_limit() -> None:
    chooser = review(Terms(0.6, 0.0, 60, 0.0))
    assert why(chooser, "a", 0.59, 0) == "uncertain"
    assert why(chooser, "a", 0.60, 0) is None
    whole_hour = [why(chooser, "a", 0.1, second * S) for second in range(3600)]
    assert 58 <= whole_hour.count("uncertain") <= 59, "never more than 60 in any hour"


def test_confident_answers_are_audited_at_random() -> None:
    chooser = review(Terms(0.6, 0.1, 100_000, 0.0))
    counts = Counter(why(chooser, "a", 0.9, n * S) for n in range(10_000))
    assert 850 < counts["audit"] < 1150


def test_each_camera_keeps_a_picture_now_and_then() -> None:
    chooser = review(Terms(0.0, 0.0, 60, 60.0))
    seen = [(camera, s) for s in range(181) for camera in ("a", "b") if why(chooser, camera, 0.9, s * S) == "kept"]
    assert seen == [(camera, s) for s in (0, 60, 120, 180) for camera in ("a", "b")]


def test_an_uncertain_answer_beyond_the_limit_may_still_be_kept_for_the_night() -> None:
    chooser = review(Terms(0.6, 0.0, 0, 60.0))
    assert [why(chooser, "a", 0.1, s * S) for s in (0, 1, 60)] == ["kept", None, "kept"]


def test_what_is_switched_off_leaves_nothing() -> None:
    chooser = review(OFF)
    assert {why(chooser, "a", score / 100, score * S) for score in range(100)} == {None}


def test_without_room_nothing_is_taken_up_of_the_hour_and_a_picture_stays_due() -> None:
    chooser = review(Terms(0.6, 0.0, 2, 60.0))
    assert [chooser.why("a", 0.1, s, lambda: False) for s in range(100)] == [None] * 100
    assert why(chooser, "a", 0.1, 100) == "uncertain"
    assert why(chooser, "a", 0.9, 100) == "kept"


def test_room_is_asked_for_only_when_there_is_something_to_leave() -> None:
    asked = []
    chooser = review(Terms(0.6, 0.0, 60, 0.0))
    assert chooser.why("a", 0.9, 0, lambda: bool(asked.append(1))) is None  # type: ignore[func-returns-value]
    assert not asked
