"""A small classifier with attention for tests, written as ONNX by hand: which of three colours fills the picture."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SIDE_PX = 32
PATCH_PX = 8
WIDTH = 16
"""Numbers that stand for a patch."""


def _weights() -> dict[str, np.ndarray]:
    """Random, and each colour is kept apart in every third number; the same in every run."""
    rng = np.random.default_rng(7)
    patch = rng.normal(0, 0.002, (WIDTH, 3, PATCH_PX, PATCH_PX)).astype(np.float32)
    head = rng.normal(0, 0.05, (WIDTH, 3)).astype(np.float32)
    for number in range(WIDTH):
        patch[number, number % 3] += 0.01
        head[number, number % 3] += 0.8
    square = {name: rng.normal(0, 0.1, (WIDTH, WIDTH)).astype(np.float32) for name in ("q", "k", "v")}
    return {"patch": patch, "head": head, **square}


def content() -> bytes:
    """The network as ONNX bytes: bytes (N, 32, 32, 3) BGR in, three scores out."""
    patches = (SIDE_PX // PATCH_PX) ** 2
    constants = [numpy_helper.from_array(value, name) for name, value in _weights().items()]
    constants += [
        numpy_helper.from_array(np.float32(1 / 64), "scale"),
        numpy_helper.from_array(np.float32(WIDTH**-0.5), "root"),
        numpy_helper.from_array(np.zeros(WIDTH, np.float32), "patch.bias"),
        numpy_helper.from_array(np.ones(WIDTH, np.float32), "norm.scale"),
        numpy_helper.from_array(np.zeros(WIDTH, np.float32), "norm.bias"),
        numpy_helper.from_array(np.array([0, WIDTH, patches]), "rows"),
    ]
    node = helper.make_node
    nodes = [
        node("Cast", ["picture"], ["floats"], to=TensorProto.FLOAT),
        node("Mul", ["floats", "scale"], ["scaled"]),
        node("Transpose", ["scaled"], ["planes"], perm=[0, 3, 1, 2]),
        node("Conv", ["planes", "patch", "patch.bias"], ["map"], kernel_shape=[PATCH_PX] * 2, strides=[PATCH_PX] * 2),
        node("Reshape", ["map", "rows"], ["columns"]),
        node("Transpose", ["columns"], ["tokens"], perm=[0, 2, 1]),
        node("LayerNormalization", ["tokens", "norm.scale", "norm.bias"], ["normed"]),
        *(node("MatMul", ["normed", name], [f"{name}.of"]) for name in ("q", "k", "v")),
        node("Transpose", ["k.of"], ["k.turned"], perm=[0, 2, 1]),
        node("MatMul", ["q.of", "k.turned"], ["likeness"]),
        node("Mul", ["likeness", "root"], ["likeness.scaled"]),
        node("Softmax", ["likeness.scaled"], ["attention"], axis=-1),
        node("MatMul", ["attention", "v.of"], ["heard"]),
        node("Add", ["tokens", "heard"], ["told"]),
        node("ReduceMean", ["told"], ["mean"], axes=[1], keepdims=0),
        node("LayerNormalization", ["mean", "norm.scale", "norm.bias"], ["mean.normed"]),
        node("MatMul", ["mean.normed", "head"], ["logits"]),
        node("Softmax", ["logits"], ["answer"], axis=-1),
    ]
    graph = helper.make_graph(
        nodes,
        "attention",
        [helper.make_tensor_value_info("picture", TensorProto.UINT8, ["N", SIDE_PX, SIDE_PX, 3])],
        [helper.make_tensor_value_info("answer", TensorProto.FLOAT, ["N", 3])],
        constants,
    )
    whole: onnx.ModelProto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    whole.ir_version = 9
    return whole.SerializeToString()
