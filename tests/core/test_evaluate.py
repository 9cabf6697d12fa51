"""The figures of a classifier, against values worked out by hand and against their definitions."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.evaluate import bins_of, brier, calibration_error, figures, interval, most_confused

LABELS = ("Golden", "Granny", "Lemon")
COARSE = {"Golden": "Apple", "Granny": "Apple", "Lemon": "Citrus"}
SCORES = np.array(
    [
        [0.90, 0.05, 0.05],  # Golden, right
        [0.60, 0.30, 0.10],  # Granny, taken for Golden: the same coarse class
        [0.20, 0.45, 0.35],  # Lemon, taken for Granny, not accepted
        [0.10, 0.10, 0.80],  # Lemon, right
    ]
)
TRUTHS = np.array([0, 1, 2, 2])


def test_accuracy_fine_coarse_and_among_the_accepted() -> None:
    found = figures(SCORES, TRUTHS, LABELS, 0.5, COARSE)
    assert (found.pictures, found.accuracy, found.coarse_accuracy) == (4, 0.5, 0.75)
    assert (found.accepted, found.accepted_accuracy) == (0.75, pytest.approx(2 / 3))
    assert found.top5 == 1.0
    assert found.mean_label_accuracy == pytest.approx((1 + 0 + 0.5) / 3)


def test_calibration_and_brier_by_hand() -> None:
    found = figures(SCORES, TRUTHS, LABELS, 0.5)
    # Four bins hold one picture each: |1 - 0.9|, |0 - 0.6|, |0 - 0.45|, |1 - 0.8|
    assert found.calibration_error == pytest.approx((0.1 + 0.6 + 0.45 + 0.2) / 4)
    first = 0.1**2 + 2 * 0.05**2
    second = 0.6**2 + 0.7**2 + 0.1**2
    third = 0.2**2 + 0.45**2 + 0.65**2
    fourth = 2 * 0.1**2 + 0.2**2
    assert found.brier == pytest.approx((first + second + third + fourth) / 4)
    assert found.coarse_accuracy is None


def test_confusion_by_label_and_by_pair() -> None:
    found = figures(SCORES, TRUTHS, LABELS, 0.5)
    assert found.confusion.tolist() == [[1, 0, 0], [1, 0, 0], [0, 1, 1]]
    assert [(item.label, item.pictures, item.accuracy, item.answered) for item in found.by_label] == [
        ("Golden", 1, 1.0, 2),
        ("Granny", 1, 0.0, 1),
        ("Lemon", 2, 0.5, 1),
    ]
    pairs = most_confused(found.confusion, LABELS)
    assert [(pair.truth, pair.answer, pair.pictures) for pair in pairs] == [
        ("Granny", "Golden", 1),
        ("Lemon", "Granny", 1),
    ]


def test_a_label_without_pictures_has_no_accuracy_and_counts_in_no_mean() -> None:
    found = figures(SCORES[:1], TRUTHS[:1], LABELS, 0.95, COARSE)
    assert [item.accuracy for item in found.by_label] == [1.0, None, None]
    assert (found.mean_label_accuracy, found.accepted, found.accepted_accuracy) == (1.0, 0.0, None)


def test_the_best_five_of_many_and_equal_scores() -> None:
    labels = [f"label {number}" for number in range(8)]
    scores = np.full((2, 8), 0.125)
    assert figures(scores, np.array([4, 5]), labels, 0.5).top5 == 0.5  # the first of equals come first
    assert figures(scores, np.array([0, 1]), labels, 0.5).accuracy == 0.5


def test_the_interval_of_a_share() -> None:
    assert interval(191, 296) == pytest.approx((0.589, 0.698), abs=1e-3)  # Wilson's, as published tables give it
    assert interval(0, 10) == pytest.approx((0.0, 0.2775), abs=1e-3)
    assert interval(10, 10) == pytest.approx((0.7225, 1.0), abs=1e-3)


@pytest.mark.parametrize(
    ("scores", "truths"),
    [
        (SCORES[:, :2], TRUTHS),
        (SCORES, TRUTHS[:3]),
        (SCORES[:0], TRUTHS[:0]),
        (SCORES, TRUTHS + 1),
        (SCORES, TRUTHS - 1),
    ],
)
def test_arrays_that_do_not_fit_are_refused(scores: np.ndarray, truths: np.ndarray) -> None:
    with pytest.raises(ValueError):
        figures(scores, truths, LABELS, 0.5)


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=60))
def test_every_picture_is_in_one_bin_and_the_error_is_a_share(pairs: list[tuple[float, bool]]) -> None:
    best, right = np.array([score for score, _ in pairs]), np.array([was for _, was in pairs])
    bins = bins_of(best, right)
    assert sum(item.pictures for item in bins) == len(pairs)
    for item in bins:
        if item.score is not None:
            assert item.above - 1e-9 <= item.score <= item.up_to + 1e-9
    assert 0 <= calibration_error(best, right) <= 1


@given(st.integers(2, 6), st.integers(1, 20), st.integers(0, 2**32 - 1))
def test_brier_is_the_squared_distance_to_the_truth(labels: int, pictures: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.dirichlet(np.ones(labels), pictures)
    truths = rng.integers(0, labels, pictures)
    plain = ((scores - np.eye(labels)[truths]) ** 2).sum(axis=1).mean()
    assert brier(scores, truths) == pytest.approx(plain, abs=1e-12)
    assert 0 <= plain <= 2
