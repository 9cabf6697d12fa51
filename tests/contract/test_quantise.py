"""Quantisation: the INT8 model answers as the FP32 one, in both runtimes and on processors old and new."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import attention_models
import conv_models
import numpy as np
import onnx
import pytest
import toy_bundles
from onnx import numpy_helper

from models import Bundle, BundleError, Classifier, pack
from models.inputs import Input
from models.quantise import quantise

pytest.importorskip("nncf", reason="quantisation needs the extra [quantize]")

NET = conv_models.Net(half=True)
SPEC = Input(width=NET.side_px, height=NET.side_px)
CALIBRATION = [picture for picture, _ in conv_models.pictures(24, seed=1)]


@pytest.fixture(scope="module")
def int8() -> bytes:
    return quantise(conv_models.content(NET), SPEC, CALIBRATION)


def bundle_of(folder: Path, content: bytes) -> Bundle:
    folder.mkdir()
    (folder / "model.onnx").write_bytes(content)
    return pack.write(folder, toy_bundles.manifest(folder, {"model.onnx": "model"}, input=SPEC))


def scores(bundle: Bundle, runtime: str) -> np.ndarray:
    with Classifier.open(bundle, runtime) as classifier:
        worker = classifier.worker()
        return np.stack([worker.scores(picture) for picture, _ in conv_models.pictures(12, seed=2)])


@pytest.mark.parametrize("runtime", ["openvino", "onnxruntime"])
def test_the_int8_model_answers_as_the_fp32_one(int8: bytes, runtime: str, tmp_path: Path) -> None:
    wide = scores(bundle_of(tmp_path / "fp32", conv_models.content(NET)), runtime)
    narrow = scores(bundle_of(tmp_path / "int8", int8), runtime)
    assert np.array_equal(wide.argmax(1), narrow.argmax(1))
    assert 0 < np.abs(wide - narrow).max() < 0.05


def constants_of(content: bytes, kinds: tuple[str, ...]) -> list[np.ndarray]:
    """The constants of the graph, without the scales and offsets of quantisation, as they are kept."""
    graph = onnx.load_from_string(content).graph
    kept = {constant.name: numpy_helper.to_array(constant) for constant in graph.initializer}
    return [kept[node.input[0]] for node in graph.node if node.op_type in kinds and node.input[0] in kept]


def test_weights_are_kept_as_bytes_though_they_were_widened_half_floats(int8: bytes) -> None:
    quantised = constants_of(int8, ("DequantizeLinear",))
    assert sorted(weights.shape for weights in quantised if weights.ndim > 1) == [(3, 16), (16, 3, 3, 3)]
    assert {weights.dtype for weights in quantised} == {np.dtype(np.int8)}
    assert not constants_of(int8, ("Cast", "QuantizeLinear"))


def test_weights_use_half_of_a_bytes_range_so_that_old_processors_do_not_overflow(int8: bytes) -> None:
    largest = max(int(np.abs(weights.astype(int)).max()) for weights in constants_of(int8, ("DequantizeLinear",)))
    assert 32 <= largest <= 64


def test_a_network_with_a_filter_for_each_channel_uses_the_whole_range() -> None:
    wide = quantise(conv_models.content(conv_models.Net(apart=True)), SPEC, CALIBRATION)
    first, own, head = (
        np.abs(part.astype(int)).max() for part in constants_of(wide, ("DequantizeLinear",)) if part.ndim > 1
    )
    assert first <= 64
    assert max(own, head) > 100
    graph = onnx.load_from_string(wide).graph
    sizes = {constant.name: numpy_helper.to_array(constant).size for constant in graph.initializer}
    assert {sizes[node.input[1]] for node in graph.node if node.op_type == "QuantizeLinear"} == {1}


@pytest.mark.parametrize("runtime", ["openvino", "onnxruntime"])
def test_a_network_with_attention_answers_as_before_and_uses_the_whole_range(runtime: str, tmp_path: Path) -> None:
    content = attention_models.content()
    small = quantise(content, SPEC, CALIBRATION)
    products = [part for part in constants_of(small, ("DequantizeLinear",)) if part.shape == (16, 16)]
    assert len(products) == 3  # queries, keys and values
    assert max(int(np.abs(part.astype(int)).max()) for part in products) > 100
    wide = scores(bundle_of(tmp_path / "fp32", content), runtime)
    narrow = scores(bundle_of(tmp_path / "int8", small), runtime)
    assert np.array_equal(wide.argmax(1), narrow.argmax(1))
    assert [conv_models.LABELS[i] for i in wide.argmax(1)] == [label for _, label in conv_models.pictures(12, seed=2)]
    assert 0 < np.abs(wide - narrow).max() < 0.05


def test_the_same_pictures_give_the_same_bytes(int8: bytes) -> None:
    assert quantise(conv_models.content(NET), SPEC, CALIBRATION) == int8


SILENT = """
import sys, pathlib

def watch(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.sendto"):
        print("wants the network:", event, arguments)

sys.addaudithook(watch)
from models.inputs import Input
from models.quantise import quantise
import numpy as np
quantise(pathlib.Path(sys.argv[1]).read_bytes(), Input(width=32, height=32), [np.zeros((9, 9, 3), np.uint8)] * 4)
"""


def test_nothing_is_said_to_the_world_nor_on_standard_output(tmp_path: Path) -> None:
    """In a process of its own: the library keeps silent where it sees that it is tested."""
    (tmp_path / "model.onnx").write_bytes(conv_models.content(NET))
    command = [sys.executable, "-c", SILENT, str(tmp_path / "model.onnx")]
    ended = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stdout) == (0, ""), ended.stderr


def refusal(content: bytes, pictures: list[np.ndarray]) -> BundleError:
    with pytest.raises(BundleError) as refused:
        quantise(content, SPEC, pictures)
    assert refused.value.hint
    return refused.value


def test_what_cannot_be_quantised_is_refused_with_a_cure(int8: bytes) -> None:
    assert refusal(conv_models.content(NET), []).code == "quantise-pictures"
    assert "already" in str(refusal(int8, CALIBRATION))
    assert refusal(b"no model", CALIBRATION).code == "quantise-model"
    old = refusal(conv_models.content(conv_models.Net(opset=11)), CALIBRATION)
    assert "operator set 11" in str(old)


def test_without_nncf_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    there = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "nncf" else there(name))
    refused = refusal(conv_models.content(NET), CALIBRATION)
    assert refused.code == "quantise-missing"
    assert "shelfwire[quantize]" in refused.hint
