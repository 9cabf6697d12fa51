"""Where frames wait: a mailbox of one per camera. The newest wins, the older is given back, cameras take turns."""

import heapq
import threading
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from agent.ports import Frame

STOPPING = "stopping"
"""Drop reason: the device stops, and nobody will take it any more."""


@dataclass(frozen=True, slots=True)
class Counts:
    """One camera's frames so far: put == served + displaced + dropped + waiting, at every moment."""

    put: int
    served: int
    displaced: int
    dropped: int
    waiting: int


class _Box:
    """One camera's place. Guarded by the lock of its `Mailboxes`."""

    __slots__ = ("behind", "displaced", "dropped", "ended", "frame", "in_work", "place", "put", "served", "turn")

    def __init__(self, place: int) -> None:
        self.place = place
        self.frame: Frame | None = None
        self.in_work: Frame | None = None
        self.behind = False  # the frame that waits has displaced another
        self.ended = False
        self.turn = 0  # when it was last served, in takes of all cameras; 0 is never
        self.put = 0
        self.served = 0
        self.displaced = 0
        self.dropped = 0

    def counts(self) -> Counts:
        return Counts(self.put, self.served, self.displaced, self.dropped, int(self.frame is not None))


class Mailboxes:
    """`agent.ports.Frames` for the cameras in `names`; safe for any number of readers and takers.

    While a camera's frame waits, every other camera is served at most once before it. While more comes than is served
    (a frame waits that has displaced another) at most `at_once` are in work, as many as there are cores: more of them
    would share the same cores, and each would be answered later.
    """

    def __init__(self, names: Iterable[str], at_once: int | None = None) -> None:
        self._boxes = {name: _Box(place) for place, name in enumerate(names)}
        self._ready: list[tuple[int, int, _Box]] = []
        """A heap of those whose frame may be served: (turn, place, box), the one that has waited longest first."""
        self._changed = threading.Condition()
        self._drops: Counter[str] = Counter()
        self._turns = 0
        # Of all boxes, kept up to date: each frame asks several times.
        self._live = len(self._boxes)
        self._waiting = 0
        self._behind = 0
        self._in_work = 0
        self._takers_waiting = 0
        self._at_once = at_once or len(self._boxes)
        self._closed = False

    def put(self, frame: Frame) -> Frame | None:
        """Leave the newest frame of its camera; gives the older one that it displaces. Never blocks.

        Raises KeyError for a camera without a mailbox.
        """
        with self._changed:
            box = self._boxes[frame.camera]
            box.put += 1
            if self._closed:
                self._drop(box, STOPPING)
                return None
            older, box.frame = box.frame, frame
            if older is None:
                self._waiting += 1
                self._make_ready(box)
            else:
                box.displaced += 1
                self._behind += not box.behind
                box.behind = True
            self._wake()
            return older

    def ahead(self, camera: str) -> int:
        """Count what comes before a new frame of `camera`: frames in work, and those whose camera is served first."""
        with self._changed:
            box = self._boxes[camera]
            if not self._ready:
                return self._in_work
            return self._in_work + sum(turn <= box.turn for turn, _, other in self._ready if other is not box)

    def take(self, timeout_s: float) -> Frame | None:
        """Give the next frame of the camera that has waited longest since it was served.

        None after `timeout_s`, and at once when closed or finished. The camera is not served again before `done`.
        """
        with self._changed:
            if not self._may_serve() and not self._is_over():
                self._takers_waiting += 1
                self._changed.wait_for(lambda: self._may_serve() or self._is_over(), timeout_s)
                self._takers_waiting -= 1
            if not self._may_serve():
                return None
            box = heapq.heappop(self._ready)[2]
            self._turns += 1
            box.turn = self._turns
            box.served += 1
            box.in_work, box.frame = box.frame, None
            self._waiting -= 1
            self._in_work += 1
            self._behind -= box.behind
            box.behind = False
            self._wake()  # this may have been the one that was behind
            return box.in_work

    def done(self, frame: Frame) -> None:
        """Say that the frame's answer is decided. Raises ValueError when it is not the one in work."""
        with self._changed:
            box = self._boxes[frame.camera]
            if box.in_work is None or box.in_work.number != frame.number:
                raise ValueError(f"frame {frame.number} of camera {frame.camera} is not in work")
            box.in_work = None
            self._in_work -= 1
            self._make_ready(box)
            self._wake()

    def end(self, camera: str) -> None:
        """Say that this camera's source has ended; what waits is still served."""
        with self._changed:
            box = self._boxes[camera]
            self._live -= not box.ended
            box.ended = True
            self._changed.notify_all()

    def close(self) -> None:
        """Stop serving: takers get None, and what waits is dropped as "stopping". May be called twice."""
        with self._changed:
            self._closed = True
            for box in self._boxes.values():
                if box.frame is not None:
                    box.frame, box.behind = None, False
                    self._drop(box, STOPPING)
            self._ready.clear()
            self._waiting = self._behind = 0
            self._changed.notify_all()

    def collect_drops(self) -> Mapping[str, int]:
        """Give the frames dropped since the last call, by reason."""
        with self._changed:
            drops, self._drops = self._drops, Counter()
            return dict(drops)

    @property
    def finished(self) -> bool:
        """True when every source has ended (or all was closed) and no frame waits or is being worked on."""
        with self._changed:
            return self._is_finished()

    def counts(self) -> Mapping[str, Counts]:
        """Give each camera's counts, in the order of the names."""
        with self._changed:
            return {name: box.counts() for name, box in self._boxes.items()}

    def _wake(self) -> None:
        """Wake one taker when there is something for it: one that is woken for nothing costs those at work."""
        if self._takers_waiting:
            if self._is_over():
                self._changed.notify_all()
            elif self._may_serve():
                self._changed.notify()

    def _drop(self, box: _Box, reason: str) -> None:
        box.dropped += 1
        self._drops[reason] += 1

    def _make_ready(self, box: _Box) -> None:
        if box.frame is not None and box.in_work is None:
            heapq.heappush(self._ready, (box.turn, box.place, box))

    def _may_serve(self) -> bool:
        return bool(self._ready) and not (self._behind and self._in_work >= self._at_once)

    def _is_finished(self) -> bool:
        return (self._closed or not self._live) and not self._waiting and not self._in_work

    def _is_over(self) -> bool:
        return self._closed or self._is_finished()
