"""What is wrong with a camera's pictures, by the watch's own rules, from a look of a second or two.

What the watch has learned of a camera in weeks is not asked here: what was set up at commissioning is, if there is a
picture of it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime, time
from pathlib import Path

from agent.camera.looking import Eye
from agent.camera.sight import compare
from agent.config import Camera
from agent.core import watching
from agent.core.alerting import is_quiet
from agent.core.watching import Condition, Look, Normal
from agent.ports import Picture
from models import PictureError, decode_picture

import cv2  # isort: skip - after models, which sets the decoder's limits

Trouble = tuple[str, str, str]
"""Code, message, hint."""

TOO_DARK = 25.0
"""Mean luma, 0 to 255, below which a picture that is not black is still too dark."""

MOST_BYTES = 32 << 20
AT_ONCE: tuple[Condition, ...] = ("camera-black", "camera-covered", "camera-blinded", "camera-blurred", "camera-moved")
"""What one look tells. Whether a picture is frozen takes longer, and is told in other words."""


def judge(camera: Camera, pictures: Sequence[Picture], reference: Path, *, dark_hours: bool = False) -> list[Trouble]:
    """List what is wrong; `dark_hours` says that the shop may be dark now."""
    if not pictures:
        return []
    normal, look = _look(camera, pictures[-1], _read(reference))
    verdicts = watching.judge(look, normal)
    if dark_hours and not watching.is_lit(look, normal):  # who looks with the lights on wants to know all
        verdicts = watching.in_dark_hours(verdicts, look, normal)
    found: list[Trouble] = [
        (c, *watching.explain(c, camera.name, look, normal)) for c in AT_ONCE if verdicts[c] == "bad"
    ]
    if not found and look.brightness < TOO_DARK and not dark_hours and look.dark < watching.BLACK_BAD:
        said = f"camera {camera.name}: its picture is dark, {look.brightness:.0f} of 255"
        found.append(("camera-exposure", said, f"more light, or a longer exposure: shelfwire-agent aim {camera.name}"))
    return [*found, *_frozen(camera, pictures, black=verdicts["camera-black"] == "bad")]


def is_dark_hour(hours: tuple[tuple[time, time], ...]) -> bool:
    """Whether the shop may be dark now, by local time."""
    return is_quiet(hours, datetime.now().astimezone().time())


def _read(path: Path) -> Picture | None:
    try:
        return decode_picture(path.read_bytes(), max_bytes=MOST_BYTES)
    except (OSError, PictureError, cv2.error):
        return None


def _look(camera: Camera, picture: Picture, reference: Picture | None) -> tuple[Normal, Look]:
    """Measure a picture, beside that of the commissioning if there is one."""
    eye = Eye(camera.mask)
    normal = watching.set_up(Normal(), eye.set_up(reference))
    look = eye.look(picture, normal.brightness)
    if reference is None:
        return normal, look
    view = compare(picture, reference, camera.mask)
    tells = max(view.in_place, view.overlap) >= watching.MOVED_AGREED
    return normal, replace(look, shift=view.shift if tells else None, turn_deg=view.turn_deg)


def _frozen(camera: Camera, pictures: Sequence[Picture], *, black: bool) -> Iterator[Trouble]:
    live = camera.kind_of() in ("rtsp", "http", "usb")
    if live and not black and same(pictures):
        message = f"camera {camera.name}: {len(pictures)} pictures in a row are the same to the last pixel"
        yield "camera-repeats", message, "wave a hand before it and ask again; if it stays, restart the camera"


def same(pictures: Sequence[Picture]) -> bool:
    """Whether several pictures are the same: frozen, or a still scene that was compressed hard."""
    first = pictures[0]
    return len(pictures) > 1 and all(p.shape == first.shape and bool((p == first).all()) for p in pictures[1:])
