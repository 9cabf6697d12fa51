"""The port between the classifier and the libraries that run a model."""

import os
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol, cast

import numpy as np
import numpy.typing as npt

from models.bundle import Manifest
from models.choosing import plan
from models.errors import BundleError
from models.prepare import Input
from models.setup import Note, Runtime, Setup

Scores = npt.NDArray[np.float32]


class EngineFault(Exception):
    """The runtime failed while it ran a model that it had loaded: an accelerator went away, memory ran out."""


class Request(Protocol):
    """One inference request with its own input; serves one thread."""

    buffer: npt.NDArray[np.uint8]
    """(height, width, 3) BGR: write the prepared picture here."""

    def run(self) -> Scores:
        """The model's output for what is in the buffer, (classes,); valid until the next run. Raises EngineFault."""


class Engine(Protocol):
    """A loaded model; `outputs` is how many numbers it gives for one picture."""

    outputs: int
    setup: Setup
    """What it really does, nothing left open."""
    notes: tuple[Note, ...]
    """Where that is not what was asked for."""

    def request(self) -> Request:
        """A new request of its own."""

    def close(self) -> None:
        """Let go of the model; requests must not run any more."""


@dataclass(frozen=True, slots=True)
class Model:
    """What an engine is opened with: the bytes of its file and of its weights, or the file where others lie beside it.

    `devices` are the kinds of accelerator that the bundle was made for.
    """

    content: bytes
    path: Path | None
    spec: Input
    weights: bytes | None = None
    devices: tuple[str, ...] = ("cpu",)

    @property
    def expected_shape(self) -> tuple[int, int, int]:
        """The model's input without the batch, in its own layout."""
        spec = self.spec
        return (spec.height, spec.width, 3) if spec.layout == "nhwc" else (3, spec.height, spec.width)


def installed(runtime: str) -> bool:
    """Whether this Python has that runtime."""
    return find_spec(runtime) is not None


def choose(runtime: str, manifest: Manifest) -> str:
    """The runtime that a bundle is opened with when this one is asked for. Raises BundleError bundle-runtime."""
    asked = Setup(runtime=cast(Runtime, runtime)).checked()
    return plan(asked, manifest, installed).tries[0].runtime


def open_engine(setup: Setup, model: Model, workers: int, cache_dir: Path | None) -> Engine:
    """Load `model` as `setup` says, for `workers` threads.

    Raises BundleError: model-load, bundle-input, model-device when the accelerator is not there or cannot run it.
    """
    try:
        adapter = import_module(f"models.runtimes.{setup.runtime}")
    except (ImportError, OSError) as broken:  # a wheel for another system, a library that it needs
        text = f"{setup.runtime} is installed, but cannot be loaded: {broken}"
        raise BundleError("model-load", text, f"pip install --force-reinstall {setup.runtime}") from None
    return cast(Engine, adapter.open_engine(setup, model, workers, cache_dir))


def cores() -> int:
    """Processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def streams_for(setup: Setup, workers: int) -> int:
    """How many pictures are computed at once: as configured, else one per worker.

    More workers than cores keep every stream fed while others prepare and record; more streams would only share.
    """
    return setup.streams or min(workers, cores())


def does_no_arithmetic(spec: Input) -> bool:
    """Whether the model takes the prepared bytes as they are."""
    return spec.dtype == "uint8" and spec.layout == "nhwc" and spec.colour == "bgr"


def shape_error(given: object, model: Model) -> BundleError:
    """The error for a model whose input is not what its bundle says."""
    return BundleError(
        "bundle-input",
        f"the model takes {given}, the bundle describes {model.spec.dtype} {model.expected_shape}",
        "correct the input description in bundle.json and pack it again",
    )


def device_error(why: str) -> BundleError:
    """The error for an accelerator that is not there or does not take the model."""
    return BundleError("model-device", why, "see docs/hardware.md, or set [model] device to cpu")
