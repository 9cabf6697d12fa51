"""Write colour, mean, scale and layout into an ONNX file, before its own graph, so that it takes BGR bytes.

ONNX Runtime has no preprocessing of its own, and numpy would do it while it holds the lock that all threads need. The
steps are operators that every opset since 7 has, so the file's own opset stays.
"""

import struct
from collections.abc import Iterable

from models import onnx_nodes as write
from models.inputs import Input

BYTES = "shelfwire.bytes"
"""The new input's name: (1, height, width, 3), uint8, BGR."""


def with_arithmetic(model: bytes, spec: Input, entry: str) -> bytes:
    """The ONNX file `model` with `spec`'s arithmetic before its input `entry`. ValueError: it is no ONNX file."""
    value = write.value(BYTES, write.UINT8, (1, spec.height, spec.width, 3))
    return write.with_nodes(model, entry, _nodes(spec, entry), value)


def _nodes(spec: Input, entry: str) -> Iterable[bytes]:
    """Bytes are moved while they are bytes; then (value - mean) / scale, as `models.prepare.arithmetic` does it."""
    steps: list[tuple[str, list[str], bytes]] = []
    if spec.colour == "rgb":
        yield write.constant("shelfwire.order", write.tensor(write.INT64, [3], struct.pack("<3q", 2, 1, 0)))
        steps.append(("Gather", ["shelfwire.order"], write.attribute_int("axis", 3)))
    if spec.layout == "nchw":
        steps.append(("Transpose", [], write.attribute_ints("perm", (0, 3, 1, 2))))
    if spec.dtype == "float32":
        shape = [3, 1, 1] if spec.layout == "nchw" else [3]
        yield write.constant("shelfwire.mean", write.tensor(write.FLOAT, shape, struct.pack("<3f", *spec.mean)))
        yield write.constant("shelfwire.scale", write.tensor(write.FLOAT, shape, struct.pack("<3f", *spec.scale)))
        steps.append(("Cast", [], write.attribute_int("to", write.FLOAT)))
        steps.append(("Sub", ["shelfwire.mean"], b""))
        steps.append(("Div", ["shelfwire.scale"], b""))
    before = BYTES
    for number, (kind, more, attribute) in enumerate(steps, 1):
        after = entry if number == len(steps) else f"shelfwire.{number}"
        yield write.node(kind, [before, *more], after, attribute)
        before = after
