"""Models run by ONNX Runtime: everywhere, and the second opinion that keeps the first one honest."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime as ort

from models.errors import BundleError
from models.prepare import Input, arithmetic
from models.runtimes import (
    EngineFault,
    Model,
    Scores,
    cores,
    device_error,
    does_no_arithmetic,
    shape_error,
    streams_for,
)
from models.setup import Note, Preprocess, Setup

_KINDS = {"uint8": "tensor(uint8)", "float32": "tensor(float)"}


class OnnxRuntimeRequest:
    """A view on the shared session with a buffer of its own; sessions may be run from several threads."""

    def __init__(self, session: ort.InferenceSession, spec: Input) -> None:
        self.buffer = np.zeros((spec.height, spec.width, 3), np.uint8)
        self._session = session
        self._spec = spec
        self._entry = session.get_inputs()[0].name
        self._given = self.buffer[None] if does_no_arithmetic(spec) else None

    def run(self) -> Scores:
        """See Request."""
        given = arithmetic(self.buffer, self._spec) if self._given is None else self._given
        try:
            return np.asarray(self._session.run(None, {self._entry: given})[0], np.float32).reshape(-1)
        except Exception as broken:  # noqa: BLE001  # the library's errors have no public common base
            raise EngineFault(_reason(broken)) from None


class OnnxRuntimeEngine:
    """A loaded session."""

    notes: tuple[Note, ...] = ()

    def __init__(self, session: ort.InferenceSession, spec: Input, outputs: int, setup: Setup) -> None:
        self._session: ort.InferenceSession | None = session
        self._spec = spec
        self.outputs = outputs
        self.setup = setup

    def request(self) -> OnnxRuntimeRequest:
        """See Engine."""
        if self._session is None:
            raise RuntimeError("the classifier is closed")
        return OnnxRuntimeRequest(self._session, self._spec)

    def close(self) -> None:
        """See Engine."""
        self._session = None


def open_engine(setup: Setup, model: Model, workers: int, cache_dir: Path | None) -> OnnxRuntimeEngine:  # noqa: ARG001
    """Load for `workers` threads. There is nothing worth keeping in `cache_dir`: loading takes milliseconds."""
    if setup.device not in ("cpu", "any"):
        raise device_error(setup.device, "the ONNX Runtime that is installed cannot use one")
    streams = streams_for(setup, workers)
    options = ort.SessionOptions()
    options.intra_op_num_threads = max(1, cores() // streams)
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # what goes wrong is raised; its own log lines would only repeat it
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        session = ort.InferenceSession(
            str(model.path) if model.path else model.content, options, providers=["CPUExecutionProvider"]
        )
        outputs = _check_and_count(session, model)
    except BundleError:
        raise
    except Exception as broken:  # noqa: BLE001  # the library's errors have no public common base
        raise BundleError(
            "model-load", f"ONNX Runtime cannot load the model: {_reason(broken)}", "check the model file"
        ) from None
    place: Preprocess = "graph" if does_no_arithmetic(model.spec) else "host"
    done = replace(setup, device="cpu", streams=streams, preprocess=place)
    return OnnxRuntimeEngine(session, model.spec, outputs, done)


def _reason(broken: Exception) -> str:
    return (str(broken).strip().splitlines() or [type(broken).__name__])[0][:300]


def _check_and_count(session: ort.InferenceSession, model: Model) -> int:
    """How many numbers the model gives, found by running it once, after a look at its input."""
    entries = session.get_inputs()
    if len(entries) != 1 or len(session.get_outputs()) != 1:
        raise shape_error(f"{len(entries)} inputs and gives {len(session.get_outputs())} outputs", model)
    given = entries[0]
    shape = [side if isinstance(side, int) else None for side in given.shape]
    wanted = [1, *model.expected_shape]
    fits = len(shape) == len(wanted) and all(a in (None, b) for a, b in zip(shape, wanted, strict=True))
    if given.type != _KINDS[model.spec.dtype] or not fits:
        raise shape_error(f"{given.type} {given.shape}", model)
    answer = session.run(None, {given.name: np.zeros(wanted, np.dtype(model.spec.dtype))})[0]
    return int(np.asarray(answer).size)
