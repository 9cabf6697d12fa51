"""The device's own page and API, put together: the socket, who may come in, the use of the model, the facts shown."""

import base64
import errno
import json
import secrets
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from agent.app import Stop
from agent.app.troubles import Outside, problems, room_bytes
from agent.camera.encode import lower_priority
from agent.camera.last import small_jpeg
from agent.config import Camera, Config, Local
from agent.core.records import moment
from agent.errors import Rejected, ShelfwireError
from agent.host.activation import handed_in
from agent.host.clock import SystemClock, boot_id
from agent.host.process import age_s
from agent.local.guard import Guard, Names, is_loopback
from agent.local.looking import Looking, Seen
from agent.local.oip import ModelFacts, Oip
from agent.local.page import Page
from agent.local.server import Server
from agent.local.site import DeviceSite
from agent.store.inspect import Snapshot, look
from models import Classifier

LEAST_PASSWORD = 8
MOST_PICTURE_BYTES = 2 << 20
STORE_EVERY_NS = 2 * 10**9
"""The store is looked into at most this often, however many look at the page."""

Cameras = Callable[[], Sequence[dict[str, Any]]]
"""Tells the state of every camera."""


def open_listener(local: Local) -> socket.socket | None:
    """Take the socket that systemd hands in, or open the configured one; None when there is neither.

    Raises `Rejected`: ``local-open`` when others than this machine could come in without password and TLS,
    ``port-in-use``, ``local-address``, ``socket-unfit``.
    """
    listener = handed_in("local")
    if listener is None:
        if not local.port:
            return None
        listener = _open(local.address, local.port)
    host = str(listener.getsockname()[0])
    if not is_loopback(host) and (local.password_file is None or local.cert_file is None):
        listener.close()
        raise Rejected(
            "local-open",
            f"the local page would listen on {host}, where everybody in the network could come in",
            "give [local] password_file, cert_file and key_file, or let it listen on 127.0.0.1 alone and come through"
            " an SSH tunnel: ssh -L 8471:localhost:8471 THIS-DEVICE",
        )
    return listener


def _open(address: str, port: int) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        return socket.create_server((address, port), family=family, backlog=64)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            text = f"port {port} for the local page is in use"
            raise Rejected("port-in-use", text, "name a free port in the [local] section, or 0 for none") from None
        text = f"the local page cannot listen on {address}, port {port}: {error.strerror or error}"
        raise Rejected("local-address", text, "correct [local] address and port") from None


def read_password(path: Path | None) -> str | None:
    """Read the page's password. Raises `Rejected` (``local-password``)."""
    if path is None:
        return None
    cure = f"write one of at least {LEAST_PASSWORD} characters on the first line of the file, readable for this user"
    try:
        password = path.read_text(encoding="utf-8").partition("\n")[0].strip()
    except (OSError, UnicodeDecodeError) as error:
        raise Rejected("local-password", f"the local page's password cannot be read: {error}", cure) from None
    if len(password) < LEAST_PASSWORD:
        raise Rejected("local-password", "the local page's password is too short", cure)
    return password


def open_tls(local: Local) -> ssl.SSLContext | None:
    """Read certificate and key. Raises `Rejected` (``local-certificate``)."""
    if local.cert_file is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(local.cert_file, local.key_file)
    except (OSError, ssl.SSLError) as error:
        raise Rejected(
            "local-certificate",
            f"the local page's certificate cannot be used: {error}",
            "correct [local] cert_file and key_file: PEM files that belong together, readable for this user",
        ) from None
    return context


class LocalSide:
    """The page and API of one device. Begin with `start`; every frame answered is told to `looking.saw`."""

    def __init__(
        self,
        config: Config,
        listener: socket.socket,
        classifier: Classifier,
        cameras: Cameras,
        frames_wait: Callable[[], bool],
        stop: Stop,
    ) -> None:
        clock = SystemClock()
        local = config.local
        tls = open_tls(local)
        names = Names(not is_loopback(str(listener.getsockname()[0])), _names(local))
        token = partial(secrets.token_urlsafe, 32)
        guard = Guard(names, read_password(local.password_file), time.monotonic, token, secure=tls is not None)
        self.looking = Looking(
            [camera.name for camera in config.camera],
            lambda picture, width: small_jpeg(picture, width, MOST_PICTURE_BYTES),
            clock,
        )
        facts = DeviceFacts(config, classifier, self.looking, cameras, clock)
        api = Oip(_model_facts(classifier), classifier.worker, frames_wait, partial(clock.wait, stop.event))
        page = Page(facts, self.looking, guard, lambda: clock.now().boot_ns)
        self._server = Server(listener, DeviceSite(guard, api, page), lower_priority, tls)
        host, port = listener.getsockname()[:2]
        self.url = f"http{'s' if tls else ''}://{f'[{host}]' if ':' in host else host}:{port}/"

    def run(self) -> None:
        """Serve until `stop`: the body of the thread "local"."""
        self._server.run()

    def stop(self) -> None:
        """Let everybody go."""
        self.looking.close()
        self._server.stop()


def _names(local: Local) -> frozenset[str]:
    own = socket.gethostname().lower()
    return frozenset({own, f"{own}.local", *(name.lower() for name in local.names)})


def _model_facts(classifier: Classifier) -> ModelFacts:
    model = classifier.model
    return ModelFacts(
        model.name, model.version, classifier.runtime, classifier.labels, model.digest, classifier.threshold
    )


class DeviceFacts:
    """What the page says of the device. Any thread may ask."""

    def __init__(
        self, config: Config, classifier: Classifier, looking: Looking, cameras: Cameras, clock: SystemClock
    ) -> None:
        self._config = config
        self._model = {
            "name": classifier.model.name,
            "version": classifier.model.version,
            "runtime": classifier.runtime,
        }
        self._looking = looking
        self._cameras = cameras
        self._clock = clock
        self._pictures = config.device.runtime_dir / "pictures"
        self._lock = threading.Lock()
        self._stored: dict[str, object] = {}
        self._stored_ns = -STORE_EVERY_NS

    def state(self) -> Mapping[str, object]:
        """Give everything the page shows."""
        now = self._clock.now()
        wanted = {camera.name: camera for camera in self._config.camera}
        return {
            "device": self._config.device.id,
            "store": self._config.device.store,
            "agent": version("shelfwire"),
            "at": moment(now.wall_ns),
            "running_s": round(age_s(), 1),
            "model": self._model,
            "cameras": [self._camera(state, wanted[state["name"]], now.boot_ns) for state in self._cameras()],
            **self._from_store(now.boot_ns),
        }

    def kept(self, camera: str) -> bytes | None:
        """Give the last picture that was kept of a camera, None when none was."""
        try:
            message = json.loads((self._pictures / f"{camera}.json").read_bytes())
            return base64.b64decode(message["jpeg"])
        except (OSError, ValueError, KeyError):
            return None

    def _camera(self, state: dict[str, Any], camera: Camera, now_ns: int) -> dict[str, object]:
        seen = self._looking.seen(camera.name)
        return {
            "conditions": [],
            **state,
            "wanted_fps": camera.rate_fps,
            "stale_after_s": 2.0 + 3.0 / camera.rate_fps,
            "answer": None if seen is None else _answer(seen, now_ns),
        }

    def _from_store(self, now_ns: int) -> dict[str, object]:
        with self._lock:
            if now_ns - self._stored_ns >= STORE_EVERY_NS:
                self._stored = self._look(now_ns)
                self._stored_ns = now_ns
            return self._stored

    def _look(self, now_ns: int) -> dict[str, object]:
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


def _answer(seen: Seen, now_ns: int) -> dict[str, object]:
    return {
        "label": seen.label,
        "state": seen.state,
        "reason": seen.reason,
        "frame": seen.number,
        "age_s": round((now_ns - seen.captured_ns) / 1e9, 3),
        "took_ms": round(seen.total_ms, 1),
        "top": [{"label": label, "score": round(score, 4)} for label, score in seen.top],
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


def open_local(
    config: Config, classifier: Classifier, cameras: Cameras, frames_wait: Callable[[], bool], stop: Stop
) -> LocalSide | None:
    """Put the page and API together; None where nothing listens. Raises what `open_listener` raises, and more."""
    listener = open_listener(config.local)
    if listener is None:
        return None
    try:
        return LocalSide(config, listener, classifier, cameras, frames_wait, stop)
    except BaseException:
        listener.close()
        raise
