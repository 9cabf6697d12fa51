"""What a training hears from larger networks, one or several."""

from pathlib import Path

import conv_models
import cv2
import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
import pytest
from conv_models import Net
from onnx import TensorProto, helper, numpy_helper
from training.errors import TrainError
from training.teacher import Teachers

SIDE_PX = 32

CLOSE = 1e-2
"""Teachers are heard in the number format that the processor is quickest with, which may be bfloat16."""


def floats(sharpness: float = 1.0) -> bytes:
    """A teacher as others export them: RGB, x / 127.5 - 1, (1, 3, side, side), logits of three classes."""
    rng = np.random.default_rng(5)
    first = rng.normal(0, 0.3, (6, 3, 3, 3)).astype(np.float32)
    head = rng.normal(0, sharpness, (6, 3)).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["x", "first"], ["conv"], kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4),
        helper.make_node("GlobalAveragePool", ["conv"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["vector"]),
        helper.make_node("MatMul", ["vector", "head"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "teacher",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, SIDE_PX, SIDE_PX])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 3])],
        [numpy_helper.from_array(first, "first"), numpy_helper.from_array(head, "head")],
    )
    whole: onnx.ModelProto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    whole.ir_version = 9
    return whole.SerializeToString()


def softmax(logits: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    powers = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def by_runtime(model: bytes, pictures: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """Probabilities of `floats` for BGR pictures, one by one, by the bare runtime."""
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    x = pictures[..., ::-1].transpose(0, 3, 1, 2).astype(np.float32) / 127.5 - 1
    return softmax(np.concatenate([session.run(None, {"x": one[None]})[0] for one in x]))


@pytest.fixture
def pictures() -> npt.NDArray[np.uint8]:
    """More than one request holds, and not a whole number of requests."""
    return np.random.default_rng(2).integers(0, 256, (11, SIDE_PX, SIDE_PX, 3), np.uint8)


def kept(folder: Path, name: str, model: bytes) -> Path:
    path = folder / name
    path.write_bytes(model)
    return path


def test_one_teacher_says_what_its_file_says(tmp_path: Path, pictures: npt.NDArray[np.uint8]) -> None:
    said = Teachers([kept(tmp_path, "a.onnx", floats())], 3).ask(pictures)
    np.testing.assert_allclose(np.exp(said.scores), by_runtime(floats(), pictures), atol=CLOSE)
    assert said.vector is not None and said.vector.shape == (11, 6)


def test_of_several_the_log_probabilities_are_averaged_and_the_first_shows_its_layers(
    tmp_path: Path, pictures: npt.NDArray[np.uint8]
) -> None:
    models = [floats(), floats(sharpness=9.0)]
    said = Teachers([kept(tmp_path, f"{n}.onnx", model) for n, model in enumerate(models)], 3).ask(pictures)
    mean = softmax(np.mean([np.log(by_runtime(model, pictures)) for model in models], axis=0))
    np.testing.assert_allclose(np.exp(said.scores), mean, atol=CLOSE)
    alone = Teachers([tmp_path / "0.onnx"], 3).ask(pictures)
    assert said.vector is not None and alone.vector is not None
    np.testing.assert_allclose(said.vector, alone.vector, atol=1e-5)


def test_levelled_a_sharpened_teacher_counts_no_more_than_the_others(
    tmp_path: Path, pictures: npt.NDArray[np.uint8]
) -> None:
    models = [floats(), floats(sharpness=3.0)]  # the same network, its logits trebled
    teachers = Teachers([kept(tmp_path, f"{n}.onnx", model) for n, model in enumerate(models)], 3)
    apart = teachers.each(pictures)
    np.testing.assert_allclose(np.exp(apart[1]), by_runtime(models[1], pictures), atol=CLOSE)
    teachers.level([1.8, 0.6])
    np.testing.assert_allclose(np.exp(teachers.ask(pictures).scores), by_runtime(models[0], pictures), atol=CLOSE)
    for one, other in zip(apart, teachers.each(pictures), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_file_that_this_training_wrote_teaches_beside_another_of_another_side(
    tmp_path: Path, pictures: npt.NDArray[np.uint8]
) -> None:
    net = Net(side_px=48)
    own = kept(tmp_path, "own.onnx", conv_models.content(net))
    teachers = Teachers([own, kept(tmp_path, "a.onnx", floats())], 3)
    larger = np.stack([np.asarray(cv2.resize(picture, (48, 48))) for picture in pictures])
    smaller = np.stack([np.asarray(cv2.resize(picture, (SIDE_PX, SIDE_PX))) for picture in larger])
    session = ort.InferenceSession(own.read_bytes(), providers=["CPUExecutionProvider"])
    mine = session.run(None, {"picture": larger})[0]
    assert teachers.side_px == 48
    mean = softmax((np.log(mine) + np.log(by_runtime(floats(), smaller))) / 2)
    np.testing.assert_allclose(np.exp(teachers.ask(larger).scores), mean, atol=CLOSE)


def test_a_teacher_of_other_labels_is_named(tmp_path: Path) -> None:
    good, other = kept(tmp_path, "good.onnx", floats()), kept(tmp_path, "other.onnx", floats())
    with pytest.raises(TrainError, match=r"good\.onnx gives 3 scores for 81 labels") as raised:
        Teachers([good, other], 81)
    assert raised.value.code == "teacher-labels"


@pytest.mark.parametrize(
    ("content", "code"), [(None, "teacher-missing"), (b"no network", "teacher-broken")], ids=["missing", "broken"]
)
def test_a_second_teacher_that_cannot_be_read_is_named(tmp_path: Path, content: bytes | None, code: str) -> None:
    second = tmp_path / "second.onnx"
    if content is not None:
        second.write_bytes(content)
    with pytest.raises(TrainError, match=r"second\.onnx") as raised:
        Teachers([kept(tmp_path, "a.onnx", floats()), second], 3)
    assert raised.value.code == code
