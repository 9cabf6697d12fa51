"""`shelfwire-agent model import`: models of others answer as in the bare runtimes, or it is said what does not fit."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import openvino as ov
import pytest
import tflite_models
from onnx import TensorProto, helper, numpy_helper

from agent.cli import main
from models import Bundle, Classifier, decode_picture
from models.setup import Setup

import cv2  # isort: skip

KINDS = {
    "float32": TensorProto.FLOAT,
    "float16": TensorProto.FLOAT16,
    "uint8": TensorProto.UINT8,
    "int8": TensorProto.INT8,
}
SIDE_PX = 32


@dataclass(frozen=True, slots=True)
class Net:
    """A classifier as frameworks export them: convolution, pooling, a matrix, and a softmax or not."""

    shape: tuple[int | str, ...] = ("N", 3, SIDE_PX, SIDE_PX)
    kind: str = "float32"
    classes: int = 5
    softmax: bool = True
    sigmoid: bool = False
    opset: int = 17
    extra_inputs: tuple[str, ...] = ()
    extra_outputs: tuple[str, ...] = ()
    unlike: str = ""  # "map": gives what is before pooling; "boxes": gives that as a detector does
    operator: str = ""
    outside: str = ""
    gain: float = 3.0
    strided: bool = False
    """The features are looked up one by one, as torch exports `as_strided` of a ConvNeXt's."""


STRIDED = [
    helper.make_node("Reshape", ["pool", "all"], ["row"]),
    helper.make_node("Gather", ["row", "places"], ["strided"], axis=0),
]


def is_grey(net: Net) -> bool:
    return 1 in net.shape[1:]


def weights(net: Net) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(3)
    return {
        "filters": rng.normal(0, 0.3, (8, 1 if is_grey(net) else 3, 3, 3)).astype(np.float32),
        "matrix": (rng.normal(0, 1, (8, net.classes)) * net.gain).astype(np.float32),
    }


def graph(net: Net) -> onnx.ModelProto:
    """The network as a model."""
    nodes = [helper.make_node("Cast", ["picture"], ["floats"], to=TensorProto.FLOAT)]
    planes = "floats"
    if net.shape[-1] in (1, 3):
        nodes.append(helper.make_node("Transpose", ["floats"], ["planes"], perm=[0, 3, 1, 2]))
        planes = "planes"
    nodes += [
        helper.make_node("Conv", [planes, "filters"], ["conv"], kernel_shape=[3, 3], pads=[1] * 4),
        helper.make_node(net.operator or "Relu", ["conv"], ["relu"]),
        helper.make_node("GlobalAveragePool", ["relu"], ["pool"]),
        *(STRIDED if net.strided else []),
        helper.make_node("Flatten", ["strided" if net.strided else "pool"], ["features"]),
        helper.make_node("MatMul", ["features", "matrix"], ["logits"]),
    ]
    last = "Softmax" if net.softmax else "Sigmoid" if net.sigmoid else "Identity"
    nodes.append(helper.make_node("Reshape", ["relu", "rows"], ["boxes"]))
    before = {"map": "relu", "boxes": "boxes"}.get(net.unlike, "logits")
    nodes.append(helper.make_node(last, [before], ["scores"]))
    for name in net.extra_outputs:
        nodes.append(helper.make_node("Identity", ["features"], [name]))
    given = [helper.make_tensor_value_info("picture", KINDS[net.kind], net.shape)]
    given += [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 2]) for name in net.extra_inputs]
    leaves = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("scores", *net.extra_outputs)]
    constants = [numpy_helper.from_array(value, name) for name, value in weights(net).items()]
    constants.append(numpy_helper.from_array(np.array([1, -1, 8], np.int64), "rows"))
    constants.append(numpy_helper.from_array(np.array([-1], np.int64), "all"))
    constants.append(numpy_helper.from_array(np.arange(8).reshape(1, 8, 1, 1), "places"))
    whole = helper.make_graph(nodes, "net", given, leaves, constants)
    model: onnx.ModelProto = helper.make_model(whole, opset_imports=[helper.make_opsetid("", net.opset)])
    model.ir_version = 9
    return model


def onnx_file(folder: Path, net: Net = Net(), name: str = "net.onnx") -> Path:
    model = graph(net)
    if net.outside:
        (folder / net.outside).parent.mkdir(parents=True, exist_ok=True)
        path = str(folder / name)
        onnx.save_model(model, path, save_as_external_data=True, location=net.outside, size_threshold=100)
    else:
        (folder / name).write_bytes(model.SerializeToString())
    return folder / name


def labels_file(folder: Path, count: int = 5) -> Path:
    path = folder / "labels.txt"
    path.write_text("\n".join(f"label {number}" for number in range(count)))
    return path


Import = Callable[..., dict[str, Any]]


@pytest.fixture
def imported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Import:
    """Run the command; gives its JSON, {"error": ...} when it refused."""

    def run(path: Path, *words: str, labels: int = 5) -> dict[str, Any]:
        out = tmp_path / "out"
        command = ["model", "import", str(path), "--labels", str(labels_file(tmp_path, labels)), "--out", str(out)]
        code = main([*command, "--json", *words])
        told: dict[str, Any] = json.loads(capsys.readouterr().out)
        assert (code == 0) == ("error" not in told) == out.exists()
        assert code in (0, 2)
        assert not list(tmp_path.glob(".out*"))  # nothing half-made is left behind
        return told

    return run


def textbook(
    picture: np.ndarray, mean: tuple[float, ...], scale: tuple[float, ...], side_px: int = SIDE_PX
) -> np.ndarray:
    """The middle square in RGB planes as floats, written as a textbook would."""

    height, width = picture.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = cv2.resize(
        picture[top : top + side, left : left + side], (side_px, side_px), interpolation=cv2.INTER_LINEAR
    )
    return (((square[..., ::-1].astype(np.float64) - mean) / scale).transpose(2, 0, 1)[None]).astype(np.float32)


def golden_pictures(bundle: Bundle) -> list[np.ndarray]:
    return [decode_picture(bundle.read(item.path)) for item in bundle.manifest.golden.inputs]


MEAN, SCALE = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
LIKE_TORCHVISION = ("--mean", *map(str, MEAN), "--scale", *map(str, SCALE))


def test_the_bundle_scores_as_a_textbook_does_in_both_runtimes(tmp_path: Path, imported: Import) -> None:
    path = onnx_file(tmp_path)
    told = imported(path, "--size", "32", *LIKE_TORCHVISION)
    assert (told["input"]["layout"], told["input"]["dtype"], told["output"]) == ("nchw", "float32", "probabilities")
    assert [run["runtime"] for run in told["runtimes"]] == ["openvino", "onnxruntime"]
    assert all(run["difference"] <= 1e-4 for run in told["runtimes"])
    assert told["difference_between_runtimes"] <= 1e-4
    bundle = Bundle.load(told["bundle"])
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    compiled = ov.Core().compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    for runtime in ("openvino", "onnxruntime"):
        with Classifier.open(bundle, runtime) as classifier:
            classifier.check_golden()
            worker = classifier.worker()
            for picture in golden_pictures(bundle):
                given = textbook(picture, MEAN, SCALE)
                bare = compiled(given)[0] if runtime == "openvino" else session.run(None, {"picture": given})[0]
                assert np.abs(worker.scores(picture) - bare.reshape(-1)).max() <= 1e-4


def test_golden_inputs_and_provenance_are_written(tmp_path: Path, imported: Import) -> None:
    path = onnx_file(tmp_path)
    told = imported(path, *LIKE_TORCHVISION, "--name", "shelf", "--threshold", "0.7", "--licence", "Apache-2.0")
    manifest = Bundle.load(told["bundle"]).manifest
    assert (manifest.name, manifest.threshold, manifest.provenance.licence) == ("shelf", 0.7, "Apache-2.0")
    assert told["source"]["sha256"] in manifest.provenance.method
    assert len(manifest.golden.inputs) == told["golden"] == 6
    assert all(sum(item.expected.values()) == pytest.approx(1, abs=0.01) for item in manifest.golden.inputs)


@pytest.mark.parametrize(
    ("net", "words", "expected"),
    [
        (Net(shape=(1, SIDE_PX, SIDE_PX, 3), kind="uint8"), (), {"layout": "nhwc", "dtype": "uint8"}),
        (
            Net(shape=("N", "H", "W", 3)),
            ("--size", "48x32", "--mean", "0", "--scale", "255"),
            {"width": 48, "height": 32},
        ),
        (Net(shape=("N", 3, "H", "W")), ("--size", "48", "--colour", "bgr"), {"width": 48, "colour": "bgr"}),
        (Net(shape=("N", "C", "H", "W")), ("--size", "32", "--layout", "nchw"), {"layout": "nchw"}),
        (Net(shape=(1, 3, 24, 40)), ("--fit", "squash"), {"width": 40, "height": 24, "fit": "squash"}),
    ],
)
def test_the_input_is_found_out(
    net: Net, words: tuple[str, ...], expected: dict[str, object], tmp_path: Path, imported: Import
) -> None:
    told = imported(onnx_file(tmp_path, net), *words)
    assert expected.items() <= told["input"].items()
    assert all(run["difference"] <= 1e-4 for run in told["runtimes"])


def test_a_model_that_looks_up_its_own_channels_gets_the_colours_in_its_order(tmp_path: Path, imported: Import) -> None:
    told = imported(onnx_file(tmp_path, Net(shape=(1, 3, SIDE_PX, SIDE_PX), strided=True)), *LIKE_TORCHVISION)
    assert [run["runtime"] for run in told["runtimes"]] == ["openvino", "onnxruntime"]
    assert max(run["difference"] for run in told["runtimes"]) < 1e-5


@pytest.mark.parametrize(
    ("net", "output", "noted"),
    [
        (Net(), "probabilities", ""),
        (Net(softmax=False), "logits", ""),
        (Net(softmax=False, sigmoid=True), "probabilities", "judged alone"),
    ],
)
def test_scores_are_told_from_logits(net: Net, output: str, noted: str, tmp_path: Path, imported: Import) -> None:
    told = imported(onnx_file(tmp_path, net), *LIKE_TORCHVISION)
    assert told["output"] == output
    assert any(noted in note for note in told["notes"]) or not noted
    with Classifier.open(told["bundle"]) as classifier:
        scores = classifier.worker().scores(np.full((40, 40, 3), 90, np.uint8))
    assert 0 <= scores.min() <= scores.max() <= 1


@pytest.mark.parametrize("kind", ["onnx", "ir"])
@pytest.mark.parametrize("shape", [(1, 1, SIDE_PX, SIDE_PX), ("N", 1, "H", "W"), (1, SIDE_PX, SIDE_PX, 1)])
@pytest.mark.parametrize("colour", ["rgb", "bgr"])
def test_a_model_of_grey_pictures_takes_coloured_ones(
    kind: str, shape: tuple[int | str, ...], colour: str, tmp_path: Path, imported: Import
) -> None:
    path = given = onnx_file(tmp_path, Net(shape=shape))
    if kind == "ir":
        given = path.with_suffix(".xml")
        ov.save_model(ov.Core().read_model(str(path)), str(given), compress_to_fp16=False)
    words = ("--size", str(SIDE_PX), "--mean", "100", "--scale", "50", "--colour", colour)
    told = imported(given, *words)
    assert any("grey" in note for note in told["notes"])
    picture = np.random.default_rng(8).integers(0, 256, (SIDE_PX, SIDE_PX, 3), np.uint8)
    picture[:8], picture[8:16] = (255, 0, 0), (0, 0, 255)  # blue, and red, which is brighter
    grey = (cv2.cvtColor(picture.astype(np.float32), cv2.COLOR_BGR2GRAY) - 100) / 50
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    (bare,) = session.run(["scores"], {"picture": grey[None, None] if shape[1] == 1 else grey[None, ..., None]})
    for run in told["runtimes"]:
        with Classifier.open(told["bundle"], Setup(runtime=run["runtime"]), strict=True) as classifier:
            np.testing.assert_allclose(classifier.worker().scores(picture), bare[0], atol=1e-4)
    assert len(told["runtimes"]) == (2 if kind == "onnx" else 1)


REFUSED = [
    (Net(extra_inputs=("scale_of_picture",)), (), 5, "import-inputs", "scale_of_picture", "only input"),
    (Net(extra_outputs=("features_too",)), (), 5, "import-outputs", "features_too", "only output"),
    (Net(unlike="boxes"), (), 5, "import-not-classifier", "1024 x 8 numbers for a picture, as detectors", "classifier"),
    (Net(unlike="map"), (), 5, "import-not-classifier", "8 x 32 x 32", "classifier"),
    (Net(classes=1), (), 5, "import-not-classifier", "one number", "two"),
    (Net(classes=6), (), 5, "import-label-count", "6 scores, the labels are 5", "background"),
    (Net(classes=4), (), 5, "import-label-count", "4 scores", "take the line"),
    (Net(classes=9), (), 5, "import-label-count", "9 scores", "all of them"),
    (Net(shape=("N", 3, "H", "W")), (), 5, "import-size", "any size", "--size 224"),
    (
        Net(shape=(1, 3, 32, 32)),
        ("--size", "64"),
        5,
        "import-size",
        "32 x 32 (width x height), not 64 x 64",
        "leave --size",
    ),
    (Net(shape=(8, 3, 32, 32)), (), 5, "import-batch", "8 pictures at once", "open batch"),
    (Net(shape=(1, 4, 32, 32)), (), 5, "import-channels", "4 channels", "3 channels"),
    (Net(shape=(1, 1, 32, 32), kind="uint8"), (), 5, "import-channels", "1 channels", "with 1 and float32"),
    (Net(shape=("N", "C", "H", "W")), ("--size", "32"), 5, "import-shape", "does not tell", "--layout"),
    (Net(kind="float16"), (), 5, "import-type", "float16", "float32"),
    (Net(kind="int8"), (), 5, "import-type", "int8", "uint8"),
    (Net(kind="uint8"), ("--mean", "127.5"), 5, "import-scale", "bytes as they are", "leave --mean"),
    (
        Net(),
        ("--mean", "0.485,0.456,0.406", "--scale", "0.229,0.224,0.225"),
        5,
        "import-scale",
        "0 to 1",
        "--mean 123.675",
    ),
    (Net(), ("--mean", "1", "2"), 5, "import-scale", "2 numbers", "three"),
    (Net(operator="Frobnicate"), (), 5, "import-operators", "Frobnicate", "standard operators"),
    (Net(), ("--name", "My Model"), 5, "import-name", "My Model", "small letters"),
    (Net(), ("--threshold", "70"), 5, "import-threshold", "70", "0 to 1"),
]


@pytest.mark.parametrize(("net", "words", "labels", "code", "said", "cure"), REFUSED)
def test_what_does_not_fit_is_explained_with_its_cure(
    net: Net, words: tuple[str, ...], labels: int, code: str, said: str, cure: str, tmp_path: Path, imported: Import
) -> None:
    error = imported(onnx_file(tmp_path, net), *words, labels=labels)["error"]
    assert error["code"] == code
    assert said in error["message"]
    assert cure in error["hint"]
    assert error["hint"]


def test_a_model_that_one_runtime_cannot_load_is_for_the_other_and_says_so(tmp_path: Path, imported: Import) -> None:
    told = imported(onnx_file(tmp_path, Net(opset=99)), *LIKE_TORCHVISION)
    assert [run["runtime"] for run in told["runtimes"]] == ["openvino"]
    assert "99" in told["not_loaded_by"]["onnxruntime"]
    assert Bundle.load(told["bundle"]).manifest.limits.runtimes == ("openvino",)


# Files that are something else


def test_files_that_are_no_models_are_named(tmp_path: Path, imported: Import) -> None:
    whole = onnx_file(tmp_path).read_bytes()
    cases = {
        "cut.onnx": (whole[: len(whole) // 2], "cut off"),
        "empty.onnx": (b"", "fetch"),
        "text.onnx": (b"hello, I am a model", "no ONNX file"),
        "page.onnx": (b"<!DOCTYPE html><html>", "the file itself"),
        "lfs.onnx": (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        "weights.pt": (b"PK\x03\x04" + bytes(40), "torch.onnx.export"),
        "model.h5": (b"\x89HDF\r\n" + bytes(40), "tf2onnx"),
        "model.xyz": (b"anything", ".onnx"),
        "bad.tflite": (b"anything at all", "again"),
    }
    for name, (content, cure) in cases.items():
        (tmp_path / name).write_bytes(content)
        error = imported(tmp_path / name)["error"]
        assert error["code"] == "import-file", name
        assert cure in error["hint"], name
    for path in (tmp_path / "none.onnx", tmp_path):
        assert imported(path)["error"]["code"] == "import-file"


def test_a_folder_that_is_not_empty_is_not_written_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "model",
        "import",
        str(onnx_file(tmp_path)),
        "--labels",
        str(labels_file(tmp_path)),
        "--out",
        str(tmp_path),
    ]
    assert main(words) == 2
    assert "[import-out]" in capsys.readouterr().err


# Weights in other files


@pytest.mark.parametrize("outside", ["net.data", "weights/net.data"])
def test_weights_beside_the_model_are_taken_along(outside: str, tmp_path: Path, imported: Import) -> None:
    told = imported(onnx_file(tmp_path, Net(outside=outside)), *LIKE_TORCHVISION)
    assert [file["path"] for file in told["files"] if file["role"] == "weights"] == [outside]
    assert len(told["runtimes"]) == 2
    (tmp_path / outside).unlink()
    with Classifier.open(told["bundle"], "onnxruntime") as classifier:  # it needs nothing from where it came
        classifier.check_golden()


def test_weights_that_are_missing_or_lie_elsewhere_are_refused(tmp_path: Path, imported: Import) -> None:
    path = onnx_file(tmp_path, Net(outside="net.data"))
    (tmp_path / "net.data").rename(tmp_path / "other.data")
    assert "net.data beside" in imported(path)["error"]["hint"]
    (tmp_path / "net.data").symlink_to("/etc/hostname")
    assert imported(path)["error"]["code"] == "import-weights"
    model = onnx.load(str(path), load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            entry.value = "../secret.data" if entry.key == "location" else entry.value
    path.write_bytes(model.SerializeToString())
    error = imported(path)["error"]
    assert (error["code"], "inside" in error["hint"]) == ("import-weights", True)


# OpenVINO's and TensorFlow's files


def test_an_ir_is_imported_for_openvino_alone(tmp_path: Path, imported: Import) -> None:
    ov.save_model(ov.Core().read_model(str(onnx_file(tmp_path))), str(tmp_path / "net.xml"), compress_to_fp16=False)
    told = imported(tmp_path / "net.xml", *LIKE_TORCHVISION)
    assert [run["runtime"] for run in told["runtimes"]] == ["openvino"]
    assert {file["path"] for file in told["files"]} >= {"model.xml", "model.bin"}
    (tmp_path / "net.bin").unlink()
    again = main(["model", "import", str(tmp_path / "net.xml"), "--labels", str(tmp_path / "labels.txt"), "--out", "x"])
    assert again == 2


def colours(bundle: Path | str, precision: str) -> list[str]:
    """What a bundle says of a red, a green and a blue picture."""
    with Classifier.open(bundle, Setup(precision=precision), strict=True) as classifier:  # type: ignore[arg-type]
        worker = classifier.worker()
        pictures = [
            np.zeros((40, 40, 3), np.uint8) + np.array(bgr, np.uint8) for bgr in ((9, 9, 200), (9, 200, 9), (200, 9, 9))
        ]
        return [worker.classify(picture, 1).top[0][0] for picture in pictures]


def test_a_tensorflow_lite_model_of_floats(tmp_path: Path, imported: Import) -> None:
    (tmp_path / "toy.tflite").write_bytes(tflite_models.floats())
    told = imported(tmp_path / "toy.tflite", "--size", "32", "--mean", "0", "--scale", "255", labels=3)
    assert (told["source"]["kind"], told["input"]["layout"], told["precision"]) == ("tflite", "nhwc", "fp32")
    assert colours(told["bundle"], "fp32") == ["label 0", "label 1", "label 2"]


@pytest.mark.parametrize("kind", [tflite_models.UINT8, tflite_models.INT8])
def test_a_tensorflow_lite_model_that_is_quantised(kind: int, tmp_path: Path, imported: Import) -> None:
    (tmp_path / "toy.tflite").write_bytes(tflite_models.quantised(kind))
    told = imported(tmp_path / "toy.tflite", labels=3)
    assert (told["input"]["dtype"], told["precision"], told["output"]) == ("uint8", "int8", "probabilities")
    assert any("gives bytes that stand for scores" in note for note in told["notes"])
    assert colours(told["bundle"], "int8") == ["label 0", "label 1", "label 2"]
    picture = np.zeros((40, 40, 3), np.uint8) + np.array(
        [26, 51, 153], np.uint8
    )  # as TensorFlow's own interpreter says
    with Classifier.open(told["bundle"]) as classifier:
        assert classifier.worker().scores(picture) == pytest.approx([250 / 256, 5 / 256, 2 / 256], abs=1e-6)


# What a person reads


def test_a_person_reads_what_was_found_and_what_to_do_next(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "shelf"
    words = ["model", "import", str(onnx_file(tmp_path)), "--labels", str(labels_file(tmp_path)), "--out", str(out)]
    assert main(words) == 0
    shown = capsys.readouterr().out
    for said in (
        "ONNX, operator set 17",
        "nchw, rgb",
        "5 probabilities",
        "from the bare runtime",
        "0 to 255 as they are",
    ):
        assert said in shown
    assert f"shelfwire-agent evaluate {out}" in shown
