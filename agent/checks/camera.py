"""What each camera gives: by vision's report while that runs; else the camera is opened here, in a child process."""

from collections.abc import Iterator, Mapping
from typing import Any

from agent.checks import child
from agent.checks.context import Context, run_as
from agent.checks.finding import Finding, fine, skipped, wrong
from agent.checks.runner import Check
from agent.checks.words import many
from agent.config import Camera
from agent.errors import ShelfwireError

CODES = {
    "camera-dns": "CAM-1", "camera-timeout": "CAM-1", "camera-refused": "CAM-1", "camera-unreachable": "CAM-1",
    "camera-not-found": "CAM-1", "camera-auth": "CAM-2", "camera-password-file": "CAM-2", "camera-codec": "CAM-3",
    "camera-address": "CAM-3", "camera-busy": "CAM-4", "camera-permission": "CAM-4", "camera-stalled": "CAM-5",
    "camera-lost": "CAM-5", "camera-frozen": "CAM-6", "camera-repeats": "CAM-17", "camera-black": "CAM-7",
    "camera-covered": "CAM-8", "camera-blurred": "CAM-9", "camera-moved": "CAM-10", "camera-exposure": "CAM-11",
    "camera-blinded": "CAM-11", "camera-hung": "CAM-13", "camera-tls": "CAM-14", "camera-slow": "CAM-15",
    "camera-no-network": "CAM-1",
}  # fmt: skip
"""The agent's own codes of cameras, and the doctor's."""

LEAST_RATE = 0.5
"""Part of the rate asked for below which somebody should look."""

ENDLESS = ("rtsp", "http", "usb", "snapshot")
"""Kinds that go on for ever: real cameras."""


def check(context: Context) -> Iterator[Finding]:
    """Look at every configured camera."""
    if context.config is None:
        yield skipped("camera", "cameras", "there is no configuration that names them")
        return
    if context.state_hidden:
        yield skipped("camera", "cameras", run_as(context))
        return
    cameras = context.config.camera
    found = list(_looked_at(context, cameras))
    well = sum(finding.severity == "ok" for finding in found)
    yield from (finding for finding in found if finding.severity != "ok")
    if well:
        yield fine("camera", f"{well} of {many(len(cameras), 'camera')} give pictures, and good ones")
    yield from _uncommissioned(context, cameras)


def _uncommissioned(context: Context, cameras: tuple[Camera, ...]) -> Iterator[Finding]:
    """Name the real cameras whose view and focus nobody has kept: these are then compared with what is usual alone."""
    folder = context.state_dir / "commission"
    real = [camera.name for camera in cameras if camera.kind_of() in ENDLESS]
    without = [name for name in real if not (folder / f"{name}.jpg").exists()]
    if without:
        why = f"no picture of it was kept: shelfwire-agent snap --commission {without[0]}"
        yield skipped("camera", f"view and focus as set up: {', '.join(without)}", why)


def _looked_at(context: Context, cameras: tuple[Camera, ...]) -> Iterator[Finding]:
    snapshot = context.vision_reports()
    if snapshot is not None:
        reports = {str(report["name"]): report for report in snapshot.vision["cameras"]}
        for camera in cameras:
            yield from by_report(camera, reports.get(camera.name))
    elif context.at_work("vision"):
        yield skipped("camera", "cameras", "vision holds them and has not reported; see the service's lines")
    elif context.quick:
        yield skipped("camera", "cameras", "vision does not run, and --quick opens no camera")
    elif cameras:
        yield from _by_child(context, cameras)


def _by_child(context: Context, cameras: tuple[Camera, ...]) -> Iterator[Finding]:
    """Open the cameras in a child process. One of which nothing is heard in time hangs."""
    said = child.ask(context.left_s(), "cameras", str(context.config_path))
    reports = {str(report["camera"]): report for report in said.reports if "troubles" in report}
    opened = {str(report["camera"]) for report in said.reports}
    missed = [
        c.name for c in cameras if c.name not in reports and (c.name in opened or not said.fair) and not said.ended
    ]
    if missed:
        yield skipped("camera", f"{', '.join(missed)}: not looked at", said.excuse)
    for camera in cameras:
        report = reports.get(camera.name)
        if report is not None:
            yield from by_look(camera, report)
        elif camera.name not in missed:
            how = "the process that opened it crashed" if said.ended else "opening it does not come back"
            yield named(camera, "camera-hung", f"camera {camera.name}: {how}", "")


def by_report(camera: Camera, report: Mapping[str, Any] | None) -> Iterator[Finding]:
    """Judge a camera by what vision says of it."""
    if report is None:
        why = "vision was started with another configuration: systemctl restart shelfwire-vision"
        yield skipped("camera", f"{camera.name}: vision does not know it", why)
    elif report["code"]:
        yield named(camera, str(report["code"]), str(report["message"]), str(report["hint"]))
    elif report["phase"] == "opening":
        yield skipped("camera", f"{camera.name}: vision is opening it", "ask again in a few seconds")
    else:
        yield from _streaming(camera, report)


def _streaming(camera: Camera, report: Mapping[str, Any]) -> Iterator[Finding]:
    conditions = list(report.get("conditions") or ())
    for condition in conditions:
        yield named(camera, str(condition["code"]), str(condition["message"]), str(condition["hint"]))
    rate_fps = float(report["rate_fps"])
    started = int(report["captured"]) > 2 * camera.rate_fps
    if camera.kind_of() in ENDLESS and started and rate_fps < LEAST_RATE * camera.rate_fps:
        detail = f"{rate_fps:.1f} of {camera.rate_fps:g} pictures a second"
        yield wrong("camera", "CAM-12", detail, title=f"{camera.name}: fewer pictures than asked for")
    elif not conditions:
        yield fine("camera", f"{camera.name}: {rate_fps:.1f} pictures a second")


def by_look(camera: Camera, report: Mapping[str, Any]) -> Iterator[Finding]:
    """Judge a camera by what the child process saw of it: its troubles, each with code, message and hint."""
    troubles = report["troubles"]
    for trouble in troubles:
        yield named(camera, str(trouble["code"]), str(trouble["message"]), str(trouble["hint"]))
    if not troubles:
        yield fine("camera", f"{camera.name}: gives pictures")


def named(camera: Camera, code: str, message: str, hint: str) -> Finding:
    """Give the finding for one of the agent's own codes of cameras."""
    known = CODES.get(code, "CAM-16")
    if code == "camera-not-found" and camera.kind_of() in ("rtsp", "http", "snapshot"):
        known = "CAM-3"  # the camera is there, the path in it is not
    detail = message.removeprefix(f"camera {camera.name}: ").removeprefix(f"camera {camera.name} ")
    return wrong("camera", known, f"{detail} [{code}]", title=f"{camera.name}: {_means(known)}", cure=hint)


def _means(code: str) -> str:
    return wrong("camera", code).title


def trouble(error: ShelfwireError) -> dict[str, str]:
    """Write an error as a trouble."""
    return {"code": error.code, "message": str(error), "hint": error.hint}


CHECK = Check(
    "camera", "camera", "each camera: pictures, rate, frozen, black, covered, focus, view, exposure", check,
    late="CAM-13",
)  # fmt: skip
