"""``synthetic:SEED``: a rendered shelf that knows what it shows. Needs no camera and no network."""

import re
from typing import Final
from urllib.parse import parse_qsl

from agent.camera.synthetic import Scene
from agent.camera.synthetic_faults import FAULTS, FROZEN
from agent.config import Camera
from agent.errors import Rejected
from agent.ports import Shot

_ADDRESS = re.compile(r"synthetic:(?://)?(\d{1,9})(?:\?([^#]*))?")
_OPTIONS: Final = {
    "width": (1280, 160, 3840, "pixels"),
    "height": (720, 90, 2160, "pixels"),
    "loop": (0, 0, 64, "frames"),
    "after": (0, 0, 99_999, "frames"),
}
"""Name of the option: when not given, at least, at most, of what."""


class RenderedSource:
    """Renders `Scene` frame by frame, from frame 0 each time it is opened; the same seed gives the same pictures.

    With `loop` the first so many are rendered once and come again and again: more frames than this machine renders.
    With `fault` something is wrong with the camera once it has given `after` frames, see `synthetic_faults`.
    """

    live = True

    def __init__(self, camera: Camera) -> None:
        self._seed, self._fault, options = _parse(camera)
        self._width, self._height, self._loop = options["width"], options["height"], options["loop"]
        self._after = options["after"]
        self._scene: Scene | None = None
        self._rendered: list[Shot] = []
        self._index = 0

    def open(self) -> None:
        """Build the scene, and render what comes again and again."""
        self._scene = Scene(self._seed, self._width, self._height)
        self._rendered = [Shot(*self._scene.render(index)) for index in range(self._loop)]
        self._index = 0

    def read(self) -> Shot:
        """Give the next picture with its true label; never ends."""
        assert self._scene is not None, "open comes first"
        index, self._index = self._index, self._index + 1
        faulty = self._fault and index >= self._after
        if faulty and self._fault == FROZEN:
            index = self._after
        shot = self._rendered[index % self._loop] if self._loop else Shot(*self._scene.render(index))
        return Shot(FAULTS[self._fault](shot.picture), shot.truth) if faulty and self._fault in FAULTS else shot

    def close(self) -> None:
        """Let go of the scene."""
        self._scene = None
        self._rendered = []


def _parse(camera: Camera) -> tuple[int, str, dict[str, int]]:
    """Give the seed, the fault and the options. Raises `Rejected` (``camera-address``)."""
    match = _ADDRESS.fullmatch(camera.url)
    if match is None:
        raise _rejected(camera, "a number must follow")
    options = {name: default for name, (default, *_) in _OPTIONS.items()}
    fault = ""
    for name, text in parse_qsl(match[2] or "", keep_blank_values=True):
        if name == "fault":
            if text not in (*FAULTS, FROZEN):
                raise _rejected(camera, f"fault is one of {', '.join(sorted((*FAULTS, FROZEN)))}")
            fault = text
            continue
        if name not in _OPTIONS:
            raise _rejected(camera, f"it knows no {name}")
        _, least, most, what = _OPTIONS[name]
        if not (text.isdecimal() and len(text) <= 5 and least <= int(text) <= most):
            raise _rejected(camera, f"{name} is {least} to {most} {what}")
        options[name] = int(text)
    return int(match[1]), fault, options


def _rejected(camera: Camera, reason: str) -> Rejected:
    return Rejected(
        "camera-address",
        f"camera {camera.name}: {camera.url!r} is no synthetic camera: {reason}",
        'write it as "synthetic:7" or "synthetic:7?width=640&height=360"',
    )
