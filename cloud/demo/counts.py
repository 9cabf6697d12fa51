"""The books of both sides, put together."""

from collections.abc import Mapping
from typing import Any

PLACES = ("local", "serverless", "deferred", "dropped")


def shares(frames: Mapping[str, int] | None) -> str:
    """Say in a few words where the frames of a device went, from its status; nothing when all were its own."""
    if not frames or not frames["captured"] or frames["local"] == frames["captured"]:
        return ""
    parts = [f"{place} {100 * frames[place] / frames['captured']:.0f} %" for place in PLACES if frames[place]]
    return f"; of {frames['captured']:,} frames: {', '.join(parts)}"


def of_one(summary: Mapping[str, Any], device: str, others: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Take the counts of one device out of the cloud's summary, and compare those of the others with their own books.

    `others` are their statuses by name.
    """
    if not others:
        return dict(summary)
    told = {row["device"]: row for row in summary["devices"]}
    books = {
        name: {"results_committed": status["results"]["produced"], "results_in_cloud": told[name]["results"]}
        for name, status in others.items()
    }
    return {**summary, "total": told[device], "others": books}


def report(
    status: Mapping[str, Any], summary: Mapping[str, Any], scored: Mapping[str, Any] | None, peak_rss_bytes: int
) -> dict[str, Any]:
    """Put both sides' counts into one object: `status` is the device's, `summary` the cloud's, `scored` the batch's.

    Latencies are in milliseconds. The books balance: ``frames_captured`` is the sum of ``placed``, and ``unanswered``
    are the frames that were placed and have no answer.
    """
    frames, latency, answers = status["frames"], summary["latency"], status["answers"]

    def percentiles(name: str) -> dict[str, float | None]:
        return {key: _rounded(latency[name][key]) for key in ("p50", "p95", "p99")}

    dropped = sum(frames["dropped"].values())
    return {
        "frames_captured": frames["captured"],
        "frames_classified": frames["classified"],
        "frames_dropped": dropped,
        "placed": {
            "local": frames["classified"],
            "serverless": frames["serverless"],
            "deferred": frames["deferred"],
            "dropped": dropped,
        },
        "deferred": frames["deferred"],
        "dropped": frames["dropped"],
        "answers": answers,
        "unanswered": status["unanswered"],
        "results_committed": status["results"]["produced"],
        "results_in_cloud": summary["total"]["results"],
        "results_waiting": status["outbox"]["waiting"],
        "answers_in_cloud": summary["answers"],
        "alerts_committed": status["alerts"]["produced"],
        "alerts_in_cloud": summary["total"]["alerts"],
        "duplicates_suppressed": summary["total"]["duplicates"],
        "capture_to_answer_ms": percentiles("capture_to_answer_ms"),
        "capture_to_cloud_ms": percentiles("capture_to_cloud_ms"),
        "device_rss_mb": round(peak_rss_bytes / 1e6, 1),
        "first_answer_s": _rounded(status["vision"].get("first_answer_s")),
        "runtime": status["vision"].get("runtime"),
        "model": status["vision"].get("model"),
        "batch": scored,
        **({"others": summary["others"]} if "others" in summary else {}),
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 1)
