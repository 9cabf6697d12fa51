"""A real vision measures how its model runs best while its camera goes on, and takes that up without losing a frame."""

from pathlib import Path

import toy_bundles
from update_device import Device, camera
from waiting import wait_for

from agent.bench.surroundings import key_of
from agent.checks import Context, examine
from agent.core.records import moment
from agent.host.processor import workers_of
from agent.store import choice
from models import Bundle
from models.setup import Setup

import cv2  # isort: skip

RATE_FPS = 20.0
CALM_FPS = 2.0
"""So few that none comes late, however busy the machine is that the test runs on: then nothing would be measured."""


def device(folder: Path, bundle: Bundle, bench_after: str, rate_fps: float = RATE_FPS) -> Device:
    shelf = folder / "shelf"
    shelf.mkdir()
    for n, colour in enumerate(((250, 20, 20), (20, 250, 20))):
        cv2.imwrite(str(shelf / f"{n}.png"), toy_bundles.plain(*colour, width=320, height=180))
    made = Device(folder / "device", bundle.folder, camera(str(shelf), rate_fps))
    text = made.config.read_text().replace("[model]\n", f'[model]\nbench_after = "{bench_after}"\n')
    made.config.write_text(text)
    return made


def tuning(device: Device) -> dict[str, object]:
    return dict(device.report().get("tuning", {}))


def findings(device: Device) -> dict[str, str]:
    return {each.code: each.detail for each in examine(Context.load(device.config), ["model"])}


def keep(device: Device, bundle: Bundle, setup: Setup, **other: str) -> None:
    key = key_of(bundle, workers_of(1), Setup())
    made = choice.Choice(key, setup, "measured elsewhere", moment(0))
    said = made.to_json()
    said["key"] |= other
    choice.write(device.state, choice.Choice.from_json(said))


def test_it_is_measured_behind_the_cameras_work_and_kept(tmp_path: Path) -> None:
    shop = device(tmp_path, toy_bundles.bundle(tmp_path / "toy"), "100 ms", CALM_FPS)
    with shop.running():
        wait_for("the first answers", shop.report)
        assert tuning(shop)["missing"] == "nothing was measured yet"
        wait_for("the choice", lambda: choice.read(shop.state))
        wait_for("the report to say so", lambda: tuning(shop).get("measured"))
        kept = choice.read(shop.state)
        assert kept is not None
        assert tuning(shop)["setup"] == str(kept.setup)
        assert tuning(shop)["reason"] == kept.reason
        assert not {"MOD-9", "MOD-10"} & findings(shop).keys()
    books(shop)


def test_a_choice_made_meanwhile_is_taken_up_between_two_frames_and_a_stale_one_is_told(tmp_path: Path) -> None:
    bundle = toy_bundles.bundle(tmp_path / "toy")
    shop = device(tmp_path, bundle, "0 s")
    keep(shop, bundle, Setup("onnxruntime", "cpu", "fp32", 1, "graph"), cpu="another")
    with shop.running():
        wait_for("the first answers", shop.report)
        assert shop.report()["runtime"] == "openvino"
        assert tuning(shop)["missing"] == "since it was measured, the processor is another one"
        assert findings(shop)["MOD-9"] == "since it was measured, the processor is another one"
        keep(shop, bundle, Setup("onnxruntime", "cpu", "fp32", 1, "graph"))
        wait_for("the other runtime", lambda: shop.report()["runtime"] == "onnxruntime")
        wait_for("its answers", lambda: shop.results()[-1]["runtime"] == "onnxruntime")
        assert tuning(shop)["reason"] == "measured elsewhere"
        assert not {"MOD-5", "MOD-9"} & findings(shop).keys()
    books(shop)


def books(shop: Device) -> None:
    """Every frame has its fate, and none failed on its way from one setup to the other."""
    counters, answered = shop.counters(), len(shop.results())
    dropped = {name: n for name, n in counters.items() if name.startswith("frames:dropped:")}
    assert counters["frames:captured"] == answered + sum(dropped.values())
    assert dropped.keys() <= {"frames:dropped:superseded", "frames:dropped:stopping"}
