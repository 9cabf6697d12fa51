"""The synthetic camera: the same frames for the same numbers, a known truth, and light work."""

import time
from itertools import pairwise

import numpy as np
import pytest

from agent.camera.synthetic import PRODUCTS, Scene

import models  # isort: skip


@pytest.fixture(scope="module")
def scene() -> Scene:
    return Scene(5, 320, 180)


def test_a_frame_depends_on_seed_and_number_alone(scene: Scene) -> None:
    order = [40, 3, scene.dwell_frames + 2, 3, 0]
    again = Scene(5, 320, 180)
    for number in order:
        frame, truth = scene.render(number)
        same, same_truth = again.render(number)
        assert truth == same_truth
        np.testing.assert_array_equal(frame, same)


def test_other_cameras_and_other_moments_look_different(scene: Scene) -> None:
    frame, _ = scene.render(3)
    assert (frame != scene.render(4)[0]).mean() > 0.2  # the sensor's noise alone
    assert (frame != Scene(6, 320, 180).render(3)[0]).mean() > 0.5


@pytest.mark.parametrize("size", [(1280, 720), (640, 480), (160, 90), (333, 211)])
def test_frames_have_the_size_asked_for(size: tuple[int, int]) -> None:
    frame, truth = Scene(1, *size).render(0)
    assert frame.shape == (size[1], size[0], 3)
    assert frame.dtype == np.uint8
    assert frame.flags.c_contiguous
    assert truth in PRODUCTS


def test_frames_are_neither_black_nor_burnt(scene: Scene) -> None:
    for turn in range(len(PRODUCTS)):
        frame, _ = scene.render(turn * scene.dwell_frames + 30)
        assert 25 < frame.mean() < 170
        assert frame.std() > 25


def test_the_caller_owns_the_frame(scene: Scene) -> None:
    first, _ = scene.render(3)
    first[:] = 0
    assert scene.render(3)[0].mean() > 25


def test_every_product_takes_its_turn(scene: Scene) -> None:
    truths = [scene.truth(turn * scene.dwell_frames) for turn in range(2 * len(PRODUCTS))]
    assert sorted(truths[: len(PRODUCTS)]) == sorted(PRODUCTS)
    assert truths[: len(PRODUCTS)] == truths[len(PRODUCTS) :]
    assert all(a != b for a, b in pairwise(truths))


def test_the_truth_changes_only_when_the_facing_does(scene: Scene) -> None:
    changes = [i for i in range(1, 3 * scene.dwell_frames) if scene.truth(i) != scene.truth(i - 1)]
    assert changes == [scene.dwell_frames, 2 * scene.dwell_frames]


def test_an_arm_passes_while_the_facing_changes(scene: Scene) -> None:
    first = scene.dwell_frames - 25
    still, later, arm = (scene.render(number)[0].astype(int) for number in (first, first + 8, first + 24))
    middle = (slice(50, 150), slice(40, 280))
    calm, passing = (np.abs(other - still)[middle].max(axis=2) > 60 for other in (later, arm))
    assert passing.mean() > calm.mean() + 0.05


def test_a_scene_may_show_one_product_only() -> None:
    scene = Scene(9, 160, 90, labels=("Lemon",))
    assert {scene.render(number)[1] for number in (0, 500, 5000)} == {"Lemon"}


def test_the_light_drifts() -> None:
    scene = Scene(2, 160, 90, labels=("Orange",))
    brightness = [scene.render(number)[0].mean() for number in range(0, 1200, 60)]
    assert max(brightness) / min(brightness) > 1.12


def test_the_products_are_labels_of_the_shipped_bundle() -> None:
    bundle = models.Bundle.load(models.resolve("produce"))
    assert set(PRODUCTS) <= set(bundle.manifest.labels)


@pytest.mark.parametrize("size", [(10, 10), (5000, 720), (1280, 40)])
def test_impossible_sizes_are_refused(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="pixels"):
        Scene(1, *size)


@pytest.mark.parametrize("labels", [(), ("Banana", "Bicycle")])
def test_what_cannot_be_drawn_is_refused_with_what_can(labels: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="Banana, Orange"):
        Scene(1, labels=labels)


def test_frames_before_the_first_are_refused(scene: Scene) -> None:
    with pytest.raises(ValueError, match="counted from 0"):
        scene.render(-1)


def test_a_scene_is_cheap_to_make_and_a_frame_cheap_to_render() -> None:
    began_s = time.process_time()
    scenes = [Scene(seed) for seed in range(20)]
    assert (time.process_time() - began_s) / len(scenes) < 0.02
    scenes[0].render(30)  # draws the facing
    costs_s = []
    for number in range(31, 61):
        began_s = time.process_time()
        scenes[0].render(number)
        costs_s.append(time.process_time() - began_s)
    assert float(np.median(costs_s)) < 0.02  # 4 ms where this was written; a busy machine is allowed its noise
