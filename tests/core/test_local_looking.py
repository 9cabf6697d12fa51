"""What viewers see: nothing is kept or encoded while nobody looks, and no faster than the ceiling when many do."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from agent.core.decide import Conclusion
from agent.host.clock import SystemClock
from agent.local.looking import EVERY_NS, WIDE, WIDTH, Looking
from agent.ports import Frame, Picture, Stamp
from models import Answer

PATIENCE_S = 10.0
ANSWER = Answer((("Banana", 0.9), ("Lemon", 0.1)), "Banana", 0.9, True, 3.0, 1.0)
CONCLUSION = Conclusion("Banana", "confirmed", changed=True, reason="seen")


class Encoder:
    """Counts; the "JPEG" is the brightness of the first pixel."""

    def __init__(self) -> None:
        self.times_s: list[float] = []

    def __call__(self, picture: Picture, width: int) -> tuple[bytes, int, int]:
        self.times_s.append(time.monotonic())
        return bytes([picture[0, 0, 0]]), width, 9


class Shop:
    """One camera whose frames are answered as the test says."""

    def __init__(self) -> None:
        self.encoder = Encoder()
        self.looking = Looking(["cam"], self.encoder, SystemClock())
        self.number = 0

    def see(self) -> Frame:
        self.number += 1
        now = SystemClock().now()
        frame = Frame("cam", self.number, np.full((2, 2, 3), self.number, np.uint8), Stamp(now.wall_ns, now.boot_ns))
        self.looking.saw(frame, ANSWER, CONCLUSION, 12.5)
        return frame

    def see_until(self, done: threading.Event) -> None:
        while not done.wait(0.01):
            self.see()


def test_answers_are_noted_and_pictures_are_not_while_nobody_looks() -> None:
    shop = Shop()
    assert shop.looking.seen("cam") is None
    frames = [shop.see() for _ in range(20)]
    seen = shop.looking.seen("cam")
    assert seen is not None
    assert (seen.number, seen.label, seen.total_ms) == (20, "Banana", 12.5)
    assert shop.encoder.times_s == []
    assert shop.looking._frames == {}
    assert frames[-1].number == 20


def test_who_looks_gets_a_newer_picture_than_the_one_known() -> None:
    shop, done = Shop(), threading.Event()
    with ThreadPoolExecutor(1) as pool:
        pool.submit(shop.see_until, done)
        try:
            first = shop.looking.picture("cam", 0, WIDTH, PATIENCE_S)
            assert first is not None
            second = shop.looking.picture("cam", first.number, WIDTH, PATIENCE_S)
            assert second is not None
            wide = shop.looking.picture("cam", second.number, WIDE, PATIENCE_S)
        finally:
            done.set()
    assert second.number != first.number
    assert second.jpeg == bytes([second.number % 256])
    assert wide is not None
    assert (first.width, wide.width) == (WIDTH, WIDE)
    assert shop.looking._frames == {}  # its pixels are megabytes


def test_a_camera_that_gives_nothing_new_gives_none_in_time() -> None:
    shop = Shop()
    assert shop.looking.picture("cam", 0, WIDTH, 0.05) is None
    shop.see()
    assert shop.encoder.times_s == []


def test_many_viewers_share_what_is_encoded() -> None:
    shop, done = Shop(), threading.Event()
    viewers = 12
    until_s = time.monotonic() + 1.0

    def view(_: int) -> int:
        number = got = 0
        while time.monotonic() < until_s:
            shown = shop.looking.picture("cam", number, WIDTH, PATIENCE_S)
            assert shown is not None
            number, got = shown.number, got + 1
        return got

    with ThreadPoolExecutor(viewers + 1) as pool:
        pool.submit(shop.see_until, done)
        try:
            got = list(pool.map(view, range(viewers)))
        finally:
            done.set()
    assert min(got) >= 1
    apart_s = np.diff(shop.encoder.times_s)
    assert apart_s.min() >= 0.9 * EVERY_NS / 1e9


def test_closing_lets_everybody_go() -> None:
    shop = Shop()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(shop.looking.picture, "cam", 0, WIDTH, PATIENCE_S)
        shop.looking.close()
        assert waiting.result(PATIENCE_S) is None
