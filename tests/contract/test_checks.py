"""What each check of the doctor says of a real store, of certificates, of a machine's sensors and of cameras."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from camera_servers import picture
from cloud_servers import Authority, free_port
from test_models_store import bring, toy
from test_status import LINK, camera, report

from agent.checks import camera as cameras
from agent.checks import certificates, disk, heat, invariants, log, memory, model, outbox, processes
from agent.checks.clock import skew
from agent.checks.context import Context
from agent.checks.finding import Finding
from agent.checks.network import by_sync
from agent.core.updates import Links
from agent.host.clock import boot_id
from agent.ports import Draft, Lane, Stamp
from agent.probe.picture import judge
from agent.store.database import Lock
from agent.store.models import Models
from agent.store.writer import Limits, Writer

import cv2  # isort: skip
import numpy as np

CONFIG = """
[device]
id = "till-3"
state_dir = "{folder}/state"
runtime_dir = "{folder}/run"
[cloud]
broker = "mqtt://127.0.0.1:9"
api = "http://127.0.0.1:9"
[privacy]
pictures = "frames"
[[camera]]
name = "door"
url = "rtsp://127.0.0.1/stream"
rate_fps = 5
"""


class Shop:
    """A device with a store of its own; `context` is what the doctor sees of it."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "device.toml"
        self.file.write_text(CONFIG.format(folder=folder))
        self.state = folder / "state"
        self.writer = Writer(self.state, Limits(), 0)
        self.writer.start_run(boot_id(), time.time_ns(), "test")

    def put(self, *drafts: Draft, counts: dict[str, int] | None = None, **facts: str) -> None:
        self.writer.put(drafts, counts, facts)

    def frame(self, age_s: float = 0.0) -> Draft:
        kept = self.writer.spool.keep(b"x" * 1000)
        stamp = Stamp(time.time_ns() - int(age_s * 1e9), 0)
        return Draft("frame", Lane.REVIEW, b"{}", stamp, "synced", kept)

    def context(self, **how: object) -> Context:
        return Context.load(self.file, **how)


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    made = Shop(tmp_path)
    yield made
    made.writer.close()


def bad(found: Iterator[Finding]) -> list[str]:
    listed = list(found)
    assert all(finding.cure for finding in listed if finding.bad)
    return [finding.code for finding in listed if finding.bad]


def test_a_store_that_is_well(shop: Shop) -> None:
    shop.put(shop.frame(), counts={"frames:captured": 3, "frames:classified": 3}, vision=report())
    context = shop.context(deep=True)
    assert bad(outbox.check(context)) == []
    assert bad(invariants.check(context)) == []
    assert bad(processes.check(context)) == ["SVC-2"]


@pytest.mark.parametrize(
    ("counts", "age_s", "code"),
    [
        ({"frames:captured": 3, "frames:classified": 2}, 0, "BOX-8"),
        ({"result:dropped:evicted": 9}, 0, "BOX-7"),
        ({}, 3600, "BOX-4"),
    ],
)
def test_troubles_of_the_outbox(shop: Shop, counts: dict[str, int], age_s: float, code: str) -> None:
    shop.put(shop.frame(age_s), counts=counts)
    assert bad(outbox.check(shop.context())) == [code]


def test_results_that_cannot_be_stored(shop: Shop) -> None:
    shop.put(vision=report(trouble="no space left"))
    assert bad(outbox.check(shop.context())) == ["BOX-12"]


def test_pictures_and_rows_that_do_not_fit(shop: Shop) -> None:
    lost, kept = shop.frame(), shop.frame()
    shop.put(lost, kept)
    assert lost.picture is not None
    (shop.state / "spool" / lost.picture.name).unlink()
    stray = shop.state / "spool" / ("0" * 32 + ".jpg")
    stray.write_bytes(b"x")
    os.utime(stray, (0, 1000))
    assert set(bad(invariants.check(shop.context(deep=True)))) == {"BOX-9", "BOX-10"}


def test_a_store_that_is_damaged_or_gone(shop: Shop) -> None:
    shop.writer.close()
    store = shop.state / "outbox.sqlite"
    store.write_bytes(b"this is no store" * 1000)
    assert bad(outbox.check(shop.context())) == ["BOX-2"]
    store.unlink()
    assert bad(outbox.check(shop.context())) == ["BOX-1"]


def test_vision_that_hangs(shop: Shop) -> None:
    shop.put(vision=report(age_s=60))
    assert bad(processes.check(shop.context())) == ["SVC-3", "SVC-2"]
    found = list(cameras.check(shop.context()))
    assert [finding.severity for finding in found] == ["skipped", "skipped"]
    assert "has not reported" in found[0].detail


def test_starts_and_refusals_of_late(shop: Shop) -> None:
    for _ in range(3):
        shop.writer.start_run(boot_id(), time.time_ns(), "test")
    assert "SVC-4" in bad(log.check(shop.context(since_s=3600)))
    assert list(log.check(shop.context())) == []


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ({}, ""),
        ({"connected": False, "code": "broker-dns", "message": "no", "hint": "mend"}, "NET-5"),
        ({"code": "cloud-away", "message": "no", "hint": "mend"}, "NET-17"),
        ({"connected": False, "code": "certificate-expired", "message": "no", "hint": "mend"}, "CRT-2"),
    ],
)
def test_what_sync_says_is_believed_when_it_must_be_quick(shop: Shop, said: dict[str, object], code: str) -> None:
    shop.put(sync=json.dumps({**LINK, **said}))
    lock = Lock(shop.state, "sync")
    lock.take()
    found = by_sync(shop.context(quick=True))
    lock.release()
    assert (found.code if found.bad else "") == code
    assert found.severity != "skipped"


CONDITION = {"code": "camera-frozen", "message": "the same picture for 60 s", "hint": "restart it", "since": ""}


@pytest.mark.parametrize(
    ("change", "codes"),
    [
        ({}, []),
        ({"rate_fps": 1.0}, ["CAM-12"]),
        ({"conditions": [CONDITION]}, ["CAM-6"]),
        ({"conditions": [CONDITION, {**CONDITION, "code": "camera-moved"}]}, ["CAM-6", "CAM-10"]),
        ({"conditions": [{**CONDITION, "code": "camera-new"}]}, ["CAM-16"]),
        ({"phase": "failed", "code": "camera-auth", "message": "no", "hint": "mend"}, ["CAM-2"]),
        ({"phase": "failed", "code": "camera-not-found", "message": "no", "hint": "mend"}, ["CAM-3"]),
    ],
)
def test_cameras_by_visions_report(shop: Shop, change: dict[str, object], codes: list[str]) -> None:
    shop.put(vision=report({**camera("door"), **change}))
    found = list(cameras.check(shop.context()))
    assert [finding.code for finding in found if finding.bad] == codes
    assert all(finding.title.startswith("door: ") for finding in found if finding.bad)


def test_cameras_that_vision_was_never_told_of(shop: Shop) -> None:
    shop.put(vision=report(camera("till")))
    found = list(cameras.check(shop.context()))
    assert [(finding.severity, finding.title) for finding in found] == [
        ("skipped", "door: vision does not know it"),
        ("skipped", "view and focus as set up: door"),
    ]
    (shop.state / "commission").mkdir()
    (shop.state / "commission" / "door.jpg").touch()
    assert len(list(cameras.check(shop.context()))) == 1


def judged(shop: Shop, *pictures: np.ndarray, reference: np.ndarray | None = None) -> list[str]:
    config = shop.context().config
    assert config is not None
    path = shop.state / "door.jpg"
    if reference is not None:
        path.write_bytes(cv2.imencode(".png", reference)[1].tobytes())
    return [code for code, _, _ in judge(config.camera[0], pictures, path)]


def test_pictures_that_are_bad(shop: Shop) -> None:
    good = picture(3, 640, 480)
    rng = np.random.default_rng(7)
    blocks = cv2.resize(rng.integers(30, 220, (12, 16, 3), np.uint8), (640, 480), interpolation=cv2.INTER_NEAREST)
    other = cv2.resize(rng.integers(30, 220, (12, 16, 3), np.uint8), (640, 480), interpolation=cv2.INTER_NEAREST)
    assert judged(shop, good, picture(4, 640, 480)) == []
    assert judged(shop, *[good] * 6) == ["camera-repeats"]
    assert judged(shop, np.zeros_like(good)) == ["camera-black"]
    assert judged(shop, np.full_like(good, 90)) == ["camera-covered"]
    assert judged(shop, np.maximum(blocks, 251)) in (["camera-blinded"], ["camera-covered"])
    assert judged(shop, blocks, reference=blocks) == []
    assert judged(shop, cv2.GaussianBlur(blocks, (0, 0), 5), reference=blocks) == ["camera-blurred"]
    assert judged(shop, np.roll(blocks, 50, axis=1), reference=blocks) == ["camera-moved"]
    assert "camera-moved" not in judged(shop, other, reference=blocks), "another scene alone is no movement"
    dark = (blocks * 0.1).astype(np.uint8)
    assert judged(shop, dark) == ["camera-exposure"]
    config = shop.context().config
    assert config is not None
    for night in (dark, np.zeros_like(dark)):
        assert judge(config.camera[0], [night], shop.state / "none", dark_hours=True) == []


def test_what_the_model_runs_without_is_told_once(shop: Shop) -> None:
    notes = [{"code": code, "message": code, "hint": "cure"} for code in ("runtime-failed", "device-missing")]
    shop.put(vision=json.dumps({**json.loads(report()), "runtime": "onnxruntime", "notes": notes}))
    found = [code for code in bad(model.check(shop.context())) if code in ("MOD-5", "MOD-8")]
    assert found == ["MOD-5", "MOD-8"]


def test_the_model_in_force_is_that_of_the_last_update(shop: Shop, tmp_path: Path) -> None:
    bundle = toy(tmp_path, 2)
    running = {"name": "toy", "version": "2", "digest": bundle.ref.digest}
    shop.put(vision=json.dumps({**json.loads(report()), "model": running}))
    assert "MOD-6" in bad(model.check(shop.context()))
    store = Models(shop.state / "models")
    key = bring(store, bundle)
    store.point(Links(current=key))
    assert set(bad(model.check(shop.context()))) <= {"MOD-5"}  # the toy's report names a runtime at random
    (shop.state / "models" / "bundles" / key / "ok").unlink()
    assert "MOD-1" in bad(model.check(shop.context()))


class Machine:
    """The files by which Linux tells of a machine, as far as they are planted."""

    def __init__(self, folder: Path) -> None:
        self.context = Context(folder / "none", None, sys=folder / "sys", proc=folder / "proc")
        self.write("proc/uptime", "1000.0 500.0\n")
        self._folder = folder

    def write(self, name: str, text: str) -> None:
        path = self.context.sys.parent / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


PI = "sys/devices/platform/soc/soc:firmware/get_throttled"
ZONE = "sys/class/thermal/thermal_zone0/temp"
INTEL = "sys/devices/system/cpu/cpu0/thermal_throttle/package_throttle_total_time_ms"


@pytest.mark.parametrize(
    ("files", "codes"),
    [
        ({}, []),
        ({ZONE: "55000\n"}, []),
        ({ZONE: "86000\n"}, ["HOST-6"]),
        ({ZONE: "86000\n", PI: "4\n"}, ["HOST-7"]),
        ({PI: "1\n"}, ["HOST-8"]),
        ({PI: "50000\n"}, ["HOST-8", "HOST-7"]),
        ({"sys/class/hwmon/hwmon1/name": "rpi_volt\n", "sys/class/hwmon/hwmon1/in0_lcrit_alarm": "1\n"}, ["HOST-8"]),
        ({INTEL: "5000\n"}, []),
        ({INTEL: "50000\n"}, ["HOST-7"]),
    ],
)
def test_heat_and_power(tmp_path: Path, files: dict[str, str], codes: list[str]) -> None:
    machine = Machine(tmp_path)
    for name, text in files.items():
        machine.write(name, text)
    assert bad(heat.check(machine.context)) == codes


@pytest.mark.parametrize(
    ("available", "killed", "codes"),
    [(900, 0, []), (50, 0, ["HOST-4"]), (900, 2, ["HOST-5"]), (1, 1, ["HOST-5", "HOST-4"])],
)
def test_memory(tmp_path: Path, available: int, killed: int, codes: list[str]) -> None:
    machine = Machine(tmp_path)
    machine.write("proc/meminfo", f"MemTotal: 1000 kB\nMemAvailable: {available} kB\n")
    machine.write("proc/vmstat", f"oom_kill {killed}\n")
    assert bad(memory.check(machine.context)) == codes


def test_this_machine(shop: Shop) -> None:
    """The real files of /sys and /proc can be read, whatever they say."""
    for check in (heat.check, memory.check, disk.check):
        assert list(check(shop.context()))


def test_a_clock_beside_the_clouds() -> None:
    assert skew(2.0) is None
    assert [(found.code, found.severity) for found in (skew(60.0), skew(-7200.0)) if found] == [
        ("TIME-1", "warning"),
        ("TIME-1", "failure"),
    ]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.mark.parametrize(
    ("name", "days", "code"),
    [
        ("till-3", (-10, 80), ""),
        ("till-3", (-80, 10), "CRT-4"),
        ("till-3", (-90, -1), "CRT-2"),
        ("till-3", (1, 90), "CRT-3"),
        ("till-4", (-10, 80), "CRT-6"),
    ],
)
def test_the_devices_certificate(
    shop: Shop, authority: Authority, name: str, days: tuple[float, float], code: str
) -> None:
    certificate, key = authority.issue(name, *days)
    assert bad(certificates.check(with_files(shop, authority, certificate, key))) == ([code] if code else [])


def with_files(shop: Shop, authority: Authority, certificate: Path, key: Path) -> Context:
    files = f'cert_file = "{certificate}"\nkey_file = "{key}"\nca_file = "{authority.file}"\n'
    shop.file.write_text(shop.file.read_text().replace("[cloud]\n", f"[cloud]\n{files}"))
    return shop.context()


def test_a_key_that_does_not_fit_or_is_open_to_all(shop: Shop, authority: Authority) -> None:
    certificate, key = authority.issue("till-3", -10, 80)
    _, other = authority.issue("till-9")
    context = with_files(shop, authority, certificate, key)
    key.chmod(0o644)
    assert bad(certificates.check(context)) == ["CRT-7"]
    key.chmod(0o600)
    key.write_bytes(other.read_bytes())
    assert bad(certificates.check(context)) == ["CRT-5"]
    certificate.write_text("nothing")
    assert bad(certificates.check(context)) == ["CRT-1"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_user_who_may_see_nothing_is_told_so_and_no_failure(shop: Shop, tmp_path: Path) -> None:
    """Above all he must not take a sync that he cannot see for dead, and log in beside it."""
    shop.file.write_text(shop.file.read_text().replace(":9", f":{free_port()}"))
    for folder in (tmp_path, *tmp_path.parents):
        if folder in (Path("/tmp"), Path("/")):
            break
        folder.chmod(folder.stat().st_mode | 0o011)
    words = [sys.executable, "-c", AS_NOBODY, str(shop.file)]
    answer = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    said = {(area, severity) for area, severity in json.loads(answer.stdout)}
    assert {("camera", "skipped"), ("outbox", "skipped"), ("service", "skipped")} <= said
    assert ("outbox", "failure") not in said
    assert ("service", "failure") not in said


AS_NOBODY = """
import json, os, sys
from pathlib import Path
from agent.checks import Context, examine
os.setgroups([]); os.setgid(65534); os.setuid(65534)
found = examine(Context.load(Path(sys.argv[1])), ("camera", "outbox", "service", "network"))
print(json.dumps([(finding.area, finding.severity) for finding in found]))
"""
