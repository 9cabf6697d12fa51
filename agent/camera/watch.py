"""The camera watch: looks at each live camera about once a second and says what is wrong with what it shows.

It has a thread of its own behind all others, and measures the newest picture; the rules are `agent.core.watching`.
What begins or ends is told like an alert, and what holds stands in vision's report.
"""

import json
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from agent.camera.encode import lower_priority
from agent.camera.looking import Eye
from agent.camera.reader import Sink
from agent.config import Camera
from agent.core import watching
from agent.core.alerting import is_quiet
from agent.core.records import moment
from agent.core.watching import Condition, Course, Normal, Notice, Terms
from agent.ports import Frame
from models import PictureError, decode_picture

log = logging.getLogger(__name__)

LIVE_KINDS = ("rtsp", "http", "snapshot", "usb", "synthetic")
"""Kinds of camera that are watched: a file or folder shows what somebody chose."""
SAVE_EVERY_S = 600.0
"""How often what was learned is kept in the store."""
GAP_LOOKS = 10
"""So many looks may fail to come before what is only suspected starts anew."""
COMMISSIONED_BYTES = 32 << 20


Tell = Callable[[Frame, Sequence[Notice], Mapping[str, str]], bool]
"""Hands notices and facts to be kept over to the store; False when it could not take them."""


@dataclass(slots=True)
class _Watched:
    """One camera. Only the watch's thread changes it."""

    camera: Camera
    eye: Eye
    normal: Normal = field(default_factory=Normal)
    courses: dict[Condition, Course] = field(default_factory=dict)
    looked_ns: int = 0
    due_ns: int = 0
    shown: int = 0
    saved_ns: int = 0
    blind: Condition | None = None
    commissioned_ns: int = 0
    """When the commissioning picture that is in use was written; 0 without one."""
    said: dict[Condition, tuple[str, str]] = field(default_factory=dict)
    """Message and cure for each condition, from the last look that was bad."""
    holding: tuple[dict[str, str], ...] = ()


class Watch:
    """Looks at cameras. `show` and what is asked may come from any thread."""

    def __init__(
        self,
        cameras: Sequence[Camera],
        terms: Terms,
        every_s: float,
        tell: Tell,
        commission_dir: Path,
        kept: Callable[[str], str | None],
        crashed: Callable[[], None],
    ) -> None:
        self._terms = terms
        self._every_s = every_s
        self._tell = tell
        self._commission_dir = commission_dir
        self._crashed = crashed
        watched = [c for c in cameras if terms.conditions and c.kind_of() in LIVE_KINDS]
        self._watched = {c.name: _take_up(c, kept(_fact(c.name))) for c in watched}
        self._waiting: dict[str, Frame] = {}
        self._changed = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._guarded, name="watch", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self, timeout_s: float = 2.0) -> None:
        """End the thread."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._thread.join(timeout_s)

    def show(self, frame: Frame) -> None:
        """Leave a frame to be looked at, when it is time for a look at its camera. Never waits."""
        watched = self._watched.get(frame.camera)
        if watched is None or frame.captured.boot_ns < watched.due_ns:
            return
        watched.shown += 1
        watched.due_ns = frame.captured.boot_ns + round(self._every_s * _uneven(watched.shown) * 1e9)
        with self._changed:
            self._waiting[frame.camera] = frame
            self._changed.notify()

    def blind(self, camera: str) -> str:
        """Say why nothing can be concluded from this camera's pictures now: the condition's code, empty when it can."""
        watched = self._watched.get(camera)
        return (watched.blind or "") if watched else ""

    def conditions(self, camera: str) -> list[dict[str, str]]:
        """List what is wrong with what a camera shows: code, message, hint, since."""
        watched = self._watched.get(camera)
        return list(watched.holding) if watched else []

    def _guarded(self) -> None:
        lower_priority()
        try:
            self._work()
        except Exception:
            log.exception("the watch's thread died")
            self._crashed()

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._stopping)
                if self._stopping:
                    return
                frame = self._waiting.pop(next(iter(self._waiting)))
            self.see(frame)

    def see(self, frame: Frame) -> None:
        """Look at a frame: measure, judge, tell, learn."""
        watched = self._watched[frame.camera]
        self._heed_commissioning(watched)
        normal, boot_ns = watched.normal, frame.captured.boot_ns
        look = watched.eye.look(frame.picture, normal.brightness if normal.known else 0.0)
        verdicts = watching.judge(look, normal)
        for condition in watching.CONDITIONS:
            if verdicts[condition] == "bad" or condition not in watched.said:
                watched.said[condition] = watching.explain(condition, frame.camera, look, normal)
        told = watching.in_dark_hours(verdicts, look, normal) if self._is_dark_time(frame) else verdicts
        courses = self._advance(watched, told, frame)
        watched.looked_ns = boot_ns
        notices = _changes(watched, courses)
        facts = {}
        if notices or boot_ns - watched.saved_ns >= SAVE_EVERY_S * 1e9:
            facts = {_fact(frame.camera): _dump(watched, courses)}
        if facts and not self._tell(frame, notices, facts):
            return  # The store is behind: the next look finds the same again.
        watched.saved_ns = boot_ns if facts else watched.saved_ns
        _log(watched, notices)
        watched.courses = courses
        watched.holding = tuple(_describe(watched, c, course) for c, course in courses.items() if course.holds)
        frozen = watching.FROZEN if _holds(courses, watching.FROZEN) else None
        watched.blind = watching.is_blind(verdicts, look) or frozen
        if watching.teaches(normal, look, verdicts):
            watched.eye.teach(watching.LEARNING_LOOKS)
            watched.normal = watching.learn(normal, look, verdicts)

    def _is_dark_time(self, frame: Frame) -> bool:
        local = datetime.fromtimestamp(frame.captured.wall_ns / 1e9).astimezone().time()
        return is_quiet(self._terms.dark_hours, local)

    def _advance(
        self, watched: _Watched, verdicts: Mapping[Condition, watching.Verdict], frame: Frame
    ) -> dict[Condition, Course]:
        """Advance every condition that is configured by one look."""
        boot_ns, wall_ns = frame.captured.boot_ns, frame.captured.wall_ns
        between_s = max(self._every_s, 1 / watched.camera.rate_fps)
        gap_s = max(self._terms.gap_s, GAP_LOOKS * between_s)
        courses = watched.courses
        if watched.looked_ns and boot_ns - watched.looked_ns > gap_s * 1e9:
            courses = watching.after_a_gap(courses)
        wanted = self._terms.conditions
        unwanted = {c for c, course in courses.items() if course.holds and c not in wanted}  # told by an earlier run
        found = {}
        for condition in (*wanted, *unwanted):
            begin_s = watching.begin_s(condition, self._terms)
            found[condition] = watching.advance(
                courses.get(condition, Course()),
                "good" if condition in unwanted else verdicts[condition],
                boot_ns,
                wall_ns,
                begin_s,
                watching.patience_s(begin_s, between_s),
            )
        return found

    def _heed_commissioning(self, watched: _Watched) -> None:
        """Take up the picture of how the camera was set up, when there is one, or a new one."""
        path = self._commission_dir / f"{watched.camera.name}.jpg"
        try:
            written_ns = path.stat().st_mtime_ns
        except OSError:
            written_ns = 0
        if written_ns == watched.commissioned_ns:
            return
        watched.commissioned_ns = written_ns
        try:
            look = watched.eye.set_up(decode_picture(path.read_bytes(), max_bytes=COMMISSIONED_BYTES))
        except (OSError, PictureError) as error:
            log.warning("camera %s: its commissioning picture %s cannot be read: %s", watched.camera.name, path, error)
            look = watched.eye.set_up(None)
        watched.normal = watching.set_up(watched.normal, look)


def _uneven(n: int) -> float:
    """Give a factor from 0.9 to 1.1 that never repeats: what changes in the beat of the looks must not seem still."""
    return 0.9 + 0.2 * (n * 0.618034 % 1.0)


def _changes(watched: _Watched, courses: Mapping[Condition, Course]) -> list[Notice]:
    """List the conditions that begin or end with these courses."""
    found = []
    for condition, course in courses.items():
        before = watched.courses.get(condition, Course())
        if course.holds and not before.holds:
            found.append(Notice(condition, "raised", course.since_wall_ns, watched.said[condition][0]))
        elif before.holds and not course.holds:
            text = f"camera {watched.camera.name}: it shows what it should again"
            found.append(Notice(condition, "cleared", before.since_wall_ns, text))
    return found


def _log(watched: _Watched, notices: Sequence[Notice]) -> None:
    for notice in notices:
        if notice.state == "raised":
            log.warning("%s [%s]. Cure: %s", notice.text, notice.condition, watched.said[notice.condition][1])
        else:
            log.info("camera %s: no longer %s", watched.camera.name, notice.condition)


def _describe(watched: _Watched, condition: Condition, course: Course) -> dict[str, str]:
    message, hint = watched.said[condition]
    return {"code": condition, "message": message, "hint": hint, "since": moment(course.since_wall_ns)}


def _holds(courses: Mapping[Condition, Course], condition: Condition) -> bool:
    return condition in courses and courses[condition].holds


def _fact(camera: str) -> str:
    return f"watch:{camera}"


def _dump(watched: _Watched, courses: Mapping[Condition, Course]) -> str:
    """Write what was learned of a camera, and what holds, to be kept in the store."""
    detail = watched.eye.normal_detail
    return json.dumps(
        {
            "normal": asdict(watched.normal),
            "detail": None if detail is None else [[round(float(v), 1) for v in row] for row in detail],
            "holds": {c: course.since_wall_ns for c, course in courses.items() if course.holds},
        }
    )


def _take_up(camera: Camera, text: str | None) -> _Watched:
    """Take up a camera with what the last run learned of it. Its conditions hold until looks say otherwise."""
    watched = _Watched(camera, Eye(camera.mask))
    if text is None:
        return watched
    try:
        kept: dict[str, Any] = json.loads(text)
        normal = Normal(**kept["normal"])
        watched.eye.remember(kept["detail"], normal.looks)
        watched.courses = {c: Course("present", since_wall_ns=int(ns)) for c, ns in kept["holds"].items()}
    except (KeyError, TypeError, ValueError):
        log.warning("camera %s: what the watch learned is of another version; it learns anew", camera.name)
        return _Watched(camera, Eye(camera.mask))
    watched.normal = normal
    return watched


class Watched:
    """A sink that lets the watch see each frame on its way to the pipeline."""

    def __init__(self, sink: Sink, watch: Watch) -> None:
        self._sink = sink
        self._watch = watch

    def offer(self, frame: Frame) -> None:
        """Hand a frame over. Never waits."""
        self._watch.show(frame)
        self._sink.offer(frame)

    def end(self, camera: str) -> None:
        """Say that this camera's source has ended."""
        self._sink.end(camera)
