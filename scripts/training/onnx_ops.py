"""Operators of ONNX as torch computes them: those that picture classifiers are made of.

https://onnx.ai/onnx/operators, operator sets 13 to 22. Each function takes the node's attributes and its inputs, None
for one that is left out, and gives the node's first output (a tuple where a node has several).
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, Final

import torch
from onnx import numpy_helper
from torch import Tensor
from torch.nn import functional

Attributes = Mapping[str, Any]
Operator = Callable[..., Tensor | tuple[Tensor, ...]]

FLOATS: Final = (1, 10, 11, 16)
BOOL: Final = 9
"""Numbers of element types in onnx.proto: float, float16, double, bfloat16; bool."""

NOWHERE: Final = (0, 0, 0, 0)


# Windows over the picture


def _conv(told: Attributes, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    stride, dilation = told.get("strides", [1, 1]), told.get("dilations", [1, 1])
    size = [(side - 1) * apart + 1 for side, apart in zip(weight.shape[2:], dilation, strict=True)]
    top, left, bottom, right = _pads(told, x, size, stride)
    pads = (top, left)
    if (top, left) != (bottom, right):
        x, pads = functional.pad(x, (left, right, top, bottom)), (0, 0)
    return functional.conv2d(x, weight, bias, tuple(stride), pads, tuple(dilation), told.get("group", 1))


def _pads(told: Attributes, x: Tensor, size: list[int], stride: list[int]) -> tuple[int, int, int, int]:
    """Top, left, bottom, right."""
    way = told.get("auto_pad", b"NOTSET").decode()
    if way in ("NOTSET", ""):
        top, left, bottom, right = told.get("pads", NOWHERE)
        return top, left, bottom, right
    if way == "VALID":
        return NOWHERE
    missing = [
        max(0, (math.ceil(side / step) - 1) * step + window - side)
        for side, step, window in zip(x.shape[2:], stride, size, strict=True)
    ]
    less, more = [part // 2 for part in missing], [part - part // 2 for part in missing]
    return (*less, *more) if way == "SAME_UPPER" else (*more, *less)  # type: ignore[return-value]


def _max_pool(told: Attributes, x: Tensor) -> Tensor:
    size, stride = told["kernel_shape"], told.get("strides", [1, 1])
    top, left, bottom, right = _pads(told, x, size, stride)
    if (top, left, bottom, right) != NOWHERE:
        x = functional.pad(x, (left, right, top, bottom), value=-math.inf)
    return functional.max_pool2d(x, size, stride, ceil_mode=bool(told.get("ceil_mode", 0)))


def _average_pool(told: Attributes, x: Tensor) -> Tensor:
    size, stride = told["kernel_shape"], told.get("strides", [1, 1])
    ceil = bool(told.get("ceil_mode", 0))
    top, left, bottom, right = _pads(told, x, size, stride)
    around = (left, right, top, bottom)
    if around == NOWHERE:
        return functional.avg_pool2d(x, size, stride, ceil_mode=ceil, count_include_pad=False)
    mean = functional.avg_pool2d(functional.pad(x, around), size, stride, ceil_mode=ceil)
    if told.get("count_include_pad", 0):
        return mean
    inside = functional.pad(torch.ones_like(x[:1, :1]), around)
    return mean / functional.avg_pool2d(inside, size, stride, ceil_mode=ceil)


def _pad(told: Attributes, x: Tensor, pads: Tensor, value: Tensor | None = None, axes: Tensor | None = None) -> Tensor:
    chosen = range(x.ndim) if axes is None else [axis % x.ndim for axis in axes.tolist()]
    flat, count = pads.tolist(), len(pads) // 2
    around = {axis: (flat[turn], flat[turn + count]) for turn, axis in enumerate(chosen)}
    pairs = [around.get(axis, (0, 0)) for axis in reversed(range(x.ndim))]
    while len(pairs) > 2 and pairs[-1] == (0, 0):  # torch mirrors the last two axes only
        pairs.pop()
    mode = {"constant": "constant", "reflect": "reflect", "edge": "replicate"}[told.get("mode", b"constant").decode()]
    fill = float(value) if value is not None and mode == "constant" else 0.0
    return functional.pad(x, [side for pair in pairs for side in pair], mode=mode, value=fill)


# Arithmetic


def _clip(told: Attributes, x: Tensor, least: Tensor | None = None, most: Tensor | None = None) -> Tensor:
    low = told.get("min") if least is None else float(least)
    high = told.get("max") if most is None else float(most)
    return x if low is None and high is None else x.clamp(low, high)


def _hard_sigmoid(told: Attributes, x: Tensor) -> Tensor:
    return (told.get("alpha", 0.2) * x + told.get("beta", 0.5)).clamp(0, 1)


def _gelu(told: Attributes, x: Tensor) -> Tensor:
    return functional.gelu(x, approximate=told.get("approximate", b"none").decode())


def _gemm(told: Attributes, left: Tensor, right: Tensor, bias: Tensor | None = None) -> Tensor:
    left = left.T if told.get("transA", 0) else left
    product = left @ (right.T if told.get("transB", 0) else right) * told.get("alpha", 1.0)
    return product if bias is None else product + bias * told.get("beta", 1.0)


def _divide(_: Attributes, left: Tensor, right: Tensor) -> Tensor:
    if left.is_floating_point():
        return left / right
    return torch.div(left, right, rounding_mode="trunc")


def _layer_norm(told: Attributes, x: Tensor, scale: Tensor, bias: Tensor | None = None) -> Tensor:
    shape = x.shape[told.get("axis", -1) % x.ndim :]
    return functional.layer_norm(x, shape, scale.reshape(shape), bias, told.get("epsilon", 1e-5))


def _over_axes(reduce: Callable[..., Tensor]) -> Operator:
    def run(told: Attributes, x: Tensor, axes: Tensor | None = None) -> Tensor:
        chosen = told.get("axes") if axes is None else axes.tolist()
        if not chosen and told.get("noop_with_empty_axes", 0):
            return x
        return reduce(x, dim=tuple(chosen or range(x.ndim)), keepdim=bool(told.get("keepdims", 1)))

    return run


def _fold(two: Callable[[Tensor, Tensor], Tensor]) -> Operator:
    def run(_: Attributes, *parts: Tensor) -> Tensor:
        whole = parts[0]
        for part in parts[1:]:
            whole = two(whole, part)
        return whole

    return run


def _plain(function: Callable[..., Tensor]) -> Operator:
    return lambda _, *inputs: function(*inputs)


# Shapes


def _reshape(told: Attributes, x: Tensor, target: Tensor) -> Tensor:
    wanted = target.tolist()
    if not told.get("allowzero", 0):
        wanted = [x.shape[place] if side == 0 else side for place, side in enumerate(wanted)]
    return x.reshape(tuple(wanted))


def _flatten(told: Attributes, x: Tensor) -> Tensor:
    axis = told.get("axis", 1)
    axis = axis + x.ndim if axis < 0 else axis
    return x.reshape(math.prod(x.shape[:axis]), -1)


def _squeeze(_: Attributes, x: Tensor, axes: Tensor | None = None) -> Tensor:
    return x.squeeze() if axes is None else x.squeeze(tuple(axes.tolist()))


def _unsqueeze(_: Attributes, x: Tensor, axes: Tensor) -> Tensor:
    rank = x.ndim + len(axes)
    for axis in sorted(axis % rank for axis in axes.tolist()):
        x = x.unsqueeze(axis)
    return x


def _transpose(told: Attributes, x: Tensor) -> Tensor:
    return x.permute(told.get("perm", list(reversed(range(x.ndim)))))


def _split(told: Attributes, x: Tensor, sizes: Tensor | None = None) -> tuple[Tensor, ...]:
    axis = told.get("axis", 0)
    if sizes is not None:
        return x.split(sizes.tolist(), axis)
    return x.split(math.ceil(x.shape[axis] / told["num_outputs"]), axis)


def _slice(
    _: Attributes, x: Tensor, starts: Tensor, ends: Tensor, axes: Tensor | None = None, steps: Tensor | None = None
) -> Tensor:
    chosen = list(range(len(starts))) if axes is None else axes.tolist()
    jumps = [1] * len(chosen) if steps is None else steps.tolist()
    for start, end, axis, step in zip(starts.tolist(), ends.tolist(), chosen, jumps, strict=True):
        places = range(x.shape[axis])[slice(start, end if step > 0 or end > -(1 << 31) else None, step)]
        if step == 1:
            x = x.narrow(axis, places.start, len(places))
        else:
            x = x.index_select(axis, torch.tensor(list(places), device=x.device))
    return x


def _gather(told: Attributes, x: Tensor, places: Tensor) -> Tensor:
    axis = told.get("axis", 0) % x.ndim
    places = torch.where(places < 0, places + x.shape[axis], places).to(x.device, torch.int64)
    taken = x.index_select(axis, places.reshape(-1))
    return taken.reshape((*x.shape[:axis], *places.shape, *x.shape[axis + 1 :]))


def _shape(told: Attributes, x: Tensor) -> Tensor:
    return torch.tensor(list(x.shape)[told.get("start", 0) : told.get("end")], dtype=torch.int64)


def _cast(told: Attributes, x: Tensor) -> Tensor:
    kind = told["to"]
    return x.float() if kind in FLOATS else x.bool() if kind == BOOL else x.long()


def _constant_of_shape(told: Attributes, shape: Tensor) -> Tensor:
    value = torch.from_numpy(numpy_helper.to_array(told["value"]).copy()) if "value" in told else torch.zeros(1)
    return value.reshape(()).repeat(tuple(shape.tolist()))


def _expand(_: Attributes, x: Tensor, shape: Tensor) -> Tensor:
    return x.expand(torch.broadcast_shapes(x.shape, tuple(shape.tolist())))


def _concat(told: Attributes, *parts: Tensor) -> Tensor:
    return torch.cat(parts, told["axis"])


OPERATORS: Final[Mapping[str, Operator]] = {
    "Abs": _plain(torch.abs),
    "Add": _plain(torch.add),
    "AveragePool": _average_pool,
    "Cast": _cast,
    "Clip": _clip,
    "Concat": _concat,
    "ConstantOfShape": _constant_of_shape,
    "Conv": _conv,
    "Div": _divide,
    "Dropout": lambda _, x, *rest: x,  # noqa: ARG005  # the new head has its own
    "Equal": _plain(torch.eq),
    "Elu": lambda told, x: functional.elu(x, told.get("alpha", 1.0)),
    "Erf": _plain(torch.erf),
    "Exp": _plain(torch.exp),
    "Expand": _expand,
    "Flatten": _flatten,
    "Gather": _gather,
    "Gelu": _gelu,
    "Gemm": _gemm,
    "GlobalAveragePool": lambda _, x: x.mean(dim=(2, 3), keepdim=True),
    "GlobalMaxPool": lambda _, x: x.amax(dim=(2, 3), keepdim=True),
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _plain(functional.hardswish),
    "Identity": lambda _, x: x,
    "LayerNormalization": _layer_norm,
    "LeakyRelu": lambda told, x: functional.leaky_relu(x, told.get("alpha", 0.01)),
    "MatMul": _plain(torch.matmul),
    "Max": _fold(torch.maximum),
    "MaxPool": _max_pool,
    "Min": _fold(torch.minimum),
    "Mod": _plain(torch.remainder),
    "Mul": _plain(torch.mul),
    "Neg": _plain(torch.neg),
    "PRelu": lambda _, x, slope: torch.where(x < 0, x * slope, x),
    "Pad": _pad,
    "Pow": _plain(torch.pow),
    "Range": lambda _, start, end, step: torch.arange(start.item(), end.item(), step.item()),
    "Reciprocal": _plain(torch.reciprocal),
    "ReduceMax": _over_axes(torch.amax),
    "ReduceMean": _over_axes(torch.mean),
    "ReduceSum": _over_axes(torch.sum),
    "Relu": _plain(torch.relu),
    "Reshape": _reshape,
    "Shape": _shape,
    "Sigmoid": _plain(torch.sigmoid),
    "Slice": _slice,
    "Softmax": lambda told, x: torch.softmax(x, told.get("axis", -1)),
    "Softplus": _plain(functional.softplus),
    "Split": _split,
    "Sqrt": _plain(torch.sqrt),
    "Squeeze": _squeeze,
    "Sub": _plain(torch.sub),
    "Sum": _fold(torch.add),
    "Tanh": _plain(torch.tanh),
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
    "Where": _plain(torch.where),
}
