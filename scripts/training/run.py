"""The whole of a training: data, teacher, loop, choices on val, export, measurement, bundle, report."""

import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from models import Bundle
from training import choosing, finishing, learn, start
from training.errors import TrainError
from training.learn import Learner, Plan
from training.material import Material, Progress, Request, gather
from training.teacher import Teachers

__all__ = ["Request", "train"]

SAVE_EVERY_S = 240.0


def train(request: Request, progress: Progress) -> Bundle:
    """Train, export, measure and write the bundle and the report. Raises TrainError, BundleError."""
    if request.threads:
        torch.set_num_threads(request.threads)
    learn.cv2.setNumThreads(1)  # the learning has the cores
    material = gather(request, progress)
    learner = _learner(request, material)
    _learn(request, learner, material)
    return finishing.finish(request, material, learner, progress)


# The loop


def _learner(request: Request, material: Material) -> Learner:
    plan = Plan(
        epochs=request.epochs,
        seconds=None if request.minutes is None else request.minutes * 60,
        size_px=request.size_px,
        rate=request.rate,
        seed=request.seed,
        bfloat16=_use_bfloat16(request.precision),
        device="cuda" if torch.cuda.is_available() else "cpu",
    )
    teachers = _teachers(request, material) if request.teachers else None
    if request.backbone is not None:
        return start.learner(material.lessons, plan, teachers, request.backbone)
    if request.starts:
        plan = replace(plan, sides=learn.ON_SIDES)
    learner = Learner(material.lessons, plan, teachers)
    if request.starts:
        left = learner.start_from(*request.starts)
        mean = " and ".join(str(path) for path in request.starts)
        print(f"starting from {mean}" + (f"; new: {', '.join(left)}" if left else ""), flush=True)
    return learner


def _teachers(request: Request, material: Material) -> Teachers:
    teachers = Teachers(request.teachers, material.lessons.classes)
    if len(request.teachers) > 1 and material.val:
        shown = choosing.whole(material.val, teachers.side_px)
        said = [np.concatenate(parts) for parts in zip(*(teachers.each(cut) for cut in shown), strict=True)]
        teachers.level([choosing.best_sharpness(scores.astype(np.float64), material.val_labels) for scores in said])
        weights = ", ".join(f"{weight:.2f}" for weight in teachers.weights)
        print(f"the teachers are made equally sure on val: their logits count {weights} times", flush=True)
    return teachers


def _learn(request: Request, learner: Learner, material: Material) -> None:
    request.work_dir.mkdir(parents=True, exist_ok=True)
    state = request.work_dir / "state.pt"
    if request.fresh:
        state.unlink(missing_ok=True)
    if state.exists():
        learner.load(state)
        print(f"going on after {learner.progress.step} steps of {state}", flush=True)
    lessons = material.lessons
    print(f"learning {len(lessons.photos)} photos and {len(lessons.scenes)} scenes", flush=True)
    saved_s = [time.monotonic()]
    stop = Stop()

    def after_epoch(learner: Learner) -> None:
        _note_val(learner, material)
        print(_line(learner.progress.history[-1]), flush=True)

    def after_step(learner: Learner) -> None:
        if stop.asked or time.monotonic() - saved_s[0] > SAVE_EVERY_S:
            learner.save(state)
            saved_s[0] = time.monotonic()
        if stop.asked:
            text = f"stopped after {learner.progress.step} steps, {learner.done:.0%} of the learning"
            raise TrainError("train-stopped", text, "give the same arguments again to go on from there")

    with stop:
        learner.run(after_epoch, after_step)
    learner.save(state)


class Stop:
    """Hears Ctrl-C and SIGTERM. The first asks to stop after the step, whose weights are then whole; the second is
    as if nobody listened."""

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self.asked = False
        self._before: list[Any] = []

    def __enter__(self) -> None:
        self._before = [signal.signal(number, self._hear) for number in self.SIGNALS]

    def __exit__(self, *_: object) -> None:
        while self._before:
            signal.signal(self.SIGNALS[len(self._before) - 1], self._before.pop())

    def _hear(self, _number: int, _frame: object) -> None:
        self.asked = True
        self.__exit__()


def _note_val(learner: Learner, material: Material) -> None:
    """Every few epochs, how the averaged network does on val so far."""
    figures = learner.progress.history[-1]
    if material.val and (round(figures["epoch"]) % 5 == 0 or learner.done >= 1):
        scores = choosing.logits(learner.kept, material.val, round(figures["side"]), learner.device)
        figures["val"] = float((scores.argmax(axis=1) == material.val_labels).mean())


def _line(figures: dict[str, float]) -> str:
    shown = {"share": "{:4.0%}", "epoch": "epoch {:.0f}", "side": "{:.0f} px", "val": "val {:.1%}"}
    parts = [form.format(figures[name]) for name, form in shown.items() if name in figures]
    return "  ".join([*parts, *(f"{name} {figures[name]:.3f}" for name in figures if name in learn.LOSSES)])


def _use_bfloat16(precision: str) -> bool:
    if precision != "auto":
        return precision == "bfloat16"
    if torch.cuda.is_available():
        return True
    cpuinfo = Path("/proc/cpuinfo")
    return cpuinfo.exists() and "avx512_bf16" in cpuinfo.read_text(encoding="utf-8")
