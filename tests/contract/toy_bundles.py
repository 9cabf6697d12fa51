"""Small bundles for tests: models of a few numbers whose answers can be worked out by hand."""

import hashlib
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
        helper.make_node("MatMul", ["means", "weights"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["answer"], axis=1)
        if toy.softmax
        else helper.make_node("Identity", ["logits"], ["answer"]),
    ]
    graph = helper.make_graph(
        nodes,
        "toy",
        [helper.make_tensor_value_info("picture", kind, shape)],
        [helper.make_tensor_value_info("answer", TensorProto.FLOAT, ["N", toy.outputs])],
        [weights],
    )
    whole: onnx.ModelProto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    whole.ir_version = 9
    return whole.SerializeToString()


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
