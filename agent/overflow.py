"""Frames on their way to become files for the cloud: a short queue between those who answer and the one who encodes."""

import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from agent.ports import Frame, Lane

QUEUE_BYTES = 32 << 20
"""Bytes of raw pictures that may wait: a dozen of 1280 x 720. One larger than its share waits alone."""
QUEUE_FRAMES = 16
"""Frames that may wait, however small: a longer queue would not be spooled sooner, only hold older frames."""


@dataclass(frozen=True, slots=True)
class Job:
    """A frame to be spooled. `counts` are committed with its row; a `copy` was answered here and counts by itself."""

    frame: Frame
    lane: Lane
    reason: str
    counts: Mapping[str, int]
    copy: bool = False
    expires_ns: int | None = None
    answer: dict[str, Any] | None = None


class Overflow:
    """A queue that never blocks who puts, for one taker. What it holds is counted by somebody, also at a stop."""

    def __init__(self, limit_bytes: int = QUEUE_BYTES, limit_frames: int = QUEUE_FRAMES) -> None:
        self._limit_bytes = limit_bytes
        self._limit_frames = limit_frames
        self._jobs: deque[Job] = deque()
        self._size_bytes = 0
        self._in_hand: Job | None = None
        self._changed = threading.Condition()
        self._closed = False

    def __len__(self) -> int:
        return len(self._jobs)

    def has_room(self, frame: Frame, *, copy: bool = False) -> bool:
        """Tell whether a frame would be taken.

        Frames that nobody has answered fill three quarters at most. The rest is for copies, so that under a lasting
        overload answers are still looked at again; copies may use all of it, for so many an hour are made at most.
        """
        with self._changed:
            return self._fits(frame, copy=copy)

    def put(self, job: Job) -> bool:
        """Leave a job; False when there is no room or the device stops."""
        with self._changed:
            if not self._fits(job.frame, copy=job.copy):
                return False
            self._jobs.append(job)
            self._size_bytes += job.frame.picture.nbytes
            self._changed.notify_all()
        return True

    def take(self) -> Job | None:
        """Wait for the next job; None when closed and empty. `release` it before its record is handed over."""
        with self._changed:
            self._changed.wait_for(lambda: self._jobs or self._closed)
            if not self._jobs:
                return None
            job = self._in_hand = self._jobs.popleft()
            self._size_bytes -= job.frame.picture.nbytes
            return job

    def release(self, job: Job) -> bool:
        """Say that the job's fate is decided; False when it was given up meanwhile, and is counted as that."""
        with self._changed:
            if self._in_hand is not job:
                return False
            self._in_hand = None
            self._changed.notify_all()
        return True

    def close(self, timeout_s: float) -> list[Job]:
        """Take no more, wait until all is done or the time is over, and give what was given up."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._jobs and self._in_hand is None, timeout_s)
            left = ([self._in_hand] if self._in_hand is not None else []) + list(self._jobs)
            self._in_hand = None
            self._jobs.clear()
            self._size_bytes = 0
            return left

    def _fits(self, frame: Frame, *, copy: bool) -> bool:
        quarters = 4 if copy else 3
        room_bytes = self._limit_bytes * quarters // 4 - self._size_bytes
        few = len(self._jobs) < self._limit_frames * quarters // 4 and frame.picture.nbytes <= room_bytes
        return not self._closed and (not self._jobs or few)
