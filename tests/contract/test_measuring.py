"""Vision's measuring in the background: when the device is calm, given up when it is not, no harm when it fails."""

import os
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import toy_bundles

from agent.app.tuning import MOST_LATE, Tuning
from agent.bench import choosing
from agent.config import Config
from agent.host.clock import SystemClock
from agent.ports import Stamp
from agent.store import choice
from models import Bundle
from models.setup import Setup


class Clock(SystemClock):
    """Boot time as the test moves it."""

    def __init__(self) -> None:
        super().__init__()
        self.boot_s = 1000.0

    def now(self) -> Stamp:
        return Stamp(super().now().wall_ns, round(self.boot_s * 1e9))


class Shop:
    """A device whose frames come late as the test says."""

    def __init__(self, folder: Path) -> None:
        bundle = toy_bundles.bundle(folder / "toy")
        device = {"id": "b", "state_dir": folder / "state"}
        self.config = Config(device=device, model={"bundle": str(bundle.folder), "bench_after": "60 s"})  # type: ignore[arg-type]
        self.clock = Clock()
        self.late = 0
        self.tuning = Tuning(self.config, self.clock, lambda: self.late)
        self.using = using(self.config, bundle)

    def turn(self, seconds: float = 1.0, *, free: bool = True) -> bool:
        self.clock.boot_s += seconds
        return self.tuning.turn(self.using, free=free)

    @property
    def pid(self) -> int | None:
        return self.tuning._measuring.pid if self.tuning._measuring is not None else None

    def told(self) -> dict[str, object]:
        return self.tuning.describe(self.using)


def using(config: Config, bundle: Bundle) -> Any:
    classifier = SimpleNamespace(bundle=bundle, setup=Setup("openvino", "cpu", "fp32", 1, "graph"), notes=())
    return SimpleNamespace(classifier=classifier, chosen=choosing.chosen(config, bundle))


@pytest.fixture
def shop(tmp_path: Path) -> Any:
    made = Shop(tmp_path)
    yield made
    made.tuning.pause()


def test_it_begins_after_a_calm_minute_without_an_update_and_counts_calm_anew_when_frames_come_late(shop: Shop) -> None:
    shop.turn(50)
    assert shop.pid is None
    shop.late += 1
    shop.turn()
    shop.turn(59)
    assert shop.pid is None
    shop.turn(2, free=False)
    assert shop.pid is None
    shop.turn()
    assert shop.pid is not None
    assert shop.told()["measuring"]


@pytest.mark.parametrize("why", ["frames come late", "an update", "another model"])
def test_it_is_given_up_for_whatever_is_more_urgent_and_tried_again(shop: Shop, why: str, tmp_path: Path) -> None:
    shop.turn(61)
    pid = shop.pid
    assert pid is not None
    if why == "frames come late":
        shop.late += MOST_LATE + 1
    if why == "another model":
        shop.using = using(shop.config, toy_bundles.bundle(tmp_path / "other", toy_bundles.Toy(gain=2.0)))
    shop.turn(free=why != "an update")
    assert shop.pid is None
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert shop.told()["trouble"] == ""
    shop.turn(3600)
    assert shop.pid is not None


def test_a_few_late_frames_do_not_end_it(shop: Shop) -> None:
    shop.turn(61)
    shop.late += MOST_LATE
    shop.turn()
    assert shop.pid is not None


def test_when_its_process_dies_nothing_changes_and_it_is_told(shop: Shop) -> None:
    shop.turn(61)
    assert shop.pid is not None
    os.kill(shop.pid, signal.SIGKILL)
    os.waitid(os.P_PID, shop.pid, os.WEXITED | os.WNOWAIT)
    assert shop.turn() is False
    assert shop.pid is None
    assert "bench-failed" in str(shop.told()["trouble"])
    assert choice.read(shop.config.device.state_dir) is None


def test_a_choice_that_somebody_made_is_taken_up_once(shop: Shop) -> None:
    assert shop.turn() is False
    key = choosing.key_of(shop.using.classifier.bundle, 1, Setup())
    made = choice.Choice(key, Setup("onnxruntime", "cpu", "fp32", 1, "graph"), "faster", "2026-01-31T12:00:00Z")
    choice.write(shop.config.device.state_dir, made)
    assert shop.turn() is True
    assert shop.tuning.chosen(shop.using).setup == made.setup
    assert shop.turn() is False
    shop.turn(3600)
    assert shop.pid is None


def test_where_all_is_configured_nothing_is_measured(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    setup = {"runtime": "openvino", "precision": "fp32", "streams": 1, "preprocess": "graph"}
    model = shop.config.model.model_copy(update=setup)
    shop.tuning = Tuning(shop.config.model_copy(update={"model": model}), shop.clock, lambda: 0)
    shop.turn(3600)
    assert shop.pid is None
