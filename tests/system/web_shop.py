"""A shop for the tests of the pages: writes what devices would have sent straight into the store, and serves it."""

import itertools
import json
import math
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from importlib.metadata import version

import psycopg
from psycopg.types.json import Jsonb

from cloud.gateway import Function
from cloud.objects import Objects
from cloud.store import Store
from cloud.store.read import Reader
from cloud.store.verdicts import Kept, keep
from cloud.web import Address, Hub, create_app, listen, serve, version_of_pages
from wire.records import Verdict, rfc3339

RUN = "00112233445566aa"
SESSION = "ffeeddccbbaa9988"
_HUNDREDS = itertools.count(0, 1_000_000)


def ago(seconds: float) -> datetime:
    return datetime.now(UTC) - timedelta(seconds=seconds)


@cache
def shelf(seed: int, label: str, width: int = 480, height: int = 270) -> bytes:
    """A rendered shelf with one product, as JPEG."""
    from agent.camera.synthetic import Scene

    import cv2  # isort: skip

    picture, _ = Scene(seed, width, height, (label,)).render(40)
    ok, jpeg = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 82])
    assert ok
    return jpeg.tobytes()


def _no_shelf(seed: int, label: str) -> bytes:
    return b"\xff\xd8 no picture \xff\xd9"


def camera(name: str, **fields: object) -> dict[str, object]:
    """One camera of a status."""
    return {"name": name, "kind": "synthetic", "phase": "streaming", "rate_fps": 5.0, **fields}


class Shop:
    """Writes into the store as ingest would, with the notification that goes with it."""

    def __init__(self, dsn: str) -> None:
        self._connection = psycopg.connect(dsn, autocommit=True)
        self._seq = next(_HUNDREDS)  # several shops may fill one store

    def close(self) -> None:
        self._connection.close()

    def execute(self, sql: str, *values: object) -> None:
        self._connection.execute(sql.encode(), values)

    def tell(self, device: str, *what: str) -> None:
        self.execute("SELECT pg_notify('shelfwire_live', %s)", json.dumps({"device": device, "what": what}))

    def device(
        self,
        device: str,
        *,
        state: str = "online",
        store: str = "Harbour Street",
        cameras: tuple[dict[str, object], ...] = (),
        seen_s: float = 1.0,
        changed_s: float = 4000.0,
        **fields: object,
    ) -> None:
        model = {"name": "produce", "version": "0.1.0", "release": 1, "digest": "0" * 64}
        status: dict[str, object] = {
            "state": state, "session": SESSION, "store": store, "agent": "0.1.0", "model": model, "runtime": "openvino",
            "clock": "synced", "vision": "running", "cameras": list(cameras),
            "outbox": {"rows": 0, "bytes": 0, "dead": 0, "oldest_age_s": 0.0}, "warnings": [], **fields,
        }  # fmt: skip
        if state == "offline":
            status = {"state": state, "session": SESSION, "reason": "connection lost", **fields}
        self.execute(
            """INSERT INTO device(device, store, session, state, agent, status, seen_at, changed_at)
               VALUES (%s, %s, %s, %s, '0.1.0', %s, %s, %s) ON CONFLICT (device) DO UPDATE SET
               state = excluded.state, status = excluded.status, seen_at = excluded.seen_at, store = excluded.store""",
            device, store, SESSION, state, Jsonb(status), ago(seen_s), ago(changed_s),
        )  # fmt: skip
        self.tell(device, "status")

    def answer(
        self,
        device: str,
        name: str,
        *labels: tuple[str, float],
        label: str | None = None,
        state: str = "confirmed",
        truth: str | None = None,
        age_s: float = 0.2,
        late_s: float = 0.05,
        total_ms: float = 18.2,
        dated_by: str = "device",
        run: str = RUN,
        release: int | None = 1,
    ) -> int:
        """Commit a result and make it the camera's answer; gives its sequence number."""
        self._seq += 1
        decision = label or labels[0][0]
        listed = Jsonb([{"label": text, "score": score} for text, score in labels])
        at = ago(age_s)
        self.execute(
            """INSERT INTO result(device, run, seq, camera, frame, captured_at, captured_device_at, dated_by, boot_ns,
                 label, score, state, changed, reason, labels, model_name, model_version, model_release, model_digest,
                 runtime, mode, waiting_ms, inference_ms, total_ms, truth, received_at, content)
               VALUES (%s, %s, %s, %s, %s, %s, %s, %s, 1, %s, %s, %s, false, 'as before', %s, 'produce', '0.1.0', %s,
                 %s, 'openvino', 'real-time', 1, 5, %s, %s, %s, %s)""",
            device, run, self._seq, name, self._seq, at, at, dated_by, decision, labels[0][1], state, listed, release,
            "0" * 64, total_ms, truth, at + timedelta(seconds=late_s), bytes(32),
        )  # fmt: skip
        self.execute(
            """INSERT INTO camera_answer VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, 'real-time', %s, 'produce',
                 '0.1.0', %s, %s, %s)
               ON CONFLICT (device, camera) DO UPDATE SET run = excluded.run, seq = excluded.seq,
                 frame = excluded.frame, captured_at = excluded.captured_at, received_at = excluded.received_at,
                 label = excluded.label,
                 score = excluded.score, state = excluded.state, labels = excluded.labels, mode = excluded.mode,
                 model_release = excluded.model_release,
                 total_ms = excluded.total_ms, truth = excluded.truth""",
            device, name, run, self._seq, self._seq, at, at + timedelta(seconds=late_s), decision, labels[0][1], state,
            listed, total_ms, truth, release,
        )  # fmt: skip
        self.tell(device, "answers")
        return self._seq

    def late(
        self,
        device: str,
        name: str,
        *labels: tuple[str, float],
        mode: str = "serverless",
        frame: int | None = None,
        run: str = RUN,
        agrees: bool | None = None,
        late_s: float = 1.3,
        age_s: float = 0.0,
        picture_bytes: int | None = 61_000,
        usd: float | None = None,
        release: int = 1,
    ) -> int:
        """Keep a verdict as the cloud does, `age_s` ago and `late_s` after its capture; gives its sequence number."""
        self._seq += 1
        at = ago(age_s)
        model = {"name": "produce", "version": f"0.{release}.0", "release": release, "digest": f"{release:064x}"}
        verdict = Verdict.model_validate_json(json.dumps({
            "device": device, "run": run, "seq": self._seq, "camera": name, "frame": frame, "mode": mode,
            "captured_at": rfc3339(at - timedelta(seconds=late_s)), "label": labels[0][0],
            "labels": [{"label": text, "score": score} for text, score in labels], "model": model,
            "runtime": "onnxruntime", "inference_ms": 6.5, "answered_at": rfc3339(at), "agrees": agrees,
        }))  # fmt: skip
        with self._connection.transaction(), self._connection.cursor() as cursor:
            billed_ms = 45 if usd is not None else None
            keep(cursor, [Kept(verdict, at - timedelta(seconds=late_s / 2), picture_bytes, billed_ms, usd)])
            key = "device = %s AND run = %s AND seq = %s"
            cursor.execute(f"UPDATE verdict SET committed_at = %s WHERE {key}".encode(), (at, device, run, self._seq))
            cursor.execute(
                f"UPDATE camera_answer SET received_at = %s WHERE {key}".encode(), (at, device, run, self._seq)
            )
        return self._seq

    def picture(self, device: str, name: str, jpeg: bytes, *, width: int = 640, height: int = 360) -> None:
        self.execute(
            """INSERT INTO camera_picture VALUES (%s, %s, 1, %s, %s, %s, %s, %s)
               ON CONFLICT (device, camera) DO UPDATE SET jpeg = excluded.jpeg, received_at = excluded.received_at,
                 frame = camera_picture.frame + 1, captured_at = excluded.captured_at""",
            device, name, ago(0.3), ago(0.1), width, height, jpeg,
        )  # fmt: skip
        self.tell(device, "pictures")

    def alert(
        self,
        device: str,
        name: str,
        label: str,
        *,
        rule: str = "wrong-product",
        state: str = "raised",
        since: datetime | None = None,
        age_s: float = 5.0,
        jpeg: bytes | None = None,
        said: datetime | None = None,
    ) -> int:
        """`said` is when the device's wrong clock says that it was captured."""
        self._seq += 1
        at = ago(age_s)
        self.execute(
            """INSERT INTO alert VALUES (%s, %s, %s, %s, %s, %s, %s, 0.9, %s, 1, 'stayed', %s, %s, %s, %s, 1, %s,
                 %s)""",
            device, RUN, self._seq, name, rule, state, label, since or ago(age_s + 8), jpeg, at, said or at,
            "boot-clock" if said else "device", ago(age_s - 0.1), bytes(32),
        )  # fmt: skip
        self.tell(device, "alerts")
        return self._seq

    def fill(self, *, pictures: bool = True) -> None:
        """Two devices, seven cameras in all states, alerts now and before. Rendering pictures takes a second or two."""
        look = shelf if pictures else _no_shelf
        told = (
            camera("fruit-1"), camera("fruit-2"), camera("vegetables-1"), camera("vegetables-2"),
            camera(
                "entrance", kind="rtsp", phase="failed", rate_fps=0.0, code="camera-auth",
                message="camera entrance: it refuses the login",
                cure="correct username and password_file; a camera may lock out a user for minutes",
            ),
        )  # fmt: skip
        placed = {
            "captured": 48_210, "local": 46_790, "serverless": 1_034, "deferred": 310, "dropped": 76, "unanswered": 12,
        }  # fmt: skip
        self.device("harbour-01", cameras=told, frames=placed)
        self.device("station-07", store="Central Station", state="offline", seen_s=340, changed_s=340)
        for name, seed, label in (
            ("fruit-1", 3, "Granny-Smith"), ("fruit-2", 11, "Lemon"), ("vegetables-1", 23, "Carrots"),
            ("vegetables-2", 42, "Vine-Tomato"),
        ):  # fmt: skip
            self.picture("harbour-01", name, look(seed, label))
        for name, seed, label in (("window-1", 5, "Watermelon"), ("window-2", 8, "Red-Delicious")):
            self.picture("station-07", name, look(seed, label))
            self.answer("station-07", name, (label, 0.88), ("Pomegranate", 0.04), age_s=345)
        self.live_answers()
        since = ago(9300)
        self.alert("harbour-01", "fruit-1", "Banana", state="raised", since=since, age_s=9290, jpeg=look(3, "Banana"))
        self.alert("harbour-01", "fruit-1", "Banana", state="cleared", since=since, age_s=8200)
        self.alert("harbour-01", "vegetables-2", "Vine-Tomato", age_s=42, jpeg=look(42, "Vine-Tomato"))

    def live_answers(self) -> None:
        self.answer("harbour-01", "fruit-1", ("Granny-Smith", 0.973), ("Golden-Delicious", 0.014), ("Pear", 0.006),
                    truth="Granny-Smith")  # fmt: skip
        self.answer("harbour-01", "fruit-2", ("Lime", 0.61), ("Lemon", 0.31), ("Kiwi", 0.02), label="Lemon",
                    state="pending", total_ms=21.0)  # fmt: skip
        self.answer("harbour-01", "vegetables-1", ("Carrots", 0.31), ("Orange", 0.28), ("Papaya", 0.11),
                    label="unknown", state="unknown", truth="Carrots", total_ms=17.4)  # fmt: skip
        self.answer("harbour-01", "vegetables-2", ("Vine-Tomato", 0.998), ("Red-Bell-Pepper", 0.001),
                    truth="Vine-Tomato", total_ms=9.1)  # fmt: skip

    def late_answers(self) -> None:
        """Late answers of the cameras of `fill`: one each way, one that the device contradicts, one that it awaited."""
        apple = self.answer("harbour-01", "fruit-1", ("Granny-Smith", 0.973), ("Pear", 0.006), age_s=2.4)
        self.late("harbour-01", "fruit-1", ("Granny-Smith", 0.99), mode="asynchronous", frame=apple, agrees=True,
                  late_s=6.2, age_s=8)  # fmt: skip
        lemon = self.answer("harbour-01", "fruit-2", ("Lime", 0.52), ("Lemon", 0.44), age_s=4)
        self.late("harbour-01", "fruit-2", ("Lemon", 0.91), frame=lemon, agrees=False, late_s=1.1, age_s=2, usd=1.4e-6)
        self._seq += 1  # and a camera that is left to the function alone
        self.late("harbour-01", "vegetables-2", ("Vine-Tomato", 0.94), ("Red-Bell-Pepper", 0.03), late_s=1.3,
                  frame=self._seq + 10**7, usd=1.4e-6)  # fmt: skip
        self.late("station-07", "window-1", ("Watermelon", 0.97), mode="batch", agrees=True, late_s=31_000, age_s=600,
                  frame=1)  # fmt: skip

    def history(self, over_s: float = 900.0) -> None:
        """A time of all four ways, as the Modes page shows it, the same on each call."""
        dice = random.Random(7)
        for age_s in range(2, round(over_s), 6):
            self.answer(
                "harbour-01", "fruit-1", ("Granny-Smith", 0.97), age_s=age_s, total_ms=dice.lognormvariate(2.9, 0.3)
            )
        for n in range(70):
            age_s = over_s * abs(math.sin(n * 1.7)) * 0.98 + 1
            self.late("harbour-01", "fruit-1", ("Granny-Smith", 0.97), age_s=age_s,
                      late_s=dice.lognormvariate(0.2, 0.4), frame=n + 1,
                      agrees=None if n % 2 else n % 12 != 0, usd=dice.uniform(1.1e-6, 1.9e-6),
                      picture_bytes=dice.randrange(40_000, 90_000))  # fmt: skip
        for n in range(24):
            self.late("harbour-01", "fruit-2", ("Lemon", 0.9), mode="asynchronous", age_s=over_s * (n + 0.5) / 24,
                      late_s=dice.lognormvariate(1.7, 0.9), frame=n + 1, agrees=n % 6 != 0,
                      picture_bytes=dice.randrange(40_000, 90_000))  # fmt: skip
        for n in range(120):
            self.late("station-07", "window-1", ("Watermelon", 0.9), mode="batch", age_s=over_s * (0.3 + 0.3 * n / 120),
                      late_s=dice.uniform(20_000, 52_000), frame=n + 1, agrees=n % 15 != 0, release=2,
                      picture_bytes=dice.randrange(40_000, 90_000))  # fmt: skip


@dataclass(frozen=True)
class Served:
    """A server in a thread of the test."""

    address: Address
    hub: Hub

    @property
    def url(self) -> str:
        return self.address.url.rstrip("/")


@contextmanager
def serving(
    store: Store, port: int = 0, objects: Objects | None = None, function: str | None = None
) -> Iterator[Served]:
    """Serve a store on a free port of the loopback address, with the function at a URL."""
    pages_version = version_of_pages(version("shelfwire"))
    reader = Reader(store.pool)
    hub = Hub(reader, store.dsn, now=lambda: datetime.now(UTC), rng=random.Random(7), version=pages_version)
    made = Function(function) if function is not None else None
    app = create_app(reader, hub=hub, pages_version=pages_version, objects=objects, function=made)
    opened, address = listen(Address("127.0.0.1", port))
    ready, stop = threading.Event(), threading.Event()
    thread = threading.Thread(
        target=lambda: serve(app, hub, opened, on_ready=ready.set, stop=stop.is_set), name="web", daemon=True
    )
    thread.start()
    assert ready.wait(10)
    try:
        yield Served(address, hub)
    finally:
        stop.set()
        thread.join(5)
        assert not thread.is_alive()
