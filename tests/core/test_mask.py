"""Privacy zones: what is inside is painted over, whatever the size, the shape and the order of the corners."""

import re
from pathlib import Path

import numpy as np
import pytest

from agent.camera.mask import FILL, GROWN_PX, hidden, hide, masked
from agent.config import parse
from agent.core.zones import read_zones
from agent.errors import Rejected
from agent.ports import Shot, Stream

SQUARE = ((0.25, 0.25), (0.5, 0.25), (0.5, 0.5), (0.25, 0.5))


def noise(width, height):
    return np.random.default_rng(3).integers(0, 100, (height, width, 3), np.uint8)


@pytest.mark.parametrize(("width", "height"), [(1920, 1080), (640, 480), (480, 640), (161, 91)])
def test_a_zone_is_painted_whole_at_any_size(width, height) -> None:
    picture = masked(noise(width, height), (SQUARE,))
    left, right, top, bottom = width // 4, width // 2, height // 4, height // 2
    assert (picture[top : bottom + 1, left : right + 1] == FILL).all()
    around = picture.copy()
    around[top - GROWN_PX - 1 : bottom + GROWN_PX + 2, left - GROWN_PX - 1 : right + GROWN_PX + 2] = 0
    assert (around != FILL).all()


def test_zones_that_overlap_leave_no_hole() -> None:
    other = tuple((x + 0.1, y + 0.1) for x, y in SQUARE)
    picture = masked(noise(400, 400), (SQUARE, other))
    assert (picture[105:240, 105:199] == FILL)[:90].all()
    assert (picture[140:200, 140:200] == FILL).all()


def test_a_zone_with_a_dent_is_painted_as_drawn() -> None:
    zone = ((0.0, 0.0), (1.0, 0.0), (0.5, 0.5), (1.0, 1.0), (0.0, 1.0))
    painted = (masked(noise(200, 200), (zone,)) == FILL).all(axis=2)
    assert painted[100, 90]
    assert painted[10, 150]
    assert not painted[100, 150]


def test_a_picture_that_may_not_be_written_is_copied() -> None:
    picture = noise(100, 100)
    picture.flags.writeable = False
    painted = masked(picture, (SQUARE,))
    assert painted is not picture
    assert painted[40, 40, 0] == FILL
    assert picture[40, 40, 0] != FILL


def test_without_zones_nothing_is_touched() -> None:
    picture = noise(100, 100)
    assert masked(picture, ()) is picture


def test_the_map_of_what_is_hidden_is_what_is_painted() -> None:
    picture = masked(noise(300, 200), (SQUARE,))
    assert ((hidden((SQUARE,), 300, 200) == 255) == (picture == FILL).all(axis=2)).all()


class Polled:
    live = True

    def __init__(self):
        self.calls = []

    def open(self):
        self.calls.append("open")

    def read(self):
        return Shot(noise(100, 100), "Banana")

    def close(self):
        self.calls.append("close")


class Streamed(Polled):
    def grab(self):
        self.calls.append("grab")

    def retrieve(self):
        return Shot(noise(100, 100))


def test_a_source_paints_what_it_gives_and_stays_what_it_is() -> None:
    polled, streamed = hide(Polled(), (SQUARE,)), hide(Streamed(), (SQUARE,))
    shot = polled.read()
    assert shot is not None
    assert shot.truth == "Banana"
    assert shot.picture[40, 40, 0] == FILL
    assert not isinstance(polled, Stream)
    assert isinstance(streamed, Stream)
    assert streamed.retrieve().picture[40, 40, 0] == FILL
    plain = Polled()
    assert hide(plain, ()) is plain


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ([[[0, 0], [0.3, 0.4]]], (((0.0, 0.0), (0.3, 0.0), (0.3, 0.4), (0.0, 0.4)),)),
        ([[[0, 0], [1, 0], [1, 1], [0, 0]]], (((0.0, 0.0), (1.0, 0.0), (1.0, 1.0)),)),
        ([], ()),
    ],
)
def test_a_rectangle_by_two_corners_and_a_polygon_closed_by_hand(written, read) -> None:
    assert read_zones(written) == read


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("'left'", "write a list of at most 16 zones"),
        ("[[0.1, 0.2], [0.3, 0.4]]", "zone 1, corner 1 is 0.1: write [x, y] in parts"),
        ("[[[0, 0], [320, 0], [320, 200]]]", "corner 2 is [320, 0]: write [x, y] in parts of the picture from 0 to 1"),
        ("[[[0, 0], [nan, 0], [1, 1]]]", "corner 2 is [nan, 0]"),
        ("[[[0, 0], [true, 0], [1, 1]]]", "corner 2 is [True, 0]"),
        ("[[[0, 0]]]", "write 3 to 32 corners, or 2 opposite ones of a rectangle"),
        ("[[[0, 0], [1, 1], [1, 0], [0, 1]]]", "its edges cross or lie in one line"),
        ("[[[0, 0], [1, 0], [1, 1], [0, 0], [1, 0], [1, 1]]]", "list each corner once"),
        ("[[[0, 0], [1, 0], [1, 1], [0.5, 0], [0, 1]]]", "its edges cross"),
        ("[[[0, 0], [0.5, 0.5], [1, 1]]]", "lie in one line"),
        ("[[[0, 0], [1, 1]], [[0.1, 0.1], [0.1, 0.5]]]", "zone 2: its edges cross or lie in one line"),
    ],
)
def test_a_zone_that_cannot_be_meant_is_refused_with_its_cure(written, words) -> None:
    text = f"[device]\nid = 'a'\n[[camera]]\nname = 's'\nurl = 'synthetic:1'\nmask = {written}\n"
    with pytest.raises(Rejected, match=r"camera\[1\]\.mask") as caught:
        parse(text)
    assert words in str(caught.value)


def test_nobody_reaches_a_source_past_its_mask() -> None:
    agent = Path(__file__).parents[2] / "agent"
    folder = agent / "camera" / "sources"
    others = [path for path in agent.rglob("*.py") if folder not in path.parents]
    assert len(others) > 50
    for path in others:
        assert not re.search(r"(from|import) agent\.camera\.sources\.", path.read_text()), path
        assert "VideoCapture(" not in path.read_text(), path
