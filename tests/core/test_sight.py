"""What a picture is like, in numbers: each says one thing and is not moved by the others."""

import numpy as np
import pytest

from agent.camera.sight import Sight, compare, sight
from agent.camera.synthetic import Scene

import cv2  # isort: skip

SCENE = Scene(3, 1280, 720)
SHELF = SCENE.render(40)[0]
AGAIN = SCENE.render(58)[0]


def blurred(picture, sigma_px):
    return cv2.GaussianBlur(picture, (0, 0), sigma_px)


def with_noise(picture, deviation):
    noise = np.random.default_rng(1).normal(0, deviation, picture.shape)
    return np.clip(picture + noise, 0, 255).astype(np.uint8)


def moved(picture, shift=0.0, turn_deg=0.0):
    height, width = picture.shape[:2]
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), turn_deg, 1.0)
    matrix[0, 2] += shift * width
    return cv2.warpAffine(picture, matrix, (width, height), borderMode=cv2.BORDER_REFLECT)


def test_light_is_measured_as_it_is() -> None:
    seen = sight(np.full((360, 640, 3), 200, np.uint8))
    assert seen == Sight(brightness=200, contrast=0, sharpness=0, dark=0, bright=0)
    halves = np.zeros((360, 640, 3), np.uint8)
    halves[:, 320:] = 255
    seen = sight(halves)
    assert (seen.dark, seen.bright) == (0.5, 0.5)
    assert seen.brightness == pytest.approx(127.5)
    assert seen.contrast == pytest.approx(127.5)


def test_sharpness_falls_with_blur() -> None:
    found = [sight(SHELF).sharpness] + [sight(blurred(SHELF, s)).sharpness for s in (2, 4, 8)]
    assert found == sorted(found, reverse=True)
    assert found[0] > 0.7
    assert found[-1] < 0.4


@pytest.mark.parametrize("sigma_px", [0.3, 4])
def test_sharpness_knows_neither_exposure_nor_noise(sigma_px) -> None:
    picture = blurred(SHELF, sigma_px)
    plain = sight(picture).sharpness
    dark = (picture * 0.3).astype(np.uint8)
    assert sight(dark).sharpness == pytest.approx(plain, abs=0.04)
    assert sight(with_noise(picture, 8)).sharpness == pytest.approx(plain, abs=0.04)
    assert sight(with_noise(dark, 4)).sharpness == pytest.approx(plain, abs=0.06)


def test_noise_alone_is_not_sharp() -> None:
    assert sight(with_noise(np.full((720, 1280, 3), 90, np.uint8), 6)).sharpness == 0


def test_what_a_zone_hides_is_not_measured() -> None:
    picture = SHELF.copy()
    picture[:, :640] = 255
    right = ((0.5, 0.0), (1.0, 0.0), (1.0, 1.0), (0.5, 1.0))
    left = ((0.0, 0.0), (0.5, 0.0), (0.5, 1.0), (0.0, 1.0))
    assert sight(picture, (left,)).bright == 0
    assert sight(picture, (right,)).bright > 0.98
    assert sight(blurred(picture, 6), (left,)).sharpness < 0.6 * sight(SHELF, (left,)).sharpness
    assert sight(picture, (left, right)).brightness == 0


@pytest.mark.parametrize("size", [(160, 90), (90, 160), (1920, 1080), (333, 211)])
def test_any_size_is_measured(size) -> None:
    seen = sight(cv2.resize(SHELF, size))
    assert seen.brightness == pytest.approx(sight(SHELF).brightness, abs=3)
    assert seen.sharpness > 0.5


def test_the_same_view_is_in_place_whatever_the_light() -> None:
    dark, bright = (AGAIN * 0.4).astype(np.uint8), np.clip(AGAIN * 1.8, 0, 255).astype(np.uint8)
    for picture in (AGAIN, with_noise(dark, 4), bright):
        view = compare(picture, SHELF)
        assert view.shift == 0
        assert view.in_place > 0.9


@pytest.mark.parametrize("shift", [0.04, 0.08, -0.1])
def test_a_shift_is_found_with_its_length(shift) -> None:
    view = compare(moved(AGAIN, shift), SHELF)
    assert view.shift == pytest.approx(abs(shift), abs=0.015)
    assert view.in_place < 0.5 < view.overlap


def test_a_turned_camera_is_found_with_its_angle() -> None:
    view = compare(moved(AGAIN, 0, 6), SHELF)
    assert abs(view.turn_deg) == pytest.approx(6, abs=1)
    assert view.shift > 0.03


def test_another_size_is_the_same_view_and_another_shape_is_not() -> None:
    assert compare(cv2.resize(AGAIN, (640, 360)), SHELF).in_place > 0.9
    assert compare(np.ascontiguousarray(np.rot90(AGAIN)), SHELF).overlap == 0


def test_of_an_empty_wall_nothing_is_said() -> None:
    wall = np.full((720, 1280, 3), 120, np.uint8)
    assert compare(SHELF, wall).overlap == 1
    assert compare(SHELF, wall).tiles == 0
