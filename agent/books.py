"""The books of frames that end without a record: counted once, by reason, until the store has taken the count."""

import threading
from collections import Counter
from collections.abc import Mapping

CAPTURED = "frames:captured"


class Books:
    """Counts for the store's counters, and per camera for people. Safe for any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lost: Counter[str] = Counter()
        self._by_camera: Counter[str] = Counter()

    def lose(self, camera: str, reason: str) -> None:
        """Count a frame as dropped."""
        with self._lock:
            self._lost[f"frames:dropped:{reason}"] += 1
            self._by_camera[camera] += 1

    def collect(self) -> Counter[str]:
        """Give what was counted since the last call; each frame counts as captured here, with its fate."""
        with self._lock:
            counts, self._lost = self._lost, Counter()
        counts[CAPTURED] = counts.total()
        return counts

    def uncollect(self, counts: Mapping[str, int]) -> None:
        """Take counts back that could not be handed to the store; the next `collect` gives them again."""
        with self._lock:
            self._lost.update({name: n for name, n in counts.items() if name != CAPTURED})

    def dropped(self, camera: str) -> int:
        """Say how many frames of a camera were dropped in this process."""
        with self._lock:
            return self._by_camera[camera]
