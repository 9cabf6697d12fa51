"""Models run by OpenVINO: arithmetic and layout in the compiled graph where that is wanted, one stream per core."""

import os
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Final, cast

import numpy as np
import openvino as ov
from openvino import opset13 as ops
from openvino.preprocess import PrePostProcessor

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
from models.setup import Device, Note, Preprocess, Setup

FP32: Final = {"INFERENCE_PRECISION_HINT": "f32"}
"""Otherwise processors that have bf16 or f16 take it, and scores move by 0.01. An NPU knows no f32."""
MOST_COMPILED: Final = 12
"""Compiled models that are kept."""


class OpenVinoRequest:
    """An inference request whose input tensor is our buffer: what is written there is what is run.

    With preprocessing on the host the tensor holds what the model itself takes, worked out from the buffer.
    """

    def __init__(self, compiled: ov.CompiledModel, spec: Input, setup: Setup) -> None:
        self.buffer = np.zeros((spec.height, spec.width, 3), np.uint8)
        self._spec = spec
        self._given = self.buffer[None] if setup.preprocess == "graph" else arithmetic(self.buffer, spec)
        self._on_host = setup.preprocess == "host"
        self._request = compiled.create_infer_request()
        self._request.set_input_tensor(ov.Tensor(self._given, shared_memory=True))
        self._output = self._request.get_output_tensor()

    def run(self) -> Scores:
        """See Request. The GIL is free while the model runs."""
        if self._on_host:
            np.copyto(self._given, arithmetic(self.buffer, self._spec))
        try:
            self._request.start_async()
            self._request.wait()
        except RuntimeError as broken:
            raise EngineFault(_reason(broken)) from None
        return np.asarray(self._output.data, np.float32).reshape(-1)


class OpenVinoEngine:
    """A compiled model."""

    notes: tuple[Note, ...] = ()

    def __init__(self, compiled: ov.CompiledModel, spec: Input, setup: Setup) -> None:
        self._compiled: ov.CompiledModel | None = compiled
        self._spec = spec
        self.setup = setup
        self.outputs = int(np.prod([int(side) for side in compiled.output(0).shape]))

    def request(self) -> OpenVinoRequest:
        """See Engine."""
        if self._compiled is None:
            raise RuntimeError("the classifier is closed")
        return OpenVinoRequest(self._compiled, self._spec, self.setup)

    def close(self) -> None:
        """See Engine."""
        self._compiled = None


def open_engine(setup: Setup, model: Model, workers: int, cache_dir: Path | None) -> OpenVinoEngine:
    """Compile for `workers` threads; with `cache_dir` the next start skips the compilation."""
    core = shared_core()
    name = _device(setup, model, core.available_devices)
    place: Preprocess = "graph" if does_no_arithmetic(model.spec) or setup.preprocess != "host" else "host"
    try:
        graph = _read(core, model)
        _check_input(graph, model)
        if place == "graph":
            graph = _with_arithmetic(graph, model.spec)
    except RuntimeError as broken:
        raise _not_loaded(broken) from None
    compiled = _compile(core, graph, name, _settings(setup, name, workers, cache_dir))
    used = replace(setup, device=_kind_used(compiled), streams=streams_for(setup, workers), preprocess=place)
    return OpenVinoEngine(compiled, model.spec, used)


def _compile(core: ov.Core, graph: ov.Model, name: str, settings: dict[str, object]) -> ov.CompiledModel:
    try:
        return core.compile_model(graph, name, settings)
    except RuntimeError as broken:
        if name == "CPU":
            raise _not_loaded(broken) from None
        raise device_error(f"OpenVINO's {name} does not take the model: {_reason(broken)}") from None


def _device(setup: Setup, model: Model, there: Sequence[str]) -> str:
    """OpenVINO's name of the device asked for. Raises BundleError model-device.

    Any is its AUTO among the accelerators that the bundle was made for, and the CPU where there is none: what AUTO does
    on the CPU meanwhile, or after a failure, it tells nobody.
    """
    kinds = {name.split(".")[0].lower() for name in there}
    if setup.device == "any":
        fit = [name for name in there if name.split(".")[0].lower() in set(model.devices) - {"cpu"}]
        return f"AUTO:{','.join(fit)}" if fit else "CPU"
    if setup.device not in kinds:
        raise device_error(f"OpenVINO finds no {setup.device.upper()} here, only {', '.join(sorted(there))}")
    return setup.device.upper()


def _kind_used(compiled: ov.CompiledModel) -> Device:
    """On what it runs, from the compiled model itself: for AUTO nothing else can tell."""
    names = compiled.get_property("EXECUTION_DEVICES")
    first = names[0] if isinstance(names, list) else str(names)
    return cast(Device, first.strip("()").split(".")[0].lower())


def _read(core: ov.Core, model: Model) -> ov.Model:
    if model.weights is not None:
        return core.read_model(model.content, model.weights)
    return core.read_model(str(model.path)) if model.path else core.read_model(model.content)


def _reason(broken: Exception) -> str:
    return (str(broken).strip().splitlines() or [type(broken).__name__])[-1][:300]


def _not_loaded(broken: Exception) -> BundleError:
    return BundleError("model-load", f"OpenVINO cannot load the model: {_reason(broken)}", "check the model file")


@cache
def shared_core() -> ov.Core:
    """One for the life of the process.

    OpenVINO's CPU plugin gives the thread that loads it an alternate stack for signals, and takes that memory away with
    the last core and model, from whichever thread lets go of them. Were that another thread, the next signal would find
    no stack, and the kernel would end the process (SIGSEGV at a SIGTERM; seen with OpenVINO 2026).
    """
    return ov.Core()


def _settings(setup: Setup, name: str, workers: int, cache_dir: Path | None) -> dict[str, object]:
    """One camera wants the shortest delay, several the most frames."""
    settings: dict[str, object] = {"PERFORMANCE_HINT": "LATENCY" if workers == 1 else "THROUGHPUT"}
    if name == "CPU":
        settings |= {
            **FP32,
            "NUM_STREAMS": streams_for(setup, workers),
            "INFERENCE_NUM_THREADS": cores(),
            "ENABLE_CPU_PINNING": False,  # decoders and the store share these cores; a pinned thread waits for them
        }
    elif name.startswith("AUTO"):
        settings |= {"ENABLE_STARTUP_FALLBACK": False, "ENABLE_RUNTIME_FALLBACK": False}
        settings |= {"DEVICE_PROPERTIES": {kind: FP32 for kind in name[5:].split(",") if not kind.startswith("NPU")}}
    else:
        settings |= {"NUM_STREAMS": setup.streams} if setup.streams else {"PERFORMANCE_HINT_NUM_REQUESTS": workers}
        settings |= FP32 if name == "GPU" else {}
    if cache_dir is not None and _made(cache_dir):
        settings["CACHE_DIR"] = str(cache_dir)
    return settings


def _made(cache_dir: Path) -> bool:
    """Whether there is a folder for compiled models; where there can be none, each start compiles.

    Only the newest few are kept: each model, setup and version of OpenVINO leaves one of its own.
    """
    try:
        cache_dir.mkdir(parents=True, exist_ok=True)
        kept = sorted(cache_dir.glob("*.blob"), key=lambda blob: blob.stat().st_mtime_ns, reverse=True)
        for old in kept[MOST_COMPILED:]:
            old.unlink(missing_ok=True)
    except OSError:
        return False
    return os.access(cache_dir, os.W_OK)


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
    entry.tensor().set_element_type(ov.Type.u8).set_layout(ov.Layout("NHWC"))
    entry.model().set_layout(ov.Layout(spec.layout.upper()))
    if spec.dtype == "float32":
        entry.preprocess().convert_element_type(ov.Type.f32).mean(list(spec.mean)).scale(list(spec.scale))
    graph = change.build()
    return with_colours_turned(graph) if spec.colour == "rgb" else graph


def with_colours_turned(graph: ov.Model) -> ov.Model:
    """`graph`, whose only input is (N, height, width, 3), with that input's channels taken in the reverse order.

    OpenVINO's own `convert_color` puts this into the weights of the first convolution, which saves nothing that can be
    measured, and takes a Gather of the model's own for a part of it: ConvNeXt and Swin, as torch's newer
    exporter writes them, then give wrong answers without a word (seen with OpenVINO 2026.4).
    """
    entry = graph.get_parameters()[0]
    readers = entry.output(0).get_target_inputs()
    turned = ops.gather(entry, ops.constant(np.array([2, 1, 0])), ops.constant(np.int64(3)))
    for reader in readers:
        reader.replace_source_output(turned.output(0))
    graph.validate_nodes_and_infer_types()
    return graph
