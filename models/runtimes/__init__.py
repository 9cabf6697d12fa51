"""The port between the classifier and the libraries that run a model, and which library to take."""

import os
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol, cast

import numpy as np
import numpy.typing as npt

from models.bundle import RUNTIMES, Manifest
from models.errors import BundleError
from models.prepare import Input

Scores = npt.NDArray[np.float32]


class Request(Protocol):
    """One inference request with its own input; serves one thread."""

    buffer: npt.NDArray[np.uint8]
    """(height, width, 3) BGR: write the prepared picture here."""

    def run(self) -> Scores:
        """The model's output for what is in the buffer, (classes,); valid until the next run."""


class Engine(Protocol):
    """A loaded model; `outputs` is how many numbers it gives for one picture."""

    outputs: int

    def request(self) -> Request:
        """A new request of its own."""

    def close(self) -> None:
        """Let go of the model; requests must not run any more."""


@dataclass(frozen=True, slots=True)
class Model:
    """What an engine is opened with: the ONNX bytes, or the file where weights lie beside it."""

    content: bytes
    path: Path | None
    spec: Input

    @property
    def expected_shape(self) -> tuple[int, int, int]:
        """The model's input without the batch, in its own layout."""
        spec = self.spec
        return (spec.height, spec.width, 3) if spec.layout == "nhwc" else (3, spec.height, spec.width)


def choose(runtime: str, manifest: Manifest) -> str:
    """The runtime to use: the one asked for, or for auto the first that is installed and allowed.

    Raises BundleError bundle-runtime.
    """
    allowed = [name for name in RUNTIMES if name in manifest.limits.runtimes]
    if runtime == "auto":
        installed = [name for name in allowed if find_spec(name) is not None]
        if not installed:
            raise BundleError("bundle-runtime", f"none of {allowed} is installed", f"pip install {allowed[0]}")
        return installed[0]
    if runtime not in RUNTIMES:
        raise BundleError("bundle-runtime", f"{runtime!r} is no runtime", f"choose auto, {' or '.join(RUNTIMES)}")
    if runtime not in allowed:
        raise BundleError("bundle-runtime", f"this bundle was not made for {runtime}", f"choose auto or {allowed[0]}")
    if find_spec(runtime) is None:
        raise BundleError("bundle-runtime", f"{runtime} is not installed", f"pip install {runtime}")
    return runtime


def open_engine(runtime: str, model: Model, workers: int, cache_dir: Path | None) -> Engine:
    """Load `model` with `runtime` for `workers` threads. Raises BundleError model-load, bundle-input."""
    adapter = import_module(f"models.runtimes.{runtime}")
    return cast(Engine, adapter.open_engine(model, workers, cache_dir))


def cores() -> int:
    """Processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def shape_error(given: object, model: Model) -> BundleError:
    """The error for a model whose input is not what its bundle says."""
    return BundleError(
        "bundle-input",
        f"the model takes {given}, the bundle describes {model.spec.dtype} {model.expected_shape}",
        "correct the input description in bundle.json and pack it again",
    )
