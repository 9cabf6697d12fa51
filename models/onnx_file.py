"""A look into an ONNX file without loading it: does it name files outside itself?

A model that names `../../etc/passwd` as its weights would be read from there by a runtime. The fields are
those of onnx.proto (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto); only the few that can hold a tensor
are followed.
"""

from collections.abc import Iterator

_MOST_DEPTH = 60

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


def _walk(message: memoryview, kind: str, found: set[str], depth: int) -> None:
    if depth > _MOST_DEPTH:
        raise ValueError("graphs are nested too deeply")
    inner = _FIELDS[kind]
    for number, content in _fields(message):
        if number not in inner or content is None:
            continue
        if inner[number] == "entry":
            pair = dict(_fields(content))
            if bytes(pair.get(1) or b"") == b"location":
                found.add(bytes(pair.get(2) or b"").decode("utf-8", "replace"))
        else:
            _walk(content, inner[number], found, depth + 1)


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview | None]]:
    """Field numbers with their bytes; None for numbers (protobuf's wire types 0, 1 and 5)."""
    at, end = 0, len(message)
    while at < end:
        tag, at = _varint(message, at)
        wire = tag & 7
        if wire == 0:
            _, at = _varint(message, at)
        elif wire in (1, 5):
            at += 8 if wire == 1 else 4
        elif wire == 2:
            length, at = _varint(message, at)
            if at + length > end:
                raise ValueError("a field is longer than the file")
            yield tag >> 3, message[at : at + length]
            at += length
            continue
        else:
            raise ValueError(f"field of wire type {wire}")
        if at > end:
            raise ValueError("the file ends inside a field")
        yield tag >> 3, None


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
