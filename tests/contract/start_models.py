"""Small classifiers as other people export them, for trainings that start from one."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SIDE_PX = 32
WIDTH = 6
CLASSES = 4


def constants(seed: int = 3) -> dict[str, np.ndarray]:
    """Random weights of the network, the same in every run."""
    rng = np.random.default_rng(seed)
    floats = {
        "first": rng.normal(0, 0.4, (WIDTH, 3, 3, 3)),
        "scale": rng.uniform(0.5, 1.5, WIDTH),
        "bias": rng.normal(0, 0.2, WIDTH),
        "mean": rng.normal(0, 0.2, WIDTH),
        "spread": rng.uniform(0.5, 1.5, WIDTH),
        "head": rng.normal(0, 0.6, (CLASSES, WIDTH, 1, 1)),
        "head.bias": rng.normal(0, 0.2, CLASSES),
    }
    whole = {"pads": np.array([0, 0, 0, 0, 0, 0, 1, 1]), "flat": np.array([1, CLASSES])}
    return {name: value.astype(np.float32) for name, value in floats.items()} | whole


def classifier(operator: str = "Relu", layout: str = "nchw", entries: int = 1) -> bytes:
    """For one picture: pads on two sides, convolution, normalisation, average, and a head that is a convolution."""
    shape = [1, 3, SIDE_PX, SIDE_PX] if layout == "nchw" else [1, SIDE_PX, SIDE_PX, 3]
    turn = [helper.make_node("Transpose", ["x"], ["planes"], perm=[0, 3, 1, 2])] if layout == "nhwc" else []
    nodes = [
        *turn,
        helper.make_node("Pad", ["planes" if turn else "x", "pads"], ["padded"]),
        helper.make_node("Conv", ["padded", "first"], ["conv"], kernel_shape=[3, 3], strides=[2, 2]),
        helper.make_node("BatchNormalization", ["conv", "scale", "bias", "mean", "spread"], ["norm"]),
        helper.make_node(operator, ["norm"], ["active"]),
        helper.make_node("GlobalAveragePool", ["active"], ["pooled"]),
        helper.make_node("Conv", ["pooled", "head", "head.bias"], ["scores"], kernel_shape=[1, 1]),
        helper.make_node("Reshape", ["scores", "flat"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["answer"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "somebody's",
        [helper.make_tensor_value_info("x" if n == 0 else f"x{n}", TensorProto.FLOAT, shape) for n in range(entries)],
        [helper.make_tensor_value_info("answer", TensorProto.FLOAT, [1, CLASSES])],
        [numpy_helper.from_array(value, name) for name, value in constants().items()],
    )
    whole: onnx.ModelProto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    whole.ir_version = 9
    return whole.SerializeToString()
