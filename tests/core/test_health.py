"""What is wrong with a device, the worst first, and never without its cure."""

from dataclasses import replace

import pytest

from agent.core import health
from agent.core.backlog import HOUR_NS, Backlog

NOW_NS = 10**9 * 1_800_000_000
WELL = health.Facts(
    vision_age_s=1.0, store_trouble="", evicted=0, dead=0, clock="synced", cameras=2, cameras_ill=(), wall_ns=NOW_NS
)  # fmt: skip
NOTE = {"code": "device-missing", "message": "no GPU here", "hint": "set device to cpu"}
LINK = {"connected": False, "code": "broker-auth", "message": "the broker refused the login", "hint": "mend it"}


def test_a_device_that_is_well_says_nothing() -> None:
    assert health.warnings(WELL) == ()
    assert health.alone({**LINK, "connected": True, "code": ""}, sync_runs=True) == ()
    assert health.alone({}, sync_runs=True) == ()


@pytest.mark.parametrize(
    ("change", "code", "says"),
    [
        ({"vision_age_s": None}, "vision-stopped", "vision does not run"),
        ({"vision_age_s": 11.0}, "vision-stopped", "vision does not run"),
        ({"cameras_ill": ("door",)}, "camera-ill", "1 of 2 cameras give no pictures: door"),
        ({"store_trouble": "disk full"}, "store-trouble", "disk full"),
        ({"fallen_back": (NOTE,)}, "model-fallback", "asked for: no GPU here"),
        ({"fallen_back": (NOTE, NOTE)}, "model-fallback", "asked for (and 1 more"),
        ({"function_down": "api-refused"}, "function-down", "does not answer (api-refused)"),
        ({"spool_full": True}, "spool-full", "no room for more pictures"),
        ({"dead": 1, "frames_refused": 1}, "frames-refused", "1 picture was refused"),
        ({"dead": 1200, "frames_refused": 1200}, "frames-refused", "1,200 pictures were refused"),
        ({"dead": 2}, "dead-letters", "2 records were refused"),
        ({"evicted": 1}, "outbox-evicted", "1 waiting record was thinned out"),
        ({"clock": "unsure"}, "clock-unsure", "no time server"),
        (
            {"night": Backlog(files=2, oldest_day="2026-11-20", sealed_ns=NOW_NS - 37 * HOUR_NS)},
            "night-late",
            "2 files of the night wait for the upload, the oldest of 2026-11-20: no window was long enough",
        ),
        ({"night": Backlog(files=1, sealed_ns=0, error="no route [api-unreachable]")}, "night-late", "no route"),
        ({"night": Backlog(unsealed=9, captured_ns=NOW_NS - 51 * HOUR_NS)}, "night-unsealed", "9 pictures wait"),
    ],
)
def test_each_trouble_is_named_once_with_its_cure(change: dict[str, object], code: str, says: str) -> None:
    found = health.warnings(replace(WELL, **change))  # type: ignore[arg-type]
    assert [warning.code for warning in found] == [code]
    assert says in found[0].text
    assert found[0].cure


def test_a_night_that_goes_its_way_is_no_trouble() -> None:
    """A day waits for its end, a file for its window; a clock that was wrong then or is wrong now says nothing."""
    for night in (
        Backlog(),
        Backlog(
            files=3, sealed_ns=NOW_NS - 24 * HOUR_NS, error="no route", unsealed=9, captured_ns=NOW_NS - 49 * HOUR_NS
        ),
        Backlog(files=1, sealed_ns=NOW_NS + 10**18, unsealed=9, captured_ns=None),
    ):
        assert health.warnings(replace(WELL, night=night)) == ()


def test_refused_pictures_are_not_told_as_dead_letters_too() -> None:
    found = health.warnings(replace(WELL, dead=5, frames_refused=2))
    assert [(warning.code, warning.text.split()[0]) for warning in found] == [
        ("frames-refused", "2"), ("dead-letters", "3"),
    ]  # fmt: skip


def test_what_follows_from_something_listed_is_not_listed_again() -> None:
    found = health.warnings(replace(WELL, vision_age_s=None, cameras_ill=("door", "till")))
    assert [warning.code for warning in found] == ["vision-stopped"]


def test_no_camera_at_all_is_a_failure() -> None:
    assert health.warnings(replace(WELL, cameras_ill=("door",)))[0].severity == "warning"
    assert health.warnings(replace(WELL, cameras_ill=("door", "till")))[0].severity == "failure"


def test_whatever_the_cause_says_a_warning_fits_the_wire() -> None:
    long = "x" * 1000
    found = health.warnings(replace(WELL, store_trouble=long, function_down=long, cameras_ill=(long, long)))
    late = Backlog(files=1, sealed_ns=0, error=long)
    assert len(health.warnings(replace(WELL, night=late))[0].text) == 256
    assert [warning.code for warning in found] == ["camera-ill", "store-trouble", "function-down"]
    assert health.alone({**LINK, "message": long, "hint": long}, sync_runs=True)[0].code == "broker-auth"


def test_only_a_person_at_the_device_can_be_told_that_it_is_alone() -> None:
    assert [w.code for w in health.alone(LINK, sync_runs=True)] == ["broker-auth"]
    assert [w.code for w in health.alone(LINK, sync_runs=False)] == ["sync-stopped"]


def test_a_camera_that_does_not_show_what_it_should_is_named_with_what_is_wrong() -> None:
    said = [
        {"name": "door", "phase": "streaming", "conditions": [{"code": "camera-covered"}, {"code": "camera-moved"}]},
        {"name": "till", "phase": "streaming", "conditions": []},
        {"name": "shelf", "phase": "failed", "conditions": [{"code": "camera-black"}]},  # it gives no pictures at all
        {"name": "old", "phase": "streaming"},  # as an older vision reported
    ]
    unsound = health.unsound(said)
    assert unsound == ("door (covered, moved)",)
    (warning,) = health.warnings(replace(WELL, cameras=4, cameras_unsound=unsound))
    assert (warning.code, warning.severity) == ("camera-unsound", "warning")
    assert warning.text == "1 of 4 cameras do not show what they should: door (covered, moved)"
    assert health.warnings(replace(WELL, vision_age_s=None, cameras_unsound=unsound))[0].code == "vision-stopped"
