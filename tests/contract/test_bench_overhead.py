"""`scripts/bench classifier` measures a whole device: it must answer and commit, and tell our time from others'."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bench_classifier
import cv2
import numpy as np
import pytest

import models

PICTURES = [np.full((72, 128, 3), grey, np.uint8) for grey in (0, 128)]


@pytest.fixture
def bundle() -> Iterator[models.Bundle]:
    threads, interval_s = cv2.getNumThreads(), sys.getswitchinterval()
    yield models.Bundle.load(Path(models.__file__).parent / "produce")
    cv2.setNumThreads(threads)  # a device with several workers sets both for its process
    sys.setswitchinterval(interval_s)


@pytest.mark.parametrize("alone", [False, True])
def test_frames_go_the_whole_way(bundle: models.Bundle, alone: bool) -> None:
    """Beside the model, and alone."""

    def around(engine: Any) -> Any:
        return bench_classifier.NoModel(bundle) if alone else bench_classifier.Timed(engine)

    spent = bench_classifier.spend(bundle, PICTURES, None, 0.2, "int8", around)
    assert spent.fps > 0
    assert spent.cpu_ms > 0


def test_what_a_request_spends_is_noted() -> None:
    class Request:
        buffer = None

        def run(self) -> int:
            return sum(range(200_000))

    class Engine:
        setup = outputs = None

        def request(self) -> Request:
            return Request()

    timed = bench_classifier.Timed(Engine())
    assert timed.spent_ns == 0
    assert timed.request().run() == sum(range(200_000))
    assert timed.spent_ns > 0
