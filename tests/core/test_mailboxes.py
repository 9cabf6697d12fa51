import queue
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from agent.camera.mailboxes import Mailboxes
from agent.ports import Frame, Stamp

PICTURE = np.zeros((2, 2, 3), np.uint8)


def frame(camera: str, number: int) -> Frame:
    return Frame(camera, number, PICTURE, Stamp(number, number))


def test_the_newest_wins_and_the_older_is_given_back():
    boxes = Mailboxes(["door"])
    given = [boxes.put(frame("door", number)) for number in (1, 2, 3)]
    assert [older.number if older else None for older in given] == [None, 1, 2]
    assert boxes.take(0).number == 3
    assert boxes.collect_drops() == {}, "whoever put it decides what becomes of the older"


def test_what_comes_before_a_new_frame_is_known():
    boxes = Mailboxes(["door", "till", "shelf"])
    assert boxes.ahead("door") == 0
    boxes.put(frame("door", 1))
    assert boxes.ahead("door") == 0, "it takes the place of the one that waits"
    assert boxes.ahead("till") == 1
    first = boxes.take(0)
    assert boxes.ahead("door") == 1, "its own camera's frame is in work"
    boxes.put(frame("till", 1))
    assert boxes.ahead("door") == 2
    assert boxes.ahead("shelf") == 2
    boxes.done(first)
    boxes.done(boxes.take(0))
    boxes.put(frame("door", 2))
    assert boxes.ahead("shelf") == 0, "a camera that was never served goes first"
    assert boxes.ahead("till") == 1


def test_while_frames_pile_up_no_more_are_in_work_than_may_be_at_once():
    boxes = Mailboxes(["a", "b", "c", "d"], at_once=2)
    for camera in "abcd":
        boxes.put(frame(camera, 1))
    first, second, _ = (boxes.take(0) for _ in range(3))
    boxes.put(frame("d", 2))
    assert boxes.take(0) is None, "three are in work, and frames of d pile up"
    boxes.done(first)
    assert boxes.take(0) is None
    boxes.done(second)
    assert boxes.take(0).camera == "d"
    boxes.put(frame("a", 2))
    assert boxes.take(0).camera == "a", "nothing piles up any more"


def test_whoever_takes_the_frame_that_was_behind_wakes_another_taker_for_the_next():
    boxes = Mailboxes(["a", "b", "c"], at_once=1)
    boxes.put(frame("a", 1))
    first = boxes.take(0)
    boxes.put(frame("b", 1))
    boxes.put(frame("b", 2))
    boxes.put(frame("c", 1))
    taken = queue.SimpleQueue()
    takers = [threading.Thread(target=lambda: taken.put(boxes.take(60.0))) for _ in range(2)]
    for taker in takers:
        taker.start()
    boxes.done(first)
    assert {taken.get(timeout=20).camera for _ in takers} == {"b", "c"}


def test_a_camera_in_work_is_not_handed_out_again_before_done():
    boxes = Mailboxes(["door"])
    boxes.put(frame("door", 1))
    first = boxes.take(0)
    boxes.put(frame("door", 2))
    assert boxes.take(0) is None
    boxes.done(first)
    assert boxes.take(0).number == 2


def test_a_slow_camera_is_served_as_soon_as_its_turn_comes_beside_a_fast_one():
    boxes = Mailboxes(["fast", "slow"])
    served = []
    for number in range(1, 21):
        boxes.put(frame("fast", number))
        if number % 5 == 0:
            boxes.put(frame("slow", number))
        got = boxes.take(0)
        served.append(got.camera)
        boxes.done(got)
    assert served.count("slow") == 4
    assert served[4] == "slow"
    assert served[9] == "slow"


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_in_overload_cameras_are_served_alike_however_fast_they_are(workers):
    rates = {"a": 1, "b": 2, "c": 5, "d": 20}
    boxes = Mailboxes(rates, at_once=2)
    served, in_work, number = dict.fromkeys(rates, 0), [], 0
    for _ in range(100):
        for camera, rate in rates.items():
            for _ in range(rate):
                number += 1
                boxes.put(frame(camera, number))
        while len(in_work) < workers and (taken := boxes.take(0)) is not None:
            served[taken.camera] += 1
            in_work.append(taken)
        boxes.done(in_work.pop(0))
    assert max(served.values()) - min(served.values()) <= 1


def test_taking_waits_for_a_frame():
    boxes = Mailboxes(["door"])
    got = []
    taker = threading.Thread(target=lambda: got.append(boxes.take(5)))
    taker.start()
    boxes.put(frame("door", 1))
    taker.join(5)
    assert got[0].number == 1


def test_a_worker_that_waits_gets_the_frame_that_done_sets_free():
    boxes = Mailboxes(["door"])
    boxes.put(frame("door", 1))
    first = boxes.take(0)
    boxes.put(frame("door", 2))
    got = []
    taker = threading.Thread(target=lambda: got.append(boxes.take(5)))
    taker.start()
    boxes.done(first)
    taker.join(5)
    assert got[0].number == 2


def test_closing_wakes_the_takers_and_counts_what_waits():
    boxes = Mailboxes(["door", "till"])
    boxes.put(frame("door", 1))
    in_work = boxes.take(0)
    got = []
    taker = threading.Thread(target=lambda: got.append(boxes.take(60)))
    taker.start()
    boxes.put(frame("door", 2))
    boxes.close()
    taker.join(5)
    assert got == [None]
    boxes.put(frame("till", 1))
    assert boxes.collect_drops() == {"stopping": 2}
    assert boxes.take(60) is None
    assert not boxes.finished, "a frame is still in work"
    boxes.done(in_work)
    assert boxes.finished
    boxes.close()
    assert boxes.collect_drops() == {}


def test_finished_when_every_source_has_ended_and_everything_was_served():
    boxes = Mailboxes(["door", "till"])
    boxes.put(frame("door", 1))
    boxes.end("till")
    boxes.end("door")
    assert not boxes.finished
    last = boxes.take(0)
    assert not boxes.finished
    got = []
    taker = threading.Thread(target=lambda: got.append(boxes.take(60)))
    taker.start()
    boxes.done(last)
    taker.join(5)
    assert got == [None], "a taker does not wait for frames that cannot come"
    assert boxes.finished


def test_no_camera_is_finished_from_the_start():
    assert Mailboxes([]).finished


def test_mistakes_of_the_caller_are_refused():
    boxes = Mailboxes(["door"])
    with pytest.raises(KeyError):
        boxes.put(frame("window", 1))
    with pytest.raises(KeyError):
        boxes.end("window")
    with pytest.raises(ValueError, match="not in work"):
        boxes.done(frame("door", 1))
    boxes.put(frame("door", 1))
    first = boxes.take(0)
    boxes.done(first)
    with pytest.raises(ValueError, match="not in work"):
        boxes.done(first)


class Mailroom(RuleBasedStateMachine):
    """Any order of puts, takes and dones by any number of workers."""

    names = ("a", "b", "c", "d")

    def __init__(self):
        super().__init__()
        self.behind = set()
        self.numbers = dict.fromkeys(self.names, 0)
        self.seen = dict.fromkeys(self.names, 0)
        self.displaced = dict.fromkeys(self.names, 0)
        self.in_work = []
        self.overtaken = {n: dict.fromkeys(self.names, 0) for n in self.names}
        self.drops = 0

    @initialize(at_once=st.integers(1, 4))
    def build(self, at_once):
        self.at_once = at_once
        self.boxes = Mailboxes(self.names, at_once)

    @rule(camera=st.sampled_from(names))
    def put(self, camera):
        self.numbers[camera] += 1
        waited = self.boxes.counts()[camera].waiting
        older = self.boxes.put(frame(camera, self.numbers[camera]))
        assert (older is not None) == bool(waited)
        self.displaced[camera] += waited
        self.behind |= {camera} if waited else set()

    @rule()
    def take(self):
        busy = {f.camera for f in self.in_work}
        waiting = {n for n, c in self.boxes.counts().items() if c.waiting} - busy
        held_back = self.behind and len(self.in_work) >= self.at_once
        got = self.boxes.take(0)
        assert (got is not None) == (bool(waiting) and not held_back)
        if got is None:
            return
        self.behind -= {got.camera}
        assert got.camera in waiting
        assert got.number > self.seen[got.camera], "a camera's frames stay in order"
        self.seen[got.camera] = got.number
        for other in waiting - {got.camera}:
            self.overtaken[other][got.camera] += 1
            assert self.overtaken[other][got.camera] <= 1, f"{got.camera} was served twice while {other} waited"
        self.overtaken[got.camera] = dict.fromkeys(self.names, 0)
        self.in_work.append(got)

    @precondition(lambda self: self.in_work)
    @rule(which=st.integers(0, 10))
    def done(self, which):
        self.boxes.done(self.in_work.pop(which % len(self.in_work)))

    @rule()
    def collect(self):
        self.drops += sum(self.boxes.collect_drops().values())

    @invariant()
    def no_frame_is_lost_from_the_count(self):
        for name, counts in self.boxes.counts().items():
            assert counts.put == self.numbers[name]
            assert counts.displaced == self.displaced[name]
            assert counts.put == counts.served + counts.displaced + counts.dropped + counts.waiting

    def teardown(self):
        self.collect()
        assert self.drops == sum(c.dropped for c in self.boxes.counts().values())


Mailroom.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestMailroom = Mailroom.TestCase


@settings(max_examples=15, deadline=None)
@given(
    cameras=st.integers(1, 4),
    workers=st.integers(1, 3),
    frames=st.integers(1, 60),
    at_once=st.none() | st.integers(1, 3),
)
def test_under_real_threads_every_frame_is_served_or_given_back(cameras, workers, frames, at_once):
    names = [f"camera-{i}" for i in range(cameras)]
    boxes = Mailboxes(names, at_once)
    served = {name: [] for name in names}
    given_back = dict.fromkeys(names, 0)

    def read(name):
        for number in range(1, frames + 1):
            given_back[name] += boxes.put(frame(name, number)) is not None
        boxes.end(name)

    def work():
        while not boxes.finished:
            got = boxes.take(5)
            if got is not None:
                served[got.camera].append(got.number)
                boxes.done(got)

    threads = [threading.Thread(target=read, args=(n,)) for n in names]
    threads += [threading.Thread(target=work) for _ in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert not any(t.is_alive() for t in threads)
    assert sum(map(len, served.values())) + sum(given_back.values()) == cameras * frames
    assert all(numbers == sorted(numbers) and numbers[-1] == frames for numbers in served.values())
