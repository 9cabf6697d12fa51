"""A small TensorFlow Lite file for tests, written field by field: it answers with the means of its three channels.

The numbers of fields, types and operators are those of TensorFlow's schema.fbs, version 3.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import flatbuffers
import numpy as np

SIDE_PX = 32
FLOAT32, UINT8, INT32, INT8 = 0, 3, 2, 9
FULLY_CONNECTED, SOFTMAX, MEAN = 9, 25, 40
FULLY_CONNECTED_OPTIONS, SOFTMAX_OPTIONS, REDUCER_OPTIONS = 8, 9, 27


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor; with `scale` it is quantised: value = scale x (number - zero)."""

    name: str
    shape: tuple[int, ...]
    kind: int = FLOAT32
    content: bytes = b""
    scale: float | None = None
    zero: int = 0


def floats() -> bytes:
    """Takes floats (1, 32, 32, 3), gives a softmax of three: reds, greens and blues, each mean x 10."""
    weights = (np.eye(3, dtype=np.float32) * 10).tobytes()
    tensors = [
        Tensor("picture", (1, SIDE_PX, SIDE_PX, 3)),
        Tensor("axes", (2,), INT32, np.array([1, 2], np.int32).tobytes()),
        Tensor("means", (1, 3)),
        Tensor("weights", (3, 3), FLOAT32, weights),
        Tensor("bias", (3,), FLOAT32, np.zeros(3, np.float32).tobytes()),
        Tensor("logits", (1, 3)),
        Tensor("probabilities", (1, 3)),
    ]
    return _file(tensors)


def quantised(kind: int = UINT8) -> bytes:
    """As `floats`, all in bytes, for numbers of 0..1: takes and gives bytes (UINT8, or INT8 around zero)."""
    low, numbers = (0, np.uint8) if kind == UINT8 else (-128, np.int8)
    weights = (np.eye(3) * 100 + (128 + low)).astype(numbers).tobytes()
    pixel = 1 / 255
    tensors = [
        Tensor("picture", (1, SIDE_PX, SIDE_PX, 3), kind, b"", pixel, low),
        Tensor("axes", (2,), INT32, np.array([1, 2], np.int32).tobytes()),
        Tensor("means", (1, 3), kind, b"", pixel, low),
        Tensor("weights", (3, 3), kind, weights, 0.1, 128 + low),
        Tensor("bias", (3,), INT32, np.zeros(3, np.int32).tobytes(), 0.1 * pixel, 0),
        Tensor("logits", (1, 3), kind, b"", 0.05, low),
        Tensor("probabilities", (1, 3), kind, b"", 1 / 256, low),
    ]
    return _file(tensors)


def _file(tensors: Sequence[Tensor]) -> bytes:
    to = flatbuffers.Builder(4096)
    buffers = [_buffer(to, b""), *(_buffer(to, tensor.content) for tensor in tensors)]
    made = [_tensor(to, tensor, number + 1) for number, tensor in enumerate(tensors)]
    keep = _table(to, 1, lambda: to.PrependBoolSlot(0, False, True))
    plain = _table(to, 1, lambda: to.PrependInt8Slot(0, 0, 1))
    beta = _table(to, 1, lambda: to.PrependFloat32Slot(0, 1.0, 0.0))
    operators = [
        _operator(to, 0, [0, 1], [2], REDUCER_OPTIONS, keep),
        _operator(to, 1, [2, 3, 4], [5], FULLY_CONNECTED_OPTIONS, plain),
        _operator(to, 2, [5], [6], SOFTMAX_OPTIONS, beta),
    ]
    codes = [_code(to, code) for code in (MEAN, FULLY_CONNECTED, SOFTMAX)]
    graph = _graph(to, made, operators)
    parts = (_offsets(to, codes), _offsets(to, [graph]), _offsets(to, buffers))
    name = to.CreateString("toy")
    to.StartObject(5)
    to.PrependUint32Slot(0, 3, 0)
    for slot, part in zip((1, 2, 4), parts, strict=True):
        to.PrependUOffsetTRelativeSlot(slot, part, 0)
    to.PrependUOffsetTRelativeSlot(3, name, 0)
    to.Finish(to.EndObject(), file_identifier=b"TFL3")
    return bytes(to.Output())


def _table(to: flatbuffers.Builder, fields: int, fill: Callable[[], None]) -> int:
    to.StartObject(fields)
    fill()
    return int(to.EndObject())


def _ints(to: flatbuffers.Builder, values: Sequence[int]) -> int:
    return int(to.CreateNumpyVector(np.array(values, np.int32)))


def _offsets(to: flatbuffers.Builder, offsets: Sequence[int]) -> int:
    to.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
        to.PrependUOffsetTRelative(offset)
    return int(to.EndVector())


def _buffer(to: flatbuffers.Builder, content: bytes) -> int:
    if not content:
        return _table(to, 1, lambda: None)
    to.StartVector(1, len(content), 16)
    to.head = to.head - len(content)
    to.Bytes[to.head : to.head + len(content)] = content
    kept = to.EndVector()
    return _table(to, 1, lambda: to.PrependUOffsetTRelativeSlot(0, kept, 0))


def _tensor(to: flatbuffers.Builder, tensor: Tensor, buffer: int) -> int:
    shape, name = _ints(to, tensor.shape), to.CreateString(tensor.name)
    steps = None if tensor.scale is None else _quantisation(to, tensor.scale, tensor.zero)

    def fill() -> None:
        to.PrependUOffsetTRelativeSlot(0, shape, 0)
        to.PrependInt8Slot(1, tensor.kind, 0)
        to.PrependUint32Slot(2, buffer, 0)
        to.PrependUOffsetTRelativeSlot(3, name, 0)
        if steps is not None:
            to.PrependUOffsetTRelativeSlot(4, steps, 0)

    return _table(to, 5, fill)


def _quantisation(to: flatbuffers.Builder, scale: float, zero: int) -> int:
    scales, zeros = (
        to.CreateNumpyVector(np.array([scale], np.float32)),
        to.CreateNumpyVector(np.array([zero], np.int64)),
    )

    def fill() -> None:
        to.PrependUOffsetTRelativeSlot(2, scales, 0)
        to.PrependUOffsetTRelativeSlot(3, zeros, 0)

    return _table(to, 7, fill)


def _operator(
    to: flatbuffers.Builder, code: int, inputs: Sequence[int], outputs: Sequence[int], kind: int, options: int
) -> int:
    given, gives = _ints(to, inputs), _ints(to, outputs)

    def fill() -> None:
        to.PrependUint32Slot(0, code, 0)
        to.PrependUOffsetTRelativeSlot(1, given, 0)
        to.PrependUOffsetTRelativeSlot(2, gives, 0)
        to.PrependUint8Slot(3, kind, 0)
        to.PrependUOffsetTRelativeSlot(4, options, 0)

    return _table(to, 5, fill)


def _code(to: flatbuffers.Builder, code: int) -> int:
    def fill() -> None:
        to.PrependInt8Slot(0, code, 0)
        to.PrependInt32Slot(2, 1, 0)
        to.PrependInt32Slot(3, code, 0)

    return _table(to, 4, fill)


def _graph(to: flatbuffers.Builder, tensors: Sequence[int], operators: Sequence[int]) -> int:
    parts = _offsets(to, tensors), _ints(to, [0]), _ints(to, [6]), _offsets(to, operators)

    def fill() -> None:
        for slot, part in enumerate(parts):
            to.PrependUOffsetTRelativeSlot(slot, part, 0)

    return _table(to, 5, fill)
