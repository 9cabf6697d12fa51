"""Open Inference v2 requests, well formed and hostile: read to the value, or refused with a code, never believed."""

import base64
import gzip
import json
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.local import tensors
from agent.local.exchange import Refusal
from agent.local.tensors import MOST_BODY_BYTES, Asked, Wanted, read_raw, read_request, unpack, write_reply

import cv2  # isort: skip

PNG = cv2.imencode(".png", np.full((4, 6, 3), (10, 20, 30), np.uint8))[1].tobytes()
LABELS = ("Apple", "Banana: ripe", "Pear")


def request(values: object = None, /, *, binary: bytes | None = None, **changes: Any) -> Asked:
    """Read a request for one picture file, with changes to its input."""
    entry: dict[str, Any] = {"name": "image", "shape": [1, 1], "datatype": "BYTES"}
    if binary is not None:
        entry["parameters"] = {"binary_data_size": len(binary)}
    else:
        entry["data"] = values
    return read_document({"inputs": [{**entry, **changes}]}, binary)


def read_document(document: object, binary: bytes | None = None) -> Asked:
    head = json.dumps(document).encode()
    return read_request(head + (binary or b""), None if binary is None else len(head))


def element(content: bytes) -> bytes:
    return struct.pack("<I", len(content)) + content


def pixels(values: Any, kind: str, shape: list[int], binary: bytes | None = None, **parameters: Any) -> Asked:
    entry: dict[str, Any] = {"name": "pixels", "shape": shape, "datatype": kind, "parameters": parameters}
    if binary is None:
        entry["data"] = values
    else:
        parameters["binary_data_size"] = len(binary)
    return read_document({"inputs": [entry]}, binary)


def refused(code: str, status: int = 400) -> Any:
    return pytest.raises(Refusal, check=lambda r: (r.code, r.status) == (code, status) and bool(r.hint))


# What is meant well.


def test_a_picture_comes_in_binary_in_base64_or_as_the_whole_body() -> None:
    for asked in (
        request(binary=element(PNG)),
        request(binary=element(PNG), shape=[1]),
        request([base64.b64encode(PNG).decode()]),
        read_raw(PNG, {}),
    ):
        (picture,) = asked.pictures
        assert picture.decode()[0, 0].tolist() == [10, 20, 30]


def test_files_come_as_clients_of_openvino_model_server_send_them() -> None:
    """Without a size where there is one input, or with each file's size in a text and no lengths between them."""
    head = {"name": "image", "datatype": "BYTES", "shape": [1]}
    one = read_document({"inputs": [head]}, PNG)
    listed = {**head, "shape": [2], "parameters": {"binary_data_size": f"{len(PNG)},{len(PNG)}"}}
    two = read_document({"inputs": [listed]}, PNG + PNG)
    single = {**head, "parameters": {"binary_data_size": str(len(PNG))}}
    for asked, count in ((one, 1), (two, 2), (read_document({"inputs": [single]}, PNG), 1)):
        assert [picture.decode().shape for picture in asked.pictures] == [(4, 6, 3)] * count


@pytest.mark.parametrize("sizes", ["", "1,2", f"{len(PNG)},0", f"-1,{len(PNG) + 1}", f"{len(PNG)},", "9" * 5000, "²"])
def test_sizes_of_files_that_do_not_add_up_are_refused(sizes: str) -> None:
    with refused("inference-request"):
        read_document(
            {
                "inputs": [
                    {"name": "image", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": sizes}}
                ]
            },
            PNG,
        )


def test_pixels_may_come_without_a_size() -> None:
    given = np.zeros((1, 4, 5, 3), np.uint8)
    head = {"name": "pixels", "datatype": "UINT8", "shape": [1, 4, 5, 3]}
    (picture,) = read_document({"inputs": [head]}, given.tobytes()).pictures
    assert picture.decode().shape == (4, 5, 3)
    with refused("inference-request"):
        read_document({"inputs": [head]}, given.tobytes()[:-1])


def test_several_pictures_stay_in_their_order() -> None:
    contents = [cv2.imencode(".png", np.full((2, 2, 3), n, np.uint8))[1].tobytes() for n in range(16)]
    asked = request(binary=b"".join(element(content) for content in contents), shape=[16, 1])
    assert [picture.decode()[0, 0, 0] for picture in asked.pictures] == list(range(16))


@pytest.mark.parametrize("kind", ["UINT8", "FP32"])
@pytest.mark.parametrize("planes_first", [False, True])
@pytest.mark.parametrize("colour", ["rgb", "bgr", None])
@pytest.mark.parametrize("as_json", [False, True])
def test_plain_pixels_come_in_both_types_layouts_and_orders(
    kind: str, planes_first: bool, colour: str | None, as_json: bool
) -> None:
    meant = np.random.default_rng(1).integers(0, 256, (2, 5, 7, 3), np.uint8)  # BGR, as the model's side takes it
    given = meant if colour == "bgr" else meant[..., ::-1]
    given = given.transpose(0, 3, 1, 2) if planes_first else given
    given = given.astype("<f4") if kind == "FP32" else given
    parameters = {} if colour is None else {"colour": colour}
    binary = None if as_json else np.ascontiguousarray(given).tobytes()
    asked = pixels(given.tolist() if as_json else None, kind, list(given.shape), binary, **parameters)
    assert np.array_equal(np.stack([picture.decode() for picture in asked.pictures]), meant)


def test_an_answer_lists_scores_or_the_best_labels_in_json_or_binary() -> None:
    scores = [np.array([0.1, 0.7, 0.2], np.float32), np.array([0.5, 0.25, 0.25], np.float32)]

    def write(binary: bool, classes: int) -> tuple[dict[str, Any], bytes]:
        asked = Asked("seven", [], Wanted(binary, classes))
        reply, size = write_reply(asked, ("produce", "1.0"), LABELS, scores)
        return json.loads(reply[:size]), reply[size:] if size else b""

    document, _ = write(binary=False, classes=0)
    assert (document["model_name"], document["model_version"], document["id"]) == ("produce", "1.0", "seven")
    assert document["outputs"][0]["shape"] == [2, 3]
    assert document["outputs"][0]["data"] == [float(score) for one in scores for score in one]
    document, binary = write(binary=True, classes=0)
    assert document["outputs"][0]["parameters"] == {"binary_data_size": 24}
    assert np.frombuffer(binary, "<f4").reshape(2, 3).tolist() == [one.tolist() for one in scores]
    document, _ = write(binary=False, classes=2)
    assert document["outputs"][0]["shape"] == [2, 2]
    assert document["outputs"][0]["data"][:3] == ["0.700000:1:Banana: ripe", "0.200000:2:Pear", "0.500000:0:Apple"]
    document, binary = write(binary=True, classes=99)
    assert document["outputs"][0]["shape"] == [2, 3]
    assert binary.startswith(element(b"0.700000:1:Banana: ripe"))


@pytest.mark.parametrize(
    ("outputs", "whole", "wanted"),
    [
        (None, {}, Wanted(False, 0)),
        (None, {"binary_data_output": True}, Wanted(True, 0)),
        ([{"name": "scores"}], {"binary_data_output": True}, Wanted(True, 0)),
        ([{"name": "scores", "parameters": {"binary_data": False}}], {"binary_data_output": True}, Wanted(False, 0)),
        ([{"name": "scores", "parameters": {"classification": 3, "binary_data": True}}], {}, Wanted(True, 3)),
    ],
)
def test_the_output_comes_as_it_was_asked_for(outputs: object, whole: dict[str, Any], wanted: Wanted) -> None:
    entry = {"name": "image", "shape": [1], "datatype": "BYTES", "data": [""]}
    document = {"inputs": [entry], "parameters": whole, **({} if outputs is None else {"outputs": outputs})}
    assert read_document(document).wanted == wanted


@pytest.mark.parametrize("pack", [gzip.compress, zlib.compress])
def test_a_packed_body_is_unpacked(pack: Any) -> None:
    encoding = "gzip" if pack is gzip.compress else "deflate"
    assert unpack(pack(PNG), encoding) == PNG
    packed, said = tensors.pack(PNG, f"br, {encoding};q=0.5")
    assert said == encoding
    assert unpack(packed, said) == PNG
    assert tensors.pack(PNG, "br, gzip;q=0") == (PNG, "")


# What is not.

HUGE = 2**62
SHAPES: list[Any] = [
    None, "1", 1, [], [0], [-1], [-1, 1], [True], [1.0], ["1"], [None], [1, 2], [2, 1], [1, 1, 1], [1, 1, 1, 1, 1],
    [HUGE], [1, HUGE], [HUGE, HUGE, HUGE, HUGE],
]  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES)
def test_a_shape_that_lies_is_refused(shape: Any) -> None:
    with refused("inference-request"):
        request(binary=element(PNG), shape=shape)


def test_more_pictures_than_are_taken_are_refused_by_their_shape_alone() -> None:
    with refused("too-many-pictures", 413):
        request(binary=b"", shape=[17, 1])


@pytest.mark.parametrize(
    "binary",
    [b"", b"\x01", b"\0\0\0", struct.pack("<I", 2**32 - 1), struct.pack("<I", 2**31) + PNG, element(PNG)[:-1],
     element(PNG) + b"\0", element(PNG) * 2],
)  # fmt: skip
def test_elements_that_do_not_add_up_are_refused(binary: bytes) -> None:
    with refused("inference-request"):
        request(binary=binary)


@pytest.mark.parametrize("size", [0, 1, -1, HUGE, "5", 5.0, True, len(element(PNG)) + 1])
def test_a_binary_size_that_lies_is_refused(size: Any) -> None:
    with refused("inference-request"):
        request(binary=element(PNG), parameters={"binary_data_size": size})


@pytest.mark.parametrize("header_bytes", [1, 10_000, 10**10])
def test_a_json_length_that_lies_is_refused(header_bytes: int) -> None:
    with refused("inference-request"):
        read_request(b'{"inputs": []}', header_bytes)


@pytest.mark.parametrize(
    "head",
    [b"", b"\xff", b"null", b"[]", b"7", b"{", b'{"inputs"', b'{"inputs": NaN}', b'{"inputs": 1e999}',
     b'{"inputs": [], "inputs": []}', b'{"inputs": ' + b"[" * 100_000, b'{"a":' * 50_000,
     b'{"inputs": ' + b"9" * 5000 + b"}",
     b'{"inputs": "\\ud800"}', b'{"inputs": [{}]}', b'{"inputs": [[]]}', b'{"inputs": [{}, {}]}', b'{"inputs": {}}',
     b'{"id": 7, "inputs": [{"name": "image", "shape": [1], "datatype": "BYTES", "data": [""]}]}',
     b'{"parameters": 7, "inputs": [{"name": "image", "shape": [1], "datatype": "BYTES", "data": [""]}]}'],
)  # fmt: skip
def test_json_that_is_none_or_is_no_request_is_refused(head: bytes) -> None:
    with refused("inference-request"):
        read_request(head, None)


def test_json_with_more_values_than_are_parsed_is_refused_unparsed() -> None:
    for head in (b"[" + b"0," * 300_000 + b"0]", b'"' + b"a" * (5 << 20) + b'"'):
        with refused("json-too-large", 413):
            read_request(head, None)


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "else"}, {"name": None}, {"name": ["image"]}, {"datatype": "UINT8"}, {"datatype": None},
        {"datatype": ["BYTES"]}, {"data": []}, {"data": "x"}, {"data": None}, {"data": {}}, {"data": ["a", "b"]},
        {"data": [["a"], ["b"]]}, {"data": [7]}, {"data": ["no base64!"]}, {"data": ["abc"]}, {"data": ["ä"]},
        {"parameters": []}, {"parameters": {"shared_memory_region": "x"}},
    ],
)  # fmt: skip
def test_an_input_that_does_not_hold_together_is_refused(changes: dict[str, Any]) -> None:
    with refused("inference-request"):
        request([""], **changes)


@pytest.mark.parametrize(
    "outputs",
    [{}, 7, [7], [{}], [{"name": "label"}], [{"name": "scores"}, {"name": "scores"}],
     *([{"name": "scores", "parameters": {"classification": n}}] for n in (-1, 1.5, "3", True, None)),
     *([{"name": "scores", "parameters": p}] for p in ({"binary_data": 1}, {"shared_memory_region": "x"}, []))],
)  # fmt: skip
def test_an_output_that_there_is_not_is_refused(outputs: Any) -> None:
    entry = {"name": "image", "shape": [1], "datatype": "BYTES", "data": [""]}
    with refused("inference-request"):
        read_document({"inputs": [entry], "outputs": outputs})


@pytest.mark.parametrize(
    ("kind", "shape", "values"),
    [
        ("INT8", [1, 1, 1, 3], [0, 0, 0]), (None, [1, 1, 1, 3], [0, 0, 0]), (["UINT8"], [1, 1, 1, 3], [0, 0, 0]),
        ("UINT8", [1, 1, 3], [0, 0, 0]), ("UINT8", [1, 1, 1, 4], [0, 0, 0, 0]), ("UINT8", [1, 1, 1, 3], [0, 0]),
        ("UINT8", [1, 1, 1, 3], [0, 0, 0, 0]), ("UINT8", [1, 1, 1, 3], [0, 0.5, 0]),
        ("UINT8", [1, 1, 1, 3], [0, True, 0]),
        ("UINT8", [1, 1, 1, 3], [0, None, 0]), ("FP32", [1, 1, 1, 3], [0, "1", 0]), ("UINT8", [1, 1, 1, 3], {"0": 1}),
        ("UINT8", [1, 1000, 1000, 3], [0]),
    ],
)  # fmt: skip
def test_pixels_that_do_not_hold_together_are_refused(kind: Any, shape: list[int], values: Any) -> None:
    with refused("inference-request"):
        pixels(values, kind, shape)
    if isinstance(kind, str) and isinstance(values, list):
        with refused("inference-request"):
            pixels(None, kind, shape, b"\0" * 5)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0, 255.5, 1e38])
def test_numbers_that_are_no_brightness_are_refused(value: float) -> None:
    binary = np.array([0, value, 0], "<f4").tobytes()
    (picture,) = pixels(None, "FP32", [1, 1, 1, 3], binary).pictures
    with refused("tensor-value"):
        picture.decode()


@pytest.mark.parametrize("value", [-1, 256, 2**60])
def test_whole_numbers_that_are_no_bytes_are_refused(value: int) -> None:
    (picture,) = pixels([0, value, 0], "UINT8", [1, 1, 1, 3]).pictures
    with refused("tensor-value"):
        picture.decode()


def test_a_picture_of_too_many_pixels_is_refused_by_its_shape_alone() -> None:
    with refused("picture-too-large", 413):
        pixels(None, "UINT8", [1, 16_384, 16_384, 3], b"")


def test_a_file_of_too_many_pixels_is_refused_by_its_header_alone() -> None:
    bomb = b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sIIBBBBB", 13, b"IHDR", 60_000, 60_000, 8, 2, 0, 0, 0) + b"\0" * 4
    with refused("picture-too-large"):
        read_raw(bomb, {}).pictures[0].decode()
    with refused("picture-not-a-picture"):
        read_raw(b"GIF89a", {}).pictures[0].decode()
    with refused("picture-empty"):
        read_raw(b"", {}).pictures[0].decode()


@pytest.mark.parametrize("text", ["-1", "x", "", "9" * 6, "²"])
def test_a_raw_request_with_a_wrong_number_is_refused(text: str) -> None:
    with refused("inference-request"):
        read_raw(PNG, {"classification": text})


def test_a_body_that_unpacks_to_too_much_is_refused_before_it_is_whole() -> None:
    bomb = zlib.compress(b"\0" * (200 << 20), 9)
    with refused("too-large", 413):
        unpack(bomb, "deflate")
    assert len(unpack(zlib.compress(b"\0" * MOST_BODY_BYTES), "deflate")) == MOST_BODY_BYTES


@pytest.mark.parametrize(
    "body", [b"", b"x", gzip.compress(PNG)[:-1], gzip.compress(PNG) + b"x", gzip.compress(PNG) * 2]
)
def test_a_packed_body_that_is_broken_is_refused(body: bytes) -> None:
    with refused("encoding-broken"):
        unpack(body, "gzip")


def test_a_packing_that_is_not_known_is_refused() -> None:
    with refused("encoding-unknown", 415):
        unpack(b"", "br")


KEYS = ["inputs", "outputs", "name", "shape", "datatype", "data", "parameters", "binary_data_size", "id"]
JSONISH = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=6),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None)
@given(JSONISH, st.binary(max_size=40))
def test_whatever_comes_it_is_read_or_refused(document: Any, binary: bytes) -> None:
    entry = {"name": "pixels", "shape": [1, 1, 1, 3], "datatype": "UINT8", "data": [0, 0, 0]}
    for whole in (
        document,
        {"inputs": [document]},
        {"inputs": [entry | (document if isinstance(document, dict) else {})]},
    ):
        try:
            asked = read_document(whole, binary or None)
            for picture in asked.pictures:
                picture.decode()
        except Refusal as refusal:
            assert refusal.status in (400, 413)
