"""Functions that do to the host what it must stand."""

import json
import os
import time
from pathlib import Path

time.sleep(float(os.environ.get("SHELFWIRE_TEST_START_S", "0")))  # as long as a large model takes to be loaded


def echo(event: object, _context: object) -> object:
    """Give the event back."""
    return {"event": event, "pid": os.getpid()}


def hold(event: dict[str, str], _context: object) -> object:
    """Wait until the named pipe is opened for writing."""
    with Path(event["pipe"]).open("rb") as pipe:
        pipe.read()
    return {"pid": os.getpid()}


def misbehave(event: dict[str, str], _context: object) -> object:
    """Raise, or die, as the event says; else answer."""
    if event.get("do") == "raise":
        raise RuntimeError("no fruit today")
    if event.get("do") == "exit":
        os._exit(7)
    return {"pid": os.getpid()}


def environment(_event: object, _context: object) -> object:
    """Tell what can be seen of the host."""
    return dict(os.environ)


def context(_event: object, context: object) -> object:
    """Tell what the platform has said about the call."""
    left_ms = context.get_remaining_time_in_millis()  # type: ignore[attr-defined]
    return {name: getattr(context, name) for name in ("aws_request_id", "memory_limit_in_mb")} | {"left_ms": left_ms}


def no_http(_event: object, _context: object) -> object:
    """Give back what is no answer by HTTP."""
    return {"fruit": "banana"}


def frames(event: dict[str, dict[str, str]], _context: object) -> object:
    """Answer a frame as the name of its camera says."""
    headers = event["headers"]
    device, run, seq = headers["x-shelfwire-frame"].split("/")
    verdict: dict[str, object] = {
        "device": device, "run": run, "seq": int(seq), "camera": headers["x-shelfwire-camera"], "frame": 1,
        "captured_at": headers["x-shelfwire-captured-at"], "mode": "serverless", "label": "Banana",
        "labels": [{"label": "Banana", "score": 0.75}], "runtime": "toy", "inference_ms": 1.0,
        "model": {"name": "toy", "version": "1", "release": 1, "digest": "ab" * 32},
        "answered_at": "2026-03-01T12:00:00Z", "agrees": None,
    }  # fmt: skip
    said = {
        "other-frame": verdict | {"seq": int(seq) + 1},
        "other-mode": verdict | {"mode": "batch"},
        "garbage": {"fruit": "banana"},
        "too-sure": verdict | {"labels": [{"label": "Banana", "score": 1.5}]},
        "too-new": verdict | {"model": {"name": "toy", "version": "1", "release": 2**31, "digest": "ab" * 32}},
        "nul": verdict | {"label": "Ban\x00ana"},
    }.get(headers["x-shelfwire-camera"], verdict)
    if headers["x-shelfwire-camera"] == "raises":
        raise RuntimeError("no fruit today")
    if headers["x-shelfwire-camera"] == "dies":
        os._exit(7)
    if headers["x-shelfwire-camera"] == "hangs":
        Path(os.environ["SHELFWIRE_TEST_PIPE"]).read_bytes()
    return {"statusCode": 200, "headers": {"content-type": "application/json"}, "body": json.dumps(said)}
