"""What the device's page says: cameras as they are now, the store as it was a moment ago, and what the doctor sees."""

import base64
import json
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from agent.app.troubles import Outside, problems, room_bytes
from agent.camera.encode import lower_priority
from agent.config import Camera, Config
from agent.core.records import moment
from agent.errors import ShelfwireError
from agent.host.clock import SystemClock, boot_id
from agent.host.process import age_s
from agent.local.looking import Looking, Seen
from agent.local.page import Kept
from agent.store.inspect import Snapshot, look
from models import Classifier

log = logging.getLogger(__name__)

STORE_EVERY_NS = 2 * 10**9
"""The store is looked into at most this often, however many look at the page."""
CHECKS_EVERY_NS = 15 * 10**9
"""So often the doctor looks while somebody looks at the page."""
CHECKS_S = 5.0

AREAS = ("camera", "model", "network", "certificates", "time", "outbox", "host")
"""What the doctor can look at from inside vision, which has no network and no service manager to ask."""
BESIDE_THE_CHECKS = frozenset({"vision-silent", "sync-stopped", "function-down", "night-unsealed"})
"""Warnings that none of these checks gives; once there are checks, no other warning is shown beside them."""

CONFIG_PATH = Path("/etc/shelfwire/shelfwire.toml")
"""Of no use to these checks, which look at the configuration in force."""

Cameras = Callable[[], Sequence[dict[str, Any]]]
"""Tells the state of every camera."""


class DeviceFacts:
    """`agent.local.page.Facts`. Any thread may ask."""

    def __init__(
        self, config: Config, classifier: Classifier, looking: Looking, cameras: Cameras, clock: SystemClock
    ) -> None:
        self._config = config
        self.take_up(classifier)
        self._looking = looking
        self._cameras = cameras
        self._clock = clock
        self._pictures = config.device.runtime_dir / "pictures"
        self._lock = threading.Lock()
        self._stored: dict[str, Any] = {}
        self._stored_ns = -STORE_EVERY_NS
        self._doctor = Doctor(config, clock)

    def take_up(self, classifier: Classifier) -> None:
        """Show another model."""
        self._classifier = classifier

    def state(self) -> Mapping[str, object]:
        """Give everything the page shows."""
        now = self._clock.now()
        model = self._classifier.model
        wanted = {camera.name: camera for camera in self._config.camera}
        checks = self._doctor.found()
        stored = self._from_store(now.boot_ns)
        troubles = [one for one in stored["troubles"] if not checks or one["code"] in BESIDE_THE_CHECKS]
        return {
            "device": self._config.device.id,
            "store": self._config.device.store,
            "agent": version("shelfwire"),
            "at": moment(now.wall_ns),
            "running_s": round(age_s(), 1),
            "model": {"name": model.name, "version": model.version, "runtime": self._classifier.setup.brief},
            "cameras": [self._camera(state, wanted[state["name"]], now.boot_ns) for state in self._cameras()],
            **stored,
            "troubles": troubles,
            "checks": checks,
            "spoken": self._doctor.spoken,
        }

    def kept(self, camera: str) -> Kept | None:
        """Give the last picture that was kept of a camera, None when none was."""
        path = self._pictures / f"{camera}.json"
        try:
            written_ns = path.stat().st_mtime_ns
            jpeg = base64.b64decode(json.loads(path.read_bytes())["jpeg"])
        except (OSError, ValueError, KeyError):
            return None
        return Kept(jpeg, max(0, (self._clock.now().wall_ns - written_ns) // 1_000_000))

    def _camera(self, state: dict[str, Any], camera: Camera, now_ns: int) -> dict[str, object]:
        seen = self._looking.seen(camera.name)
        return {
            "conditions": [],
            **state,
            "wanted_fps": camera.rate_fps,
            "stale_after_s": 2.0 + 3.0 / camera.rate_fps,
            "answer": None if seen is None else _answer(seen, now_ns),
        }

    def _from_store(self, now_ns: int) -> dict[str, Any]:
        with self._lock:
            if now_ns - self._stored_ns >= STORE_EVERY_NS:
                self._stored = self._look(now_ns)
                self._stored_ns = now_ns
            return self._stored

    def _look(self, now_ns: int) -> dict[str, Any]:
        try:
            snapshot = look(self._config.device.state_dir)
            outside = Outside(
                room_bytes(self._config, snapshot), self._clock.trust(), snapshot.silent_s(boot_id(), now_ns)
            )
        except (ShelfwireError, OSError) as error:
            code, cure = getattr(error, "code", "store-unreadable"), getattr(error, "hint", "see the log of vision")
            trouble = {"code": code, "severity": "failure", "text": str(error), "cure": cure}
            return {"troubles": [trouble], "sync": None, "outbox": None, "frames": None}
        return {
            "troubles": [trouble.model_dump() for trouble in problems(self._config, snapshot, outside)],
            "sync": self._sync(snapshot),
            "outbox": _outbox(snapshot, self._clock.now().wall_ns),
            "frames": {
                "captured": snapshot.frames.captured,
                "classified": snapshot.frames.classified,
                "dropped": sum(snapshot.frames.dropped.values()),
            },
        }

    def _sync(self, snapshot: Snapshot) -> dict[str, object]:
        link = snapshot.sync
        return {
            "wanted": self._config.cloud.broker is not None,
            "runs": snapshot.sync_runs,
            "connected": bool(snapshot.sync_runs and link.get("connected")),
            "broker": link.get("broker"),
        }


class Doctor:
    """The doctor's quick look, made anew now and then by a thread of its own while somebody asks for it."""

    def __init__(self, config: Config, clock: SystemClock) -> None:
        self._config = config
        self._clock = clock
        self._lock = threading.Lock()
        self._looks = False
        self._next_ns = 0
        self._found: list[dict[str, object]] = []
        self.spoken = ""
        """Codes to read out over the phone; empty while there are none."""

    def found(self) -> list[dict[str, object]]:
        """Give what the last look found, empty before the first, and see to it that the next one is made."""
        with self._lock:
            due = not self._looks and self._clock.now().boot_ns >= self._next_ns
            self._looks = self._looks or due
        if due:
            threading.Thread(target=self._look, name="local-doctor", daemon=True).start()
        return self._found

    def _look(self) -> None:
        from agent import checks  # when somebody looks at the page, and not before: it costs memory

        lower_priority()
        try:
            context = checks.Context(CONFIG_PATH, self._config, quick=True)
            found = checks.examine(context, AREAS, CHECKS_S)
            spoken = checks.spoken(found)
            self.spoken = "" if spoken == "OK" else spoken
            self._found = [{**asdict(finding), "who": finding.who} for finding in found]
        except Exception:  # the page shows less; that is no reason to end what watches the cameras
            log.exception("the doctor's look for the local page failed")
        finally:
            with self._lock:
                self._looks = False
                self._next_ns = self._clock.now().boot_ns + CHECKS_EVERY_NS


def _answer(seen: Seen, now_ns: int) -> dict[str, object]:
    return {
        "label": seen.label,
        "state": seen.state,
        "reason": seen.reason,
        "frame": seen.number,
        "age_s": round((now_ns - seen.captured_ns) / 1e9, 3),
        "took_ms": round(seen.total_ms, 1),
        "top": [{"label": label, "score": round(score, 6)} for label, score in seen.top],
    }


def _outbox(snapshot: Snapshot, wall_ns: int) -> dict[str, object]:
    oldest_ns = snapshot.oldest_wall_ns
    return {
        "waiting": snapshot.waiting,
        "bytes": snapshot.waiting_bytes,
        "oldest_age_s": 0.0 if oldest_ns is None else max(0.0, (wall_ns - oldest_ns) / 1e9),
        "for_the_night": snapshot.for_the_night,
        "dead": snapshot.dead,
    }
