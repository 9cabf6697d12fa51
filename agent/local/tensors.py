"""Open Inference Protocol v2, the tensors: from a request's bytes to pictures, and from scores to an answer's bytes.

JSON tensors and the binary tensor data extension, as the KServe project and Triton describe them:
https://kserve.github.io/website/docs/concepts/architecture/data-plane/v2-protocol
https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_binary_data.md
https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_classification.md

Nothing is believed: every size is compared with what is there before anything of that size is made.
"""

import base64
import binascii
import json
import math
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from agent.local.exchange import Refusal
from models import PictureError, decode_picture
from wire import WireError, strict

Pixels = npt.NDArray[np.uint8]
Scores = npt.NDArray[np.float32]

IMAGE, PIXELS, SCORES = "image", "pixels", "scores"
"""The inputs, of which a request gives one, and the output."""

MOST_BODY_BYTES = 16 << 20
"""Of a request, before and after it was unpacked."""
MOST_JSON_BYTES = 4 << 20
"""Of the JSON in a request; the rest of a body is binary."""
MOST_JSON_VALUES = 250_000
"""Of the JSON in a request: 288 x 288 pixels. Parsing more would keep the cameras' threads waiting."""
MOST_PICTURES = 16
"""In one request."""
MOST_PICTURE_PIXELS = 13_000_000
"""Of one picture: a phone's 12 megapixels, some 40 MB once decoded."""
MOST_SIDE = 16_384


@dataclass(frozen=True, slots=True)
class Wanted:
    """How a request wants the output: as binary data, and with `classes` > 0 as that many best labels."""

    binary: bool
    classes: int


@dataclass(frozen=True, slots=True)
class Asked:
    """An inference request that holds together. `pictures` gives them one after the other, BGR, decoded when due."""

    id: str | None
    pictures: "Sequence[JpegOrPng | RawPicture]"
    wanted: Wanted


class JpegOrPng:
    """A picture file."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def decode(self) -> Pixels:
        """Decode it. Raises `Refusal` with the code of what is wrong with it."""
        try:
            return decode_picture(self._content, MOST_PICTURE_PIXELS, MOST_BODY_BYTES)
        except PictureError as error:
            raise Refusal(400, error.code, str(error), error.hint) from None


class RawPicture:
    """A picture of plain numbers from 0 to 255, rows from the top."""

    def __init__(self, values: npt.NDArray[Any], *, planes_first: bool, rgb: bool) -> None:
        self._values = values
        self._planes_first = planes_first
        self._rgb = rgb

    def decode(self) -> Pixels:
        """Turn it into bytes, BGR. Raises `Refusal` (``tensor-value``) for what is no brightness."""
        values = self._values
        if values.dtype != np.uint8:
            low, high = float(values.min()), float(values.max())  # NaN goes through both
            if not (low >= 0 and high <= 255):
                what = "NaN" if math.isnan(low) else f"{low:g} to {high:g}"
                raise Refusal(400, "tensor-value", f"pixels are 0 to 255, here they are {what}", "send plain pixels")
            values = np.rint(values).astype(np.uint8)
        if self._planes_first:
            values = values.transpose(1, 2, 0)
        return np.ascontiguousarray(values[..., ::-1] if self._rgb else values)


def unpack(body: bytes, encoding: str) -> bytes:
    """Undo a body's Content-Encoding, to at most `MOST_BODY_BYTES`.

    Raises `Refusal` (``encoding-unknown``, ``too-large``, ``encoding-broken``).
    """
    if encoding in ("", "identity"):
        return body
    bits = {"gzip": 31, "x-gzip": 31, "deflate": 15}.get(encoding.lower())
    if bits is None:
        raise Refusal(415, "encoding-unknown", "this Content-Encoding is not known", "use gzip, deflate or none")
    unpacker = zlib.decompressobj(bits)
    try:
        plain = unpacker.decompress(body, MOST_BODY_BYTES + 1)
    except zlib.error as error:
        raise _broken(str(error)) from None
    if len(plain) > MOST_BODY_BYTES:
        text = f"unpacked the body has over {MOST_BODY_BYTES} bytes"
        raise Refusal(413, "too-large", text, "send smaller pictures, or fewer")
    if not unpacker.eof or unpacker.unused_data:
        raise _broken("it ends too early" if not unpacker.eof else "something follows it")
    return plain


def _broken(why: str) -> Refusal:
    return Refusal(400, "encoding-broken", f"the packed body cannot be unpacked: {why}", "pack it again, or send plain")


def read_raw(body: bytes, query: Mapping[str, str]) -> Asked:
    """Read a raw binary request: the body is the one picture file (`Inference-Header-Content-Length: 0`).

    The query may say `classification=K`, which is ours: such a request has no JSON to say it in.
    """
    text = query.get("classification", "0")
    if not (text.isascii() and text.isdigit() and len(text) < 6):
        raise _wrong("classification in the address is not a number", "write for example ?classification=3")
    return Asked(None, [JpegOrPng(body)], Wanted(False, int(text)))


def read_request(body: bytes, header_bytes: int | None) -> Asked:
    """Read an inference request; its first `header_bytes` are JSON, all of it when None.

    Raises `Refusal` with status 400 (``inference-request`` and others) or 413.
    """
    head, rest = (body, b"") if header_bytes is None else (body[:header_bytes], body[header_bytes:])
    if header_bytes is not None and header_bytes > len(body):
        raise _wrong("the JSON is shorter than Inference-Header-Content-Length says", "send the true length")
    document = _json(head)
    inputs = document.get("inputs")
    if not isinstance(inputs, list) or len(inputs) != 1 or not isinstance(inputs[0], dict):
        raise _wrong(f"a request has exactly one input, {IMAGE} or {PIXELS}", "name one of them")
    identity = document.get("id")
    if identity is not None and not (isinstance(identity, str) and len(identity) <= 256):
        raise _wrong("id is not a text of at most 256 characters", "send a shorter one, or none")
    parameters = _parameters(document)
    wanted = _wanted(document.get("outputs"), binary=_flag(parameters, "binary_data_output"))
    return Asked(identity, _pictures(inputs[0], rest), wanted)


def _wrong(text: str, cure: str) -> Refusal:
    return Refusal(400, "inference-request", text, cure)


def _json(head: bytes) -> dict[str, Any]:
    if len(head) > MOST_JSON_BYTES or head.count(b",") > MOST_JSON_VALUES:
        text = f"the JSON has over {MOST_JSON_BYTES} bytes or {MOST_JSON_VALUES} values"
        raise Refusal(413, "json-too-large", text, "send the tensor as binary data")
    try:
        document = strict.loads(head, MOST_JSON_BYTES)
    except WireError as error:
        raise _wrong(f"the JSON cannot be read: {error}", error.hint or "mend it") from None
    if not isinstance(document, dict):
        raise _wrong("the JSON is not an object", "see docs/local.md for an example")
    return document


def _parameters(holder: Mapping[str, Any]) -> Mapping[str, Any]:
    found = holder.get("parameters", {})
    if not isinstance(found, dict):
        raise _wrong("parameters is not an object", "leave it out, or send an object")
    if any(name.startswith("shared_memory") for name in found):
        raise _wrong("shared memory is not supported", "send the data in the body")
    return found


def _flag(parameters: Mapping[str, Any], name: str) -> bool:
    value = parameters.get(name, False)
    if not isinstance(value, bool):
        raise _wrong(f"{name} is neither true nor false", "correct it")
    return value


def _wanted(outputs: object, *, binary: bool) -> Wanted:
    if outputs is None or outputs == []:
        return Wanted(binary, 0)
    if not isinstance(outputs, list) or len(outputs) != 1 or not isinstance(outputs[0], dict):
        raise _wrong(f"there is one output, {SCORES}", "ask for it, or leave outputs away")
    if outputs[0].get("name") != SCORES:
        raise _wrong(f"there is no such output; the one is {SCORES}", "correct the name")
    parameters = _parameters(outputs[0])
    classes = parameters.get("classification", 0)
    if not isinstance(classes, int) or isinstance(classes, bool) or classes < 0:
        raise _wrong("classification is not a number of labels", "send how many of the best you want")
    return Wanted(_flag(parameters, "binary_data") if "binary_data" in parameters else binary, classes)


def _pictures(given: Mapping[str, Any], rest: bytes) -> "Sequence[JpegOrPng | RawPicture]":
    name, kind, shape = given.get("name"), given.get("datatype"), _shape(given.get("shape"))
    binary, sizes = _binary(given, rest)
    if name == IMAGE:
        return _files(kind, shape, given.get("data"), binary, sizes)
    if name == PIXELS:
        return _raw_pictures(given, kind, shape, binary)
    raise _wrong(f"there is no such input; they are {IMAGE} and {PIXELS}", "correct the name")


def _binary(given: Mapping[str, Any], rest: bytes) -> tuple[bytes | None, Sequence[int] | None]:
    """Give the input's binary data, None when it has none, and the sizes of its files where these are told in the JSON.

    Beside the protocol's number OpenVINO Model Server's clients write no size, for the one input that there is, or the
    size of each file in a text, "370,480", and then the files without their lengths before them.
    """
    said = _parameters(given).get("binary_data_size")
    if said is None and not rest:
        return None, None
    if "data" in given:
        raise _wrong("the input has data and binary data", "send one of them")
    if said is None:
        return rest, (len(rest),)
    if isinstance(said, str):
        sizes = _sizes(said)
        told, known = sum(sizes), sizes
    else:
        told, known = said, None
    if not isinstance(told, int) or isinstance(told, bool) or told != len(rest):
        raise _wrong(f"binary_data_size is not {len(rest)}, which follows the JSON", "send the true size")
    return rest, known


def _sizes(text: str) -> Sequence[int]:
    parts = text.split(",")
    if len(parts) > MOST_PICTURES or not all(part.isascii() and part.isdigit() and len(part) < 10 for part in parts):
        raise _wrong("binary_data_size is neither a number nor a list of numbers", "send the true size")
    return [int(part) for part in parts]


def _shape(value: object) -> tuple[int, ...]:
    """Check a shape; its numbers are Python's, which cannot overflow."""
    if not isinstance(value, list) or not 1 <= len(value) <= 4:
        raise _wrong("shape is not a list of one to four numbers", "see the model's metadata")
    for side in value:
        if not isinstance(side, int) or isinstance(side, bool) or not 1 <= side <= MOST_SIDE:
            raise _wrong(f"each number in a shape is from 1 to {MOST_SIDE}", "correct the shape")
    if value[0] > MOST_PICTURES:
        text = f"the request has {value[0]} pictures, at most {MOST_PICTURES} are taken"
        raise Refusal(413, "too-many-pictures", text, "send them in several requests")
    return tuple(value)


def _files(
    kind: object, shape: tuple[int, ...], data: object, binary: bytes | None, sizes: Sequence[int] | None
) -> list[JpegOrPng]:
    if kind != "BYTES":
        raise _wrong(f"{IMAGE} has the datatype BYTES", "correct the datatype")
    if len(shape) > 2 or shape[1:] not in ((), (1,)):
        raise _wrong(f"{IMAGE} has the shape [n, 1] or [n]", "correct the shape")
    if binary is not None:
        elements = _elements(binary, shape[0]) if sizes is None else _cut(binary, sizes, shape[0])
        return [JpegOrPng(content) for content in elements]
    texts = list(_flat(data, shape[0]))
    return [JpegOrPng(_from_base64(text)) for text in texts]


def _elements(binary: bytes, count: int) -> Iterator[bytes]:
    """Give the elements of a binary BYTES tensor: each has its length before it, four bytes, the low one first."""
    at = 0
    for _ in range(count):
        if at + 4 > len(binary):
            raise _wrong(f"the binary data ends before its {count} elements", "write each with its length before it")
        (length,) = struct.unpack_from("<I", binary, at)
        at += 4
        if length > len(binary) - at:
            raise _wrong("an element is longer than the binary data", "write its true length before it")
        yield binary[at : at + length]
        at += length
    if at != len(binary):
        raise _wrong(f"{len(binary) - at} bytes follow the last element", "correct the shape or the data")


def _cut(binary: bytes, sizes: Sequence[int], count: int) -> Iterator[bytes]:
    """Give files that follow each other without anything between."""
    if len(sizes) != count:
        raise _wrong(f"the shape says {count} files, there are {len(sizes)}", "correct the shape or binary_data_size")
    at = 0
    for size in sizes:
        yield binary[at : at + size]
        at += size


def _from_base64(text: object) -> bytes:
    """Read a file in a JSON text, which cannot hold its bytes as they are."""
    try:
        return base64.b64decode(text if isinstance(text, str) else b"*", validate=True)
    except (binascii.Error, ValueError):
        raise _wrong("a picture in JSON is a text in base64", "write it so, or send it as binary data") from None


def _flat(data: object, count: int) -> Iterator[Any]:
    """Give the values of a JSON tensor, nested or not; exactly `count` of them. Raises `Refusal`."""
    found = 0
    waiting = [iter(data)] if isinstance(data, list) else []
    while waiting:
        value = next(waiting[-1], waiting)
        if value is waiting:
            waiting.pop()
        elif isinstance(value, list):
            waiting.append(iter(value))
        else:
            found += 1
            if found > count:
                break
            yield value
    if found != count:
        raise _wrong(f"data does not have the {count} values that the shape says", "correct the shape or the data")


_BYTES_EACH = {"UINT8": 1, "FP32": 4}


def _raw_pictures(
    given: Mapping[str, Any], kind: object, shape: tuple[int, ...], binary: bytes | None
) -> list[RawPicture]:
    if not isinstance(kind, str) or kind not in _BYTES_EACH:
        raise _wrong(f"{PIXELS} has the datatype UINT8 or FP32", "correct the datatype")
    if len(shape) != 4 or 3 not in (shape[3], shape[1]):
        raise _wrong(f"{PIXELS} has the shape [n, height, width, 3] or [n, 3, height, width]", "correct the shape")
    planes_first = shape[3] != 3
    if math.prod(shape[1:]) > 3 * MOST_PICTURE_PIXELS:
        text = f"a picture has over {MOST_PICTURE_PIXELS} pixels"
        raise Refusal(413, "picture-too-large", text, "scale it down before it is sent")
    colour = _parameters(given).get("colour", "rgb")
    if colour not in ("rgb", "bgr"):
        raise _wrong("colour is neither rgb nor bgr", "correct the parameter")
    values = _numbers(kind, math.prod(shape), given.get("data"), binary).reshape(shape)
    return [RawPicture(one, planes_first=planes_first, rgb=colour == "rgb") for one in values]


def _numbers(kind: str, count: int, data: object, binary: bytes | None) -> npt.NDArray[Any]:
    if binary is not None:
        if len(binary) != count * _BYTES_EACH[kind]:
            text = f"the shape needs {count * _BYTES_EACH[kind]} bytes, there are {len(binary)}"
            raise _wrong(text, "correct the shape or the data")
        return np.frombuffer(binary, np.uint8 if kind == "UINT8" else "<f4")
    if count > MOST_JSON_VALUES:
        raise _wrong(f"the shape needs {count} values, there cannot be as many", "send the tensor as binary data")
    values = list(_flat(data, count))
    if any(type(value) not in ((int,) if kind == "UINT8" else (int, float)) for value in values):
        raise _wrong(f"data of {kind} holds something else", "send numbers")
    # As doubles, so that 256 stays 256 until `RawPicture` looks at it.
    return np.array(values, np.float64)


def write_reply(
    asked: Asked, model: tuple[str, str], labels: Sequence[str], scores: Sequence[Scores]
) -> tuple[bytes, int | None]:
    """Write an inference answer; gives its bytes and how many of them are JSON, None when all are.

    `model` is name and version; `scores` has one (classes,) for each picture.
    """
    output: dict[str, Any] = {"name": SCORES}
    binary = b""
    if asked.wanted.classes:
        rows = [_best(one, labels, asked.wanted.classes) for one in scores]
        output.update(datatype="BYTES", shape=[len(rows), len(rows[0])])
        texts = [text for row in rows for text in row]
        if asked.wanted.binary:
            encoded = [text.encode() for text in texts]
            binary = b"".join(struct.pack("<I", len(text)) + text for text in encoded)
        else:
            output["data"] = texts
    else:
        table = np.stack(scores).astype("<f4")
        output.update(datatype="FP32", shape=list(table.shape))
        if asked.wanted.binary:
            binary = table.tobytes()
        else:
            output["data"] = [float(value) for value in table.ravel()]
    if asked.wanted.binary:
        output["parameters"] = {"binary_data_size": len(binary)}
    document = {"model_name": model[0], "model_version": model[1], "outputs": [output]}
    if asked.id is not None:
        document["id"] = asked.id
    head = json.dumps(document, separators=(",", ":")).encode()
    return head + binary, len(head) if asked.wanted.binary else None


def _best(scores: Scores, labels: Sequence[str], classes: int) -> list[str]:
    """Write the best labels as Triton does: SCORE:INDEX:LABEL."""
    order = np.argsort(-scores, kind="stable")[:classes]
    return [f"{scores[index]:f}:{index}:{labels[index]}" for index in order]


def pack(body: bytes, accepted: str) -> tuple[bytes, str]:
    """Pack an answer as the client's Accept-Encoding allows; gives it with its Content-Encoding, empty for none."""
    offered = [
        part.partition(";")[0].strip().lower() for part in accepted.split(",") if "q=0" not in part.split(";")[1:]
    ]
    for encoding, bits in (("gzip", 31), ("deflate", 15)):
        if encoding in offered:
            packer = zlib.compressobj(1, wbits=bits)
            return packer.compress(body) + packer.flush(), encoding
    return body, ""
