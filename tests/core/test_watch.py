"""The watch over rendered cameras, with time that the test owns: what it tells, once, and what it keeps."""

import json
from datetime import time
from pathlib import Path

import numpy as np
import pytest

from agent.camera import synthetic_faults as faults
from agent.camera.synthetic import Scene
from agent.camera.watch import Watch, Watched
from agent.config import Camera
from agent.core import watching
from agent.ports import Frame, Stamp

import cv2  # isort: skip

SCENE = Scene(3, 320, 180)
SHELF = [SCENE.render(index)[0] for index in range(60)]
NOON_NS = 1_800_000_000 * 10**9


class Shop:
    """A watch with one camera that a test shows pictures to, one a second."""

    def __init__(self, folder: Path, *, kept: str | None = None, url: str = "synthetic:1", **terms) -> None:
        self.told, self.facts, self.full = [], {}, False
        cameras = [Camera(name="shelf", url=url, **terms.pop("camera", {}))]
        self.watch = Watch(
            cameras, watching.Terms(after_s=5.0, **terms), 1.0, self._tell, folder, lambda _: kept, lambda: None
        )
        self.looks = 0

    def _tell(self, frame, notices, facts) -> bool:
        if self.full:
            return False
        self.told += [(n.condition, n.state) for n in notices]
        self.facts.update(facts)
        return True

    def frame(self, picture) -> Frame:
        self.looks += 1
        now_ns = NOON_NS + self.looks * 10**9
        return Frame("shelf", self.looks, picture, Stamp(now_ns, now_ns))

    def show(self, fault=lambda picture: picture, looks: int = 20) -> None:
        for _ in range(looks):
            self.watch.see(self.frame(fault(SHELF[self.looks % len(SHELF)])))

    @property
    def codes(self) -> list[str]:
        return [c["code"] for c in self.watch.conditions("shelf")]


@pytest.fixture
def shop(tmp_path) -> Shop:
    found = Shop(tmp_path)
    found.show(looks=40)
    assert found.told == []
    return found


@pytest.mark.parametrize("fault", sorted(faults.FAULTS))
def test_a_fault_is_told_once_and_its_end_too(shop: Shop, fault: str) -> None:
    shop.show(faults.FAULTS[fault], looks=30)
    code = f"camera-{fault}"
    assert shop.told == [(code, "raised")]
    (said,) = shop.watch.conditions("shelf")
    assert said["code"] == code
    assert said["hint"]
    shop.show(looks=40)
    assert shop.told == [(code, "raised"), (code, "cleared")]
    assert shop.codes == []


def test_a_frozen_picture_is_told_also_when_its_clock_runs(shop: Shop) -> None:
    def frozen(_):
        still = SHELF[7].copy()
        cv2.putText(still, f"10:{shop.looks:04d}", (8, 20), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (255, 255, 255), 1)
        return still

    shop.show(frozen)
    assert shop.told == [("camera-frozen", "raised")]
    assert shop.watch.blind("shelf") == "camera-frozen"
    shop.show()
    assert shop.told[-1] == ("camera-frozen", "cleared")


def test_a_picture_that_comes_round_in_the_beat_of_the_looks_is_not_frozen(tmp_path) -> None:
    shop, looked = Shop(tmp_path), []
    for number in range(3000):  # eight pictures, sixteen a second: the same one every half second
        stamp = Stamp(NOON_NS, NOON_NS + round(number / 16 * 1e9))
        shop.watch.show(Frame("shelf", number, SHELF[number % 8], stamp))
        looked += [frame.number % 8 for frame in shop.watch._waiting.values()]
        shop.watch._waiting.clear()
    assert 150 < len(looked) < 210
    assert set(looked) == set(range(8))
    assert max(looked.count(n) for n in range(8)) < len(looked) / 4


def test_a_blind_camera_is_known_at_once_and_a_turned_one_still_shows_something(shop: Shop) -> None:
    assert shop.watch.blind("shelf") == ""
    shop.show(faults.FAULTS["covered"], looks=1)
    assert shop.watch.blind("shelf") == "camera-covered"
    assert shop.told == []
    shop.show(faults.FAULTS["moved"], looks=30)
    assert shop.watch.blind("shelf") == ""


def test_in_dark_hours_darkness_is_not_told(tmp_path) -> None:
    always = ((time(0, 0), time(12, 0)), (time(12, 0), time(0, 0)))
    shop = Shop(tmp_path, dark_hours=always)
    shop.show(looks=40)
    shop.show(faults.FAULTS["black"], looks=60)
    assert shop.told == []
    assert shop.watch.blind("shelf") == "camera-black"


def test_only_what_is_wanted_is_told_and_files_are_not_watched(tmp_path) -> None:
    shop = Shop(tmp_path, conditions=("camera-black",))
    shop.show(looks=40)
    shop.show(faults.FAULTS["covered"], looks=40)
    assert shop.told == []
    film = Shop(tmp_path, url="/srv/film.mp4")
    film.watch.show(film.frame(SHELF[0]))
    assert film.watch.conditions("shelf") == []
    assert film.watch.blind("shelf") == ""


def test_a_notice_that_the_store_could_not_take_comes_again(shop: Shop) -> None:
    shop.full = True
    shop.show(faults.FAULTS["black"], looks=30)
    assert shop.codes == []
    shop.full = False
    shop.show(faults.FAULTS["black"], looks=1)
    assert shop.told == [("camera-black", "raised")]


def test_a_restart_neither_repeats_a_notice_nor_forgets_to_end_it(shop: Shop, tmp_path) -> None:
    shop.show(faults.FAULTS["covered"], looks=20)
    after = Shop(tmp_path, kept=shop.facts["watch:shelf"])
    after.show(faults.FAULTS["covered"], looks=20)
    assert after.told == []
    assert after.codes == ["camera-covered"]
    after.show(looks=40)
    assert after.told == [("camera-covered", "cleared")]


@pytest.mark.parametrize("kept", ["[]", "{}", '{"normal": {"x": 1}, "detail": null, "holds": {}}', "no JSON"])
def test_what_an_other_version_kept_is_learned_anew(tmp_path, kept: str) -> None:
    shop = Shop(tmp_path, kept=kept)
    shop.show(looks=40)
    shop.show(faults.FAULTS["blurred"])
    assert shop.told == [("camera-blurred", "raised")]


def test_what_is_no_longer_wanted_ends(shop: Shop, tmp_path) -> None:
    shop.show(faults.FAULTS["covered"], looks=20)
    after = Shop(tmp_path, kept=shop.facts["watch:shelf"], conditions=("camera-black",))
    after.show(faults.FAULTS["covered"], looks=30)
    assert after.told == [("camera-covered", "cleared")]


def test_what_was_learned_is_kept_now_and_then(shop: Shop) -> None:
    kept = json.loads(shop.facts["watch:shelf"])
    assert set(kept) == {"normal", "detail", "holds"}
    assert len(shop.facts["watch:shelf"]) < 2000


def test_the_commissioning_picture_is_what_a_camera_is_compared_with(tmp_path) -> None:
    cv2.imwrite(str(tmp_path / "shelf.jpg"), SHELF[0])
    moved = Shop(tmp_path)
    moved.show(faults.FAULTS["moved"], looks=40)
    assert moved.told == [("camera-moved", "raised")]
    cv2.imwrite(str(tmp_path / "shelf.jpg"), faults.FAULTS["moved"](SHELF[1]))  # the new view is meant
    moved.show(faults.FAULTS["moved"], looks=40)
    assert moved.told[1:] == [("camera-moved", "cleared")]


def test_a_commissioning_picture_that_is_none_is_said_and_harms_nothing(tmp_path, caplog) -> None:
    (tmp_path / "shelf.jpg").write_bytes(b"no picture")
    shop = Shop(tmp_path)
    shop.show(looks=40)
    assert shop.told == []
    assert caplog.text.count("cannot be read") == 1


def test_a_zone_neither_hides_a_fault_nor_makes_one(tmp_path) -> None:
    zone = [[[0.0, 0.0], [0.4, 1.0]]]
    shop = Shop(tmp_path, camera={"mask": zone})

    def painted(picture):
        picture = picture.copy()
        picture[:, :130] = 128
        return picture

    shop.show(painted, looks=40)
    assert shop.told == []
    shop.show(lambda picture: painted(faults.FAULTS["black"](picture)), looks=20)
    assert shop.told == [("camera-black", "raised")]


def test_frames_pass_on_to_the_pipeline_and_only_some_are_looked_at(tmp_path) -> None:
    shop, offered = Shop(tmp_path), []

    class Pipeline:
        def offer(self, frame):
            offered.append(frame.number)

        def end(self, camera):
            offered.append(camera)

    sink = Watched(Pipeline(), shop.watch)
    for number in range(10):
        stamp = Stamp(NOON_NS, NOON_NS + number * 10**8)
        sink.offer(Frame("shelf", number, np.zeros((90, 160, 3), np.uint8), stamp))
        sink.offer(Frame("other", number, np.zeros((90, 160, 3), np.uint8), stamp))
    sink.end("shelf")
    assert len(offered) == 21
    assert list(shop.watch._waiting) == ["shelf"]
    assert shop.watch._waiting["shelf"].number == 0
