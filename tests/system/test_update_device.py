"""A real vision is given models while its camera runs: good ones are kept, bad ones never answer or do not stay."""

from itertools import pairwise
from pathlib import Path

import bad_bundles
import pytest
import toy_bundles
from toy_bundles import Toy
from update_device import Device, camera
from waiting import PATIENCE_S, wait_for

from models import Bundle

import cv2  # isort: skip

RATE_FPS = 20.0
SOON = """
shadow_frames = 12
shadow_every = "50 ms"
trial = "2 s"
trial_frames = 20
"""


def pictures(folder: Path, *colours: tuple[int, int, int]) -> Path:
    """A folder of pictures, each of one colour, for a camera that shows them one after the other."""
    folder.mkdir(parents=True, exist_ok=True)
    for n, colour in enumerate(colours):
        cv2.imwrite(str(folder / f"{n:04}.png"), toy_bundles.plain(*colour, width=320, height=180))
    return folder


def toy(folder: Path, release: int, **toy_or_manifest: object) -> Bundle:
    """A toy that is sure of what it sees; `labels` may be permuted."""
    return toy_bundles.bundle(folder, Toy(gain=1.0 + release / 100), release=release, version=f"1.{release}",
                              **toy_or_manifest)  # fmt: skip


BLUE, GREEN, RED = (250, 20, 20), (20, 250, 20), (20, 20, 250)


@pytest.fixture
def device(tmp_path: Path) -> Device:
    shelf = pictures(tmp_path / "shelf", *([BLUE] * 5 + [GREEN] * 5 + [RED] * 5))
    running = toy(tmp_path / "running", 1)
    return Device(tmp_path / "device", running.folder, camera(str(shelf), RATE_FPS), SOON)


def test_bad_models_never_answer_and_a_good_one_takes_over_without_losing_a_frame(
    device: Device, tmp_path: Path
) -> None:
    permuted = ("reddish", "blueish", "greenish")
    bad = {
        "update-golden": bad_bundles.with_golden(tmp_path / "golden", labels=permuted),
        "update-crashed": bad_bundles.crashing(tmp_path / "crashing", release=3),
        "update-disagrees": toy(tmp_path / "permuted", 4, labels=permuted),
        "update-incompatible": toy(tmp_path / "newer", 5, minimum_agent="99.0"),
    }
    good = toy(tmp_path / "good", 9)
    with device.running():
        wait_for("the first answers", device.report)
        for revision, (code, bundle) in enumerate(bad.items(), 1):
            device.bring(bundle, revision)
            ended = device.over(revision)
            assert (ended.state, ended.code) == ("rejected", code)
            assert ended.text
            if code == "update-disagrees":
                assert {d.label for d in ended.disagreements} <= set(toy_bundles.LABELS)
                assert sum(d.differ for d in ended.disagreements) == ended.numbers["shadow_differ"] > 0
        device.bring(good, 10)
        kept = device.over(10)
        assert (kept.state, kept.code) == ("committed", None), kept
        wait_for("the report to name it", lambda: device.report()["model"]["release"] == 9)
        assert device.models.links().current == good.ref.digest[:16]
        assert device.models.journal.floor("toy") == 9
    assert len(list(device.models.folder.glob("failed-*"))) == 3
    assert _books(device) > 0
    _swapped(device.results())


def _books(device: Device) -> int:
    """Every captured frame was answered or counted as dropped; gives how many were answered."""
    counters = device.counters()
    dropped = sum(n for name, n in counters.items() if name.startswith("frames:dropped:"))
    assert counters["frames:captured"] == counters["frames:classified"] + dropped
    assert counters["frames:classified"] == len(device.results())
    return counters["frames:classified"]


def _swapped(results: list[dict[str, object]]) -> None:
    """Only the old and the good model answered; none of the frames around the swap was lost, or later than the next."""
    ((before, after),) = [(a, b) for a, b in pairwise(results) if a["model"] != b["model"]]
    assert (before["model"]["release"], after["model"]["release"]) == (1, 9)
    assert after["frame"] == before["frame"] + 1
    print(f"swap at frame {after['frame']}: answered {after['total_ms']:.1f} ms after its capture")
    assert after["total_ms"] <= 1000 / RATE_FPS


def test_a_model_that_degrades_only_live_is_rolled_back_within_its_trial(device: Device, tmp_path: Path) -> None:
    """It answers as the one before does until, in its trial, the shelf is lit otherwise: then it knows nothing."""
    shelf = tmp_path / "shelf"
    slow = bad_bundles.slow_when_red(tmp_path / "slow", release=2)
    device.config.write_text(device.config.read_text().replace('trial = "2 s"', 'trial = "60 s"'))
    pictures(shelf, *([BLUE] * 15))
    with device.running():
        wait_for("two hundred answers", lambda: device.report() and device.counters()["frames:classified"] > 120)
        device.bring(slow, 1)
        wait_for("its trial", lambda: device.entry().state == "trial")
        pictures(shelf, *([RED] * 15))
        ended = device.over(1)
        assert (ended.state, ended.code) == ("rolled-back", "update-unhealthy"), ended
        assert ended.numbers["p95_ms"] > ended.numbers["limit_p95_ms"]
        wait_for("the one before to answer", lambda: device.report()["model"]["release"] == 1)
        assert device.models.links().current is None
        (saved,) = device.models.folder.glob("failed-1-*")
        assert {path.name for path in saved.iterdir()} == {"journal.json", "tallies.json"}
    _books(device)


def test_a_stop_in_a_trial_counts_no_crash_and_two_crashes_bring_the_model_before_back(
    device: Device, tmp_path: Path
) -> None:
    device.config.write_text(device.config.read_text().replace('trial = "2 s"', 'trial = "600 s"'))
    bundle = toy(tmp_path / "good", 2)
    with device.running():
        wait_for("the first answers", device.report)
        device.bring(bundle, 1)
        wait_for("its trial", lambda: device.entry().state == "trial" and device.report()["model"]["release"] == 2)
    assert (device.entry().open, device.entry().crashes) == (False, 0)
    for crashes in (0, 1):
        with device.running() as process:
            wait_for("the new model", lambda: not device.report()["stopped"] and device.report()["pid"] == process.pid)
            assert device.report()["model"]["release"] == 2
            assert device.entry().crashes == crashes
            process.kill()
            process.wait(PATIENCE_S)
    with device.running():
        assert device.over(1).code == "update-crashed"
        wait_for("the one before", lambda: device.report()["model"]["release"] == 1)


def test_ordered_settings_are_taken_up_in_place_and_kept(device: Device) -> None:
    device.config.write_text(device.config.read_text().replace("[update]", '[update]\nsettings_trial = "1 s"'))
    with device.running() as process:
        wait_for("the first answers", device.report)
        device.bring_settings("[decide]\nconfirm_frames = 7\n", 1)
        wait_for("them to be kept", lambda: device.settings().state == "committed")
        wait_for("answers in the new life", lambda: not device.report()["stopped"])
        assert process.poll() is None
        assert device.report()["pid"] == process.pid
    assert (device.state / "settings" / "ordered.toml").exists()
    assert device.models.journal.config_revision == 1
    _books(device)


def test_settings_with_an_alert_for_no_label_are_refused_by_vision(device: Device) -> None:
    with device.running():
        wait_for("the first answers", device.report)
        device.bring_settings('[[alert]]\nname = "a"\nlabel = "purple"\n', 1)
        wait_for("their end", lambda: device.settings().over)
        assert (device.settings().state, device.settings().code) == ("rejected", "update-config")
        assert "purple" in device.settings().text
