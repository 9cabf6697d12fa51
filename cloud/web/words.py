"""Words for people: labels as one says them, and what to do when a device or a camera is silent."""

import unicodedata
from dataclasses import dataclass
from typing import Literal

from wire.records import CameraStatus, Status

UNKNOWN = "unknown"

Severity = Literal["info", "warning", "failure"]
Presence = Literal["online", "stale", "offline", "unknown"]
Mode = Literal["real-time", "serverless", "asynchronous", "batch"]

MODES: tuple[Mode, ...] = ("real-time", "serverless", "asynchronous", "batch")
"""The four ways to an answer, the quickest first."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """What is wrong, and the cure."""

    code: str
    severity: Severity
    text: str
    cure: str


@dataclass(frozen=True, slots=True)
class About:
    """A mode in words: its name, what it is in one sentence, and what to do when nothing has come that way yet."""

    title: str
    text: str
    cure: str


ABOUT: dict[Mode, About] = {
    "real-time": About(
        "Real-time",
        "The device beside the camera answers within milliseconds, with or without a network.",
        "start a device with `shelfwire-agent run --config shelfwire.toml`, or try everything with `scripts/demo`",
    ),
    "serverless": About(
        "Serverless",
        "A cloud function answers the frames that a busy device cannot take in time; it runs only while it is called.",
        'let frames leave the device ([cloud] `api = "http://…"`, [privacy] `pictures = "frames"`) and name the '
        "function here with `shelfwire-cloud serve --function URL`; frames come once a device is too busy",
    ),
    "asynchronous": About(
        "Asynchronous",
        "A cloud worker takes pictures from a queue: uncertain answers, spot checks, and what somebody submits.",
        "run `shelfwire-cloud worker`, then send a picture from a device with `shelfwire-agent submit PICTURE`; "
        "pictures uploaded on the Jobs page are shown there",
    ),
    "batch": About(
        "Batch",
        "A nightly run answers every frame that is still without an answer, and looks again at what was kept.",
        "devices upload a day's frames at night; answer them with `shelfwire-cloud batch run DATE`",
    ),
}


def title(label: str) -> str:
    """Write a label as one says it: ``Granny-Smith`` becomes ``Granny Smith``.

    A label comes from a device and is shown large, so what cannot be seen or turns the reading direction is left out.
    """
    spaced = "".join(" " if c in "-_" or c.isspace() else c for c in label)
    visible = "".join(c for c in spaced if c == " " or unicodedata.category(c) not in ("Cc", "Cf", "Co", "Cn", "Cs"))
    said = " ".join(visible.split())
    if not said:
        return "(no name)"
    return said[0].upper() + said[1:]


def mode(stored: str) -> Mode:
    """Read a mode as it stands in the store, where only the four can stand."""
    return MODES[MODES.index(stored)]


def camera_trouble(presence: Presence, status: Status | None, camera: CameraStatus | None) -> Trouble | None:
    """Say why a camera gives no answers, from the outermost cause inwards; None when nothing is known to be wrong."""
    if presence == "offline":
        return _device_offline(status)
    if presence == "stale":
        return Trouble(
            "device-silent",
            "warning",
            "Nothing has been heard from the device",
            "check its network; on the device, shelfwire-agent status says what it waits for",
        )
    if status is not None and status.vision == "stopped":
        return _warned(status, "vision-stopped") or Trouble(
            "vision-stopped",
            "failure",
            "No frames are classified: vision does not run on the device",
            "start it: systemctl start shelfwire-vision, or shelfwire-agent vision",
        )
    if camera is None or camera.phase == "streaming":
        return None
    return _camera_phase(camera)


def _device_offline(status: Status | None) -> Trouble:
    if status is not None and status.reason == "stopped":
        return Trouble(
            "device-stopped",
            "warning",
            "The device was stopped in good order",
            "start it: systemctl start shelfwire-vision shelfwire-sync, or shelfwire-agent run",
        )
    return Trouble(
        "device-offline",
        "failure",
        "The connection to the device is lost",
        "check its power and network; what it sees meanwhile waits in its outbox and arrives later",
    )


def _camera_phase(camera: CameraStatus) -> Trouble:
    default_text, default_cure, severity = _PHASES[camera.phase]
    said = without_name(camera, camera.message)
    return Trouble(camera.code or f"camera-{camera.phase}", severity, said or default_text, camera.cure or default_cure)


def without_name(camera: CameraStatus, message: str) -> str:
    """Leave a camera's name out of its message: whoever reads it sees the name beside it."""
    said = message.removeprefix(f"camera {camera.name}: ")
    return "the camera " + said[3:] if said.startswith("it ") else said


_PHASES: dict[str, tuple[str, str, Severity]] = {
    "opening": ("The camera is being opened", "wait a moment; the device goes on trying by itself", "info"),
    "stalled": (
        "The camera is connected and sends no new pictures",
        "the device reconnects by itself; if it stays, look at the camera's power, cable and network load",
        "warning",
    ),
    "failed": (
        "The camera gives no pictures",
        "on the device, shelfwire-agent status shows each camera's code and cure",
        "failure",
    ),
    "ended": ("The source has been played to its end", "restart the device's vision to play it again", "info"),
}


def _warned(status: Status, code: str) -> Trouble | None:
    """Take the device's own words for a trouble, where it sent any."""
    for warning in status.warnings:
        if warning.code == code:
            return Trouble(warning.code, warning.severity, warning.text, warning.cure)
    return None
