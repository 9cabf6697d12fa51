"""The daemons under a service manager, of which the test plays the part: ready, status, watchdog, reload, stop."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import hanging_bundle
import pytest
import toy_bundles
from notify_socket import NotifySocket
from test_device import Box

from models.bundle import Golden, GoldenInput

STOP_S = 20.0
"""What the unit allows for a stop."""
PICTURE = "width=320&height=180"


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[NotifySocket]:
    one = NotifySocket(tmp_path / "notify")
    yield one
    one.close()


@contextmanager
def service(box: Box, role: str, manager: NotifySocket, watchdog_s: float = 0) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a daemon as the service manager does."""
    with (box.folder / "log").open("ab") as log:
        environment = os.environ | manager.environment(watchdog_s)
        process = subprocess.Popen(box.command(role), stderr=log, env=environment)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def is_ready(line: str) -> bool:
    return line == "READY=1"


def stopped_in_order(process: "subprocess.Popen[bytes]", manager: NotifySocket) -> bool:
    began_s = time.monotonic()
    process.send_signal(signal.SIGTERM)
    manager.wait_for(lambda line: line == "STOPPING=1")
    return process.wait(60) == 0 and time.monotonic() - began_s < STOP_S


def plain(folder: Path, name: str, *, red: bool = False) -> None:
    """Put a picture into a folder: all of it red, or all of it blue."""
    cv2.imwrite(str(folder / name), toy_bundles.plain(0, 0, 255) if red else toy_bundles.plain(255, 0, 0))


def test_vision_is_ready_after_its_model_and_its_camera_and_says_what_it_does(
    tmp_path: Path, manager: NotifySocket
) -> None:
    box = Box(tmp_path / "d", None, cameras=1)
    with service(box, "vision", manager, 5.0) as process:
        manager.wait_for(is_ready)
        assert manager.messages[0] == ["STATUS=checking the model"]
        assert "streaming" in box.log(), "its camera is open"
        said = manager.wait_for(lambda line: line.startswith("STATUS=") and " fps · produce " in line)
        assert "· outbox " in said
        assert said.endswith("· sync does not run")
        manager.wait_for(lambda line: line == "WATCHDOG=1")
        assert stopped_in_order(process, manager), box.log()


def test_vision_is_not_ready_with_a_model_that_answers_wrong(tmp_path: Path, manager: NotifySocket) -> None:
    box = Box(tmp_path / "d", None, cameras=1)
    folder = tmp_path / "wrong"
    folder.mkdir()
    plain(folder, "blue.png")
    (folder / "model.onnx").write_bytes(toy_bundles.model(toy_bundles.Toy()))
    golden = Golden(inputs=(GoldenInput(path="blue.png", expected={"reddish": 1.0}),))
    manifest = toy_bundles.manifest(folder, {"model.onnx": "model", "blue.png": "golden"}, golden=golden)
    toy_bundles.pack.write(folder, manifest)
    box.config.write_text(box.config.read_text() + f'[model]\nbundle = "{folder}"\n')
    with service(box, "vision", manager) as process:
        assert process.wait(60) == 4
    assert "[bundle-golden]" in box.log()
    while manager.take(0.0):
        pass
    assert "READY=1" not in manager.lines
    assert "[bundle-golden]; cure: " in manager.lines[-1], "systemctl status shows it"


def test_a_camera_that_is_away_is_declared_and_vision_stays_alive(tmp_path: Path, manager: NotifySocket) -> None:
    box = Box(tmp_path / "d", None, cameras=0)
    box.config.write_text(box.config.read_text() + '\n[[camera]]\nname = "away"\nurl = "rtsp://127.0.0.1:9/x"\n')
    with service(box, "vision", manager, 2.0) as process:
        manager.wait_for(is_ready)
        manager.wait_for(lambda line: line.startswith("STATUS=camera away: camera-"))
        for _ in range(3):
            assert manager.silence_s("WATCHDOG=1", 10.0) < 10.0
        assert stopped_in_order(process, manager), box.log()


def test_the_watchdog_is_not_petted_while_the_model_hangs_and_an_abort_says_where(
    tmp_path: Path, manager: NotifySocket
) -> None:
    box = Box(tmp_path / "d", None, cameras=0)
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for n in range(12):
        plain(pictures, f"{n:02}.png")
    plain(pictures, "99.png", red=True)
    bundle = hanging_bundle.make(tmp_path / "hanging")
    box.config.write_text(
        box.config.read_text()
        + f'[model]\nbundle = "{bundle}"\nruntime = "onnxruntime"\n'
        + f'[[camera]]\nname = "shelf"\nurl = "{pictures}"\nrate_fps = 4\n'
    )
    with service(box, "vision", manager, 1.0) as process:
        manager.wait_for(is_ready)
        assert manager.silence_s("WATCHDOG=1", 10.0) < 10.0, "at first it works"
        for _ in range(6):
            if manager.silence_s("WATCHDOG=1", 5.0) >= 5.0:
                break
        else:
            raise AssertionError("the watchdog is petted though the model hangs")
        assert process.poll() is None
        process.send_signal(signal.SIGABRT)
        assert process.wait(30) == -signal.SIGABRT
    assert "Fatal Python error: Aborted" in box.log()
    assert "in classify" in box.log()


def test_a_bad_configuration_is_refused_and_a_good_one_taken_up(tmp_path: Path, manager: NotifySocket) -> None:
    box = Box(tmp_path / "d", None, cameras=1)
    good = box.config.read_text()
    with service(box, "vision", manager, 5.0) as process:
        manager.wait_for(is_ready)
        box.config.write_text(good.replace("rate_fps", "rate_fsp"))
        process.send_signal(signal.SIGHUP)
        manager.wait_for(lambda line: line == "RELOADING=1")
        manager.wait_for(is_ready)
        said = manager.wait_for(lambda line: line.startswith("STATUS=old configuration kept"))
        assert 'did you mean "rate_fps"?' in said
        assert "cure: mend these lines" in box.log()

        box.config.write_text(f'{good}\n[[camera]]\nname = "second"\nurl = "synthetic:9?{PICTURE}"\nrate_fps = 8\n')
        process.send_signal(signal.SIGHUP)
        manager.wait_for(lambda line: line == "RELOADING=1")
        manager.wait_for(is_ready)
        said = manager.wait_for(lambda line: line.startswith("STATUS="))
        assert "old configuration kept" not in said
        assert {camera["name"] for camera in box.status()["vision"]["cameras"]} == {"cam-0", "second"}
        assert box.status()["vision"]["pid"] == process.pid
        assert stopped_in_order(process, manager), box.log()
    status = box.status()
    frames = status["frames"]
    assert frames["captured"] == frames["classified"] + sum(frames["dropped"].values())
    assert frames["classified"] == status["results"]["produced"] == status["outbox"]["waiting"]


def test_a_configuration_that_only_fails_when_it_is_taken_up_is_given_up_too(
    tmp_path: Path, manager: NotifySocket
) -> None:
    box = Box(tmp_path / "d", None, cameras=1)
    good = box.config.read_text()
    with service(box, "vision", manager) as process:
        manager.wait_for(is_ready)
        (tmp_path / "file").touch()
        box.config.write_text(good.replace(str(box.state), str(tmp_path / "file")))
        process.send_signal(signal.SIGHUP)
        manager.wait_for(lambda line: line == "RELOADING=1")
        manager.wait_for(is_ready)
        manager.wait_for(lambda line: line.startswith("STATUS=old configuration kept"))
        box.config.write_text(good)
        before = box.produced()
        while box.produced() <= before:
            manager.take(0.2)
        assert stopped_in_order(process, manager), box.log()


def test_sync_is_ready_stays_alive_without_a_broker_and_reloads(tmp_path: Path, manager: NotifySocket) -> None:
    box = Box(tmp_path / "d", None, cameras=1)
    box.config.write_text(box.config.read_text() + '[cloud]\nbroker = "mqtt://127.0.0.1:9"\n')
    good = box.config.read_text()
    with service(box, "sync", manager, 2.0) as process:
        manager.wait_for(is_ready)
        manager.wait_for(lambda line: line.startswith("STATUS=broker broker-refused · outbox 0"))
        assert manager.silence_s("WATCHDOG=1", 10.0) < 10.0
        box.config.write_text(good.replace("broker =", "# broker ="))
        process.send_signal(signal.SIGHUP)
        said = manager.wait_for(lambda line: line.startswith("STATUS=old configuration kept"))
        assert "[no-broker]" in said
        box.config.write_text(good)
        process.send_signal(signal.SIGHUP)
        manager.wait_for(lambda line: line == "RELOADING=1")
        manager.wait_for(is_ready)
        process.send_signal(signal.SIGSTOP)  # a loop that no longer turns
        while manager.take(0.5):
            pass
        assert manager.silence_s("WATCHDOG=1", 3.0) >= 3.0
        process.send_signal(signal.SIGCONT)
        assert stopped_in_order(process, manager), box.log()


def test_without_a_service_manager_a_terminal_that_closes_ends_it(tmp_path: Path) -> None:
    box = Box(tmp_path / "d", None, cameras=1)
    environment = {name: value for name, value in os.environ.items() if name != "NOTIFY_SOCKET"}
    process = subprocess.Popen(box.command("vision"), stderr=subprocess.DEVNULL, env=environment)
    try:
        while not (box.state / "vision.lock").exists():
            time.sleep(0.05)
        process.send_signal(signal.SIGHUP)
        assert process.wait(30) == -signal.SIGHUP
    finally:
        process.kill()
        process.wait()
    shutil.rmtree(box.state)
