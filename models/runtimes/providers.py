"""ONNX Runtime's execution providers: which are tried for a device, and which of them did the work. Pure.

It takes another provider without a word when the one asked for cannot be had, so what it says afterwards is compared.
The names and options are those of https://onnxruntime.ai/docs/execution-providers/.
"""

from collections.abc import Collection, Mapping
from typing import Final

from models.setup import Device

CPU: Final = "CPUExecutionProvider"
TENSORRT: Final = "TensorrtExecutionProvider"

Options = dict[str, str]
Provider = tuple[str, Options]

GPU: Final[tuple[Provider, ...]] = (
    (TENSORRT, {}),
    ("CUDAExecutionProvider", {}),
    ("MIGraphXExecutionProvider", {}),
    ("ROCMExecutionProvider", {}),
    ("OpenVINOExecutionProvider", {"device_type": "GPU"}),
    ("DmlExecutionProvider", {}),
    ("CoreMLExecutionProvider", {"MLComputeUnits": "CPUAndGPU"}),
    ("WebGpuExecutionProvider", {}),
)
NPU: Final[tuple[Provider, ...]] = (
    ("QNNExecutionProvider", {"backend_type": "htp"}),
    ("OpenVINOExecutionProvider", {"device_type": "NPU"}),
    ("VitisAIExecutionProvider", {}),
    ("CoreMLExecutionProvider", {"MLComputeUnits": "CPUAndNeuralEngine"}),
    ("NnapiExecutionProvider", {}),
    ("RknpuExecutionProvider", {}),
    ("VSINPUExecutionProvider", {}),
    ("CANNExecutionProvider", {}),
)
OTHER_CPU: Final[tuple[Provider, ...]] = (("ACLExecutionProvider", {}), ("XnnpackExecutionProvider", {}))
"""Other ways of using the CPU, for `any` alone: the plain one is as good on most, and the same everywhere."""

_BY_KIND: Final = {"gpu": GPU, "npu": NPU, "cpu": OTHER_CPU}


def wanted(device: str, available: Collection[str], fit: Collection[str], cache: str = "") -> list[Provider]:
    """What to try, best first, of what the installed build has; empty when it has nothing for this device.

    `fit` are the kinds of device that the bundle was made for, which bound `any`. TensorRT compiles for minutes, so it
    is taken only where the result can be kept in the folder `cache`.
    """
    if device == "cpu":
        return [(CPU, {})]
    kinds = [kind for kind in _BY_KIND if kind in fit] if device == "any" else [device]
    found = [provider for kind in kinds for provider in _BY_KIND[kind] if provider[0] in available]
    kept = {"trt_engine_cache_enable": "1", "trt_engine_cache_path": cache}
    known = [(name, kept if name == TENSORRT else options) for name, options in found if name != TENSORRT or cache]
    return [*known, (CPU, {})] if device == "any" else known


def kind_of(provider: Provider) -> Device:
    """The kind of device that a provider stands for."""
    name, options = provider
    if provider in GPU or name == TENSORRT:
        return "gpu"
    return "npu" if (name, options) in NPU else "cpu"


def shares(steps: Mapping[str, int]) -> tuple[int, int]:
    """How many of a model's steps the CPU does, and how many there are, from the steps of each provider."""
    return steps.get(CPU, 0), sum(steps.values())


def short(provider: Provider) -> str:
    """Its name as people know it: CUDA, OpenVINO GPU."""
    name, options = provider
    return " ".join([name.removesuffix("ExecutionProvider"), *(v for k, v in options.items() if k == "device_type")])
