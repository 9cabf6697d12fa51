"""Which local answers leave a copy."""

import random
from collections import Counter

from agent.core.review import Review, Terms

S = 10**9
OFF = Terms(below=0.0, audit=0.0, per_hour=60, keep_every_s=0.0)


def review(terms: Terms) -> Review:
    return Review(terms, random.Random(7), 0)


def test_the_uncertain_are_looked_at_again_up_to_the_hours_limit() -> None:
    chooser = review(Terms(0.6, 0.0, 60, 0.0))
    assert chooser.why("a", 0.59, 0) == "uncertain"
    assert chooser.why("a", 0.60, 0) is None
    whole_hour = [chooser.why("a", 0.1, second * S) for second in range(3600)]
    assert 58 <= whole_hour.count("uncertain") <= 59, "never more than 60 in any hour"


def test_confident_answers_are_audited_at_random() -> None:
    chooser = review(Terms(0.6, 0.1, 100_000, 0.0))
    counts = Counter(chooser.why("a", 0.9, n * S) for n in range(10_000))
    assert 850 < counts["audit"] < 1150


def test_each_camera_keeps_a_picture_now_and_then() -> None:
    chooser = review(Terms(0.0, 0.0, 60, 60.0))
    seen = [(camera, s) for s in range(181) for camera in ("a", "b") if chooser.why(camera, 0.9, s * S) == "kept"]
    assert seen == [(camera, s) for s in (0, 60, 120, 180) for camera in ("a", "b")]


def test_an_uncertain_answer_beyond_the_limit_may_still_be_kept_for_the_night() -> None:
    chooser = review(Terms(0.6, 0.0, 0, 60.0))
    assert [chooser.why("a", 0.1, s * S) for s in (0, 1, 60)] == ["kept", None, "kept"]


def test_what_is_switched_off_leaves_nothing() -> None:
    chooser = review(OFF)
    assert {chooser.why("a", score / 100, score * S) for score in range(100)} == {None}
