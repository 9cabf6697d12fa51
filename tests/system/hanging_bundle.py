"""A model that answers every picture but a red one: that one it works on for ever, as a driver does that has hung."""

from pathlib import Path

import numpy as np
import onnx
import toy_bundles
from onnx import TensorProto, helper, numpy_helper

from models import pack

RED_ENOUGH = 200.0
FOR_EVER = 1 << 62


def model() -> bytes:
    """A loop of no turns for a picture whose mean red is low, and of 2^62 turns for others."""
    side_px = toy_bundles.SIDE_PX
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["go_on"]), helper.make_node("Identity", ["was"], ["is"])],
        "turn",
        [
            helper.make_tensor_value_info("n", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("was", TensorProto.FLOAT, ["N", 3]),
        ],
        [
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("is", TensorProto.FLOAT, ["N", 3]),
        ],
    )
    constants = {
        "limit": np.array(RED_ENOUGH, np.float32),
        "none": np.array(0, np.int64),
        "for_ever": np.array(FOR_EVER, np.int64),
        "third": np.array(2, np.int64),
        "yes": np.array(True),
    }
    nodes = [
        helper.make_node("Cast", ["picture"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["floats"], ["means"], axes=[1, 2], keepdims=0),
        helper.make_node("Gather", ["means", "third"], ["reds"], axis=1),
        helper.make_node("ReduceMax", ["reds"], ["red"], keepdims=0),
        helper.make_node("Greater", ["red", "limit"], ["is_red"]),
        helper.make_node("Where", ["is_red", "for_ever", "none"], ["turns"]),
        helper.make_node("Loop", ["turns", "yes", "means"], ["looped"], body=body),
        helper.make_node("Softmax", ["looped"], ["answer"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "hanging",
        [helper.make_tensor_value_info("picture", TensorProto.UINT8, ["N", side_px, side_px, 3])],
        [helper.make_tensor_value_info("answer", TensorProto.FLOAT, ["N", 3])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    whole: onnx.ModelProto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    whole.ir_version = 9
    return whole.SerializeToString()


def make(folder: Path) -> Path:
    """Write the bundle; gives its folder."""
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(model())
    pack.write(folder, toy_bundles.manifest(folder, {"model.onnx": "model"}))
    return folder
