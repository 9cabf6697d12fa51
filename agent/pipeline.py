"""The page: one frame's way through the device. Read it from top to bottom.

    camera -> [offer: place] -> mailbox -> [work: classify -> decide -> alert? -> record -> show] -> outbox -> sync
                     |                                          |
                     +- cannot be answered here in time -+      +- a copy, to be looked at again -+
                                                         v                                       v
                                                        [spill: encode -> spool -> record] -> outbox -> sync

A reader thread per camera offers its frames (`agent.camera`); `work` runs on every inference thread, `spill` on one
of low priority; the store's thread commits what they hand over (`agent.store`); sync sends it (`agent.uplink`,
`agent.carrier`).
"""

import logging
import threading
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from agent.books import CAPTURED, Books
from agent.core import decide, placement
from agent.core.placement import Load, Placement, Where
from agent.core.review import Review
from agent.core.watching import Notice
from agent.drafts import Drafts, Pictures, Policy
from agent.errors import Broken
from agent.overflow import Job, Overflow
from agent.ports import Clock, Draft, Frame, Frames, Lane, Later, Picture, Recorder, Spool
from agent.standing import CameraState, dump_state
from agent.ways import Ways
from models import Answer

log = logging.getLogger(__name__)

TAKE_S = 0.2
"""How long an idle inference thread waits before it looks at the stop signal."""

FAILURES_IN_A_ROW = 10
"""Frames that may fail to classify one after the other before this process gives up and is started anew."""

SERVICE_MEMORY = 0.1
"""How much the newest frame weighs in the measured service time."""

STORE_SLOW = "store-slow"
"""Drop reason: the store is too far behind to take the frame's records."""
STOPPING = "stopping"
"""Drop reason: the device stops, and the time to spool what waits is over."""


ALONE = Placement(Where.LOCAL, placement.IN_TIME)
ALONE_SUPERSEDED = Placement(Where.DROP, placement.SUPERSEDED)
"""Where nothing may leave there is nothing to choose."""


class Worker(Protocol):
    """One thread's way to the model (`models.Worker`)."""

    def classify(self, bgr: Picture, k: int = 5) -> Answer:
        """Rank the labels of one picture."""
        ...


@dataclass(frozen=True, slots=True)
class Offload:
    """What frames for the cloud need. `encode` makes (JPEG, width, height); `expire_s` is the function's time."""

    ways: Ways
    overflow: Overflow
    spool: Spool
    encode: Callable[[Picture], tuple[bytes, int, int]]
    review: Review
    expire_s: float
    workers: int


@dataclass(frozen=True, slots=True)
class Answering:
    """A model in use, whole: what belongs together (threshold, rules, the name in records) changes together.

    `workers` holds a way to the model for each inference thread that has not taken its own yet.
    """

    policy: Policy
    drafts: Drafts
    workers: deque[Worker]


Witness = Callable[[Frame, Answer, decide.Conclusion, float], None]
"""Is told of every frame that was answered here, its answer, what that led to, and the ms since its capture."""


class Pipeline:
    """The frame's way, shared by readers, inference threads and the one that spools.

    Without `offload` nothing may leave: every frame is the device's own, and a newer one supersedes it. `blind` says
    why nothing can be concluded from a camera's pictures now (black, covered), empty when it can.
    """

    def __init__(
        self,
        frames: Frames,
        policy: Policy,
        recorder: Recorder,
        pictures: Pictures,
        clock: Clock,
        states: Mapping[str, CameraState],
        meter: Callable[[str, float], None],
        offload: Offload | None = None,
        witness: Witness | None = None,
        blind: Callable[[str], str] = lambda _: "",
    ) -> None:
        self._frames = frames
        self._using = Answering(policy, Drafts(policy, pictures, clock), deque())
        self._seats: dict[str, Answering] = {}
        self._recorder = recorder
        self._pictures = pictures
        self._clock = clock
        self._states = dict(states)
        self._meter = meter
        self._offload = offload
        self._witness = witness
        self._blind = blind
        self._review_lock = threading.Lock()
        self._spill_trouble = ""
        self._failures = 0
        self.books = Books()
        self.service_ms = 0.0
        """What one worker takes for one frame, as measured of late; 0 before the first."""
        self.placed: Counter[str] = Counter()
        """Frames that others were to answer, by who, for people; the store's counters are the truth."""
        self.first_answered = False
        """Whether a frame was answered."""
        self.failed = 0
        """Frames that the model could not classify."""
        self.progress = 0
        """Frames worked on; the watchdog looks at it."""
        self._turns: dict[str, int] = {}

    # A reader's thread: who answers?

    def offer(self, frame: Frame) -> None:
        """Find out who answers a frame that was just captured. Never waits."""
        placed = self._place(frame, displaced=False)
        if placed.where is Where.LOCAL:
            older = self._frames.put(frame)
            if older is None:
                return
            frame, placed = older, self._place(older, displaced=True)
        self.placed[placed.where] += 1
        if placed.where is Where.DROP:
            self.books.lose(frame.camera, placed.reason)
        else:
            self._overflow(frame, placed)

    def end(self, camera: str) -> None:
        """Say that a camera's source has ended."""
        self._frames.end(camera)

    def _place(self, frame: Frame, *, displaced: bool) -> Placement:
        if self._offload is None:
            return ALONE_SUPERSEDED if displaced else ALONE
        ahead, workers = self._frames.ahead(frame.camera), self._offload.workers
        placed = None if displaced else placement.at_once(ahead, workers)
        if placed is not None:
            return placed
        load, room = Load(ahead, workers, self.service_ms), self._offload.overflow.has_room
        return self._offload.ways.place(frame, load, self._clock.now(), displaced=displaced, has_room=room)

    def _overflow(self, frame: Frame, placed: Placement) -> None:
        """Leave a frame to the thread that spools."""
        assert self._offload is not None
        counts = {CAPTURED: 1, f"frames:{placed.where}": 1}
        if placed.where is Where.SERVERLESS:
            expires_ns = frame.captured.boot_ns + int(self._offload.expire_s * 1e9)
            job = Job(frame, Lane.OFFLOAD, placed.reason, counts, expires_ns=expires_ns)
        else:
            job = Job(frame, Lane.BATCH, placed.reason, counts)
        if not self._offload.overflow.put(job):
            self.books.lose(frame.camera, placement.ENCODER_BUSY)

    # The inference threads: the device's own answer.

    def work(self, worker: Worker, stop: threading.Event) -> None:
        """Run one inference thread: until `stop`, or until every source has ended."""
        name = threading.current_thread().name
        using = self._using
        while not stop.is_set():
            self._turns[name] = self._turns.get(name, 0) + 1
            self._seats[name] = using
            frame = self._frames.take(TAKE_S)
            if using is not self._using:  # between two frames another model takes over
                using = self._using
                worker = using.workers.popleft()
            if frame is None:
                if self._frames.finished:
                    break
                continue
            try:
                self._follow(frame, worker, using)
            finally:
                self._frames.done(frame)
            self.progress += 1
        self._seats.pop(name, None)

    def swap(self, policy: Policy, workers: Sequence[Worker]) -> None:
        """Have another model answer from each thread's next frame on; `workers` is one for each thread.

        A frame that is being worked on is answered by the model that has it. See `settled`.
        """
        self._using = Answering(policy, Drafts(policy, self._pictures, self._clock), deque(workers))

    @property
    def settled(self) -> bool:
        """Whether every inference thread has taken up the model that was swapped in last."""
        return all(seat is self._using for seat in list(self._seats.values()))

    @property
    def policy(self) -> Policy:
        """The policy in force."""
        return self._using.policy

    @property
    def turns(self) -> tuple[int, ...]:
        """Count each inference thread's turns, also those that found no frame; the watchdog looks at it."""
        return tuple(self._turns.values())

    def _follow(self, frame: Frame, worker: Worker, using: Answering | None = None) -> None:
        """One frame, from the mailbox to the recorder."""
        taken = self._clock.now()
        using = using or self._using
        policy = using.policy
        answer = self._classify(frame, worker, policy.top)
        if answer is None:
            return
        state = self._states[frame.camera]
        seen = answer.top[0][0] if answer.score >= policy.threshold else decide.UNKNOWN
        blind = self._blind(frame.camera)
        if blind:
            standing, conclusion = decide.hold(state.standing, seen, answer.score, blind)
        else:
            standing, conclusion = decide.decide(
                state.standing, seen, answer.score, policy.threshold, policy.confirm_frames
            )
        answered = self._clock.now()
        waiting_ms = (taken.boot_ns - frame.captured.boot_ns) / 1e6
        total_ms = (answered.boot_ns - frame.captured.boot_ns) / 1e6

        watches = state.watches
        alerts: list[Draft] = []
        if not blind:
            watches, alerts = using.drafts.alerts(frame, answer, conclusion, state.watches)
        drafts: list[Draft | Later] = [*alerts, using.drafts.result(frame, answer, conclusion, waiting_ms, total_ms)]
        facts = {}
        if conclusion.changed or watches != state.watches:
            facts[f"camera:{frame.camera}"] = dump_state(CameraState(standing, watches))
        if not self._recorder.record(drafts, {CAPTURED: 1, "frames:classified": 1}, facts):
            self.books.lose(frame.camera, STORE_SLOW)
            return
        # Only what was handed over counts: a lost alert is raised again by the next frame.
        state.standing, state.watches = standing, watches
        self.first_answered = True
        self._meter(frame.camera, total_ms)
        self._pictures.show(frame)
        if self._witness is not None:
            self._witness(frame, answer, conclusion, total_ms)
        if not blind:
            self._copy(frame, answer, seen, using.drafts)
        self._measure((self._clock.now().boot_ns - taken.boot_ns) / 1e6)

    def _classify(self, frame: Frame, worker: Worker, top: int) -> Answer | None:
        try:
            answer = worker.classify(frame.picture, top)
        except Exception:
            self._failures += 1
            self.failed += 1
            self.books.lose(frame.camera, "classify-failed")
            if self._failures >= FAILURES_IN_A_ROW:
                raise
            log.exception("camera %s: frame %d could not be classified", frame.camera, frame.number)
            return None
        self._failures = 0
        return answer

    def _measure(self, took_ms: float) -> None:
        before_ms = self.service_ms or took_ms
        self.service_ms = before_ms + SERVICE_MEMORY * (took_ms - before_ms)

    def _copy(self, frame: Frame, answer: Answer, seen: str, drafts: Drafts) -> None:
        """Leave a copy of an answered frame for the cloud, when it is to be looked at again. Never waits."""
        if self._offload is None:
            return
        has_room = partial(self._offload.overflow.has_room, frame, copy=True)
        with self._review_lock:
            why = self._offload.review.why(frame.camera, answer.score, frame.captured.boot_ns, has_room)
        if why is None:
            return
        lane = Lane.BATCH if why == "kept" else Lane.REVIEW
        own = drafts.own_answer(answer, seen)
        self._offload.overflow.put(Job(frame, lane, why, {f"frames:copied:{why}": 1}, copy=True, answer=own))

    # The watch's thread: what is wrong with what a camera shows.

    def tell(self, frame: Frame, notices: Sequence[Notice], facts: Mapping[str, str]) -> bool:
        """Record that conditions of a camera have begun or ended at this frame; False when the store is behind."""
        return self._recorder.record([self._using.drafts.notice(frame, notice) for notice in notices], {}, facts)

    # The spooling thread: pictures for the cloud.

    def spill(self) -> None:
        """Make files and records of frames for the cloud, until the overflow queue is closed and empty."""
        assert self._offload is not None
        while (job := self._offload.overflow.take()) is not None:
            trouble = self._spool(job, self._offload)
            if trouble and trouble != self._spill_trouble:
                log.warning("pictures for the cloud cannot be kept [%s]: they are dropped and counted", trouble)
            self._spill_trouble = trouble

    def _spool(self, job: Job, offload: Offload) -> str:
        """Encode, keep and record one frame; gives the reason when it could not, empty when it could."""
        trouble = ""
        drafts: list[Draft] = []
        try:
            jpeg, width, height = offload.encode(job.frame.picture)
            drafts = [self._using.drafts.picture(job, offload.spool.keep(jpeg), (width, height))]
        except Broken as error:
            trouble = error.code
        except Exception:
            log.exception("camera %s: frame %d could not be encoded", job.frame.camera, job.frame.number)
            trouble = "encode-failed"
        if not offload.overflow.release(job):
            return ""  # Given up at the stop, and counted there; what lies in the spool without a record is swept.
        if not trouble and not self._recorder.record(drafts, job.counts):
            trouble = STORE_SLOW
        if trouble and not job.copy:
            self.books.lose(job.frame.camera, trouble)
        return trouble

    def close(self, timeout_s: float) -> None:
        """Take no more frames for the cloud; spool those that wait within the time, and count the rest as dropped."""
        if self._offload is None:
            return
        for job in self._offload.overflow.close(timeout_s):
            if not job.copy:
                self.books.lose(job.frame.camera, STOPPING)

    # The books.

    def collect_counts(self) -> Counter[str]:
        """Frames that ended without a record since the last call, with their reasons, for the store's counters."""
        counts = self.books.collect()
        for reason, n in self._frames.collect_drops().items():
            counts.update({f"frames:dropped:{reason}": n, CAPTURED: n})
        return counts

    def uncollect(self, counts: Mapping[str, int]) -> None:
        """Take counts back that could not be handed to the store; the next `collect_counts` gives them again."""
        self.books.uncollect(counts)
