"""Runs the device's own pipeline with more and more cameras: how many it holds, and how old frames are beyond that.

Each camera is a thread that decodes a JPEG when its next frame is due, as a network camera that sends MJPEG costs. Its
frame counts as captured when it was due: a thread that comes late has not made the frame any younger.
"""

import statistics
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from agent.bench.rig import Rig
from agent.camera.mailboxes import Mailboxes
from agent.core.decide import Conclusion
from agent.core.density import RATE_FPS, Ages, Density, Search, Window, first_guess
from agent.core.gates import p95
from agent.host import processor
from agent.host.clock import SystemClock
from agent.host.processor import Others
from agent.ports import Frame, Stamp
from models import Answer, Classifier, decode_picture

SETTLE_S = 1.0
GUESS_S = 2.0
LOADS = (1.0, 2.0, 4.0)
SAMPLE_S = 1.0

Open = Callable[[int], Classifier]
"""Opens the model for so many workers."""
Tell = Callable[[str, float], None]
"""Is told what is being done, and how much of the time is gone, 0 to 1."""


@dataclass(frozen=True, slots=True)
class Terms:
    """How it is measured: each window's length, the time for all, and how many workers there are for n cameras."""

    window_s: float
    limit_s: float
    workers: Callable[[int], int]


@dataclass(slots=True)
class Seen:
    """What became of the frames of one window. `answered` has a set of frame numbers for each camera."""

    answered: list[set[int]]
    ages_ms: list[tuple[int, float]] = field(default_factory=list)
    cpu_s: float = 0.0


class Cameras:
    """Cameras in step with the clock: the n-th frame of each is due at its own moment, and is skipped when missed."""

    def __init__(self, count: int, jpegs: Sequence[bytes], clock: SystemClock, offer: Callable[[Frame], None]) -> None:
        self._jpegs = jpegs
        self._clock = clock
        self._offer = offer
        self._ending = threading.Event()
        self._period_ns = round(1e9 / RATE_FPS)
        self._first = clock.now()
        self.names = [name_of(n) for n in range(count)]
        self._threads = [
            threading.Thread(target=self._run, args=(n, count), name=self.names[n], daemon=True) for n in range(count)
        ]

    def start(self) -> None:
        """Let them run."""
        self._first = self._clock.now()
        for thread in self._threads:
            thread.start()

    def number_at(self, seconds: float) -> int:
        """The number of the frame that is due so long after the start."""
        return round(seconds * 1e9) // self._period_ns

    def _run(self, index: int, count: int) -> None:
        offset_ns = self._period_ns * index // count
        number = 0
        while True:
            due_ns = self._first.boot_ns + offset_ns + number * self._period_ns
            if self._clock.wait(self._ending, max(0.0, (due_ns - self._clock.now().boot_ns) / 1e9)):
                return
            late = (self._clock.now().boot_ns - due_ns) // self._period_ns
            number += late  # a camera shows what there is now
            due_ns += late * self._period_ns
            picture = decode_picture(self._jpegs[(number + index) % len(self._jpegs)])
            self._offer(Frame(self.names[index], number, picture, self._stamp(due_ns)))
            number += 1

    def _stamp(self, boot_ns: int) -> Stamp:
        return Stamp(self._first.wall_ns + boot_ns - self._first.boot_ns, boot_ns)

    def stop(self) -> None:
        """End them."""
        self._ending.set()
        for thread in self._threads:
            thread.join(2.0)


def name_of(number: int) -> str:
    """Name a camera by its number."""
    return f"camera-{number}"


class Bench:
    """Measures how many cameras this device holds. `jpegs` are what the cameras show."""

    def __init__(
        self, opened: Open, jpegs: Sequence[bytes], terms: Terms, tell: Tell, stop: threading.Event | None = None
    ) -> None:
        """With `stop` set, what runs is ended in order and `measure` raises KeyboardInterrupt."""
        self._stop = stop or threading.Event()
        self._open = opened
        self._jpegs = jpegs
        self._terms = terms
        self._tell = tell
        self._began_s = time.monotonic()

    def measure(self) -> Density:
        """Search, then measure frames' ages at the load that was found, and beyond it."""
        others = Others()
        cpu_ms = self._cpu_ms_per_frame()
        search = Search(first_guess(processor.cores(), cpu_ms))
        windows: dict[int, list[Window]] = {}
        while (streams := search.next()) is not None and self._has_time():
            window = self.window(streams)
            windows.setdefault(streams, []).append(window)
            search.add(streams, passed=window.passes, clear=window.is_clear)
        loads = [self.ages(load, max(1, search.density)) for load in LOADS]
        return Density(search.density, search.next() is None, windows, loads, cpu_ms, others.part())

    def _has_time(self) -> bool:
        """Whether another window leaves time for the three loads."""
        gone_s = time.monotonic() - self._began_s
        return gone_s + (1 + len(LOADS)) * (self._terms.window_s + SETTLE_S) < self._terms.limit_s

    def _say(self, what: str) -> None:
        self._tell(what, min(1.0, (time.monotonic() - self._began_s) / self._terms.limit_s))

    def _cpu_ms_per_frame(self) -> float:
        """What one frame costs with as many cameras as there are cores, decoding included."""
        self._say("a first guess")
        seen = self._run(processor.cores(), GUESS_S)
        return 1000 * seen.cpu_s / max(1, len(seen.ages_ms))

    def window(self, streams: int) -> Window:
        """Run so many cameras for one window."""
        self._say(f"{streams} cameras")
        seen = self._run(streams, self._terms.window_s)
        first = round(SETTLE_S * RATE_FPS)
        each = round(SAMPLE_S * RATE_FPS)
        samples = range(max(1, int(self._terms.window_s / SAMPLE_S)))
        return Window([
            [len(numbers & {*range(first + each * n, first + each * (n + 1))}) / SAMPLE_S for n in samples]
            for numbers in seen.answered
        ])  # fmt: skip

    def ages(self, load: float, density: int) -> Ages:
        """Run so many times the cameras that this device holds, and give the ages of the frames that are answered."""
        streams = max(1, round(load * density))
        self._say(f"{load:g} times the load: {streams} cameras")
        seen = self._run(streams, self._terms.window_s)
        first = round(SETTLE_S * RATE_FPS)
        ages_ms = [age_ms for number, age_ms in seen.ages_ms if number >= first]
        due = streams * RATE_FPS * self._terms.window_s
        middle_ms = statistics.median(ages_ms) if ages_ms else 0.0
        return Ages(load, streams, round(middle_ms, 1), round(p95(ages_ms), 1), round(min(1.0, len(ages_ms) / due), 3))

    def _run(self, streams: int, seconds: float) -> Seen:
        """Run cameras and pipeline; what is seen begins with the first frame, settling included."""
        clock = SystemClock()
        workers = self._terms.workers(streams)
        mailboxes = Mailboxes([name_of(n) for n in range(streams)], min(workers, processor.cores()))
        seen = Seen([set() for _ in range(streams)])

        def saw(frame: Frame, _answer: Answer, _conclusion: Conclusion, total_ms: float) -> None:
            seen.answered[int(frame.camera.rsplit("-", 1)[1])].add(frame.number)
            seen.ages_ms.append((frame.number, total_ms))

        classifier = self._open(workers)
        try:
            self._warm(classifier)
            rig = Rig(classifier, mailboxes, clock, [name_of(n) for n in range(streams)], workers, witness=saw)
            cameras = Cameras(streams, self._jpegs, clock, rig.pipeline.offer)
            rig.start()
            began_s = time.process_time()
            cameras.start()
            # Ctrl-C is no exception here: wherever it were raised, a thread might be left behind that uses the runtime,
            # and would end the process with a line of C++.
            self._stop.wait(SETTLE_S + seconds)
            seen.cpu_s = time.process_time() - began_s
            cameras.stop()
            mailboxes.close()
            rig.finish()
        finally:
            classifier.close()
        if self._stop.is_set():
            raise KeyboardInterrupt
        return seen

    def _warm(self, classifier: Classifier) -> None:
        picture: np.ndarray[tuple[int, ...], np.dtype[np.uint8]] = decode_picture(self._jpegs[0])
        worker = classifier.worker()
        for _ in range(3):
            worker.classify(picture)
