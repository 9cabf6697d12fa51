"""Where `snap` and `aim` get a camera's pictures: from vision while that runs, else from the camera itself."""

import contextlib
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from agent.app.peek import Peek
from agent.camera import showing
from agent.camera.showing import Sighting, Wish
from agent.config import Camera, Config, nearest
from agent.errors import Broken, Rejected, Retryable, ShelfwireError
from agent.host.clock import SystemClock
from agent.store.inspect import look
from agent.store.outside import is_at_work, run_as

ASK_EVERY_S = 1.0
LOOK_EVERY_S = 0.03
PATIENCE_S = 6.0
"""How long vision may take for the first picture; it answers a frame within a second."""


@dataclass(frozen=True, slots=True)
class Request:
    """What to look at. `classify` asks for label and score also when vision does not run, which takes seconds more."""

    config: Config
    config_path: Path
    camera: Camera
    wanted: Wish
    classify: bool = False


def camera_of(config: Config, name: str) -> Camera:
    """Find a camera. Raises `Rejected` (``no-such-camera``)."""
    for camera in config.camera:
        if camera.name == name:
            return camera
    known = nearest(name, [camera.name for camera in config.camera])
    raise Rejected("no-such-camera", f'no camera is named "{name}"; {known}', "name one of the configured cameras")


def vision_runs(config: Config) -> bool:
    """Whether vision has the cameras now."""
    return is_at_work(config.device.state_dir, "vision")


def sightings(request: Request) -> Iterator[Sighting]:
    """Give pictures one after another, each newer than the last.

    Raises what keeps the camera from giving one, with vision's words for it or its own.
    """
    if vision_runs(request.config) and _vision_knows(request):
        yield from _of_vision(request)
    else:
        with Peek(request.config_path, request.camera, request.wanted, classify=request.classify) as peek:
            yield from peek.sightings()


def _report(request: Request) -> dict[str, object] | None:
    """What vision says of the camera; None when it does not know it, or nothing can be read."""
    with contextlib.suppress(ShelfwireError):
        cameras = look(request.config.device.state_dir).vision.get("cameras", ())
        return next((dict(c) for c in cameras if c["name"] == request.camera.name), None)
    return None


def _vision_knows(request: Request) -> bool:
    return _report(request) is not None


def _of_vision(request: Request) -> Iterator[Sighting]:
    """Ask vision, again every second, and give what it leaves; old files of another wish are not taken."""
    runtime_dir, name = request.config.device.runtime_dir, request.camera.name
    clock, nobody = SystemClock(), threading.Event()
    last = clock.now().boot_ns
    asked_s = 0.0
    seen: Sighting | None = None
    patience = time.monotonic() + PATIENCE_S
    try:
        while True:
            if time.monotonic() - asked_s >= ASK_EVERY_S:
                if asked_s and seen is None and _is_ill(request):
                    raise _why_not(request)
                asked_s = time.monotonic()
                _ask(runtime_dir, name, request.wanted)
            seen = showing.read(runtime_dir, name)
            if seen is not None and seen.captured_ns > last and (seen.jpeg or not request.wanted.width):
                last = seen.captured_ns
                patience = time.monotonic() + PATIENCE_S + request.wanted.pace_s + request.camera.stall_timeout
                yield seen
            elif time.monotonic() > patience:
                raise _why_not(request)
            clock.wait(nobody, LOOK_EVERY_S)
    finally:
        showing.end_wish(runtime_dir, name)


def _ask(runtime_dir: Path, name: str, wanted: Wish) -> None:
    try:
        showing.wish(runtime_dir, name, wanted)
    except PermissionError:
        text = f"this user may not ask vision for pictures in {runtime_dir}"
        raise Broken("view-permission", text, run_as(runtime_dir)) from None
    except OSError as error:
        text = f"vision cannot be asked for pictures in {runtime_dir}: {error.strerror}"
        raise Broken("view-folder", text, "free disk space there, or start vision again") from None


def _is_ill(request: Request) -> bool:
    """Whether vision says by now that the camera gives no pictures."""
    return (_report(request) or {}).get("phase") in ("failed", "stalled")


def _why_not(request: Request) -> ShelfwireError:
    """Say in vision's words why no picture came."""
    report = _report(request) or {}
    if report.get("code"):
        return Retryable(str(report["code"]), str(report["message"]), str(report["hint"]))
    text = f"vision runs and gives no picture of {request.camera.name}"
    return Retryable("view-none", text, "see shelfwire-agent status and doctor; start vision again after an update")
