"""The best labels of an answer, however they are looked for: best first, of equal scores the earlier label."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from models.classifier import FEW, _best

SCORES = st.lists(st.sampled_from([0.0, 0.1, 0.25, 0.5, 1.0]), min_size=1, max_size=40)


@settings(deadline=None)
@given(SCORES, st.integers(1, 2 * FEW))
def test_the_best_come_first_and_equals_in_their_order(scores: list[float], k: int) -> None:
    found = _best(np.array(scores, np.float32), k)
    assert found == sorted(range(len(scores)), key=lambda place: -scores[place])[:k]
