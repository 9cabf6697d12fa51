"""From a trained network to an ONNX file: normalisation and softmax inside, weights kept as half floats.

The graph is written node by node, so that it holds what the network computes and nothing else.
"""

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

from training.given_net import GivenNet
from training.network import MEAN_BGR, SCALE, Block, ConvNorm, Network, ShelfNet

OPSET = 17
IR_VERSION = 9


class _Graph:
    """Nodes and constants under construction."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def node(self, kind: str, name: str, inputs: list[str], **attributes: object) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [name], name=name, **attributes))
        return name

    def constant(self, name: str, value: npt.NDArray[np.generic]) -> str:
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def weights(self, name: str, value: Tensor) -> str:
        """Weights as half floats, widened when the model is loaded: half the file, the same arithmetic."""
        self.constant(f"{name}.half", value.detach().numpy().astype(np.float16))
        return self.node("Cast", name, [f"{name}.half"], to=TensorProto.FLOAT)

    def convolution(self, name: str, part: ConvNorm, x: str) -> str:
        """A convolution with its normalisation folded in."""
        weight, bias = _folded(part)
        inputs = [x, self.weights(f"{name}.weight", weight), self.constant(f"{name}.bias", bias.detach().numpy())]
        size, stride = part.conv.kernel_size[0], part.conv.stride[0]
        return self.node("Conv", name, inputs, kernel_shape=[size] * 2, strides=[stride] * 2, pads=[size // 2] * 4)

    def block(self, name: str, part: Block, x: str) -> str:
        inner = self.node("Relu", f"{name}.inner", [self.convolution(f"{name}.first", part.first, x)])
        long = self.convolution(f"{name}.second", part.second, inner)
        short = x
        if part.pool is not None:
            short = self.node("AveragePool", f"{name}.pool", [short], kernel_shape=[2, 2], strides=[2, 2])
        if part.widen is not None:
            short = self.convolution(f"{name}.widen", part.widen, short)
        return self.node("Relu", f"{name}.out", [self.node("Add", f"{name}.sum", [long, short])])


def onnx_of(network: Network, size_px: int) -> bytes:
    """`network` as an ONNX file: bytes (N, size_px, size_px, 3) BGR in, probabilities (N, classes) out."""
    if isinstance(network, GivenNet):
        return network.onnx(size_px)
    assert isinstance(network, ShelfNet)
    graph = _Graph()
    x = graph.node("Cast", "floats", ["picture"], to=TensorProto.FLOAT)
    x = graph.node("Sub", "centred", [x, graph.constant("mean", np.array(MEAN_BGR, np.float32))])
    x = graph.node("Mul", "scaled", [x, graph.constant("scale", np.array(SCALE, np.float32))])
    x = graph.node("Transpose", "planes", [x], perm=[0, 3, 1, 2])
    x = graph.node("Relu", "stem.out", [graph.convolution("stem", network.stem, x)])
    x = graph.node("Relu", "start.out", [graph.convolution("start", network.start, x)])
    for number, stage in enumerate(network.stages):
        for turn, block in enumerate(stage):
            x = graph.block(f"stage{number}.{turn}", block, x)
    x = graph.node("Relu", "last.out", [graph.convolution("last", network.last, x)])
    x = graph.node("Flatten", "features", [graph.node("GlobalAveragePool", "mean_pool", [x])])
    bias = graph.constant("head.bias", network.head.bias.detach().numpy())
    x = graph.node("Gemm", "head", [x, graph.weights("head.weight", network.head.weight), bias], transB=1)
    graph.node("Softmax", "probabilities", [x], axis=1)
    entry = helper.make_tensor_value_info("picture", TensorProto.UINT8, ["N", size_px, size_px, 3])
    leave = helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", network.head.out_features])
    whole = helper.make_graph(graph.nodes, "shelfnet", [entry], [leave], graph.constants)
    model = helper.make_model(whole, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="shelfwire")
    model.ir_version = IR_VERSION
    onnx.checker.check_model(model, full_check=True)
    content: bytes = model.SerializeToString()
    return content


def _folded(part: ConvNorm) -> tuple[Tensor, Tensor]:
    norm = part.norm
    factor = norm.weight / (norm.running_var + norm.eps).sqrt()
    return part.conv.weight * factor.view(-1, 1, 1, 1), norm.bias - norm.running_mean * factor
