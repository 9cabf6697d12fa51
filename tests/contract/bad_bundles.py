"""Models that must not be kept: each is a real one that does its harm by itself, by the arithmetic in its graph."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import toy_bundles
from onnx import NodeProto, TensorProto, helper, numpy_helper

from models import Bundle, pack
from models.bundle import Golden, GoldenInput

import cv2  # isort: skip

SIDE_PX = toy_bundles.SIDE_PX
FOR_EVER = 1 << 62
MEANS = (
    helper.make_node("Cast", ["picture"], ["floats"], to=TensorProto.FLOAT),
    helper.make_node("ReduceMean", ["floats"], ["means"], axes=[1, 2], keepdims=0),
)


def write(folder: Path, nodes: Sequence[NodeProto], constants: dict[str, np.ndarray], **changes: object) -> Bundle:
    """Write the bundle of a graph from `picture` (bytes) to `answer` (three scores)."""
    folder.mkdir(parents=True, exist_ok=True)
    graph = helper.make_graph(
        nodes,
        "bad",
        [helper.make_tensor_value_info("picture", TensorProto.UINT8, ["N", SIDE_PX, SIDE_PX, 3])],
        [helper.make_tensor_value_info("answer", TensorProto.FLOAT, ["N", 3])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    whole = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    whole.ir_version = 9
    (folder / "model.onnx").write_bytes(whole.SerializeToString())
    return pack.write(folder, toy_bundles.manifest(folder, {"model.onnx": "model"}, **changes))


def crashing(folder: Path, **changes: object) -> Bundle:
    """Reads far outside of a tensor, which OpenVINO does not check: the process ends by SIGSEGV."""
    nodes = [
        *MEANS,
        helper.make_node("GatherND", ["means", "far"], ["got"]),
        helper.make_node("Add", ["means", "got"], ["sum"]),
        helper.make_node("Softmax", ["sum"], ["answer"], axis=1),
    ]
    return write(folder, nodes, {"far": np.array([[1 << 29, 0]], np.int64)}, **changes)


def hungry(folder: Path, rows: int = 30_000, **changes: object) -> Bundle:
    """Spreads one number over `rows` x 10,000 others: 1.2 GB with 30,000."""
    nodes = [
        *MEANS,
        helper.make_node("ReduceMean", ["means"], ["one"], keepdims=0),
        helper.make_node("Expand", ["one", "shape"], ["many"]),
        helper.make_node("Tanh", ["many"], ["bent"]),
        helper.make_node("ReduceMean", ["bent"], ["mean"], keepdims=0),
        helper.make_node("Add", ["means", "mean"], ["sum"]),
        helper.make_node("Softmax", ["sum"], ["answer"], axis=1),
    ]
    return write(folder, nodes, {"shape": np.array([rows, 10_000], np.int64)}, **changes)


def looping(folder: Path, turns: int, **changes: object) -> Bundle:
    """Multiplies matrices `turns` times before it answers as a toy does: slow, or hanging with FOR_EVER."""
    return _looping(folder, [], {"turns": np.array(turns, np.int64)}, changes)


def slow_when_red(folder: Path, turns: int = 3000, **changes: object) -> Bundle:
    """As fast as a toy for every picture but a red one, for which it multiplies matrices `turns` times."""
    nodes = [
        helper.make_node("Gather", ["means", "third"], ["reds"], axis=1),
        helper.make_node("ReduceMax", ["reds"], ["red"], keepdims=0),
        helper.make_node("Greater", ["red", "limit"], ["is_red"]),
        helper.make_node("Where", ["is_red", "many", "no_turns"], ["turns"]),
    ]
    constants = {
        "third": np.array(2, np.int64),
        "limit": np.array(200.0, np.float32),
        "many": np.array(turns, np.int64),
        "no_turns": np.array(0, np.int64),
    }
    return _looping(folder, nodes, constants, changes)


def _looping(
    folder: Path, before: Sequence[NodeProto], more: dict[str, np.ndarray], changes: dict[str, object]
) -> Bundle:
    side = 128
    matrix = TensorProto.FLOAT, [side, side]
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["go_on"]), helper.make_node("MatMul", ["was", "unit"], ["is"])],
        "turn",
        [
            helper.make_tensor_value_info("n", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("was", *matrix),
        ],
        [helper.make_tensor_value_info("go_on", TensorProto.BOOL, []), helper.make_tensor_value_info("is", *matrix)],
    )
    nodes = [
        *MEANS,
        *before,
        helper.make_node("ReduceMean", ["means"], ["one"], keepdims=0),
        helper.make_node("Mul", ["unit", "one"], ["begin"]),
        helper.make_node("Loop", ["turns", "yes", "begin"], ["looped"], body=body),
        helper.make_node("ReduceMean", ["looped"], ["mean"], keepdims=0),
        helper.make_node("Mul", ["mean", "none"], ["nothing"]),
        helper.make_node("Mul", ["means", "gain"], ["scaled"]),
        helper.make_node("Add", ["scaled", "nothing"], ["sum"]),
        helper.make_node("Softmax", ["sum"], ["answer"], axis=1),
    ]
    constants = {
        **more,
        "yes": np.array(True),
        "unit": np.eye(side, dtype=np.float32),
        "none": np.array(0, np.float32),
        "gain": np.array(1.0, np.float32),
    }
    return write(folder, nodes, constants, **changes)


def with_golden(folder: Path, labels: Sequence[str] = toy_bundles.LABELS, expected: str = "reddish") -> Bundle:
    """A toy with a golden picture, a red one, that its maker says scores 1 as `expected`; `labels` may be permuted."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx").write_bytes(toy_bundles.model(toy_bundles.Toy(gain=1.0)))
    ok, png = cv2.imencode(".png", toy_bundles.plain(0, 0, 250))
    assert ok
    (folder / "red.png").write_bytes(png.tobytes())
    golden = Golden(inputs=(GoldenInput(path="red.png", expected={expected: 1.0}),))
    files = {"model.onnx": "model", "red.png": "golden"}
    return pack.write(folder, toy_bundles.manifest(folder, files, labels=tuple(labels), golden=golden))


Make = Callable[[Path], Bundle]
