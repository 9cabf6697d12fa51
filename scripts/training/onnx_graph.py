"""Somebody's classifier as an ONNX graph: looked at, cut before its last matrix product, and put together again.

Between the two, `training.onnx_net` computes with it. The trained weights go back into the same nodes, so that what is
exported is the graph that was given, with another head.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto, helper, numpy_helper

from models import BundleError, onnx_file, quantise
from training.errors import TrainError

KEPT_APART: Final = ("ConvBNFusion", "ConvMulFusion", "ConvAddFusion", "MatMulBNFusion")
"""Simplifications of ONNX Runtime that would fold normalisations into weights: they are trained as what they are."""

OPSET: Final = 17
IR_VERSION: Final = 9
PRODUCTS: Final = ("Gemm", "MatMul", "Conv")
AFTER: Final = ("Identity", "Softmax", "LogSoftmax", "Sigmoid", "Flatten", "Reshape", "Squeeze", "Unsqueeze", "Cast",
                "Add", "Mul", "Div", "Dropout", "Transpose")  # fmt: skip
"""What may stand between the last product of a classifier and its answer."""

POOLS: Final = ("GlobalAveragePool", "ReduceMean", "GlobalMaxPool")

Constants = dict[str, npt.NDArray[np.generic]]


@dataclass(frozen=True, slots=True)
class Entry:
    """What the graph takes: its name, the side in pixels (None: any), the order of the axes, bytes or floats."""

    name: str
    side_px: int | None
    layout: str
    bytes: bool


@dataclass(frozen=True, slots=True)
class Body:
    """A graph up to the vector (N, F) or the maps (N, F, h, w) from which its answer was made."""

    model: onnx.ModelProto
    entry: Entry
    leaves: str

    @property
    def constants(self) -> Constants:
        """The values of its weights and other constants by name."""
        return {item.name: numpy_helper.to_array(item) for item in self.model.graph.initializer}


@dataclass(frozen=True, slots=True)
class Looks:
    """What a network gets from a pixel: (value - mean) / scale, for values of 0 to 255 in the order of `colour`."""

    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    scale: tuple[float, float, float] = (1.0, 1.0, 1.0)
    colour: str = "rgb"


@dataclass(frozen=True, slots=True)
class Head:
    """The last layer: (classes, F) and (classes,)."""

    weight: npt.NDArray[np.float32]
    bias: npt.NDArray[np.float32]


def read(path: Path) -> bytes:
    """The file's bytes. Raises TrainError start-missing, start-broken."""
    if not path.is_file():
        raise TrainError("start-missing", f"{path} does not exist", "correct the path after --start")
    content = path.read_bytes()
    try:
        outside = onnx_file.external_files(content)
    except ValueError as broken:
        raise _broken(path, str(broken)) from None
    if outside:
        hint = "save it as one file: onnx.save(onnx.load(path), other, save_as_external_data=False)"
        raise TrainError("start-broken", f"{path} keeps its weights in other files ({min(outside)})", hint)
    return content


def body_of(content: bytes, source: Path | str, headless: bool = False) -> Body:
    """The graph in `content` without its head; `headless`: it has none. Raises TrainError start-broken, start-shape."""
    try:
        simple = quantise.simplified(_recent(content), keep=KEPT_APART)
    except (BundleError, DecodeError, onnx.version_converter.ConvertError) as broken:
        raise _broken(source, str(broken)) from None
    _as_constants(simple)
    entry = _entry(simple, source)
    _any_batch(simple, entry)
    leaves = simple.graph.output[0].name if headless else _before_head(simple)
    return Body(_ending_at(simple, leaves), entry, leaves)


def _broken(source: Path | str, why: str) -> TrainError:
    return TrainError("start-broken", f"{source}: {why}", "give an FP32 ONNX file of a classifier of pictures")


def _recent(content: bytes) -> bytes:
    model = onnx.load_from_string(content)
    version = next((item.version for item in model.opset_import if item.domain in ("", "ai.onnx")), 0)
    if version >= quantise.LEAST_OPSET:
        return content
    newer: bytes = onnx.version_converter.convert_version(model, OPSET).SerializeToString()
    return newer


def _as_constants(model: onnx.ModelProto) -> None:
    """Constant nodes become initialisers, so that there is one place to look at."""
    graph = model.graph
    for node in [node for node in graph.node if node.op_type == "Constant"]:
        value = next((item.t for item in node.attribute if item.name == "value"), None)
        if value is None:  # value_float, value_ints and their like
            value = numpy_helper.from_array(np.array(helper.get_attribute_value(node.attribute[0])))
        named = TensorProto()
        named.CopyFrom(value)
        named.name = node.output[0]
        graph.initializer.append(named)
        graph.node.remove(node)


def _entry(model: onnx.ModelProto, source: Path | str) -> Entry:
    constants = {item.name for item in model.graph.initializer}
    entries = [item for item in model.graph.input if item.name not in constants]
    if len(entries) != 1:
        names = ", ".join(item.name for item in entries)
        raise TrainError(
            "start-shape", f"{source} takes {len(entries)} inputs ({names})", "give one that takes a picture"
        )
    shape = [dim.dim_value or None for dim in entries[0].type.tensor_type.shape.dim]
    kind = entries[0].type.tensor_type.elem_type
    if len(shape) != 4 or 3 not in (shape[1], shape[3]) or kind not in (TensorProto.FLOAT, TensorProto.UINT8):
        hint = "give one that takes (N, 3, H, W) or (N, H, W, 3), as float32 or bytes"
        raise TrainError("start-shape", f"{source} takes {shape}, which is no picture in colour", hint)
    layout = "nchw" if shape[1] == 3 else "nhwc"
    sides = shape[2:] if layout == "nchw" else shape[1:3]
    if sides[0] != sides[1]:
        raise TrainError("start-shape", f"{source} takes {sides[0]} x {sides[1]} pixels", "give one that takes squares")
    return Entry(entries[0].name, sides[0], layout, kind == TensorProto.UINT8)


def _any_batch(model: onnx.ModelProto, entry: Entry) -> None:
    """A graph that was exported for one picture takes several, where only its shapes stand against it."""
    found = next(item for item in model.graph.input if item.name == entry.name)
    dims = found.type.tensor_type.shape.dim
    constants = {item.name: item for item in model.graph.initializer}
    if dims[0].dim_value == 1:
        for target in {node.input[1] for node in model.graph.node if node.op_type == "Reshape"} & constants.keys():
            sides = numpy_helper.to_array(constants[target]).copy()
            if len(sides) and sides[0] == 1:
                sides[0] = 0  # as many as it was given
                constants[target].CopyFrom(numpy_helper.from_array(sides, target))
    dims[0].dim_param = "N"
    for side in dims[2:] if entry.layout == "nchw" else dims[1:3]:
        side.dim_param = "S"


# The cut


def _before_head(model: onnx.ModelProto) -> str:
    """The name of what the last matrix product takes; where there is none, of what the graph gives."""
    constants = {item.name for item in model.graph.initializer}
    makers = {name: node for node in model.graph.node for name in node.output}
    at, passed = model.graph.output[0].name, set()
    while True:
        node = makers.get(at)
        if node is None:
            return at
        computed = [name for name in node.input if name and name not in constants]
        if node.op_type not in AFTER or len(computed) != 1:
            break
        passed.add(node.op_type)
        at = computed[0]
    if node.op_type not in PRODUCTS or len(computed) != 1 or node.input[0] != computed[0]:
        return at
    if node.op_type == "Conv":
        pooled = node.input[0] in makers and makers[node.input[0]].op_type in POOLS
        return node.input[0] if pooled or "Softmax" in passed else at
    return node.input[0]


def _ending_at(model: onnx.ModelProto, leaves: str) -> onnx.ModelProto:
    """Only what `leaves` is computed from, with it as the output."""
    wanted, nodes = {leaves}, []
    for node in reversed(model.graph.node):
        if wanted & set(node.output):
            nodes.append(node)
            wanted |= set(node.input)
    constants = [item for item in model.graph.initializer if item.name in wanted]
    entries = [item for item in model.graph.input if item.name in wanted]
    leaving = helper.make_tensor_value_info(leaves, TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes[::-1], "given", entries, [leaving], constants)
    return helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)


# Together again


def whole(body: Body, weights: Constants, looks: Looks, head: Head, size_px: int, maps: bool = False) -> bytes:
    """An ONNX file from bytes (N, size_px, size_px, 3) BGR to probabilities (N, classes).

    `maps`: the body leaves maps, which are averaged, not a vector. `weights` are the new values of the body's
    constants; those that it does not name stay as they are.
    """
    own = onnx.ModelProto()
    own.CopyFrom(body.model)
    for item in own.graph.initializer:
        if item.name in weights:
            item.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(weights[item.name]), item.name))
    own = onnx.compose.add_prefix(own, "given/")
    before, first = _arithmetic(f"given/{body.entry.name}", body.entry, looks)
    after, last = _answer(f"given/{body.leaves}", maps, head)
    graph = helper.make_graph(
        [*before, *own.graph.node, *after],
        "classifier",
        [helper.make_tensor_value_info("picture", TensorProto.UINT8, ["N", size_px, size_px, 3])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", len(head.bias)])],
        [*own.graph.initializer, *(numpy_helper.from_array(value, name) for name, value in (first | last).items())],
    )
    model = helper.make_model(graph, opset_imports=own.opset_import, producer_name="shelfwire")
    model.ir_version = max(own.ir_version, IR_VERSION)
    onnx.checker.check_model(model, full_check=True)
    content: bytes = model.SerializeToString()
    return content


def _arithmetic(gives: str, entry: Entry, looks: Looks) -> tuple[list[onnx.NodeProto], Constants]:
    """From bytes (N, S, S, 3) BGR to what the graph takes. Channels are turned last: then whole planes are moved."""
    steps: list[tuple[str, list[str], dict[str, Any]]] = []
    constants: dict[str, npt.NDArray[np.generic]] = {}
    turned = looks.colour == "rgb"
    if not entry.bytes:
        order = slice(None, None, -1 if turned else 1)
        steps += [("Cast", [], {"to": TensorProto.FLOAT}), ("Sub", ["mean"], {}), ("Div", ["scale"], {})]
        constants |= {
            "mean": np.array(looks.mean[order], np.float32),
            "scale": np.array(looks.scale[order], np.float32),
        }
    if entry.layout == "nchw":
        steps.append(("Transpose", [], {"perm": [0, 3, 1, 2]}))
    if turned:
        steps.append(("Gather", ["channels"], {"axis": 1 if entry.layout == "nchw" else 3}))
        constants["channels"] = np.array([2, 1, 0], np.int64)
    nodes, at = [], "picture"
    for number, (kind, others, attributes) in enumerate(steps or [("Identity", [], {})]):
        name = gives if number >= len(steps) - 1 else f"prepared.{number}"
        nodes.append(helper.make_node(kind, [at, *others], [name], name=f"prepare.{number}", **attributes))
        at = name
    return nodes, constants


def _answer(leaves: str, maps: bool, head: Head) -> tuple[list[onnx.NodeProto], Constants]:
    nodes = []
    if maps:
        nodes.append(helper.make_node("GlobalAveragePool", [leaves], ["pooled"], name="pooled"))
        nodes.append(helper.make_node("Flatten", ["pooled"], ["features"], name="features"))
    vector = "features" if maps else leaves
    nodes.append(helper.make_node("Gemm", [vector, "head.weight", "head.bias"], ["logits"], name="head", transB=1))
    nodes.append(helper.make_node("Softmax", ["logits"], ["probabilities"], name="probabilities", axis=1))
    return nodes, {"head.weight": head.weight, "head.bias": head.bias}
