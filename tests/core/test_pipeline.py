"""The page: what one frame leads to, and what is counted when something is in its way."""

import json
import random
import threading
import weakref
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from world import FakeClock

from agent.camera.mailboxes import Mailboxes
from agent.core import review
from agent.core.alerting import Rule
from agent.core.budget import Budget
from agent.core.decide import Standing
from agent.core.watching import Notice
from agent.drafts import Policy
from agent.errors import Broken
from agent.overflow import Overflow
from agent.pipeline import FAILURES_IN_A_ROW, Offload, Pipeline
from agent.ports import Draft, Frame, Lane, Later, Picture, Spooled
from agent.standing import CameraState, dump_state, load_states
from agent.ways import Terms, Ways
from models import Answer
from wire.records import Alert, Result

PICTURE: Picture = np.zeros((4, 4, 3), np.uint8)
MODEL = {"name": "m", "version": "1", "release": 1, "digest": "0" * 64}
RULES = (Rule("bananas", "Banana", 0.5, dwell_s=1.0),)


class Worker:
    """Answers from a list; an exception in it is raised. `runtime` does the arithmetic, "" as the policy says."""

    runtime = ""

    def __init__(self, answers: Sequence[tuple[str, float] | Exception]) -> None:
        self.answers = list(answers)

    def classify(self, bgr: Picture, k: int = 5) -> Answer:
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        label, score = answer
        return Answer(((label, score), ("Lemon", 0.01)), label, score, True, 2.0, 0.5, self.runtime)


class Recorder:
    def __init__(self) -> None:
        self.drafts: list[Draft] = []
        self.counts: Counter[str] = Counter()
        self.facts: dict[str, str] = {}
        self.full = False

    def record(
        self,
        drafts: Sequence[Draft | Later],
        counts: Mapping[str, int] | None = None,
        facts: Mapping[str, str] | None = None,
    ) -> bool:
        if self.full:
            return False
        self.drafts += [draft if isinstance(draft, Draft) else draft() for draft in drafts]
        self.counts.update(counts or {})
        self.facts.update(facts or {})
        return True


class Pictures:
    def __init__(self) -> None:
        self.shown: list[int] = []

    def show(self, frame: Frame) -> None:
        self.shown.append(frame.number)

    def thumbnail(self, frame: Frame) -> str | None:
        return "QUJD"


class Spool:
    """Takes pictures, and fails as it is told."""

    def __init__(self) -> None:
        self.kept: list[bytes] = []
        self.room = 1 << 30
        self.failing: Exception | None = None

    def room_bytes(self) -> int:
        return self.room

    def keep(self, jpeg: bytes) -> Spooled:
        if self.failing is not None:
            raise self.failing
        self.kept.append(jpeg)
        return Spooled(f"{len(self.kept)}.jpg", len(jpeg), "0" * 64)


def encode(picture: Picture) -> tuple[bytes, int, int]:
    return b"jpeg", picture.shape[1], picture.shape[0]


FITS = 9
"""Frames that may wait to be spooled, beside copies."""

NO_COPIES = review.Terms(below=0.0, audit=0.0, per_hour=60, keep_every_s=0.0)


class Bench:
    """A pipeline with one camera. `copies` is given: frames may leave, and the function is up."""

    def __init__(
        self, rules: tuple[Rule, ...] = RULES, threshold: float = 0.5, copies: review.Terms | None = None
    ) -> None:
        self.clock = FakeClock()
        self.frames = Mailboxes(["shelf"])
        self.recorder = Recorder()
        self.pictures = Pictures()
        self.metered: list[tuple[str, float]] = []
        self.spool = Spool()
        self.offload = None if copies is None else self._offload(copies)
        self.pipeline = Pipeline(
            self.frames,
            Policy(threshold, 2, 3, rules, MODEL, "openvino"),
            self.recorder,
            self.pictures,
            self.clock,
            {"shelf": CameraState(Standing(), {})},
            lambda camera, ms: self.metered.append((camera, ms)),
            self.offload,
        )
        self.number = 0

    def _offload(self, copies: review.Terms) -> Offload:
        now_ns = self.clock.boot_ns
        ways = Ways(
            Terms(True, "auto", {"shelf": 250.0}, 1280), Budget(3600, 60, 1.0, 0.00001, now_ns), self.spool, "boot",
            lambda: "synced",
        )  # fmt: skip
        ways.heed(json.dumps({"health": "up", "at_boot_ns": now_ns}), json.dumps({"connected": True}))
        chooser = review.Review(copies, random.Random(3), now_ns)
        return Offload(ways, Overflow(limit_frames=12), self.spool, encode, chooser, 30.0, 1)

    def offer(self, count: int) -> None:
        for _ in range(count):
            self.number += 1
            self.pipeline.offer(Frame("shelf", self.number, PICTURE, self.clock.now(), truth="Banana"))

    def spill(self) -> None:
        """Spool what overflowed."""
        assert self.offload is not None
        while len(self.offload.overflow):
            job = self.offload.overflow.take()
            assert job is not None
            self.pipeline._spool(job, self.offload)

    def feed(self, *answers: tuple[str, float] | Exception, step_s: float = 1.0) -> None:
        worker = Worker(answers)
        stop = threading.Event()
        for _ in answers:
            self.number += 1
            self.pipeline.offer(Frame("shelf", self.number, PICTURE, self.clock.now(), truth="Banana"))
            frame = self.frames.take(0)
            assert frame is not None
            self.clock.advance(0.01)
            self.pipeline._follow(frame, worker)
            self.frames.done(frame)
            self.clock.advance(step_s)
        assert not stop.is_set()

    def bodies(self, kind: str) -> list[dict[str, Any]]:
        return [json.loads(d.body) for d in self.recorder.drafts if d.kind == kind]


def test_a_frame_becomes_a_result_that_the_wire_accepts() -> None:
    bench = Bench()
    bench.feed(("Banana", 0.9))
    (body,) = bench.bodies("result")
    result = Result.model_validate({"run": "0" * 16, "seq": 1, **body})
    assert (result.camera, result.frame, result.truth) == ("shelf", 1, "Banana")
    assert result.decision.state == "pending"
    assert result.total_ms == pytest.approx(10)
    assert result.labels[0].label == "Banana"
    assert bench.recorder.counts == {"frames:captured": 1, "frames:classified": 1}
    assert bench.pictures.shown == [1]
    assert bench.metered == [("shelf", pytest.approx(10))]


def test_a_result_waits_for_the_stores_thread_without_its_picture_and_an_alert_is_made_at_once() -> None:
    """Hundreds of results may wait for a slow disk, and a picture has megabytes."""
    bench = Bench()
    bench.feed(("Banana", 0.9), ("Banana", 0.9), ("Banana", 0.9))
    waiting: list[Draft | Later] = []
    bench.recorder.record = lambda drafts, counts, facts: not waiting.extend(drafts)  # type: ignore[method-assign, func-returns-value]
    picture = PICTURE.copy()
    held = weakref.ref(picture)
    bench.pipeline._follow(Frame("shelf", 4, picture, bench.clock.now(), truth="Banana"), Worker([("Lemon", 0.9)]))
    bench.pipeline._follow(Frame("shelf", 5, PICTURE, bench.clock.now()), Worker([("Lemon", 0.9)]))
    del picture
    assert held() is None
    assert [isinstance(draft, Draft) for draft in waiting] == [False, True, False]
    alert, result = waiting[1:]
    assert isinstance(alert, Draft) and alert.lane == Lane.ALERT
    assert not isinstance(result, Draft)
    assert json.loads(result().body)["frame"] == 5
    assert json.loads(result().body)["decision"]["label"] == "Lemon"


def test_a_record_names_the_runtime_that_did_the_arithmetic(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a failure it is another one than the model was opened with."""
    bench = Bench(threshold=0.5, copies=review.Terms(0.6, 0.0, 60, 0.0))
    bench.feed(("Banana", 0.55))
    monkeypatch.setattr(Worker, "runtime", "onnxruntime")
    bench.feed(("Banana", 0.55))
    bench.spill()
    for kind in ("result", "frame"):
        assert [body["runtime"] for body in bench.bodies(kind)] == ["openvino", "onnxruntime"]


def test_an_alert_goes_first_with_its_picture_and_its_state_in_the_same_transaction() -> None:
    bench = Bench()
    bench.feed(*[("Banana", 0.9)] * 4)
    (body,) = bench.bodies("alert")
    alert = Alert.model_validate({"run": "0" * 16, "seq": 1, **body})
    assert (alert.rule, alert.state, alert.thumbnail) == ("bananas", "raised", "QUJD")
    lanes = [d.lane for d in bench.recorder.drafts]
    assert lanes[lanes.index(Lane.ALERT) + 1] == Lane.RESULT
    kept = load_states(["shelf"], bench.recorder.facts.get, same_boot=True)["shelf"]
    assert kept.watches["bananas"].raised
    assert kept.standing.confirmed == "Banana"


def test_a_restart_neither_repeats_an_alert_nor_forgets_to_clear_it() -> None:
    before = Bench()
    before.feed(*[("Banana", 0.9)] * 4)
    after = Bench()
    after.pipeline._states = load_states(["shelf"], before.recorder.facts.get, same_boot=False)
    after.feed(*[("Banana", 0.9)] * 4)
    assert after.bodies("alert") == []
    after.feed(*[("Lemon", 0.9)] * 2)
    assert [a["state"] for a in after.bodies("alert")] == ["cleared"]


def test_below_the_threshold_it_is_unknown_but_the_ranking_stays() -> None:
    bench = Bench(threshold=0.95)
    bench.feed(*[("Banana", 0.9)] * 2)
    body = bench.bodies("result")[-1]
    assert body["decision"]["label"] == "unknown"
    assert body["labels"][0]["label"] == "Banana"


def test_a_store_that_is_behind_costs_the_frame_and_is_counted_and_no_alert_is_lost() -> None:
    bench = Bench()
    bench.feed(*[("Banana", 0.9)] * 3)
    bench.recorder.full = True
    bench.feed(("Banana", 0.9))
    bench.recorder.full = False
    assert bench.pipeline.collect_counts() == {"frames:dropped:store-slow": 1, "frames:captured": 1}
    assert bench.pipeline.collect_counts().total() == 0
    bench.feed(("Banana", 0.9))
    assert len(bench.bodies("alert")) == 1


def test_a_frame_that_cannot_be_classified_is_counted_and_the_next_goes_on() -> None:
    bench = Bench()
    bench.feed(RuntimeError("broken"), ("Banana", 0.9))
    assert len(bench.bodies("result")) == 1
    assert bench.pipeline.collect_counts()["frames:dropped:classify-failed"] == 1


def test_a_model_that_always_fails_ends_the_process() -> None:
    bench = Bench()
    with pytest.raises(RuntimeError, match="broken"):
        bench.feed(*[RuntimeError("broken")] * FAILURES_IN_A_ROW)


def test_drops_in_the_mailbox_are_part_of_the_books() -> None:
    bench = Bench()
    for number in (1, 2, 3):
        bench.pipeline.offer(Frame("shelf", number, PICTURE, bench.clock.now()))
    assert bench.pipeline.collect_counts() == {"frames:dropped:superseded": 2, "frames:captured": 2}


def test_counts_that_could_not_be_stored_come_again() -> None:
    bench = Bench()
    bench.pipeline.offer(Frame("shelf", 1, PICTURE, bench.clock.now()))
    bench.pipeline.offer(Frame("shelf", 2, PICTURE, bench.clock.now()))
    counts = bench.pipeline.collect_counts()
    bench.pipeline.uncollect(counts)
    assert bench.pipeline.collect_counts() == counts


def test_the_loop_ends_when_every_source_has_ended() -> None:
    bench = Bench()
    bench.pipeline.offer(Frame("shelf", 1, PICTURE, bench.clock.now()))
    bench.frames.end("shelf")
    bench.pipeline.work(Worker([("Banana", 0.9)]), threading.Event())
    assert bench.pipeline.progress == 1


def test_decision_state_survives_being_written_down() -> None:
    state = CameraState(Standing("Banana", "Lemon", 2), {})
    assert load_states(["a"], {"camera:a": dump_state(state)}.get, same_boot=True)["a"] == state


def test_a_displaced_frame_goes_to_the_function_with_its_picture_and_its_time() -> None:
    bench = Bench(copies=NO_COPIES)
    bench.offer(3)
    bench.spill()
    drafts = bench.recorder.drafts
    assert [(d.kind, d.lane) for d in drafts] == [("frame", Lane.OFFLOAD)] * 2
    assert [d.picture.name for d in drafts if d.picture] == ["1.jpg", "2.jpg"]
    assert drafts[0].expires_ns == bench.clock.boot_ns + 30 * 10**9
    first = bench.bodies("frame")[0]
    assert (first["camera"], first["frame"], first["reason"], first["truth"]) == ("shelf", 1, "displaced", "Banana")
    assert (first["width"], first["height"], first["boot_ns"]) == (4, 4, bench.clock.boot_ns)
    assert "label" not in first
    assert bench.recorder.counts == {"frames:captured": 2, "frames:serverless": 2}


def test_without_the_function_it_is_the_nights() -> None:
    bench = Bench(copies=NO_COPIES)
    assert bench.offload is not None
    bench.offload.ways.heed(None, None)
    bench.offer(2)
    bench.spill()
    (draft,) = bench.recorder.drafts
    assert (draft.lane, draft.expires_ns) == (Lane.BATCH, None)
    assert bench.bodies("frame")[0]["reason"] == "link-down"
    assert bench.recorder.counts == {"frames:captured": 1, "frames:deferred": 1}


def test_more_than_the_encoder_can_take_is_dropped_and_counted() -> None:
    bench = Bench(copies=NO_COPIES)
    bench.offer(1 + FITS + 5)
    assert bench.pipeline.collect_counts() == {"frames:dropped:encoder-busy": 5, "frames:captured": 5}
    bench.spill()
    assert bench.recorder.counts["frames:captured"] == FITS


def test_an_uncertain_answer_leaves_a_copy_that_says_what_the_device_thought() -> None:
    bench = Bench(threshold=0.5, copies=review.Terms(0.6, 0.0, 60, 0.0))
    bench.feed(("Banana", 0.55), ("Banana", 0.3), ("Banana", 0.9))
    bench.spill()
    copies = bench.bodies("frame")
    assert [d.lane for d in bench.recorder.drafts if d.kind == "frame"] == [Lane.REVIEW] * 2
    assert [(c["frame"], c["label"], c["score"], c["reason"]) for c in copies] == [
        (1, "Banana", 0.55, "uncertain"), (2, "unknown", 0.3, "uncertain"),
    ]  # fmt: skip
    assert copies[1]["labels"][0] == {"label": "Banana", "score": 0.3}
    assert (copies[0]["model"], copies[0]["runtime"]) == (MODEL, "openvino")
    counts = bench.recorder.counts
    assert (counts["frames:captured"], counts["frames:classified"], counts["frames:copied:uncertain"]) == (3, 3, 2)


def test_a_kept_picture_is_the_nights() -> None:
    bench = Bench(copies=review.Terms(0.0, 0.0, 60, 2.0))
    bench.feed(*[("Banana", 0.9)] * 4, step_s=1.0)
    bench.spill()
    assert [(d.lane, json.loads(d.body)["frame"]) for d in bench.recorder.drafts if d.kind == "frame"] == [
        (Lane.BATCH, 1), (Lane.BATCH, 3),
    ]  # fmt: skip
    assert bench.recorder.counts["frames:copied:kept"] == 2


def test_a_copy_that_cannot_be_kept_is_no_dropped_frame() -> None:
    bench = Bench(copies=review.Terms(0.6, 0.0, 60, 0.0))
    bench.spool.failing = Broken("disk-full", "no space")
    bench.feed(("Banana", 0.3))
    bench.spill()
    assert bench.pipeline.collect_counts().total() == 0
    assert bench.recorder.counts == {"frames:captured": 1, "frames:classified": 1}


@pytest.mark.parametrize(
    ("failing", "reason"),
    [(Broken("disk-full", "no space"), "disk-full"), (Broken("spool-folder", "gone"), "spool-folder"),
     (ValueError("a bug"), "encode-failed")],
)  # fmt: skip
def test_trouble_in_the_spool_costs_the_picture_and_is_counted(failing: Exception, reason: str) -> None:
    bench = Bench(copies=NO_COPIES)
    bench.spool.failing = failing
    bench.offer(2)
    bench.spill()
    assert bench.recorder.drafts == []
    assert bench.pipeline.collect_counts() == {f"frames:dropped:{reason}": 1, "frames:captured": 1}


def test_a_store_that_is_behind_costs_the_frame_too() -> None:
    bench = Bench(copies=NO_COPIES)
    bench.offer(2)
    bench.recorder.full = True
    bench.spill()
    assert bench.pipeline.collect_counts() == {"frames:dropped:store-slow": 1, "frames:captured": 1}


def test_a_stop_counts_what_it_has_no_time_to_spool() -> None:
    bench = Bench(copies=review.Terms(0.6, 0.0, 60, 0.0))
    bench.feed(("Banana", 0.3))
    bench.offer(3)
    bench.pipeline.close(0)
    assert bench.pipeline.collect_counts() == {"frames:dropped:stopping": 2, "frames:captured": 2}


def test_the_service_time_is_measured_and_decides() -> None:
    bench = Bench(copies=NO_COPIES)
    slow = Worker([("Banana", 0.9)])
    classify = slow.classify

    def takes_its_time(bgr: Picture, k: int = 5) -> Answer:
        bench.clock.advance(0.2)
        return classify(bgr, k)

    slow.classify = takes_its_time  # type: ignore[method-assign]
    bench.offer(1)
    frame = bench.frames.take(0)
    assert frame is not None
    bench.pipeline._follow(frame, slow)
    assert bench.pipeline.service_ms == pytest.approx(200)
    bench.offer(1)
    assert bench.frames.counts()["shelf"].waiting == 0, "behind a frame of 200 ms it would be late"
    bench.spill()
    assert bench.bodies("frame")[0]["reason"] == "too-late"
    bench.frames.done(frame)
    bench.offer(1)
    assert bench.frames.counts()["shelf"].waiting == 1


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    readers=st.integers(1, 3),
    workers=st.integers(1, 3),
    per_hour=st.sampled_from([0, 20, 3600]),
    shape=st.sampled_from(["function", "night", "nothing"]),
    stop_s=st.sampled_from([0.0, 5.0]),
)
def test_whatever_happens_the_books_balance(
    seed: int, readers: int, workers: int, per_hour: int, shape: str, stop_s: float
) -> None:
    """Real threads, a spool, a store and a model that fail at random, placements of every kind."""
    rng = random.Random(seed)
    clock, recorder, spool = FakeClock(), Recorder(), Spool()
    lock = threading.Lock()

    def chance(part: float) -> bool:
        with lock:
            return rng.random() < part

    class Shaky(Recorder):
        def record(self, drafts: Any, counts: Any = None, facts: Any = None) -> bool:
            if chance(0.1):
                return False
            with lock:
                return super().record(drafts, counts, facts)

    class Flaky:
        def classify(self, bgr: Picture, k: int = 5) -> Answer:
            clock.advance(0.001)
            if chance(0.05):
                raise RuntimeError("broken")
            return Answer((("Banana", 0.5 if chance(0.3) else 0.9),), "Banana", 0.5, True, 2.0, 0.5)

    def shaky_encode(picture: Picture) -> tuple[bytes, int, int]:
        if chance(0.1):
            raise ValueError("broken")
        spool.failing = Broken("disk-full", "full") if chance(0.1) else None
        spool.room = 0 if chance(0.1) else 1 << 30
        return encode(picture)

    recorder = Shaky()
    names = [f"camera-{n}" for n in range(readers)]
    budget = Budget(per_hour, 60, 1.0, 0.00001, clock.boot_ns)
    terms = Terms(shape != "nothing", "night" if shape == "night" else "auto", dict.fromkeys(names, 5.0), 1280)
    ways = Ways(terms, budget, spool, "boot", lambda: "synced")
    ways.heed(json.dumps({"health": "up", "at_boot_ns": clock.boot_ns}), json.dumps({"connected": True}))
    chooser = review.Review(review.Terms(0.6, 0.1, 1000, 1.0), rng, clock.boot_ns)
    offload = Offload(ways, Overflow(500), spool, shaky_encode, chooser, 30.0, workers)
    frames = Mailboxes(names)
    pipeline = Pipeline(
        frames, Policy(0.5, 2, 3, (), MODEL, "openvino"), recorder, Pictures(), clock,
        {name: CameraState(Standing(), {}) for name in names}, lambda camera, ms: None, offload,
    )  # fmt: skip
    count = 60

    def read(name: str) -> None:
        for number in range(1, count + 1):
            clock.advance(0.001)
            pipeline.offer(Frame(name, number, PICTURE, clock.now()))
        pipeline.end(name)

    def work() -> None:
        while not frames.finished:
            try:
                pipeline.work(Flaky(), threading.Event())
            except RuntimeError:
                continue

    threads = [threading.Thread(target=read, args=(name,)) for name in names]
    threads += [threading.Thread(target=work) for _ in range(workers)] + [threading.Thread(target=pipeline.spill)]
    for thread in threads:
        thread.start()
    for thread in threads[:-1]:
        thread.join(20)
    pipeline.close(stop_s)
    threads[-1].join(20)
    assert not any(thread.is_alive() for thread in threads)

    counts = recorder.counts + pipeline.collect_counts()
    dropped = sum(n for name, n in counts.items() if name.startswith("frames:dropped:"))
    fates = counts["frames:classified"] + counts["frames:serverless"] + counts["frames:deferred"] + dropped
    assert counts["frames:captured"] == fates == readers * count
    kinds = Counter(d.kind for d in recorder.drafts)
    copies = sum(n for name, n in counts.items() if name.startswith("frames:copied:"))
    assert kinds["result"] == counts["frames:classified"]
    assert kinds["frame"] == counts["frames:serverless"] + counts["frames:deferred"] + copies
    assert counts["frames:serverless"] <= per_hour
    if shape == "nothing":
        assert kinds["frame"] == copies


def test_of_a_blind_camera_frames_are_answered_and_nothing_is_concluded() -> None:
    bench = Bench(rules=(Rule("gone", "unknown", 0.5, dwell_s=1.0),), copies=review.Terms(1.0, 1.0, 3600, 1.0))
    bench.feed(*[("Banana", 0.9)] * 3)
    copies = len(bench.offload.overflow)  # type: ignore[arg-type]
    bench.pipeline._blind = lambda _: "camera-black"
    bench.feed(*[("Lemon", 0.1)] * 8)
    last = Result.model_validate({"run": "0" * 16, "seq": 1, **bench.bodies("result")[-1]})
    assert (last.decision.label, last.decision.state, last.decision.changed) == ("Banana", "pending", False)
    assert last.decision.reason == "not counted, for camera-black: this frame alone would be unknown (0.10)"
    assert last.labels[0].label == "Lemon"
    assert bench.bodies("alert") == []
    assert len(bench.offload.overflow) == copies  # type: ignore[arg-type]
    bench.pipeline._blind = lambda _: ""
    bench.feed(*[("Lemon", 0.1)] * 4)
    assert [a["rule"] for a in bench.bodies("alert")] == ["gone"]


def test_the_watch_s_notice_is_an_alert_with_its_picture() -> None:
    bench = Bench()
    frame = Frame("shelf", 7, PICTURE, bench.clock.now())
    said = Notice("camera-covered", "raised", frame.captured.wall_ns, "camera shelf: something covers it")
    assert bench.pipeline.tell(frame, [said], {"watch:shelf": "{}"})
    (body,) = bench.bodies("alert")
    alert = Alert.model_validate({"run": "0" * 16, "seq": 1, **body})
    assert (alert.rule, alert.state, alert.reason) == ("camera-covered", "raised", said.text)
    assert alert.thumbnail == "QUJD"
    assert bench.recorder.facts == {"watch:shelf": "{}"}


def test_a_frame_captured_before_the_clock_was_set_is_not_dated_by_it() -> None:
    """Its wall time is of the year 2001, but by the time its record is made the clock can be trusted."""
    bench = Bench(copies=review.Terms(0.0, 0.0, 60, 1.0))
    right_ns = bench.clock.wall_ns
    bench.clock.wall_ns = 10**18

    class Sets(Worker):
        def classify(self, bgr: Picture, k: int = 5) -> Answer:
            bench.clock.wall_ns = right_ns
            return super().classify(bgr, k)

    bench.pipeline.offer(Frame("shelf", 1, PICTURE, bench.clock.now(), truth="Banana"))
    frame = bench.frames.take(0)
    assert frame is not None
    bench.pipeline._follow(frame, Sets([("Banana", 0.9)]))
    bench.frames.done(frame)
    bench.feed(("Banana", 0.9))
    bench.spill()
    assert [body["clock"] for body in bench.bodies("result")] == ["unsure", "synced"]
    assert [body["clock"] for body in bench.bodies("frame")] == ["unsure"]
    assert [d.clock for d in bench.recorder.drafts if d.kind == "result"] == ["unsure", "synced"]
