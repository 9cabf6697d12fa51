"""Another model takes over between two frames: none is lost, and each is recorded by the model that answered it."""

import json
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from world import FakeClock

from agent.camera.mailboxes import Mailboxes
from agent.core.decide import Standing
from agent.drafts import Policy
from agent.pipeline import Pipeline
from agent.ports import Draft, Frame, Later, Picture
from agent.standing import CameraState
from models import Answer

PICTURE: Picture = np.zeros((4, 4, 3), np.uint8)
CAMERAS = ("a", "b", "c")
PATIENCE_S = 20.0


class Worker:
    """Answers with its own model's name, after a moment in which other threads may run."""

    def __init__(self, name: str) -> None:
        self.name = name

    def classify(self, bgr: Picture, k: int = 5) -> Answer:
        time.sleep(0.0002)
        return Answer(((self.name, 0.9),), self.name, 0.9, True, 0.1, 0.1)


class Recorder:
    def __init__(self) -> None:
        self.drafts: list[Draft] = []
        self.lock = threading.Lock()

    def record(
        self,
        drafts: Sequence[Draft | Later],
        counts: Mapping[str, int] | None = None,
        facts: Mapping[str, str] | None = None,
    ) -> bool:
        with self.lock:
            self.drafts += [draft if isinstance(draft, Draft) else draft() for draft in drafts]
        return True


class Pictures:
    def show(self, frame: Frame) -> None:
        pass

    def thumbnail(self, frame: Frame) -> str | None:
        return None


def policy(name: str) -> Policy:
    model = {"name": name, "version": "1", "release": 1, "digest": "0" * 64}
    return Policy(0.5, 1, 3, (), model, "openvino")


def test_no_frame_is_lost_and_each_carries_the_name_of_the_model_that_answered_it() -> None:
    clock, recorder, frames = FakeClock(), Recorder(), Mailboxes(CAMERAS)
    states = {camera: CameraState(Standing(), {}) for camera in CAMERAS}
    pipeline = Pipeline(frames, policy("model-0"), recorder, Pictures(), clock, states, lambda camera, ms: None)
    stop = threading.Event()
    threads = [threading.Thread(target=pipeline.work, args=(Worker("model-0"), stop)) for _ in CAMERAS]
    for thread in threads:
        thread.start()
    put: Counter[str] = Counter()
    swaps = 0
    until_s = time.monotonic() + PATIENCE_S
    while swaps < 50 and time.monotonic() < until_s:
        for camera in CAMERAS:
            put[camera] += 1
            older = frames.put(Frame(camera, put[camera], PICTURE, clock.now()))
            if older is not None:
                put["displaced"] += 1
        if pipeline.settled and sum(put.values()) % 2:
            swaps += 1
            pipeline.swap(policy(f"model-{swaps}"), [Worker(f"model-{swaps}") for _ in CAMERAS])
        time.sleep(0.001)
    for camera in CAMERAS:
        frames.end(camera)
    for thread in threads:
        thread.join(PATIENCE_S)
    assert swaps == 50
    records = [json.loads(draft.body) for draft in recorder.drafts]
    assert len(records) == sum(put[camera] for camera in CAMERAS) - put["displaced"]
    assert all(record["model"]["name"] == record["labels"][0]["label"] for record in records)
    assert len({record["model"]["name"] for record in records}) > 25


def test_a_thread_that_finds_no_frame_takes_up_the_new_model_too() -> None:
    frames = Mailboxes(["a"])
    states = {"a": CameraState(Standing(), {})}
    pipeline = Pipeline(frames, policy("old"), Recorder(), Pictures(), FakeClock(), states, lambda camera, ms: None)
    stop = threading.Event()
    thread = threading.Thread(target=pipeline.work, args=(Worker("old"), stop))
    thread.start()
    while not pipeline.turns:
        time.sleep(0.001)
    pipeline.swap(policy("new"), [Worker("new")])
    until_s = time.monotonic() + PATIENCE_S
    while not pipeline.settled and time.monotonic() < until_s:
        time.sleep(0.001)
    assert pipeline.settled
    assert pipeline.policy.model["name"] == "new"
    stop.set()
    thread.join(PATIENCE_S)
