"""Records as the device writes them: the wire's fields without run and seq, which the commit gives."""

import time
from functools import lru_cache
from typing import Any

from pydantic_core import to_json

from agent.core.alerting import Change
from agent.core.decide import Conclusion
from agent.core.value import value


def moment(wall_ns: int) -> str:
    """Write wall time as RFC 3339 in UTC with microseconds; by hand, for every frame's record has one."""
    seconds, rest_ns = divmod(wall_ns, 10**9)
    return f"{_second(seconds)}.{rest_ns // 1000:06d}Z"


@lru_cache(maxsize=16)
def _second(seconds: int) -> str:
    """The part of it that the frames of one second share."""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))


@value
class Origin:
    """Which frame a record is about, when it was captured, and whether the wall clock could be believed then."""

    camera: str
    frame: int
    wall_ns: int
    boot_ns: int
    clock: str

    def fields(self) -> dict[str, Any]:
        """The fields that every record of a frame has."""
        return {
            "camera": self.camera,
            "frame": self.frame,
            "captured_at": moment(self.wall_ns),
            "boot_ns": self.boot_ns,
            "clock": self.clock,
        }


def result_body(
    origin: Origin,
    *,
    labels: tuple[tuple[str, float], ...],
    conclusion: Conclusion,
    model: dict[str, Any],
    runtime: str,
    waiting_ms: float,
    inference_ms: float,
    total_ms: float,
    truth: str | None,
) -> bytes:
    """Encode a result (wire `Result`)."""
    body: dict[str, Any] = {
        **origin.fields(),
        "labels": _labels(labels),
        "decision": {
            "label": conclusion.label,
            "state": conclusion.state,
            "changed": conclusion.changed,
            "reason": conclusion.reason[:256],
        },
        "model": model,
        "runtime": runtime,
        "mode": "real-time",
        "waiting_ms": round(waiting_ms, 3),
        "inference_ms": round(inference_ms, 3),
        "total_ms": round(total_ms, 3),
    }
    if truth is not None:
        body["truth"] = truth
    return to_json(body)


def alert_body(
    origin: Origin,
    *,
    rule: str,
    change: Change,
    label: str,
    score: float,
    thumbnail: str | None,
) -> bytes:
    """Encode an alert (wire `Alert`). `thumbnail` is a JPEG in base64."""
    body: dict[str, Any] = {
        **origin.fields(),
        "rule": rule,
        "state": change.state,
        "label": label,
        "score": round(score, 5),
        "since": moment(change.since_wall_ns),
        "reason": change.reason[:256],
    }
    if thumbnail is not None:
        body["thumbnail"] = thumbnail
    return to_json(body)


def frame_body(
    origin: Origin,
    *,
    size: tuple[int, int],
    reason: str,
    answer: dict[str, Any] | None,
    truth: str | None,
) -> bytes:
    """Encode what goes with a picture that the cloud shall answer. `size` is the picture's width and height.

    `answer` is the device's own, as `own_answer` makes it; None when it had none.
    """
    body: dict[str, Any] = {
        **origin.fields(),
        "width": size[0],
        "height": size[1],
        "reason": reason,
        **(answer or {}),
    }
    if truth is not None:
        body["truth"] = truth
    return to_json(body)


def own_answer(
    *, seen: str, labels: tuple[tuple[str, float], ...], model: dict[str, Any], runtime: str
) -> dict[str, Any]:
    """Put the device's own answer together for `frame_body`. `seen` is this frame's label alone, not the camera's."""
    return {
        "label": seen,
        "score": round(labels[0][1], 5),
        "labels": _labels(labels),
        "model": model,
        "runtime": runtime,
    }


def _labels(labels: tuple[tuple[str, float], ...]) -> list[dict[str, Any]]:
    return [{"label": label, "score": round(score, 5)} for label, score in labels]
