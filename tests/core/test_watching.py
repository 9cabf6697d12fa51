"""The watch's rules: what one look says of each condition, and how long looks must say it."""

from dataclasses import replace
from itertools import product
from typing import get_args

import pytest

from agent.core import watching
from agent.core.watching import CONDITIONS, Course, Look, Normal, Phase, Terms, Verdict, advance, judge

NORMAL = Normal(brightness=110, sharpness=0.8, bright=0.02, looks=500)
GOOD = Look(brightness=108, contrast=50, sharpness=0.78, dark=0.03, bright=0.01, detail=1.0)
S = 10**9


def bad_ones(look: Look, normal: Normal = NORMAL) -> set[str]:
    return {c for c, verdict in judge(look, normal).items() if verdict == "bad"}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, set()),
        ({"brightness": 4, "dark": 0.99, "contrast": 2, "sharpness": 0, "detail": 0}, {"camera-black"}),
        ({"brightness": 35, "dark": 0.3, "contrast": 8, "sharpness": 0.2, "detail": 0.1}, {"camera-black"}),
        ({"brightness": 30, "dark": 0.5, "contrast": 15}, set()),  # dim, and all its detail is there
        ({"contrast": 12, "sharpness": 0.3, "detail": 0.2}, {"camera-covered"}),
        ({"contrast": 40, "detail": 0.5}, set()),  # half of it hidden: not sure
        ({"sharpness": 0.4}, {"camera-blurred"}),
        ({"sharpness": 0.4, "brightness": 30}, set()),  # in the dark no lens is sharp
        ({"brightness": 220, "bright": 0.6, "detail": 0.3}, {"camera-blinded"}),
        ({"shift": 0.08}, {"camera-moved"}),
        ({"shift": 0.02}, set()),
        ({"shift": 0.02, "turn_deg": -5.0}, {"camera-moved"}),
        ({"turn_deg": 5.0}, set()),  # this look did not tell
        ({"repeated": True}, {"camera-frozen"}),
        ({"repeated": True, "dark": 0.99, "brightness": 2}, {"camera-black"}),  # darkness has no noise
        ({"repeated": True, "detail": 0.0}, {"camera-covered"}),
    ],
)
def test_a_look_is_judged_against_what_is_normal(change: dict[str, float], expected: set[str]) -> None:
    assert bad_ones(replace(GOOD, **change)) == expected  # type: ignore[arg-type]


@pytest.mark.parametrize("condition", CONDITIONS)
def test_between_bad_and_good_a_look_is_unsure(condition: watching.Condition) -> None:
    between = {
        "camera-black": {"dark": 0.9},
        "camera-covered": {"detail": 0.5},
        "camera-blinded": {"bright": 0.3},
        "camera-blurred": {"sharpness": 0.7 * 0.8},
        "camera-moved": {"shift": 0.03},
        "camera-frozen": {"dark": 0.9},
    }[condition]
    assert judge(replace(GOOD, shift=0.0), NORMAL)[condition] == "good"
    assert judge(replace(GOOD, **between), NORMAL)[condition] == "unsure"  # type: ignore[arg-type]


def test_before_anything_is_learned_only_the_plain_cases_are_told() -> None:
    assert bad_ones(replace(GOOD, sharpness=0.1), Normal()) == set()
    assert bad_ones(replace(GOOD, detail=0.3), Normal()) == set()
    assert bad_ones(replace(GOOD, detail=0.02), Normal()) == {"camera-covered"}
    assert bad_ones(replace(GOOD, detail=0.02, brightness=20), Normal()) == {"camera-black"}


def test_in_dark_hours_darkness_is_as_it_should_be_and_still_shows_nothing() -> None:
    look = replace(GOOD, dark=1.0, brightness=1)
    verdicts = judge(look, NORMAL)
    assert watching.in_dark_hours(verdicts, look, NORMAL)["camera-black"] == "good"
    assert watching.is_blind(verdicts, look) == "camera-black"
    assert watching.is_blind(judge(GOOD, NORMAL), GOOD) is None


def told_at_night(**change: float) -> set[str]:
    look = replace(GOOD, **change)  # type: ignore[arg-type]
    return {c for c, v in watching.in_dark_hours(judge(look, NORMAL), look, NORMAL).items() if v == "bad"}


def test_in_dark_hours_a_camera_s_own_infrared_light_is_not_told_either() -> None:
    assert told_at_night(sharpness=0.3) == set()  # infrared is in focus elsewhere
    assert told_at_night(bright=0.7, brightness=190) == set()  # it shines back from glass
    assert told_at_night(detail=0.2, brightness=60) == set()
    assert told_at_night(detail=0.2) == {"camera-covered"}  # as light as by day: somebody is there
    assert told_at_night(shift=0.1) == {"camera-moved"}


TABLE: dict[tuple[Phase, Verdict, bool], Phase] = {
    # phase, verdict, long enough: the next phase
    ("clear", "bad", False): "suspected",
    ("clear", "bad", True): "suspected",
    ("suspected", "good", False): "clear",
    ("suspected", "good", True): "clear",
    ("suspected", "bad", False): "suspected",
    ("suspected", "bad", True): "present",
    ("present", "good", False): "mending",
    ("present", "good", True): "mending",
    ("mending", "bad", False): "present",
    ("mending", "bad", True): "present",
    ("mending", "good", False): "mending",
    ("mending", "good", True): "clear",
}
"""What is not listed changes nothing."""


@pytest.mark.parametrize(("phase", "verdict", "long"), list(product(get_args(Phase), get_args(Verdict), (False, True))))
def test_every_phase_and_verdict(phase: Phase, verdict: Verdict, long: bool) -> None:
    before = Course(phase, since_boot_ns=100 * S, looks=5, bad_boot_ns=100 * S)
    after = advance(before, verdict, (200 if long else 105) * S, 0, begin_s=60, patience_s=100)
    assert after.phase == TABLE.get((phase, verdict, long), phase)
    if (phase, verdict, long) not in TABLE:
        assert after == before


def run(course: Course, verdicts: str, start_s: int, begin_s: float = 60) -> tuple[Course, list[int]]:
    """Advance by one verdict a second (b, g or u); gives the seconds at which the condition began or ended."""
    names: dict[str, Verdict] = {"b": "bad", "g": "good", "u": "unsure"}
    changes = []
    for n, verdict in enumerate(verdicts):
        before, course = course, advance(course, names[verdict], (start_s + n) * S, (start_s + n) * S, begin_s)
        if before.holds != course.holds:
            changes.append(start_s + n)
    return course, changes


def test_a_condition_is_told_once_when_it_lasts_and_once_when_it_is_over() -> None:
    course, changes = run(Course(), "b" * 600 + "g" * 600, 1000)
    assert changes == [1060, 1615]
    assert course.phase == "clear"


def test_somebody_who_passes_is_not_told() -> None:
    assert run(Course(), ("b" * 50 + "g" * 10) * 20, 1000)[1] == []


def test_a_look_that_is_not_sure_changes_nothing() -> None:
    assert run(Course(), "b" + "bu" * 100, 1000)[1] == [1061]


def test_bad_looks_far_apart_are_not_one_thing() -> None:
    assert run(Course(), ("b" * 10 + "u" * 60) * 20, 1000)[1] == []  # somebody with a lamp, in the dark
    assert watching.patience_s(60, 1) == 30
    assert watching.patience_s(60, 300) > 3000


def test_a_slow_camera_needs_three_looks() -> None:
    course = Course()
    for n in range(3):
        assert not course.holds
        course = advance(course, "bad", 1000 * S + n * 300 * S, 0, 60, watching.patience_s(60, 300))
    assert course.holds


def test_what_comes_and_goes_is_told_more_and_more_seldom() -> None:
    told, course, at_s = [], Course(), 1000
    for _ in range(40):
        course, changes = run(course, "b" * 65 + "g" * 20, at_s)
        told += changes
        at_s += 85
    assert len(told) == 2  # begun and ended once; then it takes two minutes to begin again
    course, changes = run(course, "g" * 3700 + "b" * 61, at_s)
    assert len(changes) == 1


def test_what_is_only_suspected_does_not_outlast_a_gap() -> None:
    courses = {"camera-black": Course("suspected", looks=50), "camera-moved": Course("present")}
    after = watching.after_a_gap(courses)  # type: ignore[arg-type]
    assert after["camera-black"].phase == "clear"
    assert after["camera-moved"].phase == "present"


def test_only_good_looks_teach_what_is_normal() -> None:
    normal = Normal()
    for _ in range(40):
        normal = watching.learn(normal, GOOD, judge(GOOD, normal))
    assert normal.known
    assert normal.brightness == pytest.approx(108)
    for change in ({"sharpness": 0.3}, {"detail": 0.2}, {"dark": 0.99}, {"bright": 0.8}, {"detail": 0.5}):
        look = replace(GOOD, **change)  # type: ignore[arg-type]
        assert watching.learn(normal, look, judge(look, normal)) == normal


def test_the_commissioning_picture_says_how_sharp_it_should_be() -> None:
    soft = Normal(brightness=110, sharpness=0.4, looks=500)
    look = replace(GOOD, sharpness=0.4)
    assert bad_ones(look, soft) == set()
    assert bad_ones(look, watching.set_up(soft, replace(GOOD, sharpness=0.8))) == {"camera-blurred"}
    assert watching.set_up(watching.set_up(soft, GOOD), None).focus == 0


@pytest.mark.parametrize("condition", CONDITIONS)
def test_every_condition_is_explained_with_its_cure(condition: watching.Condition) -> None:
    text, cure = watching.explain(condition, "door", replace(GOOD, shift=0.1, turn_deg=3.0), NORMAL)
    assert text.startswith("camera door: ")
    assert len(text) < 256
    assert 10 < len(cure) < 256


def test_a_frozen_picture_must_last_twice_as_long() -> None:
    terms = Terms(after_s=60)
    assert watching.begin_s("camera-frozen", terms) == 2 * watching.begin_s("camera-black", terms) == 120


def test_a_condition_that_is_told_after_the_clock_was_set_began_by_the_right_clock() -> None:
    right_ns = 1_800_000_000 * S
    course = Course()
    for n in range(80):
        course = advance(course, "bad", (100 + n) * S, 7 if n < 20 else right_ns + n * S, begin_s=60)
        if course.phase == "present":
            break
    assert (course.phase, course.since_wall_ns) == ("present", right_ns)
