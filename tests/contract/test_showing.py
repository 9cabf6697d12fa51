"""Vision shows a camera to whoever asks with a file, and to nobody else."""

import json
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from camera_servers import picture

from agent.camera.mask import FILL, masked
from agent.camera.overlay import overlaid
from agent.camera.showing import FOLDER, Showing, Sighting, Wish, end_wish, read, wish
from agent.camera.sight import Sight, sight
from agent.config import Camera
from agent.core.decide import Conclusion
from agent.host.clock import SystemClock
from agent.ports import Frame
from models import Answer
from models.picture import decode_picture

CAMERA = Camera(name="a", url="synthetic:1", mask=[[[0, 0], [0.5, 0], [0.5, 0.5], [0, 0.5]]])
PATIENCE_S = 20.0


@pytest.fixture
def showing(tmp_path: Path) -> Iterator[Showing]:
    made = Showing(tmp_path, (CAMERA,), SystemClock())
    made.start()
    yield made
    made.stop()


def saw(showing: Showing, number: int = 1, camera: str = "a") -> None:
    frame = Frame(camera, number, masked(picture(number, 640, 360), CAMERA.mask), SystemClock().now(), None)
    answer = Answer((("Banana", 0.9), ("Apple", 0.1)), "Banana", 0.9, True, 1.0, 1.0)
    showing.saw(frame, answer, Conclusion("Banana", "confirmed", True, "r"), 5.0)


def until_seen(showing: Showing, folder: Path, wanted: Wish | None) -> Sighting:
    """Ask again and again as a command does, while frames come."""
    nobody = threading.Event()
    for number in range(1, int(PATIENCE_S / 0.02)):
        if wanted is not None and number % 20 == 1:
            wish(folder, "a", wanted)
        saw(showing, number)
        seen = read(folder, "a")
        if seen is not None:
            return seen
        nobody.wait(0.02)
    raise AssertionError("nothing was shown")


def test_who_asks_sees_the_next_answered_frame_with_what_is_known_of_it(showing: Showing, tmp_path: Path) -> None:
    seen = until_seen(showing, tmp_path, Wish(320, 0.1))
    assert (seen.camera, seen.label, seen.state, seen.top[0]) == ("a", "Banana", "confirmed", ("Banana", 0.9))
    assert (seen.width, seen.height) == (640, 360)
    shown = decode_picture(seen.jpeg)
    assert shown.shape == (180, 320, 3)
    assert abs(shown[:80, :150].astype(int) - FILL).max() <= 12, "a hidden zone is grey"
    assert seen.sight == sight(masked(picture(seen.number, 640, 360), CAMERA.mask), CAMERA.mask)
    assert (tmp_path / FOLDER).stat().st_mode & 0o777 == 0o700
    assert (tmp_path / FOLDER / "a.view").stat().st_mode & 0o777 == 0o600
    end_wish(tmp_path, "a")
    assert read(tmp_path, "a") is None


def test_who_wants_only_figures_gets_no_picture(showing: Showing, tmp_path: Path) -> None:
    assert until_seen(showing, tmp_path, Wish(0, 0.1)).jpeg == b""


def test_nothing_is_written_for_nobody(showing: Showing, tmp_path: Path) -> None:
    nobody = threading.Event()
    for number in range(20):
        saw(showing, number)
        nobody.wait(0.02)
    assert list((tmp_path / FOLDER).iterdir()) == []


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"width": 1e9}', b'{"width": "x", "pace_s": 1}', b"\xff" * 999]
)
def test_a_wish_that_is_none_is_not_heard(tmp_path: Path, content: bytes) -> None:
    showing = Showing(tmp_path, (CAMERA,), SystemClock())
    (tmp_path / FOLDER / "a.wanted").write_bytes(content)
    (tmp_path / FOLDER / "b.wanted").write_bytes(b'{"width": 10, "pace_s": 1}')
    showing._look_for_wishes()
    assert showing._wishes == {}


def test_a_wish_ends_by_itself_on_the_clock_that_never_jumps(tmp_path: Path) -> None:
    class Clock(SystemClock):
        shift_ns = 0

        def now(self):  # type: ignore[no-untyped-def]
            from agent.ports import Stamp

            return Stamp(0, self.shift_ns + 1)

    clock = Clock()
    showing = Showing(tmp_path, (CAMERA,), clock)
    wish(tmp_path, "a", Wish(10, 1))
    os.utime(tmp_path / FOLDER / "a.wanted", (time.time() + 10**6, time.time() + 10**6))
    showing._look_for_wishes()
    assert set(showing._wishes) == {"a"}
    clock.shift_ns = 4 * 10**9
    showing._look_for_wishes()
    assert showing._wishes == {}
    showing._look_for_wishes()
    assert showing._wishes == {}, "the same wish is not heard twice"


def test_a_sighting_is_read_back_and_nothing_else_is() -> None:
    seen = Sighting("a", 3, 4, 5, 6, 7, Sight(1.0, 2.0, 0.5, 0.0, 0.0), "x", "pending", (("x", 0.5),), b"\xff\n\xd8")
    assert Sighting.from_bytes(seen.as_bytes()) == seen
    for wrong in (b"", b"{}\n", b"[1]\nx", b'{"camera": 1}\n'):
        with pytest.raises(ValueError, match=r"."):
            Sighting.from_bytes(wrong)


def test_the_strip_stands_below_the_picture_and_zones_are_named() -> None:
    plain = masked(picture(1, 640, 360), CAMERA.mask)
    drawn = overlaid(plain, ["one", "zwei äöü"], CAMERA.mask)
    assert drawn.shape[0] > 360
    assert drawn.shape[1] == 640
    assert (drawn[200:360, 340:] == plain[200:, 340:]).all(), "nothing covers the picture"
    assert json.dumps(drawn[:150, :300].min().item()) != str(FILL)
