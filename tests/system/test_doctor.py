"""The doctor on real devices: a healthy one, a dead one, and one with everything broken at once."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
from broker import PATIENCE_S, make_broker
from cloud_servers import swallowing
from test_device import DEVICE, Box
from waiting import wait_for

from agent.config import load
from agent.link import trace
from agent.link.trace import Sync, to_broker
from agent.store.inspect import look
from cloud.broker import CLOUD, Broker
from wire import mqtt, topics

ALONE = Sync(False, {})
WHOLE_S = 10.0
"""What the doctor promises, its start included."""


def doctor(box: Box, *words: str) -> dict[str, Any]:
    """Run the doctor; it must end in its ten seconds, whatever it finds."""
    began_s = time.monotonic()
    answer = box.once("doctor", "--json", *words)
    took_s = time.monotonic() - began_s
    assert "Traceback" not in answer.stderr, answer.stderr
    assert took_s < WHOLE_S or "--patience" in words, f"{took_s:.1f} s"
    said: dict[str, Any] = json.loads(answer.stdout)
    assert answer.returncode == ("ok", "warning", "failure", "not-run").index(said["overall"])
    return said | {"took_s": took_s}


def codes(said: dict[str, Any]) -> set[str]:
    """Give the codes without what is true of the machine that the tests run on."""
    return set(said["code"].split()) - {"TIME-2", "HOST-4", "HOST-5", "HOST-9", "OK"}


def titles(said: dict[str, Any]) -> str:
    return "\n".join(check["title"] for check in said["checks"])


def test_a_healthy_device(tmp_path: Path, broker: Broker, ingest: Callable[..., object]) -> None:
    ingest()
    box = Box(tmp_path / "d", broker, rate_fps=2)
    with box.running("vision"), box.running("sync"):
        wait_for(
            "answers to arrive", lambda: streaming(box) and box.status()["results"]["delivered"] and confirmed(box)
        )
        connected = broker_log(broker).count("New client connected")
        said = doctor(box, "--deep", "--since", "1h")
        assert codes(said) == set(), said
        assert "2 of 2 cameras give pictures" in titles(said)
        assert "answers as it should on" in titles(said)
        assert "is well: the cloud confirmed what sync sent" in titles(said)
        assert "deep: every record is delivered, waits, is dead or was dropped" in titles(said)
        quick = doctor(box, "--quick")
        assert codes(quick) == set(), quick
        assert quick["took_s"] < 6, "two seconds are promised, on a machine that does nothing else"
        assert broker_log(broker).count("New client connected") == connected, "it must not log in beside sync"


def confirmed(box: Box) -> bool:
    return bool(look(box.state).receipt)


def streaming(box: Box) -> bool:
    cameras = box.status().get("vision", {}).get("cameras", [])
    return len(cameras) == 2 and all(camera["phase"] == "streaming" for camera in cameras)


def broker_log(broker: Broker) -> str:
    return (broker.password_file(CLOUD).parents[1] / "broker.log").read_text()


def test_a_dead_device_is_looked_at_all_the_same(tmp_path: Path, broker: Broker) -> None:
    """Cameras are opened, the broker is asked, and what waits there for the device is left for sync."""
    box = Box(tmp_path / "d", broker)
    with box.running("vision"):
        wait_for("an answer", box.produced)
    said = doctor(box, "camera", "network", "service", "outbox", "--patience", "8.5")
    assert codes(said) == {"SVC-1", "SVC-2"}, said
    assert "2 of 2 cameras give pictures" in titles(said)
    assert "is well: what we send comes back" in titles(said)


def test_the_doctor_takes_nothing_that_waits_for_sync(tmp_path: Path, broker: Broker) -> None:
    box = Box(tmp_path / "d", broker)
    topic = topics.topic(DEVICE, topics.RECEIPTS_DOWN)
    mine = replace(broker.options(DEVICE), clean_start=False, session_expiry_s=600, subscriptions=((topic, 1),))
    session = connected(mine)
    session.stop()
    cloud = connected(broker.options(CLOUD, "cloud-1"))
    cloud.publish(topic, b"what sync waits for")
    wait_for("the broker to have it", lambda: isinstance(cloud.next_event(0.1), mqtt.Acknowledged))
    cloud.stop()
    way = to_broker(load(box.config), ALONE, PATIENCE_S)
    assert [hop.name for hop in way.hops if hop.ok][-2:] == ["login", "echo"], way
    session = mqtt.Session(mine, Random(1))
    session.start()
    wait_for("the message, behind what other tests have left", lambda: next_payload(session) == b"what sync waits for")
    session.stop()


def connected(options: mqtt.Options) -> mqtt.Session:
    session = mqtt.Session(options, Random(1))
    session.start()
    wait_for("the connection", lambda: isinstance(session.next_event(0.5), mqtt.Up))
    return session


def next_payload(session: mqtt.Session) -> bytes:
    event = session.next_event(0.5)
    return event.payload if isinstance(event, mqtt.Message) else b""


@pytest.fixture
def strict_broker(tmp_path: Path) -> Iterator[Broker]:
    """A broker whose access list leaves this device nothing."""
    made = make_broker(tmp_path / "broker")
    access = tmp_path / "broker" / "device.access"
    access.write_text("topic read nothing\n")
    child = made.pid
    assert child is not None
    os.kill(child, 1)  # it reads its access list again
    yield made
    made.stop()


def test_a_login_that_is_refused_and_one_that_may_do_nothing(tmp_path: Path, strict_broker: Broker) -> None:
    box = Box(tmp_path / "d", strict_broker)
    wait_for("the access list", lambda: stopped(box) == ("echo", "NET-14"))
    password = tmp_path / "password"
    password.write_text("wrong")
    box.config.write_text(box.config.read_text().replace(str(strict_broker.password_file(DEVICE)), str(password)))
    assert stopped(box) == ("login", "NET-13")


def stopped(box: Box) -> tuple[str, str]:
    hop = to_broker(load(box.config), ALONE, PATIENCE_S).broken
    return (hop.name, hop.code) if hop else ("", "")


BROKEN = """
[device]
id = "till-3"
state_dir = "{disk}/state"
runtime_dir = "{disk}/run"
[model]
bundle = "{folder}/no-bundle"
[cloud]
broker = "mqtt://127.0.0.1:{one}"
api = "http://127.0.0.1:{two}"
[[camera]]
name = "hangs"
url = "{folder}/fifo"
kind = "file"
[[camera]]
name = "gone"
url = "/dev/video77"
[[camera]]
name = "swallowed"
url = "rtsp://127.0.0.1:{one}/stream"
[[camera]]
name = "refused"
url = "rtsp://127.0.0.1:1/stream"
"""

SMALL_DISK = ["unshare", "--map-root-user", "--mount", "sh", "-c"]
FILL = (
    'mount -t tmpfs -o size=512k none "$0" && mkdir "$0/state" && cp "$0.store" "$0/state/outbox.sqlite"'
    ' && { cat /dev/zero > "$0/state/ballast" 2>/dev/null || true; } && exec "$@"'
)
"""A disk of its own, with a store that is none, filled to the last byte."""


@pytest.mark.skipif(
    subprocess.run([*SMALL_DISK, "true"], capture_output=True, check=False).returncode != 0,
    reason="this machine allows no private mounts, so there is no small disk to fill",
)
def test_everything_broken_at_once_ends_in_ten_seconds(tmp_path: Path) -> None:
    disk, config = tmp_path / "disk", tmp_path / "device.toml"
    disk.mkdir()
    (tmp_path / "disk.store").write_bytes(b"this is no store of ours at all" * 1000)
    os.mkfifo(tmp_path / "fifo")
    with swallowing() as one, swallowing() as two:
        config.write_text(BROKEN.format(folder=tmp_path, disk=disk, one=one, two=two))
        command = [sys.executable, "-m", "agent.cli", "doctor", "--deep", "--since", "1h", "-c", str(config)]
        began_s = time.monotonic()
        answer = subprocess.run(
            [*SMALL_DISK, FILL, str(disk), *command], capture_output=True, text=True, check=False, timeout=60
        )
        took_s = time.monotonic() - began_s
    assert took_s < WHOLE_S, f"{took_s:.1f} s"
    assert answer.returncode == 2, answer.stderr
    assert "Traceback" not in answer.stderr
    said = set(answer.stdout.splitlines()[-1].removeprefix("Code: ").split())
    assert said >= {"CAM-1", "MOD-1", "NET-20", "BOX-12", "HOST-1", "SVC-1", "SVC-2"}, answer.stdout
    assert "hangs: the camera hangs" in answer.stdout or ": not looked at (" in answer.stdout


def test_a_camera_whose_driver_hangs_holds_up_neither_the_others_nor_the_doctor(tmp_path: Path) -> None:
    box = Box(tmp_path / "d", None, cameras=1)
    os.mkfifo(tmp_path / "fifo")
    hung = f'[[camera]]\nname = "hangs"\nurl = "{tmp_path}/fifo"\nkind = "file"\n'
    box.config.write_text(box.config.read_text() + hung)
    said = doctor(box, "camera", "--patience", "7.5")
    assert codes(said) == {"CAM-13"}
    assert "1 of 2 cameras give pictures" in titles(said)


def test_a_broken_configuration_leaves_the_rest_to_be_looked_at(tmp_path: Path) -> None:
    box = Box(tmp_path / "d", None)
    box.config.write_text(box.config.read_text().replace("state_dir", "stat_dir"))
    said = doctor(box)
    assert "CFG-2" in codes(said)
    assert 'did you mean "state_dir"?' in json.dumps(said["checks"][0]["detail"]).replace('\\"', '"')
    assert {check["area"] for check in said["checks"]} >= {"config", "host", "service", "time"}


def test_both_ways_are_walked_side_by_side(tmp_path: Path) -> None:
    box = Box(tmp_path / "d", None)
    with swallowing() as one, swallowing() as two:
        link = f'[cloud]\nbroker = "mqtt://127.0.0.1:{one}"\napi = "http://127.0.0.1:{two}"\n'
        box.config.write_text(box.config.read_text() + link)
        began_s = time.monotonic()
        ways = trace.walk(load(box.config), ALONE, 2.5)
    assert time.monotonic() - began_s < 4
    assert [way.broken.code for way in ways if way.broken] == ["NET-20", "NET-20"]
