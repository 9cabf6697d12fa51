"""The classifier beside the bare runtime, and what the pipeline costs beside the model: for `scripts/bench classifier`.

All sides take turns within one run. The bare side is OpenVINO's own benchmark_app on the graph that the classifier
compiles, with the same streams, threads and precision; scores are compared with the model's file run by either runtime
with nothing of ours between.
"""

import math
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import models  # isort: skip - first: it keeps the runtimes from sending usage events

import cv2
import numpy as np
import onnxruntime as ort
import openvino as ov

from agent.bench.measure import throughput
from agent.bench.rig import Rig
from agent.camera.encode import to_jpeg
from agent.camera.mailboxes import Mailboxes
from agent.core import review
from agent.core.budget import Budget
from agent.host.clock import SystemClock
from agent.host.processor import share_cores
from agent.overflow import Overflow
from agent.pipeline import Offload
from agent.ports import Frame, Picture
from agent.store.writer import Writer
from agent.ways import Terms, Ways
from models.classifier import Worker
from models.loading import read_model
from models.prepare import Input
from models.runtimes.openvino import _with_arithmetic
from models.setup import Setup

CORES = len(os.sched_getaffinity(0))
PATH_GOAL, OVERHEAD_GOAL_MS, INT8_GOAL, SCORES_GOAL = 0.95, 0.5, 1.5, 1e-4
CAMERAS = 4
NAMES = [f"camera-{number}" for number in range(CAMERAS)]
BUSY_FPS, CALM_FPS = 400.0, 60.0
MOST_DROPPED = 0.02
"""Part of the frames for which an inference thread may come too late, on a machine that others use too."""
Say = Callable[[str], None]
Offer = Callable[[Frame], None]


def measure(
    bundle: models.Bundle, pictures: list[Picture], workers: int, seconds: float, rounds: int, say: Say
) -> dict[str, Any]:
    """Everything, as figures; `met` when all goals that could be measured are."""
    paths = measure_path(bundle, pictures, workers, seconds, rounds, say)
    overhead = measure_overhead(bundle, pictures, seconds, rounds, say)
    int8 = measure_int8(bundle, pictures, workers, seconds, rounds, say)
    difference = measure_scores(bundle, pictures)
    met = paths["ratio"] >= PATH_GOAL and overhead["cpu_ms"] <= OVERHEAD_GOAL_MS and difference <= SCORES_GOAL
    return {
        "path": paths,
        "overhead": overhead,
        "int8_over_fp32": int8 if int8 is not None else f"{bundle.manifest.name} has no INT8: give one with --bundle",
        "scores_differ_by": difference,
        "goal": f"path >= {PATH_GOAL} of benchmark_app, overhead <= {OVERHEAD_GOAL_MS} ms of CPU per frame, "
        f"INT8 >= {INT8_GOAL} of FP32, scores within {SCORES_GOAL:g} of the bare runtimes'",
        "met": met and (int8 is None or int8["ratio"] >= INT8_GOAL),
    }


# Throughput beside benchmark_app.


def save_graph(bundle: models.Bundle, folder: Path, precision: str = "fp32") -> Path:
    """Save the graph that the classifier compiles (arithmetic included) for OpenVINO's own tool."""
    spec = bundle.manifest.input
    model = read_model(bundle, precision)
    graph = ov.Core().read_model(model.content, model.weights) if model.weights else ov.Core().read_model(model.content)
    graph.reshape(ov.PartialShape([1, *model.expected_shape]))
    path = folder / f"bare-{precision}.xml"
    ov.save_model(_with_arithmetic(graph, spec), str(path), compress_to_fp16=False)
    return path


def bare_fps(graph: Path, seconds: float, streams: int = CORES) -> float:
    """Frames/s of benchmark_app."""
    tool = Path(sys.executable).with_name("benchmark_app")
    command = [
        str(tool), "-m", str(graph), "-d", "CPU", "-hint", "none", "-nstreams", str(streams), "-nthreads", str(CORES),
        "-infer_precision", "f32", "-t", str(max(1, round(seconds))),
    ]  # fmt: skip
    output = subprocess.run(command, capture_output=True, text=True, check=False)
    found = re.search(r"Throughput:\s+([\d.]+) FPS", output.stdout)
    if found is None:
        raise SystemExit(f"benchmark_app gave no figure:\n{output.stdout[-2000:]}{output.stderr[-2000:]}")
    return float(found[1])


def measure_path(
    bundle: models.Bundle, pictures: list[Picture], workers: int, seconds: float, rounds: int, say: Say
) -> dict[str, Any]:
    """The classifier's frames/s over benchmark_app's: pictures in the model's own size, and whole frames resized."""
    spec = bundle.manifest.input
    own_size = [np.asarray(cv2.resize(picture, (spec.width, spec.height)), np.uint8) for picture in pictures]
    ratios: dict[str, list[float]] = {"ratio": [], "with_resize": []}
    rates: list[tuple[float, float]] = []
    cpu_ratios: list[float] = []
    with tempfile.TemporaryDirectory() as folder, models.Classifier.open(bundle, "openvino", workers) as classifier:
        graph = save_graph(bundle, Path(folder))
        for n in range(rounds):
            of_ours = throughput(classifier, workers, own_size, seconds)
            ours = of_ours.fps
            bare = bare_fps(graph, seconds, classifier.setup.streams)
            whole = throughput(classifier, workers, pictures, seconds).fps
            cpu_ratios.append(bare_cpu_ms(classifier, workers, seconds) / of_ours.cpu_ms)
            ratios["ratio"].append(ours / bare)
            ratios["with_resize"].append(whole / bare)
            rates.append((ours, bare))
            say(f"  round {n + 1}: classifier {ours:.1f} frames/s, bare {bare:.1f}, ratio {ours / bare:.3f}, by CPU "
                f"time {cpu_ratios[-1]:.3f}; resized from 720p {whole:.1f}, ratio {whole / bare:.3f}")  # fmt: skip
    return {
        "setup": str(classifier.setup),
        "classifier_fps": round(statistics.median(ours for ours, _ in rates), 1),
        "bare_fps": round(statistics.median(bare for _, bare in rates), 1),
        **{name: round(statistics.median(values), 3) for name, values in ratios.items()},
        "ratios": [round(value, 3) for value in ratios["ratio"]],
        "of_bare_requests_by_cpu_time": round(statistics.median(cpu_ratios), 3),
    }


def bare_cpu_ms(classifier: models.Classifier, workers: int, seconds: float) -> float:
    """CPU time of one inference by as many threads on the same compiled model, with nothing of ours around it.

    Beside other work on the machine frames per second say little; this holds.
    """
    requests = [classifier._engine.request() for _ in range(workers)]  # noqa: SLF001 - the bare runtime is compared with

    def work(request: Any) -> int:
        bare, done, until_s = request._request, 0, time.monotonic() + seconds  # noqa: SLF001
        while time.monotonic() < until_s:
            bare.start_async()
            bare.wait()
            done += 1
        return done

    began_s = time.process_time()
    with ThreadPoolExecutor(workers) as threads:
        done = sum(threads.map(work, requests))
    return 1000 * (time.process_time() - began_s) / max(1, done)


# What the pipeline costs beside decoding and the model.


class Timed:
    """An engine whose work is not counted as ours: its requests note the time that their thread spends in them."""

    notes = ()

    def __init__(self, engine: Any) -> None:
        self._engine = engine
        self.setup, self.outputs = engine.setup, engine.outputs
        self._requests: list[TimedRequest] = []

    def request(self) -> "TimedRequest":
        self._requests.append(TimedRequest(self._engine.request()))
        return self._requests[-1]

    @property
    def spent_ns(self) -> int:
        return sum(request.spent_ns for request in self._requests)


class TimedRequest:
    """A request of `Timed`."""

    def __init__(self, request: Any) -> None:
        self._request = request
        self.buffer = request.buffer
        self.spent_ns = 0

    def run(self) -> Any:
        began_ns = time.thread_time_ns()
        try:
            return self._request.run()
        finally:
            self.spent_ns += time.thread_time_ns() - began_ns


class NoModel:
    """An engine that answers at once: what is left is ours."""

    notes = ()
    spent_ns = 0

    def __init__(self, bundle: models.Bundle) -> None:
        spec = bundle.manifest.input
        self.setup = Setup("openvino", "cpu", "fp32", 1, "graph")
        self.outputs = len(bundle.manifest.labels)
        self.buffer = np.zeros((spec.height, spec.width, 3), np.uint8)
        self._scores = np.full(self.outputs, 0.1 / self.outputs, np.float32)
        self._scores[0] = 0.9

    def request(self) -> "NoModel":
        return self

    def run(self) -> Any:
        return self._scores

    def close(self) -> None:
        pass


class Feeding(Mailboxes):
    """Mailboxes that tell a camera when its frame was taken."""

    def __init__(self, cameras: Sequence[str], at_once: int) -> None:
        super().__init__(cameras, at_once)
        self.taken = {camera: threading.Semaphore(1) for camera in cameras}

    def take(self, timeout_s: float) -> Frame | None:
        frame = super().take(timeout_s)
        if frame is not None:
            self.taken[frame.camera].release()
        return frame


class Cameras:
    """A thread for each camera, which offers decoded frames as a reader does: at a pace, or where the mailboxes tell
    when a frame was taken, the next one then.

    What these threads spend beside `offer` stands for a camera's decoding and is not the pipeline's.
    """

    def __init__(self, mailboxes: Mailboxes, offer: Offer, pictures: list[Picture], rate_fps: float) -> None:
        self._taken = mailboxes.taken if isinstance(mailboxes, Feeding) else None
        self._offer = offer
        self._pictures = pictures
        self._every_s = CAMERAS / rate_fps
        self._clock = SystemClock()
        self._stop = threading.Event()
        self._offered_ns = [0] * CAMERAS
        self.threads = [
            threading.Thread(target=self._read, args=(number, name), daemon=True) for number, name in enumerate(NAMES)
        ]

    def start(self) -> None:
        for thread in self.threads:
            thread.start()

    def stop(self) -> None:
        self._stop.set()
        for thread in self.threads:
            thread.join()

    @property
    def own_ns(self) -> int:
        """CPU time that is not the pipeline's."""
        return cpu_ns(self.threads) - sum(self._offered_ns)

    def _read(self, place: int, name: str) -> None:
        due_s = time.monotonic() + place * self._every_s / CAMERAS
        number = 0
        while not self._stop.is_set():
            if self._taken is not None:
                if not self._taken[name].acquire(timeout=0.2):
                    continue
            else:
                due_s += self._every_s
                time.sleep(max(0.0, due_s - time.monotonic()))
            number += 1
            picture = self._pictures[(number * CAMERAS + place) % len(self._pictures)].copy()  # written just now
            began_ns = time.thread_time_ns()
            self._offer(Frame(name, number, picture, self._clock.now()))
            self._offered_ns[place] += time.thread_time_ns() - began_ns


def make_offload(writer: Writer, clock: SystemClock) -> Offload:
    """What a device has whose frames may leave: each is placed. None of them leaves here, for all are in time."""
    now_ns = clock.now().boot_ns
    ways = Ways(
        Terms(True, "drop", dict.fromkeys(NAMES, 1000.0), 1280), Budget(3600, 60, 1.0, 0.00001, now_ns),
        writer.spool, "bench", clock.trust,
    )  # fmt: skip
    again = review.Review(review.Terms(0.0, 0.0, 60, 0.0), random.Random(1), now_ns)
    return Offload(ways, Overflow(), writer.spool, to_jpeg, again, 30.0, CORES)


@dataclass(frozen=True, slots=True)
class Spent:
    """CPU time of the pipeline for each frame, and how many were answered in a second."""

    cpu_ms: float
    fps: float


def spend(
    bundle: models.Bundle,
    pictures: list[Picture],
    rate_fps: float | None,
    seconds: float,
    precision: str,
    around: Callable[[Any], Any],
) -> Spent:
    """Run a device whole: cameras' threads, placement, mailboxes, inference threads, store. None as many as it answers.

    `around` gives what stands in for the engine of the opened model; what its requests note as spent is not ours.
    """
    clock = SystemClock()
    share_cores(CORES)  # as vision does with several workers
    with models.Classifier.open(bundle, Setup("openvino", "cpu", precision), CORES, strict=True) as classifier:
        engine = around(classifier._engine)  # noqa: SLF001 - what is timed stands between it and the worker
        mailboxes = Mailboxes(NAMES, CORES) if rate_fps is not None else Feeding(NAMES, CORES)
        rig = Rig(
            classifier, mailboxes, clock, NAMES, CORES, make_offload, wrap=lambda _worker: Worker(engine, bundle)
        )  # fmt: skip
        cameras = Cameras(mailboxes, rig.pipeline.offer, pictures, rate_fps or math.inf)
        rig.start()
        cameras.start()
        time.sleep(1.0)
        ours = [thread for thread in threading.enumerate() if thread is not threading.main_thread()]

        def now_ns() -> int:
            return cpu_ns(ours) - cameras.own_ns - engine.spent_ns

        began_s, frames, spent_ns = time.monotonic(), rig.pipeline.progress, now_ns()
        time.sleep(seconds)
        took_s, frames, spent_ns = time.monotonic() - began_s, rig.pipeline.progress - frames, now_ns() - spent_ns
        cameras.stop()
        mailboxes.close()
        placed = dict(rig.pipeline.placed)
        counters = rig.finish()
    if sum(placed.values()) > MOST_DROPPED * frames:
        raise SystemExit(f"of {frames} frames were not answered: {placed}; give it a machine that is not so busy")
    if counters["result:produced"] < frames:
        raise SystemExit(f"{frames} frames were answered, {counters['result:produced']} committed")
    return Spent(spent_ns / 1e6 / max(1, frames), frames / took_s)


def cpu_ns(threads: Sequence[threading.Thread]) -> int:
    """CPU time that these threads have had."""
    clocks = [time.pthread_getcpuclockid(thread.ident) for thread in threads if thread.ident is not None]
    return sum(time.clock_gettime_ns(clock) for clock in clocks)


def measure_overhead(
    bundle: models.Bundle, pictures: list[Picture], seconds: float, rounds: int, say: Say
) -> dict[str, Any]:
    """On a device that is given as many frames as its cores answer, and on one with little to do, where a commit has 3
    rows. The goal holds for the first, where no model works and the processor sleeps before each frame; what is left
    beside a model at full load is told too."""
    precision = "int8" if "int8" in bundle.manifest.models else "fp32"
    resize_ms, busy_ms, calm_ms, beside = [], [], [], []
    for n in range(rounds):
        busy_ms.append(spend(bundle, pictures, BUSY_FPS, seconds, "fp32", lambda _: NoModel(bundle)).cpu_ms)
        calm_ms.append(spend(bundle, pictures, CALM_FPS, seconds, "fp32", lambda _: NoModel(bundle)).cpu_ms)
        resize_ms.append(prepare_ms(bundle, pictures))
        beside.append(spend(bundle, pictures, None, seconds, precision, Timed))
        say(f"  round {n + 1}: {busy_ms[-1]:.3f} ms of CPU per frame at {BUSY_FPS:.0f} frames/s, of these "
            f"{resize_ms[-1]:.3f} or more to cut and resize; {calm_ms[-1]:.3f} at {CALM_FPS:.0f} frames/s; "
            f"{beside[-1].cpu_ms:.3f} beside the model at {beside[-1].fps:.0f} frames/s")  # fmt: skip
    return {
        "cpu_ms": round(statistics.median(busy_ms), 3),
        "cpu_ms_of_a_calm_device": round(statistics.median(calm_ms), 3),
        "of_it_resize_ms": round(statistics.median(resize_ms), 3),
        "beside_the_model_ms": round(statistics.median(spent.cpu_ms for spent in beside), 3),
        "beside_the_model_at_frames_per_s": round(statistics.median(spent.fps for spent in beside), 1),
    }


def prepare_ms(bundle: models.Bundle, pictures: list[Picture]) -> float:
    """CPU time to cut and resize one frame that was written just now."""
    worker = Worker(NoModel(bundle), bundle)
    spent_ns = 0
    for picture in 10 * pictures:
        frame = picture.copy()
        began_ns = time.thread_time_ns()
        worker._preparer.fill(frame)  # noqa: SLF001 - this alone is to be measured
        spent_ns += time.thread_time_ns() - began_ns
    return spent_ns / 1e6 / (10 * len(pictures))


# INT8, and scores.


def measure_int8(
    bundle: models.Bundle, pictures: list[Picture], workers: int, seconds: float, rounds: int, say: Say
) -> dict[str, Any] | None:
    """INT8's frames/s over FP32's, each by OpenVINO and in the same setup otherwise; None without INT8."""
    if "int8" not in bundle.manifest.models:
        return None
    setup = Setup("openvino", "cpu", "fp32")
    ratios, cpu_ratios = [], []
    with (
        models.Classifier.open(bundle, setup, workers, strict=True) as fp32,
        models.Classifier.open(bundle, replace(setup, precision="int8"), workers, strict=True) as int8,
    ):
        for n in range(rounds):
            slow = throughput(fp32, workers, pictures, seconds)
            quick = throughput(int8, workers, pictures, seconds)
            ratios.append(quick.fps / slow.fps)
            cpu_ratios.append(slow.cpu_ms / quick.cpu_ms)
            say(f"  round {n + 1}: INT8 {quick.fps:.1f} frames/s, FP32 {slow.fps:.1f}, ratio {ratios[-1]:.2f}; "
                f"of CPU {quick.cpu_ms:.2f} and {slow.cpu_ms:.2f} ms, ratio {cpu_ratios[-1]:.2f}")  # fmt: skip
    return {
        "ratio": round(statistics.median(ratios), 2),
        "ratios": [round(ratio, 2) for ratio in ratios],
        "by_cpu_time": round(statistics.median(cpu_ratios), 2),
    }


def measure_scores(bundle: models.Bundle, pictures: list[Picture]) -> float:
    """The largest difference of a score between the classifier on either runtime and the bare runtimes, FP32."""
    golden = [models.decode_picture(bundle.read(item.path)) for item in bundle.manifest.golden.inputs]
    worst = 0.0
    for runtime in bundle.manifest.limits.runtimes:
        with models.Classifier.open(bundle, Setup(runtime, "cpu", "fp32"), strict=True) as classifier:
            worker = classifier.worker()
            for picture in [*golden, *pictures]:
                ours = worker.scores(picture)
                worst = max(worst, *(float(np.abs(ours - bare).max()) for bare in bare_scores(bundle, picture)))
    return round(worst, 7)


def bare_scores(bundle: models.Bundle, picture: Picture) -> list[Any]:
    """The model's file run by each runtime that can, on what plain OpenCV and numpy make of a picture."""
    model, spec = read_model(bundle, "fp32"), bundle.manifest.input
    given = plain_input(picture, spec)
    graph = ov.Core().read_model(model.content, model.weights) if model.weights else ov.Core().read_model(model.content)
    compiled = ov.Core().compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    answers = [np.asarray(compiled(given)[0])]
    if model.weights is None:
        session = ort.InferenceSession(model.content, providers=["CPUExecutionProvider"])
        answers.append(np.asarray(session.run(None, {session.get_inputs()[0].name: given})[0]))
    return [probabilities(answer.reshape(-1), logits=bundle.manifest.output == "logits") for answer in answers]


def probabilities(scores: Any, *, logits: bool) -> Any:
    powers = np.exp(scores.astype(np.float64) - scores.max()) if logits else scores
    return powers / powers.sum() if logits else scores


def plain_input(picture: Picture, spec: Input) -> Any:
    """Cut the middle, resize, colour, mean, scale, layout, in the order of the text-book."""
    height, width = picture.shape[:2]
    if spec.fit == "crop":
        wide, high = min(width, height * spec.width // spec.height), min(height, width * spec.height // spec.width)
        left, top = (width - wide) // 2, (height - high) // 2
        picture = picture[top : top + high, left : left + wide]
    if max(picture.shape[0] / spec.height, picture.shape[1] / spec.width) > 6:
        raise SystemExit("give smaller pictures: above six source pixels a side ours averages, and bare would not")
    small = cv2.resize(picture, (spec.width, spec.height), interpolation=cv2.INTER_LINEAR)
    small = small if spec.colour == "bgr" else cv2.cvtColor(small, cv2.COLOR_BGR2RGB)
    if spec.dtype == "float32":
        small = ((small.astype(np.float64) - spec.mean) / spec.scale).astype(np.float32)
    return np.ascontiguousarray(small.transpose(2, 0, 1) if spec.layout == "nchw" else small)[None]
