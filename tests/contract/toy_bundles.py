"""Small bundles for tests: models of a few numbers whose answers can be worked out by hand."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from models import Bundle, Manifest, pack
from models.bundle import Golden, Limits, Provenance
from models.prepare import Input

LABELS = ("blueish", "greenish", "reddish")
SIDE_PX = 16


@dataclass(frozen=True, slots=True)
class Toy:
    """What a toy model is like: it answers with the means of its three channels, times `gain`."""

    dtype: str = "uint8"
    layout: str = "nhwc"
    softmax: bool = True
    gain: float = 0.05
    outputs: int = 3
    outside: str | None = None
    shape: str = "row"
    """How it gives its answer: as a row (1, n), a map (1, n, 1, 1) or a vector (n)."""
    int8: bool = False
    """Whether its weights and means are bytes, as quantisation leaves them; whole means are kept as they are."""
    brittle: bool = False
    """Whether ONNX Runtime fails in it, while OpenVINO goes on, for pictures with more than 200 of blue."""
    strange: bool = False
    """Whether it has an operator that OpenVINO does not know."""


GIVEN: dict[str, Callable[[int], list[int]]] = {
    "row": lambda n: [1, n],
    "map": lambda n: [1, n, 1, 1],
    "vector": lambda n: [n],
}


def model(toy: Toy) -> bytes:
    """The toy as ONNX bytes."""
    planes = toy.layout == "nchw"
    shape = ["N", 3, SIDE_PX, SIDE_PX] if planes else ["N", SIDE_PX, SIDE_PX, 3]
    kind = TensorProto.FLOAT if toy.dtype == "float32" else TensorProto.UINT8
    weights = numpy_helper.from_array(np.eye(3, toy.outputs, dtype=np.float32) * np.float32(toy.gain), "weights")
    if toy.outside is not None:
        weights.ClearField("raw_data")
        weights.data_location = TensorProto.EXTERNAL
        weights.external_data.add(key="location", value=toy.outside)
    axes = [2, 3] if planes else [1, 2]
    nodes = [
        helper.make_node("Cast", ["picture"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["floats"], ["means"], axes=axes, keepdims=0),
    ]
    constants = [weights, numpy_helper.from_array(np.array(GIVEN[toy.shape](toy.outputs), np.int64), "given")]
    means, factors = "means", "weights"
    if toy.int8:
        means, factors = "round_means", "round_weights"
        _quantise(nodes, constants, toy)
    if toy.brittle:
        means = _brittle(nodes, constants, means)
    if toy.strange:
        nodes.append(helper.make_node("CDist", [means, means], ["none"], domain="com.microsoft", metric="euclidean"))
        nodes.append(helper.make_node("Add", [means, "none"], ["strange_means"]))
        means = "strange_means"
    nodes += [
        helper.make_node("MatMul", [means, factors], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["scores"], axis=1)
        if toy.softmax
        else helper.make_node("Identity", ["logits"], ["scores"]),
        helper.make_node("Reshape", ["scores", "given"], ["answer"]),
    ]
    graph = helper.make_graph(
        nodes,
        "toy",
        [helper.make_tensor_value_info("picture", kind, shape)],
        [helper.make_tensor_value_info("answer", TensorProto.FLOAT, GIVEN[toy.shape](toy.outputs))],
        constants,
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    whole: onnx.ModelProto = helper.make_model(graph, opset_imports=opsets)
    whole.ir_version = 9
    return whole.SerializeToString()


def _quantise(nodes: list[onnx.NodeProto], constants: list[onnx.TensorProto], toy: Toy) -> None:
    """Means as whole bytes and weights of one step, between the nodes that quantisation writes."""
    constants += [
        numpy_helper.from_array(np.eye(3, toy.outputs, dtype=np.int8), "byte_weights"),
        numpy_helper.from_array(np.float32(toy.gain), "weight_step"),
        numpy_helper.from_array(np.float32(1), "mean_step"),
        numpy_helper.from_array(np.int8(0), "no_offset"),
        numpy_helper.from_array(np.uint8(0), "no_offset_u8"),
    ]
    nodes += [
        helper.make_node("QuantizeLinear", ["means", "mean_step", "no_offset_u8"], ["byte_means"]),
        helper.make_node("DequantizeLinear", ["byte_means", "mean_step", "no_offset_u8"], ["round_means"]),
        helper.make_node("DequantizeLinear", ["byte_weights", "weight_step", "no_offset"], ["round_weights"]),
    ]


def _brittle(nodes: list[onnx.NodeProto], constants: list[onnx.TensorProto], means: str) -> str:
    """Look up a row of a table of one row, and a row that is not there when there is much blue."""
    constants += [
        numpy_helper.from_array(np.zeros((1, 3), np.float32), "table"),
        numpy_helper.from_array(np.array([0], np.int64), "first"),
        numpy_helper.from_array(np.float32(200), "much"),
    ]
    nodes += [
        helper.make_node("Gather", [means, "first"], ["blue"], axis=1),
        helper.make_node("Greater", ["blue", "much"], ["is_much"]),
        helper.make_node("Cast", ["is_much"], ["row"], to=TensorProto.INT64),
        helper.make_node("Gather", ["table", "row"], ["found"], axis=0),
        helper.make_node("ReduceMax", ["found"], ["nothing"], axes=[0], keepdims=0),
        helper.make_node("Add", [means, "nothing"], ["brittle_means"]),
    ]
    return "brittle_means"


def manifest(folder: Path, files: dict[str, str], **changes: object) -> Manifest:
    """A manifest for the files (path -> role) of `folder`; `changes` replace its fields."""
    fields: dict[str, object] = {
        "name": "toy",
        "version": "1",
        "release": 1,
        "minimum_agent": "0.1.0",
        "limits": Limits(runtimes=("openvino", "onnxruntime")),
        "input": Input(width=SIDE_PX, height=SIDE_PX),
        "labels": LABELS,
        "threshold": 0.5,
        "files": tuple(pack.describe(folder, path, role) for path, role in files.items()),
        "golden": Golden(),
        "provenance": Provenance(data_set="none", licence="none", method="by hand", created="2026-01-01"),
    }
    return Manifest(**(fields | changes))


def bundle(folder: Path, toy: Toy = Toy(), **changes: object) -> Bundle:
    """Write the toy's bundle into `folder` and load it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx").write_bytes(model(toy))
    return pack.write(folder, manifest(folder, {"model.onnx": "model"}, **changes))


def plain(blue: int, green: int, red: int, width: int = 64, height: int = 48) -> np.ndarray:
    """A picture of one colour."""
    return np.full((height, width, 3), (blue, green, red), np.uint8)


def softmax(values: np.ndarray) -> np.ndarray:
    """Probabilities, in double precision."""
    powers = np.exp(values - values.max())
    return powers / powers.sum()


def sha256(content: bytes) -> str:
    """Hex digest."""
    return hashlib.sha256(content).hexdigest()
