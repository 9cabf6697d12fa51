"""Write colour, mean, scale and layout into an ONNX file, before its own graph, so that it takes BGR bytes.

ONNX Runtime has no preprocessing of its own, and numpy would do it while it holds the lock that all threads need. The
steps are operators that every opset since 7 has, so the file's own opset stays; constants are nodes, because files of
an old IR version want every initializer among their inputs. Fields are those of onnx.proto, as in `models.onnx_file`.
"""

import struct
from collections.abc import Iterable

from models.inputs import Input
from models.onnx_file import fields

BYTES = "shelfwire.bytes"
"""The new input's name: (1, height, width, 3), uint8, BGR."""

_UINT8, _FLOAT, _INT64 = 2, 1, 7
_ATTRIBUTE_INT, _ATTRIBUTE_TENSOR, _ATTRIBUTE_INTS = 2, 4, 7


def with_arithmetic(model: bytes, spec: Input, entry: str) -> bytes:
    """The ONNX file `model` with `spec`'s arithmetic before its input `entry`. ValueError: it is no ONNX file."""
    parts = []
    for number, wire, content in fields(memoryview(model)):
        graph = number == 7 and wire == 2
        parts.append(_field(7, _graph(content, spec, entry)) if graph else _as_it_was(number, wire, content))
    return b"".join(parts)


def _graph(graph: memoryview, spec: Input, entry: str) -> bytes:
    """The graph with our nodes before all of its own, and our input in place of its own."""
    parts = [*(_field(1, node) for node in _nodes(spec, entry)), _field(11, _entry(spec))]
    for number, wire, content in fields(graph):
        if not (number == 11 and wire == 2 and _name_of(content) == entry):
            parts.append(_as_it_was(number, wire, content))
    return b"".join(parts)


def _nodes(spec: Input, entry: str) -> Iterable[bytes]:
    """Bytes are moved while they are bytes; then (value - mean) / scale, as `models.prepare.arithmetic` does it."""
    steps: list[tuple[str, list[str], bytes]] = []
    if spec.colour == "rgb":
        yield _constant("shelfwire.order", _tensor(_INT64, [3], struct.pack("<3q", 2, 1, 0)))
        steps.append(("Gather", ["shelfwire.order"], _attribute_int("axis", 3)))
    if spec.layout == "nchw":
        steps.append(("Transpose", [], _attribute_ints("perm", (0, 3, 1, 2))))
    if spec.dtype == "float32":
        shape = [3, 1, 1] if spec.layout == "nchw" else [3]
        yield _constant("shelfwire.mean", _tensor(_FLOAT, shape, struct.pack("<3f", *spec.mean)))
        yield _constant("shelfwire.scale", _tensor(_FLOAT, shape, struct.pack("<3f", *spec.scale)))
        steps.append(("Cast", [], _attribute_int("to", _FLOAT)))
        steps.append(("Sub", ["shelfwire.mean"], b""))
        steps.append(("Div", ["shelfwire.scale"], b""))
    before = BYTES
    for number, (kind, more, attribute) in enumerate(steps, 1):
        after = entry if number == len(steps) else f"shelfwire.{number}"
        yield _node(kind, [before, *more], after, attribute)
        before = after


def _node(kind: str, taken: list[str], given: str, attribute: bytes) -> bytes:
    """A NodeProto: input 1, output 2, op_type 4, attribute 5."""
    names = b"".join(_field(1, name.encode()) for name in taken)
    return names + _field(2, given.encode()) + _field(4, kind.encode()) + (_field(5, attribute) if attribute else b"")


def _constant(name: str, tensor: bytes) -> bytes:
    attribute = _field(1, b"value") + _field(5, tensor) + _number(20, _ATTRIBUTE_TENSOR)
    return _node("Constant", [], name, attribute)


def _tensor(kind: int, shape: list[int], content: bytes) -> bytes:
    """A TensorProto: dims 1, data_type 2, raw_data 9."""
    return b"".join(_number(1, side) for side in shape) + _number(2, kind) + _field(9, content)


def _attribute_int(name: str, value: int) -> bytes:
    return _field(1, name.encode()) + _number(3, value) + _number(20, _ATTRIBUTE_INT)


def _attribute_ints(name: str, values: Iterable[int]) -> bytes:
    return _field(1, name.encode()) + b"".join(_number(8, value) for value in values) + _number(20, _ATTRIBUTE_INTS)


def _entry(spec: Input) -> bytes:
    """A ValueInfoProto: name 1, type 2 > tensor_type 1 > elem_type 1, shape 2 > dim 1 > dim_value 1."""
    shape = b"".join(_field(1, _number(1, side)) for side in (1, spec.height, spec.width, 3))
    return _field(1, BYTES.encode()) + _field(2, _field(1, _number(1, _UINT8) + _field(2, shape)))


def _name_of(value_info: memoryview) -> str:
    names = [bytes(content) for number, wire, content in fields(value_info) if number == 1 and wire == 2]
    return names[-1].decode("utf-8", "replace") if names else ""


def _as_it_was(number: int, wire: int, content: memoryview) -> bytes:
    return _field(number, content) if wire == 2 else _varint(number << 3 | wire) + bytes(content)


def _field(number: int, content: bytes | memoryview) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(content)) + bytes(content)


def _number(number: int, value: int) -> bytes:
    return _varint(number << 3) + _varint(value)


def _varint(value: int) -> bytes:
    written = bytearray()
    while value > 0x7F:
        written.append(value & 0x7F | 0x80)
        value >>= 7
    written.append(value)
    return bytes(written)
