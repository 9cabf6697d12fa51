"""Models run by ONNX Runtime: everywhere, and the second opinion that keeps the first one honest."""

from pathlib import Path

import numpy as np
import onnxruntime as ort

from models.errors import BundleError
from models.prepare import Input, arithmetic
from models.runtimes import Model, Scores, cores, shape_error

_KINDS = {"uint8": "tensor(uint8)", "float32": "tensor(float)"}


class OnnxRuntimeRequest:
    """A view on the shared session with a buffer of its own; sessions may be run from several threads."""

    def __init__(self, session: ort.InferenceSession, spec: Input) -> None:
        self.buffer = np.zeros((spec.height, spec.width, 3), np.uint8)
        self._session = session
        self._spec = spec
        self._entry = session.get_inputs()[0].name
        as_it_is = spec.dtype == "uint8" and spec.layout == "nhwc" and spec.colour == "bgr"
        self._given = self.buffer[None] if as_it_is else None

    def run(self) -> Scores:
        """See Request."""
        given = arithmetic(self.buffer, self._spec) if self._given is None else self._given
        return np.asarray(self._session.run(None, {self._entry: given})[0], np.float32).reshape(-1)


class OnnxRuntimeEngine:
    """A loaded session."""

    def __init__(self, session: ort.InferenceSession, spec: Input, outputs: int) -> None:
        self._session: ort.InferenceSession | None = session
        self._spec = spec
        self.outputs = outputs

    def request(self) -> OnnxRuntimeRequest:
        """See Engine."""
        if self._session is None:
            raise RuntimeError("the classifier is closed")
        return OnnxRuntimeRequest(self._session, self._spec)

    def close(self) -> None:
        """See Engine."""
        self._session = None


def open_engine(model: Model, workers: int, cache_dir: Path | None) -> OnnxRuntimeEngine:  # noqa: ARG001
    """Load for `workers` threads. There is nothing worth keeping in `cache_dir`: loading takes milliseconds."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = max(1, cores() // workers)
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
        reason = str(broken).strip().splitlines()[0][:300]
        raise BundleError(
            "model-load", f"ONNX Runtime cannot load the model: {reason}", "check the model file"
        ) from None
    return OnnxRuntimeEngine(session, model.spec, outputs)


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
