"""A look into an ONNX file without loading it: does it name files outside itself, and what is it made of?

A model that names `../../etc/passwd` as its weights would be read from there by a runtime. The fields are
those of onnx.proto (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto); only the few that can hold a tensor
are followed.
"""

from collections.abc import Iterator
from dataclasses import dataclass

_MOST_DEPTH = 60
_BYTES = 2
_FIXED = {1: 8, 5: 4}
"""Wire types of protobuf, and how many bytes a number of fixed size takes."""
_ON_BYTES = frozenset({"QuantizeLinear", "DequantizeLinear", "QLinearConv", "QLinearMatMul", "ConvInteger"})

# kind of message -> field number -> kind of the message in it
_FIELDS: dict[str, dict[int, str]] = {
    "model": {7: "graph", 25: "function"},
    "function": {7: "node"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {13: "entry"},
}


def external_files(model: bytes) -> set[str]:
    """The file names that tensors of `model` give as the place of their data. ValueError: this is no ONNX file."""
    found: set[str] = set()
    _walk(memoryview(model), "model", found, 0)
    return found


@dataclass(frozen=True, slots=True)
class Summary:
    """What an ONNX file is made of: its format, the version of ONNX's operators, which of them, and who wrote it."""

    ir_version: int
    opset: int
    operators: frozenset[str]
    producer: str

    @property
    def is_quantised(self) -> bool:
        """Whether it computes with bytes."""
        return bool(
            self.operators & {"QuantizeLinear", "DequantizeLinear", "QLinearConv", "QLinearMatMul", "ConvInteger"}
        )


def summary(model: bytes) -> Summary:
    """What `model` is made of, subgraphs left out. Raises ValueError: this is no ONNX file."""
    ir_version, opset, producer, graphs = 0, 0, "", 0
    kinds: set[str] = set()
    for number, content in _fields(memoryview(model)):
        if number == 1 and isinstance(content, int):
            ir_version = content
        elif number == 2 and isinstance(content, memoryview):
            producer = bytes(content).decode("utf-8", "replace")
        elif number == 7 and isinstance(content, memoryview):
            graphs += 1
            kinds |= {_text(node, 4) for field, node in _fields(content) if field == 1 and isinstance(node, memoryview)}
        elif number == 8 and isinstance(content, memoryview) and _text(content, 1) in ("", "ai.onnx"):
            opset = max([opset, *(value for field, value in _fields(content) if field == 2 and isinstance(value, int))])
    if not graphs or not kinds:
        raise ValueError("it holds no graph")
    return Summary(ir_version, opset, frozenset(kinds), producer)


def _text(message: memoryview, field: int) -> str:
    found = [content for number, content in _fields(message) if number == field and isinstance(content, memoryview)]
    return bytes(found[-1]).decode("utf-8", "replace") if found else ""


def _walk(message: memoryview, kind: str, found: set[str], depth: int) -> None:
    if depth > _MOST_DEPTH:
        raise ValueError("graphs are nested too deeply")
    inner = _FIELDS[kind]
    for number, content in _fields(message):
        if number not in inner or not isinstance(content, memoryview):
            continue
        if inner[number] == "entry":
            if _text(content, 1) == "location":
                found.add(_text(content, 2))
        else:
            _walk(content, inner[number], found, depth + 1)


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview | int | None]]:
    """Field numbers with their bytes or whole number; None for others (protobuf's wire types 1 and 5)."""
    for number, wire, content in fields(message):
        yield number, content if wire == _BYTES else _varint(content, 0)[0] if wire == 0 else None


def fields(message: memoryview) -> Iterator[tuple[int, int, memoryview]]:
    """Number, wire type and content of each of protobuf's fields; of wire type 2 the content without its length.

    Raises ValueError for what is no such message.
    """
    at, end = 0, len(message)
    while at < end:
        tag, at = _varint(message, at)
        wire, begin = tag & 7, at
        if wire == _BYTES:
            length, begin = _varint(message, at)
            at = begin + length
        elif wire == 0:
            _, at = _varint(message, at)
        elif wire in _FIXED:
            at += _FIXED[wire]
        else:
            raise ValueError(f"field of wire type {wire}")
        if at > end:
            raise ValueError("the file ends inside a field" if wire != _BYTES else "a field is longer than the file")
        yield tag >> 3, wire, message[begin:at]


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for place in range(10):
        if at >= len(message):
            raise ValueError("the file ends inside a number")
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            return value, at
    raise ValueError("a number is too long")
