"""The configuration of the demo's devices: what their cameras show, and what they may hand to the cloud."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

DEVICE = "demo-device"
STORE = "demo store"
SHELVES = (("fruit-1", 3), ("fruit-2", 11), ("vegetables-1", 23), ("vegetables-2", 42))
"""The four synthetic cameras: name and seed."""

RATE_FPS = 5.0
PICTURES_FPS = 2.0
"""Pictures of a folder have nothing to do with each other: slow enough to look at."""
SMALL_FPS = 3.0
"""Of the one camera of each further device: all devices share the machine's cores."""
MOST_FPS = 100.0
"""Of one camera under overload."""
SMALL = "width=320&height=180&loop=16"
"""Pictures under overload: small, and drawn once, so that the model is the bottleneck and not the drawing."""

Camera = tuple[str, str, Mapping[str, Any]]
"""Name, address, further keys."""


@dataclass(frozen=True, slots=True)
class Sights:
    """What the cameras show, at a given rate or at `overload` times `capacity_fps`, what the device can answer."""

    frames: Path | None = None
    cameras: tuple[str, ...] = ()
    rate_fps: float | None = None
    overload: float | None = None
    capacity_fps: float = 0.0

    def with_capacity(self, capacity_fps: float) -> "Sights":
        """The same, knowing what the device can answer."""
        return replace(self, capacity_fps=capacity_fps)

    def sources(self) -> list[Camera]:
        """The cameras, with their rates."""
        if self.cameras:
            return [_camera(f"camera-{n + 1}", url, self.rate_fps or RATE_FPS) for n, url in enumerate(self.cameras)]
        if self.frames is not None:
            rate_fps = self.rate_fps or PICTURES_FPS
            return [_camera("pictures", str(self.frames.resolve()), rate_fps, kind="folder", loop=True)]
        if self.overload is not None:
            return self._too_many()
        return [_camera(name, f"synthetic:{seed}", self.rate_fps or RATE_FPS) for name, seed in SHELVES]

    def _too_many(self) -> list[Camera]:
        """As many fast cameras as bring `overload` times the capacity, the four shelves first."""
        assert self.overload is not None
        wanted_fps = self.overload * self.capacity_fps
        n = max(len(SHELVES), math.ceil(wanted_fps / MOST_FPS))
        names = [*SHELVES, *((f"shelf-{i}", 100 + i) for i in range(len(SHELVES) + 1, n + 1))]
        return [_camera(name, f"synthetic:{seed}?{SMALL}", round(wanted_fps / n, 1)) for name, seed in names[:n]]


def _camera(name: str, url: str, rate_fps: float, **more: object) -> Camera:
    return name, url, {"rate_fps": rate_fps, **more}


@dataclass(frozen=True, slots=True)
class Places:
    """Where the device finds its folder, the broker and the cloud. `enrolled`: it knows the latter already.

    `local_port` is of its own page; 0: it has none. `number` counts the devices from 1. `root_file` is whom it trusts
    for models, where enrolment does not say so; with `updates` a model is judged within a minute or two.
    """

    folder: Path
    broker_port: int
    password_file: Path
    api: str
    enrolled: bool = False
    local_port: int = 0
    number: int = 1
    root_file: Path | None = None
    updates: bool = False

    @property
    def suffix(self) -> str:
        """What the names of a further device's files end in."""
        return "" if self.number == 1 else f"-{self.number}"

    def device(self) -> dict[str, Any]:
        """The section of the device itself."""
        own = {} if self.enrolled else {"id": name_of(self.number), "store": store_of(self.number)}
        state, runtime = self.folder / f"device{self.suffix}", self.folder / f"run{self.suffix}"
        return {**own, "state_dir": str(state), "runtime_dir": str(runtime)}

    def cloud(self) -> dict[str, Any]:
        """The section of the way to the cloud."""
        if self.enrolled:
            return {"receipt_timeout": "10 s"}
        return {
            "broker": f"mqtt://127.0.0.1:{self.broker_port}", "username": name_of(self.number),
            "password_file": str(self.password_file), "receipt_timeout": "10 s", "api": self.api,
        }  # fmt: skip

    def update(self) -> list[tuple[str, Mapping[str, Any]]]:
        """The section of models, with times that a person who looks on can wait for; none where nothing is offered."""
        if not self.updates:
            return []
        trust = {} if self.root_file is None or self.enrolled else {"root_file": str(self.root_file)}
        times = {"shadow_frames": 20, "shadow_every": "200 ms", "trial": "20 s", "trial_frames": 20}
        return [("[update]", {**trust, **times})]


def name_of(number: int) -> str:
    """Name the device with this number, counted from 1."""
    return DEVICE if number == 1 else f"{DEVICE}-{number}"


def store_of(number: int) -> str:
    """Name its shop: two devices stand in each."""
    shop = (number + 1) // 2
    return STORE if shop == 1 else f"{STORE} {shop}"


def small_configuration(places: Places) -> str:
    """Write the configuration of a further device: one slow camera, and nothing leaves it but answers."""
    url = f"synthetic:{100 + places.number}"
    sections: list[tuple[str, Mapping[str, Any]]] = [
        ("[device]", places.device()),
        ("[cloud]", places.cloud()),
        ("[[camera]]", {"name": "shelf", "url": url, "rate_fps": SMALL_FPS}),
        ("[privacy]", {"pictures": "thumbnails", "thumbnail_interval": "1 s"}),
        ("[local]", {"port": 0}),
        *places.update(),
    ]
    return "\n".join(_lines(sections))


def configuration(sights: Sights, places: Places) -> str:
    """Write the device's configuration."""
    pictures = sights.frames is not None
    sections: list[tuple[str, Mapping[str, Any]]] = [
        ("[device]", places.device()),
        ("[cloud]", places.cloud()),
        *[("[[camera]]", {"name": name, "url": url, **more}) for name, url, more in sights.sources()],
        ("[decide]", {"confirm_frames": 1 if pictures else 3}),
        ("[privacy]", {"pictures": "frames", "thumbnail_interval": "500 ms"}),
        ("[local]", {"port": places.local_port}),
        # Enough to see every way at work within half a minute, and no more than one core of the cloud can answer.
        ("[serverless]", {"per_hour": 36_000, "burst": 50}),
        ("[review]", {"below": 0.6, "audit": 0.01, "per_hour": 240}),
        ("[batch]", {"keep_every": "10 s"}),
        ("[[alert]]", {"name": "bananas-seen", "label": "Banana", "score": 0.5, "dwell": "2 s"}),
        ("[[alert]]", {"name": "nothing-recognised", "label": "unknown", "dwell": "5 s"}),
        *places.update(),
    ]  # fmt: skip
    return "\n".join(_lines(sections))


def _lines(sections: Sequence[tuple[str, Mapping[str, Any]]]) -> list[str]:
    lines: list[str] = []
    for title, items in sections:
        lines += [title, *(f"{key} = {json.dumps(value)}" for key, value in items.items()), ""]
    return lines
