"""Privacy zones, proved on the bytes: no picture that leaves a device or lies on it shows anything of a zone.

A camera shows a plain wall, and in a zone of it a secret: noise in loud colours. Its pictures change their size and
shape. Everything that vision and sync write, send and show is taken, decoded and looked at.
"""

import base64
import io
import json
import sqlite3
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import paho.mqtt.client as paho
import pyarrow.parquet as pq
import pytest
from api_server import ApiServer
from test_device import Box, stop
from test_local_open import free_port
from waiting import wait_for

from agent.camera.mask import FILL
from cloud.broker import CLOUD, Broker
from wire import topics

import cv2  # isort: skip

ZONE = (0.2, 0.3, 0.6, 0.8)
"""Left, top, right and bottom, in parts of the picture."""
SIZES = ((320, 180), (480, 270), (180, 320), (321, 179))
MARGIN_PX = 8
"""As far as a JPEG's blocks carry what is outside over the zone's edge."""

SETTINGS = """
[model]
workers = 1
threshold = 1.0
[placement]
deadline = "1 ms"
[privacy]
pictures = "frames"
thumbnail_interval = "100 ms"
[review]
below = 1.0
per_hour = 100
[serverless]
per_hour = 36000
burst = 100
[batch]
keep_every = "200 ms"
window = "00:00-23:59"
[spool]
keep_free = "1 MiB"
[[alert]]
name = "strange"
label = "unknown"
score = 0.0
dwell = "100 ms"
"""


def write_pictures(folder: Path) -> None:
    folder.mkdir()
    rng = np.random.default_rng(8)
    for number, (width, height) in enumerate(SIZES * 2):
        picture = np.full((height, width, 3), (90, 80, 70), np.uint8)
        picture[:: 2 + number % 3] += 12
        left, top, right, bottom = (round(p * s) for p, s in zip(ZONE, (width, height) * 2, strict=True))
        # each pixel saturated, in blocks that survive being scaled down
        noise = rng.integers(0, 2, ((bottom - top) // 8 + 1, (right - left) // 8 + 1, 3), np.uint8) * 255
        big = np.kron(noise, np.ones((8, 8, 1), np.uint8))
        picture[top:bottom, left:right] = big[: bottom - top, : right - left]
        cv2.imwrite(str(folder / f"{number}.png"), picture)


def check(jpeg: bytes, where: str) -> None:
    """See that the zone is grey, and that nothing anywhere has the secret's colours."""
    picture = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None, where
    height, width = picture.shape[:2]
    left, top, right, bottom = (round(p * s) for p, s in zip(ZONE, (width, height) * 2, strict=True))
    inside = picture[top + MARGIN_PX : bottom - MARGIN_PX, left + MARGIN_PX : right - MARGIN_PX].astype(int)
    assert inside.size > 1000
    assert abs(inside - FILL).max() <= 6, where  # a JPEG of quality 40 carries that far what is outside
    spread = picture.max(axis=2).astype(int) - picture.min(axis=2)
    assert spread.max() <= 48, where  # the wall's own is 20; the secret's is 255
    assert picture.max() <= FILL + 24, where


def test_the_check_sees_a_secret(tmp_path: Path) -> None:
    write_pictures(tmp_path / "bare")
    bare = cv2.imread(str(tmp_path / "bare" / "0.png"))
    with pytest.raises(AssertionError):
        check(cv2.imencode(".jpg", bare, [cv2.IMWRITE_JPEG_QUALITY, 40])[1].tobytes(), "bare")
    nearly = bare.copy()
    nearly[54:136, 64:192] = FILL  # all of the zone but its last eight lines
    with pytest.raises(AssertionError):
        check(cv2.imencode(".jpg", nearly)[1].tobytes(), "nearly")


class Listener:
    """Keeps every picture message that reaches the broker."""

    def __init__(self, broker: Broker) -> None:
        self.jpegs: list[bytes] = []
        options = broker.options(CLOUD, "listener")
        self._client = paho.Client(paho.CallbackAPIVersion.VERSION2, "listener", protocol=paho.MQTTv5)
        self._client.username_pw_set(options.username, options.password)
        self._client.on_message = self._take
        self._client.connect("127.0.0.1", options.port)
        self._client.subscribe(f"{topics.PREFIX}/+/{topics.PICTURES}")
        self._client.loop_start()

    def _take(self, _client: object, _userdata: object, message: paho.MQTTMessage) -> None:
        self.jpegs.append(base64.b64decode(json.loads(message.payload)["data"]["jpeg"]))

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


@pytest.fixture
def cloud() -> Iterator[ApiServer]:
    made = ApiServer()
    yield made
    made.close()


def alerts(state: Path) -> list[dict[str, str]]:
    try:
        store = sqlite3.connect(f"{(state / 'outbox.sqlite').as_uri()}?mode=ro", uri=True, timeout=20)
    except sqlite3.OperationalError:  # not made yet
        return []
    try:
        return [json.loads(body) for (body,) in store.execute("SELECT body FROM outbox WHERE kind = 'alert'")]
    except sqlite3.OperationalError:  # it has no tables yet
        return []
    finally:
        store.close()


def test_nothing_of_a_zone_leaves_a_device_or_lies_on_it(broker: Broker, cloud: ApiServer, tmp_path: Path) -> None:
    write_pictures(tmp_path / "wall")
    port = free_port()
    left, top, right, bottom = ZONE
    box = Box(tmp_path / "device", broker, cameras=0, more=SETTINGS + f"[local]\nport = {port}\n")
    told = box.config.read_text().replace("[cloud]\n", f'[cloud]\napi = "{cloud.url}"\n')
    # Two cameras that give more than one worker answers, so that some frames go to the function.
    box.config.write_text(
        told
        + "".join(
            f'[[camera]]\nname = "{name}"\nurl = "{tmp_path / "wall"}"\nloop = true\nrate_fps = 120\n'
            f"mask = [[[{left}, {top}], [{right}, {bottom}]]]\n"
            for name in ("wall", "other")
        )
    )
    seen: dict[str, list[bytes]] = {}
    with box.running("vision") as vision:
        # Sync does not run yet, so that everything that will leave lies here.
        thumbnails = wait_for("an alert", lambda: [a["thumbnail"] for a in alerts(box.state) if "thumbnail" in a])
        seen["alert"] = [base64.b64decode(thumbnail) for thumbnail in thumbnails]
        waiting = wait_for("files", lambda: len(f := list((box.state / "spool").rglob("*.jpg"))) > 8 and f)
        seen["spool"] = [path.read_bytes() for path in waiting]
        address = f"http://127.0.0.1:{port}/local/cameras/wall.jpg"
        seen["local page"] = [urllib.request.urlopen(f"{address}?wide={w}", timeout=10).read() for w in "010101"]
        listener = Listener(broker)
        with box.running("sync") as sync:
            wait_for("pictures on the broker", lambda: len(listener.jpegs) >= 4)
            paths = ("/v1/frames", "/v1/jobs")
            for path in paths:
                wait_for(path, lambda path=path: sum(r.path.startswith(path) for r in list(cloud.requests)) >= 4)
            assert stop(vision) == 0
            assert stop(sync) == 0
        listener.close()
    seen["pictures topic"] = listener.jpegs
    for path in paths:
        bodies = [r.body for r in list(cloud.requests) if r.path.startswith(path)]
        seen[path] = [body for body in bodies if body.startswith(b"\xff\xd8")]
    sealed = json.loads(box.once("nightly", "--json", "--now").stdout)["sealed"]
    assert sealed
    for path in (box.state / "batch").rglob("*.parquet"):
        table = pq.read_table(io.BytesIO(path.read_bytes()))
        seen.setdefault("shards", []).extend(table.column("picture").to_pylist())
    for where, jpegs in seen.items():
        assert jpegs, where
        for jpeg in jpegs:
            check(jpeg, where)
    assert set(seen) == {"alert", "spool", "local page", "pictures topic", "/v1/frames", "/v1/jobs", "shards"}
