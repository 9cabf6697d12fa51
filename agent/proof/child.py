"""The process in which a new model is tried: `python -m agent.proof.child SETTINGS`, with the settings as JSON.

It loads and compiles, answers the golden pictures, tells its memory, measures its speed beside the running model's,
and then classifies the pictures that come in on standard input. Each result is a JSON object on a line of standard
output. Whatever becomes of this process is a verdict on the model and no trouble of the device's.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from agent.core.gates import p95
from agent.host.child import Say, own_output, stay_behind
from agent.host.process import peak_rss_bytes
from models import Answer, Bundle, BundleError, Classifier, decode_picture
from models.setup import Setup

NICENESS = 15
WARM_FRAMES = 3
LEAST_FRAMES = 20
MOST_FRAMES = 100
MEASURE_S = 2.0
"""How long speed is measured at most, once `LEAST_FRAMES` are done."""
FRAME_SHAPE = (720, 1280, 3)
MOST_PIXELS = 8192 * 8192


def main(settings: dict[str, Any]) -> None:
    """Be the child."""
    say = own_output()
    stay_behind(NICENESS, int(settings["memory_bytes"]))
    try:
        _prove(settings, say)
    except BundleError as error:
        say({"error": error.code, "message": str(error), "hint": error.hint})
    except MemoryError:
        say({"error": "no-memory", "message": "the model takes more memory than it may", "hint": ""})
    except RuntimeError as error:  # what the runtimes raise in the middle of an answer
        say({"error": "runtime", "message": str(error).strip().splitlines()[-1][:200], "hint": ""})


def _prove(settings: dict[str, Any], say: Say) -> None:
    cache = Path(settings["cache"]) if settings.get("cache") else None
    began_s = time.monotonic()
    bundle = Bundle.load(settings["bundle"])
    classifier = Classifier.open(bundle, Setup.from_json(settings["setup"]), int(settings["workers"]), cache)
    say({"gate": "compiled", "runtime": classifier.runtime, "took_s": time.monotonic() - began_s})
    began_s = time.monotonic()
    classifier.check_golden()
    inputs = len(bundle.manifest.golden.inputs)
    say({"gate": "golden", "inputs": inputs, "took_s": time.monotonic() - began_s})
    pictures = _pictures(bundle)
    for picture in pictures[:WARM_FRAMES]:
        classifier.worker().classify(picture)
    say({"gate": "memory", "peak_bytes": peak_rss_bytes()})
    say({"gate": "latency", **_speed(classifier, settings, cache, pictures)})
    _shadow(classifier, say)


def _pictures(bundle: Bundle) -> list[np.ndarray[Any, np.dtype[np.uint8]]]:
    """Give pictures to measure with: noise in the size of a camera's, and the golden ones."""
    rng = np.random.default_rng(1)
    noise = [rng.integers(0, 256, FRAME_SHAPE, np.uint8) for _ in range(WARM_FRAMES)]
    return noise + [decode_picture(bundle.read(item.path)) for item in bundle.manifest.golden.inputs[:8]]


def _speed(
    classifier: Classifier, settings: dict[str, Any], cache: Path | None, pictures: list[Any]
) -> dict[str, float]:
    """Measure both models in turn, so that whatever else the device does weighs on both alike."""
    running = _running(settings, cache)
    workers = [classifier.worker(), *([running.worker()] if running is not None else [])]
    took: list[list[float]] = [[] for _ in workers]
    until_s = time.monotonic() + MEASURE_S
    for n in range(WARM_FRAMES + MOST_FRAMES):
        for worker, times in zip(workers, took, strict=True):
            answer = worker.classify(pictures[n % len(pictures)])
            if n >= WARM_FRAMES:
                times.append(answer.prepare_ms + answer.inference_ms)
        if n >= WARM_FRAMES + LEAST_FRAMES and time.monotonic() > until_s:
            break
    if running is not None:
        running.close()
    beside = {"running_p95_ms": p95(took[1])} if running is not None else {}
    return {"p95_ms": p95(took[0]), "frames": float(len(took[0])), **beside}


def _running(settings: dict[str, Any], cache: Path | None) -> Classifier | None:
    if not settings.get("running"):
        return None
    try:
        setup = Setup.from_json(settings["running_setup"])
        return Classifier.open(settings["running"], setup, int(settings["workers"]), cache)
    except BundleError:
        return None  # then the deadline alone is the measure


def _shadow(classifier: Classifier, say: Say) -> None:
    worker = classifier.worker()
    stream = sys.stdin.buffer
    while (head := stream.readline()) and (picture := _read(head, stream)) is not None:
        answer: Answer = worker.classify(picture)
        took_ms = answer.prepare_ms + answer.inference_ms
        say({"label": answer.top[0][0], "score": answer.score, "ms": took_ms, "peak_bytes": peak_rss_bytes()})


def _read(head: bytes, stream: BinaryIO) -> np.ndarray[Any, np.dtype[np.uint8]] | None:
    height, width = json.loads(head)
    if not 0 < height * width <= MOST_PIXELS:
        return None
    raw = stream.read(height * width * 3)
    return np.frombuffer(raw, np.uint8).reshape(height, width, 3) if len(raw) == height * width * 3 else None


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
