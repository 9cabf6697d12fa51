"""A model run by a runtime alone, without a line of ours but the resize: what a bundle's answers are held against."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from models.errors import BundleError
from models.inputs import Input
from models.prepare import Pixels, Preparer, arithmetic

Run = Callable[[npt.NDArray[np.generic]], npt.NDArray[np.generic]]


def outputs(runtime: str, path: Path, spec: Input, frames: Sequence[Pixels]) -> npt.NDArray[np.float32]:
    """What the runtime alone gives for `frames`, (frames, ...): nothing of ours but the resize and plain arithmetic."""
    buffer = np.zeros((spec.height, spec.width, 3), np.uint8)
    preparer = Preparer(spec, buffer)
    run = _onnxruntime(path) if runtime == "onnxruntime" else _openvino(path, spec)
    rows = []
    for frame in frames:
        preparer.fill(frame)
        try:
            rows.append(np.array(run(arithmetic(buffer, spec)), np.float32))
        except RuntimeError as broken:
            reason = str(broken).strip().splitlines()[-1][:300]
            hint = "give the --size it was trained for, and look at --layout"
            raise BundleError("import-shape", f"{runtime} cannot run the model at this size: {reason}", hint) from None
    return np.stack(rows)


def _onnxruntime(path: Path) -> Run:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def run(given: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
        try:
            return np.asarray(session.run(None, {name: given})[0])
        except Exception as broken:  # noqa: BLE001  # the library's errors have no public common base
            raise RuntimeError(str(broken)) from None

    return run


def _openvino(path: Path, spec: Input) -> Run:
    from models.runtimes.openvino import shared_core

    core = shared_core()
    graph = core.read_model(str(path))
    sides = (spec.height, spec.width, 3) if spec.layout == "nhwc" else (3, spec.height, spec.width)
    try:
        graph.reshape([1, *sides])
        compiled = core.compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    except RuntimeError as broken:
        text = str(broken)

        def refuse(_: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
            raise RuntimeError(text)

        return refuse
    return lambda given: np.array(compiled(given)[0])
