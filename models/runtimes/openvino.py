"""Models run by OpenVINO: arithmetic and layout in the compiled graph, one stream per core, FP32."""

from functools import cache
from pathlib import Path

import numpy as np
import openvino as ov
from openvino.preprocess import ColorFormat, PrePostProcessor

from models.errors import BundleError
from models.prepare import Input
from models.runtimes import Model, Scores, cores, shape_error


class OpenVinoRequest:
    """An inference request whose input tensor is our buffer: what is written there is what is run."""

    def __init__(self, compiled: ov.CompiledModel, spec: Input) -> None:
        self.buffer = np.zeros((spec.height, spec.width, 3), np.uint8)
        self._request = compiled.create_infer_request()
        self._request.set_input_tensor(ov.Tensor(self.buffer[None], shared_memory=True))
        self._output = self._request.get_output_tensor()

    def run(self) -> Scores:
        """See Request. The GIL is free while the model runs."""
        self._request.start_async()
        self._request.wait()
        return np.asarray(self._output.data, np.float32).reshape(-1)


class OpenVinoEngine:
    """A compiled model."""

    def __init__(self, compiled: ov.CompiledModel, spec: Input) -> None:
        self._compiled: ov.CompiledModel | None = compiled
        self._spec = spec
        self.outputs = int(np.prod([int(side) for side in compiled.output(0).shape]))

    def request(self) -> OpenVinoRequest:
        """See Engine."""
        if self._compiled is None:
            raise RuntimeError("the classifier is closed")
        return OpenVinoRequest(self._compiled, self._spec)

    def close(self) -> None:
        """See Engine."""
        self._compiled = None


def open_engine(model: Model, workers: int, cache_dir: Path | None) -> OpenVinoEngine:
    """Compile for `workers` threads; with `cache_dir` the next start skips the compilation."""
    core = _core()
    try:
        graph = core.read_model(str(model.path)) if model.path else core.read_model(model.content)
        _check_input(graph, model)
        graph = _with_arithmetic(graph, model.spec)
        compiled = core.compile_model(graph, "CPU", _settings(workers, cache_dir))
    except RuntimeError as broken:
        reason = str(broken).strip().splitlines()[-1][:300]
        raise BundleError("model-load", f"OpenVINO cannot load the model: {reason}", "check the model file") from None
    return OpenVinoEngine(compiled, model.spec)


@cache
def _core() -> ov.Core:
    """One for the life of the process.

    OpenVINO's CPU plugin gives the thread that loads it an alternate stack for signals, and takes that memory away with
    the last core and model, from whichever thread lets go of them. Were that another thread, the next signal would find
    no stack, and the kernel would end the process (SIGSEGV at a SIGTERM; seen with OpenVINO 2026).
    """
    return ov.Core()


def _settings(workers: int, cache_dir: Path | None) -> dict[str, object]:
    """One camera wants the shortest delay, several the most frames; FP32 because bf16 moves scores by 0.01."""
    settings: dict[str, object] = {
        "PERFORMANCE_HINT": "LATENCY" if workers == 1 else "THROUGHPUT",
        # More workers than cores keep every stream fed while others prepare and record; more streams would only share.
        "NUM_STREAMS": min(workers, cores()),
        "INFERENCE_NUM_THREADS": cores(),
        "INFERENCE_PRECISION_HINT": "f32",
        "ENABLE_CPU_PINNING": False,  # decoders and the store share these cores; a pinned thread waits for them
    }
    if cache_dir is not None:
        cache_dir.mkdir(parents=True, exist_ok=True)
        settings["CACHE_DIR"] = str(cache_dir)
    return settings


def _check_input(graph: ov.Model, model: Model) -> None:
    if len(graph.inputs) != 1 or len(graph.outputs) != 1:
        raise shape_error(f"{len(graph.inputs)} inputs and gives {len(graph.outputs)} outputs", model)
    given = graph.input(0)
    kinds = {"uint8": ov.Type.u8, "float32": ov.Type.f32}
    wanted = ov.PartialShape([1, *model.expected_shape])
    if given.element_type != kinds[model.spec.dtype] or not given.partial_shape.compatible(wanted):
        raise shape_error(f"{given.element_type.get_type_name()} {given.partial_shape}", model)
    graph.reshape(wanted)


def _with_arithmetic(graph: ov.Model, spec: Input) -> ov.Model:
    """The graph that takes BGR bytes (1, height, width, 3) whatever the model itself takes."""
    if spec.dtype == "uint8" and spec.layout == "nhwc" and spec.colour == "bgr":
        return graph
    change = PrePostProcessor(graph)
    entry = change.input()
    entry.tensor().set_element_type(ov.Type.u8).set_layout(ov.Layout("NHWC")).set_color_format(ColorFormat.BGR)
    entry.model().set_layout(ov.Layout(spec.layout.upper()))
    if spec.dtype == "float32":
        entry.preprocess().convert_element_type(ov.Type.f32)
    if spec.colour == "rgb":
        entry.preprocess().convert_color(ColorFormat.RGB)
    if spec.dtype == "float32":
        entry.preprocess().mean(list(spec.mean)).scale(list(spec.scale))
    return change.build()
