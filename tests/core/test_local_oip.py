"""The API behind the cameras: one picture at a time, a rest while frames wait, few requests in hand."""

import itertools
import threading
from concurrent.futures import ThreadPoolExecutor, as_completed
from email.message import Message

import numpy as np
import pytest

from agent.local.exchange import Refusal, Reply, Request
from agent.local.oip import Gate, ModelFacts, Oip
from agent.local.tensors import Pixels, Scores

import cv2  # isort: skip

PATIENCE_S = 10.0
PNG = cv2.imencode(".png", np.zeros((4, 4, 3), np.uint8))[1].tobytes()
MODEL = ModelFacts("toy", "1", "openvino", ("Apple", "Pear"), "0" * 64, 0.5)


class Scorer:
    """Says how many were classified at once, and waits until it may go on."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.go.set()
        self.began = threading.Event()
        self.at_once = self.most = self.count = 0

    def scores(self, bgr: Pixels) -> Scores:
        self.began.set()
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        assert self.go.wait(PATIENCE_S)
        self.at_once -= 1
        self.count += 1
        return np.array([0.25, 0.75], np.float32)


def infer(api: Oip, body: bytes = PNG, length: str = "0") -> Reply:
    headers = Message()
    headers["Inference-Header-Content-Length"] = length
    return api.answer(Request("POST", "/v2/models/toy/infer", {}, headers, "127.0.0.1", lambda _: body))


def test_the_model_is_opened_when_it_is_first_asked_for() -> None:
    opened: list[Scorer] = []

    def make() -> Scorer:
        opened.append(Scorer())
        return opened[-1]

    api = Oip(MODEL, make, lambda: False, lambda _: None)
    assert not opened
    for _ in range(3):
        infer(api)
    assert len(opened) == 1
    assert opened[0].count == 3


@pytest.mark.parametrize("waiting", [True, False])
def test_while_frames_of_cameras_wait_it_rests_after_each_picture(waiting: bool) -> None:
    rests: list[float] = []
    api = Oip(MODEL, Scorer, lambda: waiting, rests.append)
    infer(api)
    assert len(rests) == (1 if waiting else 0)
    assert all(0 < rest <= 0.5 for rest in rests)


def test_more_than_it_takes_are_told_to_come_again_and_the_rest_go_one_by_one() -> None:
    scorer = Scorer()
    scorer.go.clear()
    api = Oip(MODEL, lambda: scorer, lambda: False, lambda _: None, Gate(in_hand=2, waiting=2, wait_s=PATIENCE_S))
    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(infer, api) for _ in range(8)]
        refused = itertools.islice(as_completed(asked, PATIENCE_S), 4)  # at once, while the others wait
        assert all(one.exception() for one in refused)
        scorer.go.set()
        outcomes = [one.exception(PATIENCE_S) for one in asked]
    busy = [outcome for outcome in outcomes if outcome is not None]
    assert len(busy) == 4
    assert all(isinstance(one, Refusal) and (one.code, one.status) == ("too-many-requests", 429) for one in busy)
    assert all(isinstance(one, Refusal) and int(one.headers["Retry-After"]) > 0 for one in busy)
    assert scorer.most == 1
    infer(api)  # and all places are free again


def test_who_waits_too_long_is_told_so() -> None:
    scorer = Scorer()
    scorer.go.clear()
    api = Oip(MODEL, lambda: scorer, lambda: False, lambda _: None, Gate(in_hand=1, waiting=1, wait_s=0.05))
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(infer, api)
        assert scorer.began.wait(PATIENCE_S)
        with pytest.raises(Refusal, match="no time") as refused:
            infer(api)
        assert (refused.value.code, refused.value.status) == ("busy", 503)
        assert int(refused.value.headers["Retry-After"]) > 0
        scorer.go.set()
        assert first.result(PATIENCE_S).status == 200


def test_a_request_that_is_refused_frees_its_place() -> None:
    api = Oip(MODEL, Scorer, lambda: False, lambda _: None, Gate(in_hand=1, waiting=0, wait_s=0.0))
    for _ in range(5):
        with pytest.raises(Refusal, match="no JPEG"):
            infer(api, b"no picture")
    infer(api)
