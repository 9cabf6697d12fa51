"""A look at cameras while vision does not run, in the child process: do they open, and are their pictures good?"""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from agent.camera.address import address_of
from agent.camera.diagnose import ask
from agent.camera.sources import open_source
from agent.config import Camera, load
from agent.errors import Retryable, ShelfwireError
from agent.host.clock import SystemClock
from agent.ports import Picture, Source
from agent.probe.picture import is_dark_hour, judge, same

Trouble = dict[str, str]
Say = Callable[[dict[str, Any]], None]

ASK_SHARE = 0.45
"""Part of the time that a network camera gets to answer at all; the rest is for its first picture."""

FAIR_S = 0.9
"""A network camera that had less time than this to answer is not called dead."""

SPARE_S = 0.4
"""What is kept back of the time, to judge the pictures and to say it."""
KEPT = 3
"""Pictures that are kept to be judged."""
ENOUGH_S = 0.7
"""How long pictures are looked at when they differ: one alone does not tell whether the picture is frozen."""

STREAMS = ("rtsp", "http", "usb")
"""Kinds that may repeat a picture; of the others one is enough."""

NETWORK = ("rtsp", "http", "snapshot")


def look_at_cameras(config_path: Path, until_s: float, say: Say) -> None:
    """Open every configured camera, side by side, and say what is wrong with each, until `until_s` (monotonic)."""
    until_s -= SPARE_S
    config = load(config_path)
    dark = is_dark_hour(config.watch.dark_hours)
    commission = config.device.state_dir / "commission"

    def look(camera: Camera) -> None:
        reference = commission / f"{camera.name}.jpg"
        found = _troubles(camera, reference, until_s, lambda: say({"camera": camera.name}), dark_hours=dark)
        say({"camera": camera.name, "troubles": found})

    threads = [threading.Thread(target=look, args=(camera,), daemon=True) for camera in config.camera]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, until_s + SPARE_S - time.monotonic()))


def _troubles(
    camera: Camera, reference: Path, until_s: float, opened: Callable[[], None], *, dark_hours: bool
) -> list[Trouble]:
    """List what is wrong with a camera; `opened` is called once it has opened, so that what follows is no hang."""
    try:
        pictures = _pictures(camera, until_s, opened)
    except ShelfwireError as error:
        return [{"code": error.code, "message": str(error), "hint": error.hint}]
    found = judge(camera, pictures, reference, dark_hours=dark_hours)
    return [{"code": code, "message": message, "hint": hint} for code, message, hint in found]


def _pictures(camera: Camera, until_s: float, opened: Callable[[], None]) -> list[Picture]:
    """Give some pictures of a camera. Raises why there are none."""
    clock = SystemClock()
    if camera.kind_of() in NETWORK:
        first_s = max(0.1, ASK_SHARE * (until_s - time.monotonic()))
        cause = ask(_patient(camera, first_s), address_of(camera), clock)
        if cause is not None:
            raise _slow(camera, first_s) if cause.code == "camera-timeout" and first_s < FAIR_S else cause
    left_s = max(0.3, until_s - time.monotonic())
    source = open_source(_patient(camera, left_s), clock)
    try:
        source.open()
        opened()
        return _read(source, until_s, several=camera.kind_of() in STREAMS)
    except ShelfwireError as error:
        if camera.kind_of() in NETWORK and error.code in ("camera-timeout", "camera-stalled"):
            raise _slow(camera, left_s) from None
        raise
    finally:
        source.close()


def _slow(camera: Camera, waited_s: float) -> Retryable:
    what = f"camera {camera.name}: it sent nothing within {waited_s:.1f} s, which is all there was for it"
    return Retryable("camera-slow", what, f"shelfwire-agent snap {camera.name} waits longer")


def _patient(camera: Camera, seconds: float) -> Camera:
    return camera.model_copy(update={"open_timeout": seconds, "stall_timeout": seconds})


def _read(source: Source, until_s: float, *, several: bool) -> list[Picture]:
    """Give the first and the last of some pictures, and one between; longer while they are all the same."""
    began_s = time.monotonic()
    given: list[Picture] = []
    while (shot := source.read()) is not None:
        given = [*given[: KEPT - 1], shot.picture]
        now_s = time.monotonic()
        enough = now_s - began_s >= ENOUGH_S and not same(given)
        if now_s > until_s or enough or not several:
            break
    return given
