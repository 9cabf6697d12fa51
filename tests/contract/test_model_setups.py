"""However a model is run, its answers are the same; and where it cannot be run as asked, that is said."""

import os
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from toy_bundles import LABELS, SIDE_PX, Toy, bundle, manifest, model, plain, softmax

from models import Bundle, BundleError, Classifier, pack
from models.bundle import Golden, GoldenInput, Limits
from models.onnx_arithmetic import BYTES as BYTES_ENTRY
from models.onnx_arithmetic import with_arithmetic
from models.prepare import Input, arithmetic
from models.setup import Setup

import cv2  # isort: skip
import onnx  # isort: skip
import onnxruntime  # isort: skip - after models, which keeps it from sending usage events
import openvino  # isort: skip

RUNTIMES = ("openvino", "onnxruntime")
BYTES = Input(width=SIDE_PX, height=SIDE_PX)
PLANES = BYTES.model_copy(update={"layout": "nchw", "colour": "rgb"})
FLOATS = PLANES.model_copy(update={"dtype": "float32", "scale": (1.0, 2.0, 0.5)})
IMAGENET = FLOATS.model_copy(update={"mean": (123.675, 116.28, 103.53), "scale": (58.395, 57.12, 57.375)})
EVERYWHERE = Limits(runtimes=RUNTIMES, devices=("cpu", "gpu", "npu"))
DULL, BLUE = plain(10, 60, 20), plain(250, 0, 128)


def both(folder: Path, toy: Toy, **changes: object) -> Bundle:
    """A bundle with the toy in FP32 and in INT8."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx").write_bytes(model(toy))
    (folder / "int8.onnx").write_bytes(model(replace(toy, int8=True)))
    files = (pack.describe(folder, "model.onnx", "model"), pack.describe(folder, "int8.onnx", "model", "int8"))
    whole = manifest(folder, {"model.onnx": "model"}, **changes)
    return pack.write(folder, whole.model_copy(update={"files": files}))


def scores(picture: np.ndarray, spec: Input) -> np.ndarray:
    """What a toy must answer for a picture of one colour."""
    channels = picture[0, 0].astype(float)[:: 1 if spec.colour == "bgr" else -1]
    return softmax((channels - spec.mean) / spec.scale * 0.05)


def setup(runtime: str = "auto", **more: object) -> Setup:
    return Setup(runtime=runtime, **more)  # type: ignore[arg-type]


def golden(folder: Path, picture: np.ndarray, **wanted: dict[str, float]) -> Golden:
    cv2.imwrite(str(folder / "golden.png"), picture)
    return Golden(inputs=(GoldenInput(path="golden.png", **wanted),))


def with_golden(folder: Path, toy: Toy, picture: np.ndarray = DULL, **wanted: dict[str, float]) -> Bundle:
    """The toy in both precisions with a golden input."""
    made = both(folder, toy)
    inputs = golden(folder, picture, **wanted)
    files = (*made.manifest.files, pack.describe(folder, "golden.png", "golden"))
    return pack.write(folder, made.manifest.model_copy(update={"files": files, "golden": inputs}))


RIGHT, BLUE_RIGHT = (
    dict(zip(LABELS, (round(float(score), 6) for score in scores(picture, BYTES)), strict=True))
    for picture in (DULL, BLUE)
)
WRONG = dict(zip(LABELS, (0.9, 0.05, 0.05), strict=True))


# Identical answers


@pytest.mark.parametrize("preprocess", ["graph", "host"])
@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize(
    ("toy", "spec"),
    [
        (Toy(), BYTES),
        (Toy(layout="nchw"), PLANES),
        (Toy(dtype="float32", layout="nchw"), FLOATS),
        (Toy(softmax=False), BYTES),
        (Toy(shape="map"), BYTES),
        (Toy(shape="vector", softmax=False), BYTES),
    ],
    ids=["bytes", "planes", "floats", "logits", "map", "vector"],
)
def test_every_setup_gives_the_same_scores(
    tmp_path: Path, runtime: str, precision: str, preprocess: str, toy: Toy, spec: Input
) -> None:
    made = both(tmp_path, toy, input=spec, output="probabilities" if toy.softmax else "logits")
    with Classifier.open(made, setup(runtime, precision=precision, preprocess=preprocess), strict=True) as opened:
        assert opened.notes == ()
        assert (opened.setup.runtime, opened.setup.precision, opened.setup.device) == (runtime, precision, "cpu")
        assert opened.setup.preprocess == ("graph" if spec == BYTES else preprocess)
        worker = opened.worker()
        for picture in (DULL, plain(100, 0, 126)):
            assert worker.scores(picture) == pytest.approx(scores(picture, spec), abs=1e-5)


@pytest.mark.parametrize("preprocess", ["graph", "host"])
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_the_scores_are_those_of_the_bare_runtime(tmp_path: Path, runtime: str, preprocess: str) -> None:
    picture = np.random.default_rng(3).integers(0, 256, (SIDE_PX, SIDE_PX, 3), np.uint8)
    made = bundle(tmp_path, Toy(dtype="float32", layout="nchw", gain=1.0), input=IMAGENET)
    given = arithmetic(picture, IMAGENET)
    content = (tmp_path / "model.onnx").read_bytes()
    if runtime == "openvino":
        core = openvino.Core()
        bare = core.compile_model(core.read_model(content), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(given)[0]
    else:
        bare = onnxruntime.InferenceSession(content).run(None, {"picture": given})[0]
    with Classifier.open(made, setup(runtime, preprocess=preprocess), strict=True) as opened:
        assert opened.worker().scores(picture) == pytest.approx(np.asarray(bare).reshape(-1), abs=1e-4)


def test_arithmetic_is_written_into_a_file_that_is_still_valid_onnx() -> None:
    before = onnx.load_from_string(model(Toy(dtype="float32", layout="nchw")))
    before.ir_version = 3  # so old that every initializer must be an input too
    for constant in before.graph.initializer:
        entry = onnx.helper.make_tensor_value_info(constant.name, constant.data_type, constant.dims)
        before.graph.input.append(entry)
    after = onnx.load_from_string(with_arithmetic(before.SerializeToString(), IMAGENET, "picture"))
    onnx.checker.check_model(after, full_check=True)
    names = [entry.name for entry in after.graph.input]
    assert BYTES_ENTRY in names
    assert "picture" not in names
    own = [node.op_type for node in before.graph.node]
    assert [node.op_type for node in after.graph.node][-len(own) :] == own
    with pytest.raises(ValueError, match="longer than the file"):
        with_arithmetic(before.SerializeToString()[:-9], IMAGENET, "picture")


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_more_streams_or_fewer_change_no_answer(tmp_path: Path, runtime: str) -> None:
    made = bundle(tmp_path)
    for streams in (1, 2, 3):
        with Classifier.open(made, setup(runtime, streams=streams), workers=2, strict=True) as opened:
            assert opened.setup.streams == streams
            assert opened.worker().scores(DULL) == pytest.approx(scores(DULL, BYTES), abs=1e-5)


# OpenVINO's own format


def ir(folder: Path) -> Bundle:
    core = openvino.Core()
    graph = core.read_model(model(Toy()))
    openvino.save_model(graph, folder / "model.xml", compress_to_fp16=False)
    return pack.write(folder, manifest(folder, {"model.xml": "model", "model.bin": "weights"}))


def test_a_model_in_openvinos_own_format_is_run_by_openvino(tmp_path: Path) -> None:
    made = ir(tmp_path)
    with Classifier.open(made) as opened:
        assert (opened.runtime, opened.notes) == ("openvino", ())
        assert opened.worker().scores(DULL) == pytest.approx(scores(DULL, BYTES), abs=1e-5)
    with Classifier.open(made, "onnxruntime") as opened:
        assert opened.runtime == "openvino"
        assert [note.code for note in opened.notes] == ["runtime-missing"]
    with (tmp_path / "model.bin").open("r+b") as weights:
        weights.write(b"\xff")
    with pytest.raises(BundleError) as refused:
        Classifier.open(made)
    assert refused.value.code == "bundle-digest"


def test_a_model_in_openvinos_own_format_needs_its_weights_and_its_runtime(tmp_path: Path) -> None:
    made = ir(tmp_path).manifest
    for change, says in (
        ({"files": made.files[:1]}, "needs model.bin"),
        ({"limits": Limits(runtimes=("onnxruntime",))}, "needs the runtime openvino"),
    ):
        with pytest.raises(ValueError, match=says):
            type(made)(**{**dict(made), **change})


# What cannot be had as asked


@pytest.mark.parametrize("device", ["gpu", "npu"])
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_an_accelerator_that_is_not_there_gives_way_to_the_cpu(tmp_path: Path, runtime: str, device: str) -> None:
    made = bundle(tmp_path, limits=EVERYWHERE)
    with Classifier.open(made, setup(runtime, device=device)) as opened:
        assert (opened.runtime, opened.setup.device) == (runtime, "cpu")
        (note,) = opened.notes
        assert (note.code, bool(note.hint)) == ("device-missing", True)
        assert device.upper() in note.message
        assert "(cpu, fp32) runs the model" in note.message
        assert opened.worker().classify(DULL).label == "greenish"
    with pytest.raises(BundleError) as refused:
        Classifier.open(made, setup(runtime, device=device), strict=True)
    assert refused.value.code == "model-device"


def test_an_accelerator_that_the_bundle_was_not_made_for_is_not_tried(tmp_path: Path) -> None:
    with Classifier.open(bundle(tmp_path), setup(device="gpu")) as opened:
        assert opened.setup.device == "cpu"
        assert [note.code for note in opened.notes] == ["device-unfit"]


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_any_takes_what_there_is(tmp_path: Path, runtime: str) -> None:
    with Classifier.open(bundle(tmp_path, limits=EVERYWHERE), setup(runtime, device="any")) as opened:
        assert (opened.setup.device, opened.notes) == ("cpu", ())


def test_a_model_that_one_runtime_cannot_load_is_run_by_the_other(tmp_path: Path) -> None:
    with Classifier.open(bundle(tmp_path, Toy(strange=True)), "openvino") as opened:
        assert opened.runtime == "onnxruntime"
        assert [note.code for note in opened.notes] == ["runtime-failed"]
        assert "onnxruntime (cpu, fp32) runs the model, not openvino" in opened.notes[0].message
        assert opened.worker().classify(DULL).label == "greenish"


OPENS = """
import sys
from models import Classifier
with Classifier.open(sys.argv[1]) as opened:
    print(opened.runtime, [note.code for note in opened.notes])
"""


def test_a_runtime_that_is_installed_and_cannot_be_loaded_gives_way(tmp_path: Path) -> None:
    made = bundle(tmp_path / "toy").folder
    (tmp_path / "broken" / "openvino").mkdir(parents=True)
    (tmp_path / "broken" / "openvino" / "__init__.py").write_text("raise ImportError('libtbb.so.12: not found')\n")
    path = os.pathsep.join([str(tmp_path / "broken"), *(part for part in sys.path if part)])
    said = subprocess.run(
        [sys.executable, "-c", OPENS, str(made)], env={**os.environ, "PYTHONPATH": path}, capture_output=True,
        text=True, timeout=60, check=True,
    )  # fmt: skip
    assert said.stdout.strip() == "onnxruntime ['runtime-failed']"


def test_after_a_fallback_the_golden_inputs_decide(tmp_path: Path) -> None:
    made = with_golden(tmp_path, Toy(strange=True), expected=WRONG)
    with pytest.raises(BundleError) as refused:
        Classifier.open(made, "openvino")
    assert refused.value.code == "model-load"  # the first thing that went wrong


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_an_int8_model_has_golden_scores_of_its_own(tmp_path: Path, runtime: str) -> None:
    asked = setup(runtime, precision="int8")
    with Classifier.open(with_golden(tmp_path / "a", Toy(), expected=WRONG, expected_int8=RIGHT), asked) as opened:
        assert opened.notes == ()
        opened.check_golden()
    with Classifier.open(with_golden(tmp_path / "b", Toy(), expected=RIGHT), asked) as opened:
        assert (opened.setup.precision, opened.notes) == ("int8", ())  # held against those of FP32


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_an_int8_model_that_answers_wrong_gives_way_to_fp32(tmp_path: Path, runtime: str) -> None:
    """As on a processor whose byte arithmetic saturates."""
    made = with_golden(tmp_path, Toy(), expected=RIGHT, expected_int8=WRONG)
    with Classifier.open(made, setup(runtime, precision="int8")) as opened:
        assert (opened.runtime, opened.setup.precision) == (runtime, "fp32")
        assert [note.code for note in opened.notes] == ["answers-wrong"]
    with pytest.raises(BundleError) as refused:
        Classifier.open(made, setup(runtime, precision="int8"), strict=True)
    assert refused.value.code == "bundle-golden"


def test_a_model_that_loads_and_does_not_run_is_run_by_the_other_runtime(tmp_path: Path) -> None:
    made = with_golden(tmp_path, Toy(brittle=True), picture=BLUE, expected=BLUE_RIGHT)
    with Classifier.open(made, setup("onnxruntime", precision="int8")) as opened:
        assert (opened.runtime, opened.setup.precision) == ("openvino", "int8")
        assert [note.code for note in opened.notes] == ["run-failed"]


def test_a_precision_that_the_bundle_lacks_is_said(tmp_path: Path) -> None:
    with Classifier.open(bundle(tmp_path), setup(precision="int8")) as opened:
        assert opened.setup.precision == "fp32"
        assert [note.code for note in opened.notes] == ["precision-missing"]


def test_preprocessing_stays_on_the_host_where_weights_lie_beside_the_model(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(model(Toy(layout="nchw", outside="weights.bin")))
    (tmp_path / "weights.bin").write_bytes((np.eye(3, dtype=np.float32) * np.float32(0.05)).tobytes())
    files = {"model.onnx": "model", "weights.bin": "weights"}
    made = pack.write(tmp_path, manifest(tmp_path, files, input=PLANES))
    with Classifier.open(made, setup("onnxruntime", preprocess="graph")) as opened:
        assert opened.setup.preprocess == "host"
        assert [note.code for note in opened.notes] == ["preprocess-host"]
        assert opened.worker().scores(DULL) == pytest.approx(scores(DULL, PLANES), abs=1e-5)


# What fails while it runs


def test_a_picture_in_which_the_runtime_fails_is_answered_by_the_other(tmp_path: Path) -> None:
    with Classifier.open(bundle(tmp_path, Toy(brittle=True)), "onnxruntime", workers=2) as opened:
        first, second = opened.worker(), opened.worker()
        assert first.classify(DULL).runtime == "onnxruntime"
        answer = first.classify(BLUE)
        assert (answer.label, answer.runtime, opened.runtime) == ("blueish", "openvino", "openvino")
        (note,) = opened.notes
        assert (note.code, bool(note.hint)) == ("run-failed", True)
        assert second.classify(DULL).label == "greenish"  # its own engine still works, so it keeps it
        assert second.scores(BLUE) == pytest.approx(scores(BLUE, BYTES), abs=1e-5)
        assert opened.notes == (note,)
        assert opened.worker().classify(BLUE).label == "blueish"


def test_all_workers_that_fail_at_once_go_on_with_one_and_the_same(tmp_path: Path) -> None:
    count, found = 4, []
    with Classifier.open(bundle(tmp_path, Toy(brittle=True)), "onnxruntime", workers=count) as opened:
        gate = threading.Barrier(count)

        def run() -> None:
            worker = opened.worker()
            gate.wait(20)
            found.append([worker.classify(picture).label for picture in (BLUE, DULL, BLUE)])

        threads = [threading.Thread(target=run, name=f"worker-{n}") for n in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert found == [["blueish", "greenish", "blueish"]] * count
        assert [note.code for note in opened.notes] == ["run-failed"]


def test_where_nothing_else_can_run_it_the_picture_fails_and_the_next_is_answered(tmp_path: Path) -> None:
    made = bundle(tmp_path, Toy(brittle=True), limits=Limits(runtimes=("onnxruntime",)))
    with Classifier.open(made) as opened:
        worker = opened.worker()
        for _ in range(2):
            with pytest.raises(BundleError) as failed:
                worker.classify(BLUE)
            assert (failed.value.code, bool(failed.value.hint)) == ("model-run", True)
        assert worker.classify(DULL).label == "greenish"


def test_an_engine_that_answers_wrong_takes_over_from_none(tmp_path: Path) -> None:
    made = with_golden(tmp_path, Toy(brittle=True), expected=WRONG)
    with Classifier.open(made, "onnxruntime") as opened, pytest.raises(BundleError) as failed:
        opened.worker().classify(BLUE)
    assert failed.value.code == "model-run"


def test_after_the_close_no_engine_takes_over(tmp_path: Path) -> None:
    opened = Classifier.open(bundle(tmp_path, Toy(brittle=True)), "onnxruntime")
    worker = opened.worker()
    opened.close()
    with pytest.raises(RuntimeError, match="closed"):
        worker.classify(BLUE)
