"""What the demo says at its end: books a person can read, and whether anything is missing."""

from typing import Any

import pytest

from cloud.demo import closing

COUNTED: dict[str, Any] = {
    "frames_captured": 1112,
    "placed": {"local": 1050, "serverless": 12, "deferred": 8, "dropped": 42},
    "dropped": {"encoder-busy": 38, "stopping": 4},
    "answers": {"real-time": 1050, "serverless": 12, "asynchronous": 0, "batch": 12},
    "answers_in_cloud": {"real-time": 1050, "serverless": 12, "asynchronous": 0, "batch": 12},
    "unanswered": 0,
    "results_committed": 1050,
    "results_in_cloud": 1050,
    "alerts_committed": 2,
    "alerts_in_cloud": 2,
    "duplicates_suppressed": 0,
    "capture_to_answer_ms": {"p50": 14.6, "p95": 22.1, "p99": 1320.9},
    "capture_to_cloud_ms": {"p50": None, "p95": None, "p99": None},
    "device_rss_mb": 531.6,
    "first_answer_s": 1.9,
    "runtime": "openvino",
    "model": {"name": "produce", "version": "1.0.3"},
    "batch": {"day": "2026-11-28", "answered": 12, "rows": 12, "took_s": 1.82, "compared": 4, "agreed": 3},
}


def test_every_line_reads() -> None:
    assert (
        closing.told(COUNTED)
        == """\
frames    1,112 captured: 1,050 classified on the device, 12 by the function, 8 left for the night, 42 dropped
          dropped because of: encoder-busy 38, stopping 4
answers   real-time 1,050, serverless 12, batch 12; the same in the cloud
results   1,050 kept on the device, 1,050 in the cloud
alerts    2 kept on the device, 2 in the cloud
times     from a frame to its answer: p50 15 ms, p95 22 ms, p99 1,321 ms
          from a frame to the cloud: not known
device    produce 1.0.3 with openvino, first answer after 1.9 s, 532 MB of memory at most
night     2026-11-28: 12 of 12 pictures answered in 1.8 s, 3 of 4 as by day

Nothing was lost: every frame was answered or its drop counted, and the cloud has every result."""
    )


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"results_in_cloud": 1047}, "3 results are not in the cloud, 0 frames"),
        ({"unanswered": 2}, "0 results are not in the cloud, 2 frames have no answer"),
        ({"others": {"b": {"results_committed": 9, "results_in_cloud": 4}}}, "5 results are not in the cloud"),
    ],
    ids=["results", "answers", "another-device"],
)
def test_what_is_missing_is_said_and_counted(change: dict[str, Any], says: str) -> None:
    counted = COUNTED | change
    assert closing.lost(counted) > 0
    assert says in closing.told(counted).splitlines()[-1]
    assert "Nothing was lost" not in closing.told(counted)


def test_answers_that_the_two_sides_count_differently_are_shown_beside_each_other() -> None:
    cloud = COUNTED["answers_in_cloud"] | {"batch": 11}
    assert "batch 12; in the cloud: real-time 1,050, serverless 12, batch 11" in closing.told(
        COUNTED | {"answers_in_cloud": cloud}
    )


def test_a_demo_that_never_answered_can_be_told() -> None:
    nothing = dict.fromkeys(COUNTED["placed"], 0)
    counted = COUNTED | {
        "frames_captured": 0, "placed": nothing, "dropped": {}, "answers": {}, "answers_in_cloud": {}, "model": None,
        "results_committed": 0, "results_in_cloud": 0, "first_answer_s": None, "runtime": None, "batch": None,
    }  # fmt: skip
    told = closing.told(counted).splitlines()
    assert told[:2] == ["frames    0 captured", "answers   none; the same in the cloud"]
    assert "device    532 MB of memory at most" in told
