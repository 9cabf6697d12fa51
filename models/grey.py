"""Classifiers of grey pictures: their graph makes grey of the three colours, so that they take what a camera gives.

A bundle's input has three colours in every runtime and precision. Grey is ITU-R BT.601's sum of them, as OpenCV and
Pillow make it but for their rounding; its weights add up to one, so (value - mean) / scale may come before it.
"""

import struct
from dataclasses import replace
from typing import Final, Literal

import numpy as np

from models import onnx_nodes as write
from models.foreign import Foreign, Port, look

RED_GREEN_BLUE: Final = (0.299, 0.587, 0.114)
COLOURS: Final = "shelfwire.colours"

Layout = Literal["nchw", "nhwc"]


def take_colours(placed: Foreign, layout: Layout, colour: Literal["rgb", "bgr"]) -> Foreign:
    """Rewrite the ONNX file or IR `placed`, whose only input is of one channel and float32, to take three.

    Raises BundleError as `look` does.
    """
    weights = RED_GREEN_BLUE if colour == "rgb" else RED_GREEN_BLUE[::-1]
    if placed.kind == "onnx":
        content = _onnx(placed.path.read_bytes(), placed.inputs[0], layout, weights)
        placed.path.write_bytes(content)
    else:
        _ir(placed, layout, weights)
    return replace(look(placed.path), weights=placed.weights)


def _onnx(model: bytes, entry: Port, layout: Layout, weights: tuple[float, ...]) -> bytes:
    """A convolution of one pixel, or a matrix where channels come last; both are older than any file's operator set."""
    assert entry.shape is not None
    kind, place, shape = ("Conv", 1, (1, 3, 1, 1)) if layout == "nchw" else ("MatMul", 3, (3, 1))
    luma = write.tensor(write.FLOAT, shape, struct.pack("<3f", *weights))
    nodes = [write.constant("shelfwire.luma", luma), write.node(kind, [COLOURS, "shelfwire.luma"], entry.name, b"")]
    sides = (*entry.shape[:place], 3, *entry.shape[place + 1 :])
    return write.with_nodes(model, entry.name, nodes, write.value(COLOURS, write.FLOAT, sides))


def _ir(placed: Foreign, layout: Layout, weights: tuple[float, ...]) -> None:
    import openvino as ov
    from openvino import opset13 as ops

    from models.runtimes.openvino import shared_core

    graph = shared_core().read_model(str(placed.path))
    entry = graph.get_parameters()[0]
    shape = entry.get_partial_shape()
    shape[1 if layout == "nchw" else 3] = ov.Dimension(3)
    colours = ops.parameter(shape, ov.Type.f32, name=entry.get_friendly_name())
    colours.output(0).set_names(entry.output(0).get_names())
    if layout == "nchw":
        luma = ops.constant(np.array(weights, np.float32).reshape(1, 3, 1, 1))
        grey = ops.convolution(colours, luma, [1, 1], [0, 0], [0, 0], [1, 1])
    else:
        grey = ops.matmul(colours, ops.constant(np.array(weights, np.float32).reshape(3, 1)), False, False)
    for target in entry.output(0).get_target_inputs():
        target.replace_source_output(grey.output(0))
    widened = ov.Model(graph.get_results(), [colours], graph.get_friendly_name())
    # The file's weights are mapped while they are read, so another file is written and takes its name.
    made = placed.path.with_name("grey.xml")
    ov.save_model(widened, str(made), compress_to_fp16=False)
    for suffix in (".bin", ".xml"):
        made.with_suffix(suffix).replace(placed.path.with_suffix(suffix))
