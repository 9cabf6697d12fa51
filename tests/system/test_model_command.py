"""`shelfwire-agent model`: with the daemons dead, beside a real vision, and from a signed folder on a stick."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import bad_bundles
import pytest
import toy_bundles
from repository_world import Owner
from toy_bundles import Toy
from update_device import Device, camera
from waiting import wait_for

from models import Bundle
from models.bundle import MANIFEST


class Command:
    def __init__(self, device: Device) -> None:
        self.device = device

    def __call__(self, *words: str, code: int = 0) -> dict[str, Any]:
        done = subprocess.run(
            [sys.executable, "-m", "agent.cli", "model", *words, "-c", str(self.device.config), "--json"],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == code, (done.stdout, done.stderr)
        told: dict[str, Any] = json.loads(done.stdout)
        return told

    def text(self, *words: str) -> str:
        words = (*words, "-c", str(self.device.config))
        return subprocess.run(
            [sys.executable, "-m", "agent.cli", "model", *words], capture_output=True, text=True, timeout=60, check=True
        ).stdout


def toy(folder: Path, release: int) -> Bundle:
    return toy_bundles.bundle(folder, Toy(gain=1.0 + release / 100), release=release, version=f"1.{release}")


@pytest.fixture
def device(tmp_path: Path) -> Device:
    running = toy(tmp_path / "running", 1)
    soon = 'shadow_frames = 10\nshadow_every = "50 ms"\ntrial = "1 s"\ntrial_frames = 10\n'
    return Device(tmp_path / "device", running.folder, camera("synthetic:1?width=320&height=180"), soon)


def stick(folder: Path, device: Device, *bundles: Bundle) -> Path:
    """Write a signed repository into a folder, and give the device its root."""
    owner = Owner()
    for bundle in bundles:
        raw = (bundle.folder / MANIFEST).read_bytes()
        path = f"models/{bundle.ref.name}/{bundle.ref.release}/bundle.json"
        target = owner.target(owner.targets.signed, path, raw)
        target.unrecognized_fields["custom"] = {"version": bundle.ref.version}
        for file in bundle.manifest.files:
            owner.files[f"blobs/{file.sha256}"] = (bundle.folder / file.path).read_bytes()
    owner.publish()
    for path, content in owner.files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    device.models.folder.mkdir(parents=True, exist_ok=True)
    (device.models.folder / "root.json").write_bytes(owner.files["metadata/1.root.json"])
    return folder


def test_by_hand_without_daemons(device: Device, tmp_path: Path) -> None:
    command = Command(device)
    told = command("list")
    assert [(row["role"], row["release"]) for row in told["models"]] == [("answers", 1)]
    assert command("test", str(tmp_path / "running"))["ok"]
    crashing = bad_bundles.crashing(tmp_path / "crashing")
    failed = command("test", str(crashing.folder), code=1)
    assert (failed["code"], bool(failed["cure"])) == ("update-crashed", True)
    assert command("rollback", code=2)["error"]["code"] == "update-none-before"
    assert command("pin")["pinned"]
    usb = stick(tmp_path / "usb", device, toy(tmp_path / "two", 2))
    assert command("update", "--from", str(usb), code=2)["error"]["code"] == "update-pinned"
    assert not command("unpin")["pinned"]
    assert command("update", "--from", str(usb), "--name", "other", code=2)["error"]["code"] == "update-unlisted"
    assert "verified" in command.text("update", "--from", str(usb))
    assert command("list")["updates"][0]["state"] == "verified"


def test_a_stick_brings_a_model_into_a_shop_without_a_line_and_a_technician_takes_it_back(
    device: Device, tmp_path: Path
) -> None:
    command = Command(device)
    usb = stick(tmp_path / "usb", device, toy(tmp_path / "two", 2), toy(tmp_path / "three", 3))
    with device.running():
        wait_for("the first answers", device.report)
        assert command("update", "--from", str(usb))["model"]["release"] == 3
        wait_for("it to be kept", lambda: device.entry().state == "committed")
        wait_for("it to answer", lambda: device.report()["model"]["release"] == 3)
        roles = {row["release"]: row["role"] for row in command("list")["models"]}
        assert roles == {3: "answers", 1: "configured"}
        assert command("rollback")["answers"] is None
        wait_for("the one before to answer", lambda: device.report()["model"]["release"] == 1)
        (update,) = command("list")["updates"]
        assert (update["state"], update["code"]) == ("rolled-back", "update-withdrawn")
        assert "update-withdrawn" in command.text("list")
