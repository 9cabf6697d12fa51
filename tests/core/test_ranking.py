"""The best labels of an answer, however they are looked for: best first, of equal scores the earlier label."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models import BundleError
from models.classifier import FEW, _best, _best_of_few, _checked

SCORES = st.lists(st.sampled_from([0.0, 0.1, 0.25, 0.5, 1.0]), min_size=1, max_size=40)


@settings(deadline=None)
@given(SCORES, st.integers(1, 2 * FEW))
def test_the_best_come_first_and_equals_in_their_order(scores: list[float], k: int) -> None:
    given_ = np.array(scores, np.float32)
    wanted = sorted(range(len(scores)), key=lambda place: -scores[place])[:k]
    for ranked in (_best(given_, k), _best_of_few(given_, k)):
        assert ranked == [(place, float(given_[place])) for place in wanted]


@pytest.mark.parametrize("wrong", [[0.1, np.nan], [np.nan, 0.1], [np.inf, 0.5], [0.5, -np.inf], [-0.5, -0.1]])
def test_numbers_that_are_no_scores_are_no_answer(wrong: list[float]) -> None:
    for look in (lambda scores: _best(_checked(scores), 2), lambda scores: _best_of_few(scores, 2)):
        with pytest.raises(BundleError) as caught:
            look(np.array(wrong, np.float32))
        assert caught.value.code == "model-output"
