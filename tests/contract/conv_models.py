"""A small convolutional classifier for tests, written as ONNX by hand: which of three colours fills the picture."""

from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

LABELS = ("blueish", "greenish", "reddish")


@dataclass(frozen=True, slots=True)
class Net:
    """What the network is like: its input, and whether its weights are half floats that are widened in the graph."""

    side_px: int = 32
    batch: int | str = "N"
    half: bool = False
    softmax: bool = True
    opset: int = 17
    channels: int = 16
    apart: bool = False
    """Each channel has a filter of its own before pooling, as in MobileNet."""
    loud: bool = False
    """One channel is a thousand times louder than the others and says nothing: bytes cannot hold both."""


def weights(net: Net) -> dict[str, np.ndarray]:
    """Random filters that keep the channels apart, the same in every run."""
    rng = np.random.default_rng(7)
    first = rng.normal(0, 0.05, (net.channels, 3, 3, 3)).astype(np.float32)
    for channel in range(net.channels):
        first[channel, channel % 3] += 0.3
    head = rng.normal(0, 0.05, (3, net.channels)).astype(np.float32)
    for channel in range(net.channels):
        head[channel % 3, channel] += 1.5
    if net.loud:
        first[-1] *= 1000
        head[:, -1] = 0
    return {"first": first, "head": head}


def content(net: Net = Net()) -> bytes:
    """The network as ONNX bytes: bytes (N, side, side, 3) BGR in, three scores out."""
    nodes, constants = [], []
    for name, value in weights(net).items():
        kept = value.astype(np.float16) if net.half else value
        constants.append(numpy_helper.from_array(kept, f"{name}.half" if net.half else name))
        if net.half:
            nodes.append(helper.make_node("Cast", [f"{name}.half"], [name], to=TensorProto.FLOAT))
    constants += [
        numpy_helper.from_array(np.float32(1 / 64), "scale"),
        numpy_helper.from_array(np.zeros(net.channels, np.float32), "first.bias"),
        numpy_helper.from_array(np.zeros(3, np.float32), "head.bias"),
    ]
    nodes += [
        helper.make_node("Cast", ["picture"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["floats", "scale"], ["scaled"]),
        helper.make_node("Transpose", ["scaled"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["planes", "first", "first.bias"], ["conv"], kernel_shape=[3, 3], pads=[1] * 4),
        helper.make_node("Relu", ["conv"], ["relu"]),
        helper.make_node("GlobalAveragePool", ["own" if net.apart else "relu"], ["pool"]),
        helper.make_node("Flatten", ["pool"], ["features"]),
        helper.make_node("Gemm", ["features", "head", "head.bias"], ["logits"], transB=1),
        helper.make_node("Softmax" if net.softmax else "Identity", ["logits"], ["answer"]),
    ]
    if net.apart:
        constants.append(numpy_helper.from_array(np.full((net.channels, 1, 1, 1), 1.0, np.float32), "own.filters"))
        own = helper.make_node("Conv", ["relu", "own.filters"], ["own"], kernel_shape=[1, 1], group=net.channels)
        nodes.insert([node.op_type for node in nodes].index("GlobalAveragePool"), own)
    shape = [net.batch, net.side_px, net.side_px, 3]
    graph = helper.make_graph(
        nodes,
        "conv",
        [helper.make_tensor_value_info("picture", TensorProto.UINT8, shape)],
        [helper.make_tensor_value_info("answer", TensorProto.FLOAT, [net.batch, 3])],
        constants,
    )
    whole: onnx.ModelProto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", net.opset)])
    whole.ir_version = 9
    return whole.SerializeToString()


def pictures(count: int, seed: int = 0) -> list[tuple[np.ndarray, str]]:
    """Noisy pictures of patches in which one colour prevails, with its label."""
    rng = np.random.default_rng(seed)
    made = []
    for number in range(count):
        picture = rng.integers(0, 40, (48, 64, 3)) + np.kron(rng.integers(0, 80, (3, 4, 3)), np.ones((16, 16, 1), int))
        picture[..., number % 3] += rng.integers(30, 120)
        made.append((picture.astype(np.uint8), LABELS[number % 3]))
    return made
