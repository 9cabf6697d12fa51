"""Write nodes into an ONNX file by hand, before its own graph, without the onnx package: devices do not have it.

Constants are nodes, because files of an old IR version want every initializer among their inputs. Fields are those of
onnx.proto, as in `models.onnx_file`.
"""

from collections.abc import Iterable, Sequence

from models.onnx_file import fields

UINT8, FLOAT, INT64 = 2, 1, 7
_ATTRIBUTE_INT, _ATTRIBUTE_TENSOR, _ATTRIBUTE_INTS = 2, 4, 7


def with_nodes(model: bytes, entry: str, nodes: Iterable[bytes], value: bytes) -> bytes:
    """The ONNX file `model` with `nodes` before all of its own, of which the last gives what was its input `entry`, and
    with the input `value` in place of that. ValueError: it is no ONNX file."""
    parts = []
    for number, wire, content in fields(memoryview(model)):
        graph = number == 7 and wire == 2
        parts.append(_field(7, _graph(content, entry, nodes, value)) if graph else _as_it_was(number, wire, content))
    return b"".join(parts)


def _graph(graph: memoryview, entry: str, nodes: Iterable[bytes], value: bytes) -> bytes:
    parts = [*(_field(1, one) for one in nodes), _field(11, value)]
    for number, wire, content in fields(graph):
        if not (number == 11 and wire == 2 and _name_of(content) == entry):
            parts.append(_as_it_was(number, wire, content))
    return b"".join(parts)


def node(kind: str, taken: list[str], given: str, attribute: bytes) -> bytes:
    """A NodeProto: input 1, output 2, op_type 4, attribute 5."""
    names = b"".join(_field(1, name.encode()) for name in taken)
    return names + _field(2, given.encode()) + _field(4, kind.encode()) + (_field(5, attribute) if attribute else b"")


def constant(name: str, content: bytes) -> bytes:
    """A node that gives `content`, a `tensor`, as `name`."""
    attribute = _field(1, b"value") + _field(5, content) + _number(20, _ATTRIBUTE_TENSOR)
    return node("Constant", [], name, attribute)


def tensor(kind: int, shape: Sequence[int], content: bytes) -> bytes:
    """A TensorProto: dims 1, data_type 2, raw_data 9."""
    return b"".join(_number(1, side) for side in shape) + _number(2, kind) + _field(9, content)


def attribute_int(name: str, value: int) -> bytes:
    """An AttributeProto: name 1, i 3, type 20."""
    return _field(1, name.encode()) + _number(3, value) + _number(20, _ATTRIBUTE_INT)


def attribute_ints(name: str, values: Iterable[int]) -> bytes:
    """An AttributeProto: name 1, ints 8, type 20."""
    return _field(1, name.encode()) + b"".join(_number(8, value) for value in values) + _number(20, _ATTRIBUTE_INTS)


def value(name: str, kind: int, shape: Sequence[int | None]) -> bytes:
    """A ValueInfoProto: name 1, type 2 > tensor_type 1 > elem_type 1, shape 2 > dim 1 > dim_value 1; None is open."""
    sides = b"".join(_field(1, b"" if side is None else _number(1, side)) for side in shape)
    return _field(1, name.encode()) + _field(2, _field(1, _number(1, kind) + _field(2, sides)))


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
