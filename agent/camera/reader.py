"""One camera, read for as long as the device runs: open, read, stamp, put; on error wait and open again.

The reading thread may hang inside a native decoder that no deadline reaches. A second, sleeping thread watches it:
what hangs is given up (its late frames are thrown away) and a new thread with a new source takes its place.
"""

import logging
import random as _random
import threading
import time
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from agent.camera.health import CameraState, Health
from agent.config import Camera
from agent.core.backoff import Backoff
from agent.core.pace import Pace
from agent.errors import Broken, Rejected, Retryable, ShelfwireError
from agent.ports import Clock, Frame, Shot, Source, Stamp, Stream

log = logging.getLogger(__name__)
T = TypeVar("T")

BACKOFF_BASE_S = 1.0
BACKOFF_CEILING_S = 60.0
STEADY_S = 10.0
"""A camera that streamed this long before it failed counts as a good one: its backoff starts again from the base."""
MAX_HUNG = 3
"""Threads given up per camera before no new one is started; each holds a decoder's memory (some 10 to 50 MB)."""
GRACE_S = 1.0
"""How far a source's call may overrun its own deadline before it is taken for hung."""
WATCH_PERIOD_S = 0.25


class Sink(Protocol):
    """Where frames go: the pipeline."""

    def offer(self, frame: Frame) -> None:
        """Hand over a frame. Never waits."""
        ...

    def end(self, camera: str) -> None:
        """Say that this camera's source has ended."""
        ...


class _Attempt:
    """One reading thread's turn. `call_limit_ns` is when, on the boot clock, its present call counts as hung."""

    def __init__(self) -> None:
        self.thread: threading.Thread | None = None
        self.call_limit_ns: int | None = None
        self.given_up = False


class CameraReader:
    """Reads one camera into the pipeline until stopped.

    `make_source` gives a fresh source each time, for one that hangs cannot be used again. `sink` knows `camera.name`.
    After `start`, look at `crashed` now and then: an exception there is a bug, and the process must end.
    """

    def __init__(
        self,
        camera: Camera,
        make_source: Callable[[], Source],
        sink: Sink,
        clock: Clock,
        random: _random.Random,
    ) -> None:
        self.camera = camera
        self._make_source = make_source
        self._sink = sink
        self._clock = clock
        self._backoff = Backoff(BACKOFF_BASE_S, BACKOFF_CEILING_S, random)
        self._health = Health(camera, clock)
        self._stopping = threading.Event()
        self._lock = threading.Lock()  # guards the four below
        self._attempt = _Attempt()
        self._hung: list[threading.Thread] = []
        self._starts = 0
        self._crashed: BaseException | None = None
        self._watch = threading.Thread(target=self._watch_loop, name=f"camera-{camera.name}-watch", daemon=True)

    def start(self) -> None:
        """Start the reading thread and the watch over it."""
        with self._lock:
            self._start_attempt()
        self._watch.start()

    def ask_to_stop(self) -> None:
        """Say that it shall stop, without waiting."""
        self._stopping.set()

    def stop(self, timeout_s: float = 2.0) -> bool:
        """Stop within `timeout_s`; False when a native read still hangs (its thread ends with the process)."""
        return stop_all([self], timeout_s)

    def state(self) -> CameraState:
        """Say what the camera is doing. Never waits for the camera."""
        with self._lock:
            hung = self._count_hung()
        return self._health.state(hung)

    @property
    def crashed(self) -> BaseException | None:
        """The bug that ended a thread of this reader, or None."""
        return self._crashed

    def join(self, timeout_s: float) -> bool:
        """Wait until both threads have ended; False when they have not after `timeout_s`."""
        with self._lock:
            threads = [self._watch, self._attempt.thread]
        return _join([t for t in threads if t is not None and t.ident is not None], timeout_s)

    def run(self, attempt: _Attempt | None = None) -> None:
        """Read until stopped, ended or given up: the body of the reading thread."""
        attempt = attempt or self._attempt
        while not self._stopping.is_set() and not attempt.given_up:
            try:
                ended = self._read_once(attempt)
            except ShelfwireError as error:
                if not attempt.given_up:
                    self._health.failed(error)
                    self._clock.wait(self._stopping, self._pause_s(error))
                continue
            if ended and not attempt.given_up:
                self._health.ended()
                self._sink.end(self.camera.name)
                return

    def check(self) -> None:
        """See a stall, and give up a call that hangs: the body of the watch's loop."""
        self._health.look()
        with self._lock:
            limit_ns = self._attempt.call_limit_ns
            if limit_ns is not None and self._clock.now().boot_ns > limit_ns and not self._attempt.given_up:
                self._give_up()
            if self._attempt.given_up and self._count_hung() < MAX_HUNG:
                self._start_attempt()

    def _read_once(self, attempt: _Attempt) -> bool:
        """Open a source and read it; True when it has ended, False when the reader is to stop. Raises as sources do."""
        opened_ns: int | None = None
        source = self._make_source()
        try:
            # Opening may be followed by finding out why it failed, which takes as long again.
            self._call(attempt, source.open, 2 * self.camera.open_timeout)
            opened_ns = self._clock.now().boot_ns
            if attempt.given_up:
                return False
            self._health.live = source.live
            self._health.opened()
            return self._stream(attempt, source) if isinstance(source, Stream) else self._poll(attempt, source)
        finally:
            streamed_ns = 0 if opened_ns is None else self._clock.now().boot_ns - opened_ns
            if streamed_ns >= STEADY_S * 1e9 and not attempt.given_up:
                self._backoff.reset()
            self._call(attempt, source.close, self.camera.stall_timeout)

    def _poll(self, attempt: _Attempt, source: Source) -> bool:
        pace = Pace(self.camera.rate_fps)
        while not attempt.given_up:
            if self._clock.wait(self._stopping, pace.wait_s(self._clock.now().boot_ns)):
                return False
            pace.take(self._clock.now().boot_ns)
            # A source that asks for each picture may wait its timeout for the answer, and once more for its last byte.
            shot = self._call(attempt, source.read, 2 * self.camera.stall_timeout if source.live else None)
            if shot is None:
                return True
            self._put(attempt, shot, self._clock.now())
        return False

    def _stream(self, attempt: _Attempt, source: Stream) -> bool:
        pace = Pace(self.camera.rate_fps)
        while not self._stopping.is_set() and not attempt.given_up:
            self._call(attempt, source.grab, self.camera.stall_timeout)
            captured = self._clock.now()
            if not pace.take(captured.boot_ns):
                self._health.alive(captured)
                continue
            self._put(attempt, self._call(attempt, source.retrieve, self.camera.stall_timeout), captured)
        return False

    def _call(self, attempt: _Attempt, call: Callable[[], T], deadline_s: float | None) -> T:
        """Make a call that may hang, with the watch told until when it may last; None: as long as it likes."""
        if deadline_s is not None:
            attempt.call_limit_ns = self._clock.now().boot_ns + round((deadline_s + GRACE_S) * 1e9)
        try:
            return call()
        finally:
            attempt.call_limit_ns = None

    def _put(self, attempt: _Attempt, shot: Shot, captured: Stamp) -> None:
        height, width = shot.picture.shape[:2]
        with self._lock:  # so that a thread given up cannot slip a late frame in after its successor's
            if attempt.given_up:
                return
            number = self._health.frame(captured, width, height)
            self._sink.offer(Frame(self.camera.name, number, shot.picture, captured, shot.truth))

    def _pause_s(self, error: ShelfwireError) -> float:
        # What a person must mend is tried again too, since people do mend it, but never in quick succession.
        return self._backoff.at_ceiling() if isinstance(error, Rejected | Broken) else self._backoff.next()

    def _give_up(self) -> None:
        attempt = self._attempt
        attempt.given_up = True
        if attempt.thread is not None:
            self._hung.append(attempt.thread)
        self._health.failed(
            Retryable(
                "camera-hung",
                f"camera {self.camera.name}: the video library did not come back from reading it"
                f" ({self._count_hung()} of {MAX_HUNG} reads given up)",
                "switch the camera off and on; if it stays, restart the device's vision service",
            )
        )

    def _start_attempt(self) -> None:
        self._starts += 1
        attempt = self._attempt = _Attempt()
        name = f"camera-{self.camera.name}" + (f"-{self._starts}" if self._starts > 1 else "")
        attempt.thread = threading.Thread(target=self._guarded, args=(self.run, attempt), name=name, daemon=True)
        attempt.thread.start()

    def _count_hung(self) -> int:
        self._hung = [t for t in self._hung if t.is_alive()]
        return len(self._hung)

    def _watch_loop(self) -> None:
        self._guarded(self._watch_until_stopped)

    def _watch_until_stopped(self) -> None:
        while not self._clock.wait(self._stopping, WATCH_PERIOD_S):
            self.check()

    def _guarded(self, body: Callable[..., None], *args: object) -> None:
        try:
            body(*args)
        except BaseException as error:  # the end of a thread: its owner must see it
            log.critical("camera %s: its thread ended by a bug", self.camera.name, exc_info=True)
            self._crashed = error
            self._health.failed(
                Broken("camera-crashed", f"camera {self.camera.name}: a bug ended its thread", "report it with the log")
            )


def stop_all(readers: Sequence[CameraReader], timeout_s: float = 2.0) -> bool:
    """Stop all readers together within `timeout_s`; False when a native read still hangs."""
    for reader in readers:
        reader.ask_to_stop()
    deadline_s = time.monotonic() + timeout_s
    ended = [reader.join(max(0.0, deadline_s - time.monotonic())) for reader in readers]
    return all(ended)


def _join(threads: Sequence[threading.Thread], timeout_s: float) -> bool:
    deadline_s = time.monotonic() + timeout_s
    for thread in threads:
        thread.join(max(0.0, deadline_s - time.monotonic()))
    return not any(t.is_alive() for t in threads)
