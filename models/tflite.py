"""TensorFlow Lite models as OpenVINO graphs that take bytes or floats and give scores.

A model that was quantised as a whole takes and gives bytes that stand for numbers. OpenVINO keeps that; here the graph
is opened at its end, so that it gives the numbers, and one that takes signed bytes is made to take plain ones.
"""

from pathlib import Path

import numpy as np
import openvino as ov
from openvino import opset13 as ops

from models.errors import BundleError
from models.runtimes.openvino import shared_core

_SIGNED = 128
_SMALL = (ov.Type.u8, ov.Type.i8)


def to_ir(source: Path, target: Path) -> tuple[str, ...]:
    """Write the TensorFlow Lite file `source` as OpenVINO's IR `target` (.xml, and .bin beside it).

    Gives notes on what was changed. The floats of weights stay floats. Raises BundleError import-type.
    """
    graph = shared_core().read_model(str(source))
    notes = []
    if len(graph.inputs) == 1 and graph.input(0).element_type == ov.Type.i8:
        graph = _with_plain_bytes(graph)
        notes.append("the model takes signed bytes: pictures' bytes less 128, which its graph does now")
    if len(graph.outputs) == 1 and graph.output(0).element_type in _SMALL:
        graph = _with_numbers(graph)
        notes.append("the model gives bytes that stand for scores: its graph gives the scores now")
    ov.save_model(graph, str(target), compress_to_fp16=False)
    return tuple(notes)


def _with_plain_bytes(graph: ov.Model) -> ov.Model:
    """Quantised as usual, a picture's byte less 128 is the model's signed byte."""
    entry = graph.get_parameters()[0]
    readers = [target.get_node() for target in entry.output(0).get_target_inputs()]
    if not all(reader.get_type_name() == "Convert" for reader in readers):
        raise _refused("takes signed bytes in a way that is not known here", "with a float32 or uint8 input")
    plain = ops.parameter(entry.get_partial_shape(), ov.Type.u8, name=entry.get_friendly_name())
    plain.output(0).set_names(entry.output(0).get_names())
    signed = ops.subtract(ops.convert(plain, "f32"), ops.constant(np.float32(_SIGNED)))
    for reader in readers:
        for target in reader.output(0).get_target_inputs():
            target.replace_source_output(signed.output(0))
    return ov.Model(graph.get_results(), [plain], graph.get_friendly_name())


def _with_numbers(graph: ov.Model) -> ov.Model:
    """End at the last rounding, which then gives the numbers that it rounds, not the bytes that stand for them."""
    last = graph.get_results()[0].input_value(0).get_node()
    rounding = last.input_value(0).get_node() if last.get_type_name() == "Convert" else last
    if rounding.get_type_name() != "FakeQuantize":
        raise _refused("gives bytes in a way that is not known here", "with a float32 output")
    number, low, high = (rounding.input_value(place) for place in range(3))
    levels = int(rounding.get_attributes()["levels"])
    scores = ops.fake_quantize(number, low, high, low, high, levels)
    scores.output(0).set_names(last.output(0).get_names())
    return ov.Model([scores], graph.get_parameters(), graph.get_friendly_name())


def _refused(what: str, wish: str) -> BundleError:
    return BundleError("import-type", f"the model {what}", f"convert it again {wish}")
