"""What is wrong with a camera's pictures, by a look at a few of them and at the picture taken at commissioning."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from agent.camera.sight import Sight, compare, sight
from agent.config import Camera
from agent.ports import Picture
from models import PictureError, decode_picture

import cv2  # isort: skip - after models, which sets the decoder's limits

MOVED_SHIFT = 0.05
"""How far a view may move, in parts of its width."""
LEAST_OVERLAP = 0.25
"""How much of the view must be found again: shelves are restocked, so most of it may change."""

LEAST_SHARPNESS = 0.6
"""Part of the sharpness at commissioning."""

BLACK, DARK = 10.0, 35.0
WHITE = 225.0
"""Mean luma, 0 to 255."""

FLAT = 6.0
"""Standard deviation of the luma of a picture that shows nothing: a hand or a cloth before the lens."""

MANY_CLIPPED = 0.5
FROZEN_FRAMES = 5


def judge(camera: Camera, pictures: Sequence[Picture], reference: Path) -> Iterator[tuple[str, str]]:
    """Give each trouble as a code and a sentence."""
    if not pictures:
        return
    live = camera.kind_of() in ("rtsp", "http", "usb")
    if live and len(pictures) >= FROZEN_FRAMES and all((p == pictures[0]).all() for p in pictures[1:]):
        yield "camera-frozen", f"{len(pictures)} pictures in a row are the same to the last pixel"
    seen = sight(pictures[-1], camera.mask)
    dark = list(_light(seen))
    yield from dark
    if not dark:
        yield from _against(camera, pictures[-1], seen, reference)


def _light(seen: Sight) -> Iterator[tuple[str, str]]:
    said = f"its mean brightness is {seen.brightness:.0f} of 255"
    if seen.brightness < BLACK and seen.contrast < FLAT:
        yield "camera-black", said
    elif seen.contrast < FLAT:
        yield "camera-covered", f"it shows nothing but one shade, contrast {seen.contrast:.1f}; {said}"
    elif seen.brightness < DARK or seen.brightness > WHITE:
        yield ("camera-exposure" if seen.brightness < DARK else "camera-blinded"), said
    elif seen.bright > MANY_CLIPPED:
        yield "camera-blinded", f"{seen.bright:.0%} of it is white"


def _against(camera: Camera, picture: Picture, seen: Sight, path: Path) -> Iterator[tuple[str, str]]:
    """Compare with the picture taken at commissioning, if there is one."""
    try:
        reference = decode_picture(path.read_bytes())
    except (OSError, PictureError, cv2.error):
        return
    view = compare(picture, reference, camera.mask)
    if view.shift > MOVED_SHIFT or view.overlap < LEAST_OVERLAP:
        yield (
            "camera-moved",
            f"shifted by {view.shift:.0%}, {view.overlap:.0%} of the view at commissioning found again",
        )
        return
    before = sight(reference, camera.mask).sharpness
    if seen.sharpness < LEAST_SHARPNESS * before:
        yield "camera-blurred", f"sharpness {seen.sharpness:.2f}, at commissioning it was {before:.2f}"
