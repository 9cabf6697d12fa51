"""A real device: its processes, a real broker, a real ingest and PostgreSQL; killed, cut off and misused."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
import requests
from cloudevents.http import from_json
from waiting import PATIENCE_S, wait_for

from agent.camera.synthetic import Scene
from cloud.broker import CLOUD, Broker
from cloud.ingest import Ingest
from cloud.store import Store

import cv2  # isort: skip

DEVICE = "shop-1"


class Box:
    """A device's folder, its configuration and its commands."""

    def __init__(
        self, folder: Path, broker: Broker | None, cameras: int = 2, rate_fps: float = 8, more: str = ""
    ) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.state = folder / "state"
        self.config = folder / "device.toml"
        link = ""
        if broker is not None:
            link = (
                f'[cloud]\nbroker = "mqtt://127.0.0.1:{broker.port}"\nusername = "{DEVICE}"\n'
                f'password_file = "{broker.password_file(DEVICE)}"\nreceipt_timeout = "3 s"\nkeepalive = "5 s"\n'
            )
        sections = [f'[device]\nid = "{DEVICE}"\nstate_dir = "{self.state}"\nruntime_dir = "{folder / "run"}"\n', link]
        sections += [
            f'[[camera]]\nname = "cam-{n}"\nurl = "synthetic:{n + 1}?width=320&height=180"\nrate_fps = {rate_fps}\n'
            for n in range(cameras)
        ]
        self.config.write_text("\n".join([*sections, more]))

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "agent.cli", *words, "--config", str(self.config)]

    @contextmanager
    def running(self, *words: str) -> Iterator["subprocess.Popen[bytes]"]:
        with (self.folder / "log").open("ab") as log:
            process = subprocess.Popen(self.command(*words), stderr=log)
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()

    def once(self, *words: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(self.command(*words), capture_output=True, text=True, timeout=60, check=False)

    def status(self) -> dict[str, Any]:
        answer = self.once("status", "--json").stdout
        status: dict[str, Any] = json.loads(answer) if answer else {}
        return {} if "error" in status else status

    def produced(self) -> int:
        return int(self.status().get("results", {}).get("produced", 0))

    def log(self) -> str:
        return (self.folder / "log").read_text()


def keys_in_cloud(dsn: str) -> set[tuple[str, int]]:
    with psycopg.connect(dsn) as connection:
        rows = connection.execute("SELECT run, seq FROM result UNION ALL SELECT run, seq FROM alert").fetchall()
    keys = {(str(run), int(seq)) for run, seq in rows}
    assert len(keys) == len(rows)
    return keys


def stop(process: "subprocess.Popen[bytes]") -> int:
    process.send_signal(signal.SIGTERM)
    return process.wait(PATIENCE_S)


def child(process: "subprocess.Popen[bytes]", role: str) -> int:
    """Process id of `run`'s child with this role."""

    def find() -> int:
        for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
            try:
                words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if role.encode() in words:
                return int(pid)
        return 0

    return int(wait_for(f"{role} to run", find))


def books_agree(box: Box, dsn: str) -> dict[str, Any]:
    """What the device counted is what PostgreSQL holds, record by record."""
    status = box.status()
    produced = status["results"]["produced"] + status["alerts"]["produced"]
    frames = status["frames"]
    assert frames["captured"] == frames["classified"] + sum(frames["dropped"].values())
    assert frames["classified"] == status["results"]["produced"]
    assert status["outbox"]["waiting"] == 0, box.log()
    assert status["results"]["delivered"] + status["alerts"]["delivered"] == produced
    keys = keys_in_cloud(dsn)
    assert len(keys) == produced
    assert len({seq for _, seq in keys}) == produced
    return status


def test_every_answer_arrives_though_the_broker_is_killed(
    tmp_path: Path, broker: Broker, ingest: Callable[..., Ingest], store: Store
) -> None:
    ingest()
    alert = '[[alert]]\nname = "something"\nlabel = "Banana"\nscore = 0.1\ndwell = "1 s"\n'
    box = Box(tmp_path / "d", broker, more=alert)
    with box.running("run", "--drain", "30") as process:
        wait_for("the first results in the cloud", lambda: store.counts().results > 10)
        broker.kill()
        before = box.produced()
        wait_for("results while the broker is away", lambda: box.produced() > before + 20)
        broker.start()
        wait_for("the backlog to arrive", lambda: store.counts().results > before + 20)
        assert stop(process) == 0, box.log()
    status = books_agree(box, store.dsn)
    assert status["vision"]["stopped"]
    with psycopg.connect(store.dsn) as connection:
        row = connection.execute("SELECT state, status->>'reason' FROM device WHERE device = %s", (DEVICE,)).fetchone()
    assert row == ("offline", "stopped")


def test_every_answer_arrives_though_vision_and_sync_are_killed(
    tmp_path: Path, broker: Broker, ingest: Callable[..., Ingest], store: Store
) -> None:
    ingest()
    box = Box(tmp_path / "d", broker)
    with box.running("run", "--drain", "30") as process:
        for role in ("sync", "vision", "sync"):
            seen = store.counts().results
            wait_for("more results in the cloud", lambda seen=seen: store.counts().results > seen + 10)  # type: ignore[misc]
            os.kill(child(process, role), signal.SIGKILL)
        seen = store.counts().results
        wait_for("results after the kills", lambda: store.counts().results > seen + 20)
        assert stop(process) == 0, box.log()
    books_agree(box, store.dsn)
    assert len({run for run, _ in keys_in_cloud(store.dsn)}) == 2


def test_a_broker_that_is_not_there_is_named_and_everything_is_kept(
    tmp_path: Path, broker: Broker, ingest: Callable[..., Ingest], store: Store
) -> None:
    box = Box(tmp_path / "d", broker)
    broker.stop()
    try:
        with box.running("run", "--drain", "30") as process:
            wait_for("sync to say why", lambda: box.status().get("sync", {}).get("code") == "broker-refused")
            wait_for("results in the outbox", lambda: box.status()["outbox"]["waiting"] > 10)
            assert "NOT CONNECTED" in box.once("status").stdout
            broker.start()
            ingest()
            wait_for("the backlog in the cloud", lambda: store.counts().results > 10)
            assert stop(process) == 0, box.log()
    finally:
        broker.restart()
    books_agree(box, store.dsn)


def test_a_login_that_the_broker_refuses_is_named(tmp_path: Path, broker: Broker) -> None:
    box = Box(tmp_path / "d", broker)
    (tmp_path / "wrong").write_text("not the password")
    text = box.config.read_text().replace(str(broker.password_file(DEVICE)), str(tmp_path / "wrong"))
    box.config.write_text(text)
    with box.running("sync"):
        wait_for("sync to say why", lambda: box.status().get("sync", {}).get("code") == "broker-auth")
        shown = box.once("status").stdout
    assert "check username" in shown
    assert "not the password" not in shown + box.log()


def test_envelopes_are_cloudevents_for_any_subscriber(tmp_path: Path, broker: Broker) -> None:
    """What mosquitto_sub prints is read by the CloudEvents SDK."""
    options = broker.options(CLOUD)
    listen = subprocess.Popen(
        ["mosquitto_sub", "-V", "5", "-p", str(options.port), "-u", CLOUD, "-P", str(options.password), "-C", "4",
         "-t", "shelfwire/v1/+/results", "-t", "shelfwire/v1/+/status", "-W", "40"],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    box = Box(tmp_path / "d", broker)
    with box.running("run") as process:
        printed, _ = listen.communicate(timeout=60)
        stop(process)
    events = [from_json(line) for line in printed.splitlines()]
    assert len(events) == 4
    assert {e["type"] for e in events} <= {"io.shelfwire.results.v1", "io.shelfwire.status.v1"}
    assert {e["source"] for e in events} == {f"/devices/{DEVICE}"}


def test_a_second_agent_on_the_same_folder_is_refused(tmp_path: Path) -> None:
    box = Box(tmp_path / "d", None)
    with box.running("vision") as process:
        wait_for("the first to run", lambda: box.produced() > 0)
        answer = box.once("vision")
        assert answer.returncode == 2
        assert f"vision already runs on {box.state} (process {process.pid}) [already-running]" in answer.stderr
        assert "cure: stop that one first" in answer.stderr
        assert stop(process) == 0


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        (("[[camera]]", "[[kamera]]"), 2, 'kamera: unknown key; did you mean "camera"?'),
        (("rate_fps = 8", 'rate_fps = "fast"'), 2, "camera[1].rate_fps"),
        (("[device]", '[model]\nbundle = "/nowhere"\n[device]'), 4, "[bundle-missing]"),
        (("[device]", "[metrics]\nvision_port = {port}\n[device]"), 2, "[port-in-use]"),
        (("[device]", '[[alert]]\nname="x"\nlabel="Bananna"\n[device]'), 2, 'did you mean "Banana"?'),
    ],
)
def test_what_cannot_work_is_said_at_once_with_its_cure(
    tmp_path: Path, change: tuple[str, str], code: int, words: str
) -> None:
    box = Box(tmp_path / "d", None)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        new = change[1].replace("{port}", str(taken.getsockname()[1]))
        box.config.write_text(box.config.read_text().replace(change[0], new))
        answer = box.once("vision")
    assert answer.returncode == code, answer.stderr
    assert words in answer.stderr
    assert "cure:" in answer.stderr
    assert "Traceback" not in answer.stderr


def test_no_camera_no_configuration_and_no_broker(tmp_path: Path) -> None:
    box = Box(tmp_path / "d", None, cameras=0)
    assert "[no-camera]" in box.once("vision").stderr
    assert "[no-broker]" in box.once("sync").stderr
    box.config.unlink()
    answer = box.once("run")
    assert (answer.returncode, "[config-missing]" in answer.stderr) == (2, True)


PRIVATE_MOUNT = ["unshare", "--map-root-user", "--mount"]


@pytest.mark.skipif(
    subprocess.run([*PRIVATE_MOUNT, "true"], capture_output=True, check=False).returncode != 0,
    reason="this machine allows no private mounts, so there is no small disk to fill",
)
def test_no_disk_space_for_the_store(tmp_path: Path) -> None:
    box = Box(tmp_path / "d", None)
    box.state.mkdir()
    script = 'mount -t tmpfs -o size=32k tmpfs "$1" && shift && exec "$@"'
    answer = subprocess.run(
        [*PRIVATE_MOUNT, "sh", "-c", script, "sh", str(box.state), *box.command("vision")],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert answer.returncode == 4, answer.stderr
    assert "[disk-full]" in answer.stderr
    assert "cure: free disk space" in answer.stderr


def test_a_store_that_cannot_grow(tmp_path: Path) -> None:
    """A limit on file sizes is met where the disk would be full, on machines without private mounts too."""
    box = Box(tmp_path / "d", None)
    answer = subprocess.run(
        ["sh", "-c", 'ulimit -f 8; exec "$@"', "sh", *box.command("vision")],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert answer.returncode == 4, answer.stderr
    assert "[store-io]" in answer.stderr or "[disk-full]" in answer.stderr
    assert "cure:" in answer.stderr


def test_status_of_a_device_that_never_ran(tmp_path: Path) -> None:
    answer = Box(tmp_path / "d", None).once("status")
    assert answer.returncode == 4
    assert "[no-store]" in answer.stderr


def test_a_folder_of_pictures_is_read_to_its_end_and_the_process_ends(tmp_path: Path) -> None:
    box = Box(tmp_path / "d", None, cameras=0)
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for n in range(6):
        cv2.imwrite(str(pictures / f"{n}.jpg"), Scene(n, 320, 180).render(n)[0])
    (pictures / "3b.jpg").write_bytes(b"no picture")
    box.config.write_text(box.config.read_text() + f'\n[[camera]]\nname = "folder"\nurl = "{pictures}"\nrate_fps = 4\n')
    answer = box.once("vision", "--exit-when-done")
    assert answer.returncode == 0, answer.stderr
    frames = box.status()["frames"]
    assert frames["captured"] == 6
    assert frames["classified"] + sum(frames["dropped"].values()) == 6


def test_both_processes_tell_prometheus(tmp_path: Path, broker: Broker) -> None:
    ports = []
    with socket.socket() as one, socket.socket() as two:
        for probe in (one, two):
            probe.bind(("127.0.0.1", 0))
            ports.append(probe.getsockname()[1])
    box = Box(tmp_path / "d", broker, more=f"[metrics]\nvision_port = {ports[0]}\nsync_port = {ports[1]}\n")
    with box.running("run") as process:
        wait_for("results", lambda: box.produced() > 5)
        vision = requests.get(f"http://127.0.0.1:{ports[0]}/metrics", timeout=5).text
        sync = requests.get(f"http://127.0.0.1:{ports[1]}/metrics", timeout=5).text
        stop(process)
    assert 'shelfwire_capture_to_answer_seconds_count{camera="cam-0"}' in vision
    assert 'shelfwire_frames_captured_total{camera="cam-1"}' in vision
    assert "shelfwire_broker_connected 1.0" in sync


# -- classify ------------------------------------------------------------------------------------------------


def test_classify_answers_the_good_and_names_the_bad(tmp_path: Path) -> None:
    picture = Scene(3, 640, 360).render(5)[0]
    good = tmp_path / "good.jpg"
    cv2.imwrite(str(good), picture)
    whole = good.read_bytes()
    bad = {
        "empty.jpg": (b"", "picture-empty"),
        "text.jpg": (b"hello, this is no picture at all", "picture-not-a-picture"),
        "cut.jpg": (whole[: len(whole) // 2], "picture-truncated"),
        "huge.png": (huge_png(), "picture-too-large"),
    }
    for name, (content, _) in bad.items():
        (tmp_path / name).write_bytes(content)
    answer = subprocess.run(
        [sys.executable, "-m", "agent.cli", "classify", str(tmp_path), str(tmp_path / "none.jpg"), "--json"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert answer.returncode == 1, answer.stderr
    pictures = {Path(p["path"]).name: p for p in json.loads(answer.stdout)["pictures"]}
    assert 0 <= pictures["good.jpg"]["score"] <= 1
    assert len(pictures["good.jpg"]["labels"]) == 3
    for name, (_, code) in bad.items():
        assert pictures[name]["error"]["code"] == code
        assert pictures[name]["error"]["hint"]
    assert pictures["none.jpg"]["error"]["code"] == "picture-unreadable"


def huge_png() -> bytes:
    """A valid header of 20,000 x 20,000 pixels with a little content."""
    small = cv2.imencode(".png", np.zeros((2, 2, 3), np.uint8))[1].tobytes()
    size = (20_000).to_bytes(4, "big")
    return small[:16] + size + size + small[24:]


def test_classify_a_folder_without_pictures_and_an_unknown_bundle(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "agent.cli", "classify", str(tmp_path)]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (answer.returncode, "[no-pictures]" in answer.stderr) == (2, True)
    answer = subprocess.run([*command, "--bundle", "nothing"], capture_output=True, text=True, timeout=60, check=False)
    assert answer.returncode != 0
    assert "cure:" in answer.stderr
