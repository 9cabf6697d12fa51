"""How long to wait before the next try: full jitter under a ceiling. The one place where jitter is computed."""

import random as _random


class Backoff:
    """Waits that grow from `base_s` to `ceiling_s`, spread by full jitter so that many devices never try together.

    Try n (from 0) waits a uniformly random time in [0, min(ceiling, base * 2^n)]; see "Exponential Backoff And
    Jitter", AWS Architecture Blog, 2015.
    """

    def __init__(self, base_s: float, ceiling_s: float, random: _random.Random) -> None:
        if not 0 < base_s <= ceiling_s:
            raise ValueError(f"need 0 < base <= ceiling, got {base_s} s and {ceiling_s} s")
        self._base_s = base_s
        self._ceiling_s = ceiling_s
        self._random = random
        self._window_s = base_s

    def next(self) -> float:
        """Give the seconds to wait now, and double the window up to the ceiling."""
        wait_s = self._random.uniform(0.0, self._window_s)
        self._window_s = min(self._ceiling_s, 2.0 * self._window_s)
        return wait_s

    def at_ceiling(self) -> float:
        """Give the seconds to wait when only a person can mend it: the upper half of the ceiling.

        Never a short wait: a camera that counts wrong passwords locks the door after a few quick tries.
        """
        self._window_s = self._ceiling_s
        return self._random.uniform(0.5 * self._ceiling_s, self._ceiling_s)

    def reset(self) -> None:
        """Start again from the base: the thing works."""
        self._window_s = self._base_s
