"""A camera's live picture for a person at the device: `snap` and `aim` ask with a file, vision answers with one.

The folder `view` in the runtime folder belongs to the agent's user alone, and nothing of it leaves the device. Whoever
wants to see a camera writes ``CAMERA.wanted`` (width and pace, JSON) anew every second; while that is fresh, vision
writes ``CAMERA.view``: one line of JSON and, unless the width is 0, a JPEG behind it. Newest wins, nothing is kept.
"""

import contextlib
import json
import logging
import os
import threading
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from agent.camera.encode import lower_priority, to_jpeg
from agent.camera.sight import Sight, sight
from agent.config import Camera
from agent.core.decide import Conclusion
from agent.ports import Clock, Frame
from models import Answer

log = logging.getLogger(__name__)

FOLDER = "view"
QUALITY = 92
FRESH_NS = 3 * 10**9
"""How long a wish holds that is not repeated."""

LOOK_EVERY_S = 0.2
MOST_WIDTH = 4096
LEAST_PACE_S = 0.05
MOST_BYTES = 32 << 20


@dataclass(frozen=True, slots=True)
class Sighting:
    """One picture of a camera with what is known of it. `jpeg` is empty when only figures were asked for.

    `captured_ns` is on the boot clock, `width` and `height` are the camera's. `label` is what was decided, None when
    nobody classified it; `top` are this picture's own labels with their scores.
    """

    camera: str
    number: int
    captured_ns: int
    captured_wall_ns: int
    width: int
    height: int
    sight: Sight
    label: str | None = None
    state: str = ""
    top: tuple[tuple[str, float], ...] = ()
    jpeg: bytes = b""

    def as_bytes(self) -> bytes:
        """Write it as vision leaves it in the folder."""
        head = asdict(self)
        del head["jpeg"]
        return json.dumps(head).encode() + b"\n" + self.jpeg

    @classmethod
    def from_bytes(cls, content: bytes) -> "Sighting":
        """Read it back. Raises `ValueError` for anything else."""
        line, _, jpeg = content.partition(b"\n")
        try:
            head: dict[str, Any] = json.loads(line)
            head["sight"] = Sight(**head["sight"])
            head["top"] = tuple((str(label), float(score)) for label, score in head["top"])
            return cls(**head, jpeg=jpeg)
        except (KeyError, TypeError) as error:
            raise ValueError(f"this is no sighting: {error}") from None


@dataclass(frozen=True, slots=True)
class Wish:
    """What somebody wants to see: pictures at most so wide (0: only figures), and no more often than this."""

    width: int
    pace_s: float


def wish(runtime_dir: Path, camera: str, wanted: Wish) -> None:
    """Say, again every second, that somebody looks at a camera. Raises `OSError`.

    The folder is vision's: made by another user, vision could not write there. Vision must be able to read the wish,
    whatever this user's mask is.
    """
    folder = runtime_dir / FOLDER
    fresh = folder / f"{camera}.wanted.{os.getpid()}"
    fresh.write_text(json.dumps(asdict(wanted)))
    fresh.chmod(0o644)
    fresh.replace(folder / f"{camera}.wanted")


def end_wish(runtime_dir: Path, camera: str) -> None:
    """Say that nobody looks any more; also said by silence."""
    for name in (f"{camera}.wanted", f"{camera}.view"):
        with contextlib.suppress(OSError):
            (runtime_dir / FOLDER / name).unlink()


def read(runtime_dir: Path, camera: str) -> Sighting | None:
    """Give the last sighting that vision left; None when there is none that can be read."""
    try:
        with (runtime_dir / FOLDER / f"{camera}.view").open("rb") as file:
            return Sighting.from_bytes(file.read(MOST_BYTES))
    except (OSError, ValueError):
        return None


def sighting_of(
    camera: Camera, frame: Frame, width: int, answer: Answer | None = None, conclusion: Conclusion | None = None
) -> Sighting:
    """Measure a frame and encode it; its privacy zones are painted over already, and are not measured."""
    height_px, width_px = frame.picture.shape[:2]
    jpeg = to_jpeg(frame.picture, QUALITY, width)[0] if width else b""
    return Sighting(
        frame.camera,
        frame.number,
        frame.captured.boot_ns,
        frame.captured.wall_ns,
        width_px,
        height_px,
        sight(frame.picture, camera.mask),
        conclusion.label if conclusion else answer.top[0][0] if answer else None,
        conclusion.state if conclusion else "",
        answer.top if answer else (),
        jpeg,
    )


class Showing:
    """Vision's side. `saw` is told every answered frame; a thread of its own does the work while somebody looks."""

    def __init__(self, runtime_dir: Path, cameras: tuple[Camera, ...], clock: Clock) -> None:
        self._folder = runtime_dir / FOLDER
        self._cameras = {camera.name: camera for camera in cameras}
        self._clock = clock
        self._wishes: dict[str, tuple[Wish, int]] = {}
        self._stamps: dict[str, int] = {}
        self._shown_ns: dict[str, int] = {}
        self._waiting: dict[str, tuple[Frame, Answer, Conclusion]] = {}
        self._changed = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._work, name="view", daemon=True)
        with contextlib.suppress(OSError):
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            for old in self._folder.iterdir():
                old.unlink()

    def start(self) -> None:
        """Begin to look for wishes."""
        self._thread.start()

    def stop(self, timeout_s: float = 2.0) -> None:
        """End the thread."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)

    def saw(self, frame: Frame, answer: Answer, conclusion: Conclusion, _total_ms: float) -> None:
        """Take note of a frame that was answered, if somebody looks at its camera. Never waits."""
        if frame.camera not in self._wishes:
            return
        with self._changed:
            self._waiting[frame.camera] = (frame, answer, conclusion)
            self._changed.notify()

    def _work(self) -> None:
        lower_priority()
        while not self._stopping:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._stopping, LOOK_EVERY_S)
                seen, self._waiting = self._waiting, {}
            try:
                self._look_for_wishes()
                for frame, answer, conclusion in seen.values():
                    self._show(frame, answer, conclusion)
            except Exception:
                # A view is never worth an answer: who looks is told that none came.
                log.exception("a camera's view could not be made")

    def _look_for_wishes(self) -> None:
        """See what is wanted. A wish counts as fresh since it was seen first: the wall clock may be wrong."""
        now_ns = self._clock.now().boot_ns
        found = {}
        with contextlib.suppress(OSError), os.scandir(self._folder) as entries:
            found = {
                e.name.removesuffix(".wanted"): e.stat().st_mtime_ns for e in entries if e.name.endswith(".wanted")
            }
        for camera, stamp in found.items():
            if camera in self._cameras and self._stamps.get(camera) != stamp:
                self._stamps[camera] = stamp
                wanted = self._read_wish(camera)
                if wanted is not None:
                    self._wishes[camera] = (wanted, now_ns)
        old = [c for c, (_, since_ns) in self._wishes.items() if c not in found or now_ns - since_ns > FRESH_NS]
        for camera in old:
            del self._wishes[camera]
            with contextlib.suppress(OSError):
                (self._folder / f"{camera}.view").unlink()

    def _read_wish(self, camera: str) -> Wish | None:
        try:
            with (self._folder / f"{camera}.wanted").open("rb") as file:
                said = json.loads(file.read(200))
            return Wish(min(MOST_WIDTH, max(0, int(said["width"]))), max(LEAST_PACE_S, float(said["pace_s"])))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _show(self, frame: Frame, answer: Answer, conclusion: Conclusion) -> None:
        wanted = self._wishes.get(frame.camera)
        last_ns = self._shown_ns.get(frame.camera, 0)
        if wanted is None or frame.captured.boot_ns - last_ns < wanted[0].pace_s * 0.9e9:
            return
        self._shown_ns[frame.camera] = frame.captured.boot_ns
        content = sighting_of(self._cameras[frame.camera], frame, wanted[0].width, answer, conclusion).as_bytes()
        fresh = self._folder / f"{frame.camera}.new"
        with contextlib.suppress(OSError):
            file = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            with os.fdopen(file, "wb") as stream:
                stream.write(content)
            fresh.replace(self._folder / f"{frame.camera}.view")
