"""An ONNX graph as a network that can be trained: the same nodes, computed by torch, their weights as parameters."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx import helper
from torch import Tensor, nn

from training.errors import TrainError
from training.onnx_graph import Body, Constants
from training.onnx_ops import OPERATORS, Operator

LEARNT: Final = ("Conv", "Gemm", "MatMul", "PRelu", "LayerNormalization")
"""What these take beside the picture is learnt; so is what is added to or multiplied with channels after them."""

SPREAD: Final = ("Add", "Mul")
NORM: Final = "BatchNormalization"


@dataclass(frozen=True, slots=True)
class _Step:
    """One node: what runs it (None: the next normalisation), with what, and which values nobody needs after it."""

    run: Operator | None
    told: dict[str, Any]
    takes: tuple[str, ...]
    gives: tuple[str, ...]
    forget: tuple[str, ...]


class OnnxBody(nn.Module):
    """Computes `body`: (N, 3, H, W) or (N, H, W, 3), as its entry says, to a vector (N, F).

    Raises TrainError start-operator for a node that torch is not told how to compute.
    """

    def __init__(self, body: Body) -> None:
        super().__init__()
        self.body = body
        nodes = list(body.model.graph.node)
        constants = body.constants
        learnt = _learnt(nodes, constants)
        self._norms = [node for node in nodes if node.op_type == NORM]
        self.norms = nn.ModuleList(_norm(node, constants) for node in self._norms)
        self._names = [name for name in constants if name in learnt]
        self.weights = nn.ParameterList(nn.Parameter(_tensor(constants[name])) for name in self._names)
        in_norms = {name for node in self._norms for name in node.input[1:]}
        self._fixed = {
            name: _tensor(value) for name, value in constants.items() if name not in learnt and name not in in_norms
        }
        self._steps = _steps(nodes, body.leaves, set(constants))

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        given = self.leaves(x)
        return given.mean(dim=(2, 3)) if given.ndim == 4 else given

    def leaves(self, x: Tensor) -> Tensor:
        """What the graph itself gives: a vector (N, F) or maps (N, F, h, w)."""
        values: dict[str, Tensor | None] = dict(self._fixed) | dict(zip(self._names, self.weights, strict=True))
        values[""] = None
        values[self.body.entry.name] = x
        norms = iter(self.norms)
        for step in self._steps:
            if step.run is None:
                given = next(norms)(values[step.takes[0]])
            else:
                given = step.run(step.told, *(values[name] for name in step.takes))
            values.update(zip(step.gives, given if isinstance(given, tuple) else (given,), strict=False))
            for name in step.forget:
                del values[name]
        gives = values[self.body.leaves]
        assert gives is not None
        return gives

    def _apply(self, function: Callable[[Tensor], Tensor], recurse: bool = True) -> "OnnxBody":
        """What is not learnt goes along to another device, but for whole numbers: shapes are reckoned on the CPU."""
        super()._apply(function, recurse)
        self._fixed = {
            name: function(value) if value.is_floating_point() else value for name, value in self._fixed.items()
        }
        return self

    def learnt(self) -> dict[str, npt.NDArray[np.generic]]:
        """Its weights as they are now, by the names of the graph's constants."""
        now = {name: as_array(value) for name, value in zip(self._names, self.weights, strict=True)}
        for node, norm in zip(self._norms, self.norms, strict=True):
            parts = (norm.weight, norm.bias, norm.running_mean, norm.running_var)
            now |= {name: as_array(part) for name, part in zip(node.input[1:], parts, strict=True)}
        return now


def _learnt(nodes: list[onnx.NodeProto], constants: Constants) -> set[str]:
    """The names of the constants that are weights. What stands before the first product prepares the picture."""
    found: set[str] = set()
    begun = False
    for node in nodes:
        begun = begun or node.op_type in LEARNT
        for name in node.input:
            value = constants.get(name)
            if value is None or value.dtype.kind != "f":
                continue
            channels = value.size > 1 and value.size == max(value.shape)
            if node.op_type in LEARNT or (begun and node.op_type in SPREAD and channels):
                found.add(name)
    return found


def _norm(node: onnx.NodeProto, constants: Constants) -> nn.BatchNorm2d:
    told = _told(node)
    weight, bias, mean, spread = (torch.from_numpy(constants[name].astype(np.float32)) for name in node.input[1:5])
    norm = nn.BatchNorm2d(len(weight), told.get("epsilon", 1e-5), 1 - told.get("momentum", 0.9))
    norm.load_state_dict({"weight": weight, "bias": bias, "running_mean": mean, "running_var": spread}, strict=False)
    return norm


def _steps(nodes: list[onnx.NodeProto], leaves: str, constants: set[str]) -> list[_Step]:
    last = {name: number for number, node in enumerate(nodes) for name in node.input}
    steps = []
    for number, node in enumerate(nodes):
        if (node.op_type not in OPERATORS and node.op_type != NORM) or node.domain not in ("", "ai.onnx"):
            hint = "export it without it, for operator set 17, or name a torch function that gives the network"
            raise TrainError("start-operator", f"training does not know the operator {node.op_type}", hint)
        takes = tuple(node.input[:1] if node.op_type == NORM else node.input)
        done = {name for name in takes if name and last[name] == number} - constants - {leaves}
        steps.append(_Step(OPERATORS.get(node.op_type), _told(node), takes, tuple(node.output), tuple(sorted(done))))
    return steps


def _told(node: onnx.NodeProto) -> dict[str, Any]:
    return {item.name: helper.get_attribute_value(item) for item in node.attribute}


def _tensor(value: npt.NDArray[np.generic]) -> Tensor:
    if value.dtype.kind == "f":
        return torch.from_numpy(np.array(value, np.float32))
    return torch.from_numpy(np.array(value, bool if value.dtype == bool else np.int64))


def as_array(value: Tensor) -> npt.NDArray[np.generic]:
    """The numbers of a weight, on the CPU."""
    return np.asarray(value.detach().cpu().contiguous().numpy())
