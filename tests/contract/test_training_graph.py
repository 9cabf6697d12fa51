"""Somebody's ONNX classifier, taken apart and put together again: it says what it said, for bytes in our order."""

from pathlib import Path

import conv_models
import numpy as np
import onnx
import onnxruntime as ort
import pytest
import start_models
from training import onnx_graph
from training.errors import TrainError
from training.onnx_graph import Head, Looks

from models.inputs import Input
from models.prepare import arithmetic

PICTURES = np.random.default_rng(5).integers(0, 256, (3, 32, 32, 3), np.uint8)
LOOKS = Looks((120.0, 115.0, 105.0), (58.0, 57.0, 60.0), "rgb")


def says(model: bytes, entries: np.ndarray) -> np.ndarray:
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: entries})[0]


def head_of(weight: np.ndarray, bias: np.ndarray) -> Head:
    return Head(weight.reshape(len(bias), -1), bias)


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
def test_a_graph_for_one_picture_of_floats_becomes_one_for_many_of_bytes(layout: str) -> None:
    given = start_models.classifier(layout=layout)
    spec = Input(width=32, height=32, dtype="float32", layout=layout, colour="rgb", mean=LOOKS.mean, scale=LOOKS.scale)
    expected = np.concatenate([says(given, arithmetic(picture, spec)) for picture in PICTURES])

    body = onnx_graph.body_of(given, "given")
    weights = start_models.constants()
    whole = onnx_graph.whole(body, {}, LOOKS, head_of(weights["head"], weights["head.bias"]), 32, maps=True)

    assert np.abs(says(whole, PICTURES) - expected).max() < 1e-5
    assert np.abs(says(whole, PICTURES[:1]) - expected[:1]).max() < 1e-5


def test_a_bundles_own_model_of_bytes_and_half_floats_is_taken_too() -> None:
    given = conv_models.content(conv_models.Net(half=True))
    weights = conv_models.weights(conv_models.Net())
    body = onnx_graph.body_of(given, "given")
    head = Head(weights["head"].astype(np.float16).astype(np.float32), np.zeros(3, np.float32))
    assert body.entry.bytes
    whole = onnx_graph.whole(body, {}, Looks(colour="bgr"), head, 32)
    assert np.abs(says(whole, PICTURES) - says(given, PICTURES)).max() < 1e-5


def test_normalisations_are_kept_to_be_learnt_and_the_old_head_is_gone() -> None:
    body = onnx_graph.body_of(start_models.classifier(), "given")
    kinds = [node.op_type for node in body.model.graph.node]
    assert kinds == ["Conv", "BatchNormalization", "Relu", "GlobalAveragePool"]
    assert start_models.CLASSES not in [len(value) for value in body.constants.values() if value.ndim]


def test_changed_weights_go_back_to_their_places() -> None:
    weights = start_models.constants()
    body = onnx_graph.body_of(start_models.classifier(), "given")
    first = next(name for name, value in body.constants.items() if value.shape == weights["first"].shape)
    head = head_of(weights["head"], weights["head.bias"])
    silent = onnx_graph.whole(body, {first: np.zeros_like(weights["first"])}, LOOKS, head, 32, maps=True)
    answers = says(silent, PICTURES)
    assert np.ptp(answers, axis=0).max() < 1e-6  # a network that sees nothing says the same of everything
    assert np.ptp(says(onnx_graph.whole(body, {}, LOOKS, head, 32, maps=True), PICTURES), axis=0).max() > 1e-3


def test_a_network_without_a_head_is_taken_whole() -> None:
    model = onnx.load_from_string(start_models.classifier())
    for node in list(model.graph.node)[-4:]:
        model.graph.node.remove(node)
    model.graph.output[0].CopyFrom(onnx.helper.make_tensor_value_info("active", onnx.TensorProto.FLOAT, None))
    body = onnx_graph.body_of(model.SerializeToString(), "given")
    assert [node.op_type for node in body.model.graph.node] == ["Conv", "BatchNormalization", "Relu"]


def test_what_is_no_picture_classifier_is_refused_with_a_cure(tmp_path: Path) -> None:
    wrong = [
        (lambda: onnx_graph.read(tmp_path / "none.onnx"), "start-missing"),
        (lambda: onnx_graph.body_of(b"no model", "given"), "start-broken"),
        (lambda: onnx_graph.body_of(start_models.classifier(entries=2), "given"), "start-shape"),
    ]
    for ask, code in wrong:
        with pytest.raises(TrainError) as caught:
            ask()
        assert (caught.value.code, bool(caught.value.hint)) == (code, True)


def test_weights_in_other_files_are_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    model = onnx.load_from_string(start_models.classifier())
    onnx.save(model, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    with pytest.raises(TrainError, match=r"weights\.bin"):
        onnx_graph.read(path)
