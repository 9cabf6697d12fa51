"""One contract for every runtime: the same bundle gives the same answers, and the same refusals."""

import threading
from pathlib import Path

import numpy as np
import pytest
from toy_bundles import LABELS, SIDE_PX, Toy, bundle, manifest, model, plain, softmax

import models
from agent.camera.synthetic import Scene
from models import BundleError, Classifier, PictureError, decode_picture, pack
from models.bundle import Golden, GoldenInput, Limits
from models.prepare import Input
from models.setup import Setup

import cv2  # isort: skip

RUNTIMES = ("openvino", "onnxruntime")
PRODUCE = models.resolve("produce")


def strictly(which: object, setup: Setup | str, **more: object) -> Classifier:
    """Open as asked, or not at all: a fallback would hide what is looked for."""
    return Classifier.open(which, setup, strict=True, **more)  # type: ignore[arg-type]


@pytest.fixture(params=RUNTIMES)
def runtime(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def pictures() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    noise = [rng.integers(0, 256, (*shape, 3), dtype=np.uint8) for shape in ((720, 1280), (128, 128), (90, 31))]
    return (
        [Scene(seed, 640, 360).render(seed * 40)[0] for seed in range(5)]
        + noise
        + [plain(9, 9, 9), plain(200, 180, 90)]
    )


# The shipped bundle


def test_the_shipped_bundle_passes_its_golden_check(runtime: str) -> None:
    with strictly(PRODUCE, runtime) as classifier:
        classifier.check_golden()
        assert classifier.runtime == runtime
        assert len(classifier.labels) == 81
        assert classifier.model.name == "produce"


def test_both_runtimes_give_the_same_scores(pictures: list[np.ndarray]) -> None:
    opened = [strictly(PRODUCE, runtime).worker() for runtime in RUNTIMES]
    for picture in pictures:
        first, second = (worker.classify(picture, k=81) for worker in opened)
        assert first.label == second.label
        scores = dict(second.top)
        assert max(abs(score - scores[label]) for label, score in first.top) < 1e-3
        sure = [label for label, score in first.top[:5] if score > 2e-3]
        assert sure == [label for label, _ in second.top[: len(sure)]]


def test_auto_takes_an_installed_runtime() -> None:
    with Classifier.open(PRODUCE) as classifier:
        assert classifier.runtime == "openvino"


def test_a_synthetic_camera_is_understood(runtime: str) -> None:
    with strictly(PRODUCE, runtime) as classifier:
        worker = classifier.worker()
        frames = [Scene(seed).render(30) for seed in range(4)]
        assert [worker.classify(frame).top[0][0] for frame, _ in frames] == [truth for _, truth in frames]


# What an answer is


def test_scores_are_the_models_own(runtime: str, tmp_path: Path) -> None:
    answer = strictly(bundle(tmp_path), runtime).worker().classify(plain(10, 60, 20), k=3)
    expected = dict(zip(LABELS, softmax(np.array([10, 60, 20]) * 0.05), strict=True))
    assert [label for label, _ in answer.top] == ["greenish", "reddish", "blueish"]
    assert dict(answer.top) == pytest.approx(expected, abs=1e-5)
    assert (answer.label, answer.score, answer.known) == ("greenish", answer.top[0][1], True)
    assert answer.inference_ms > 0
    assert answer.prepare_ms > 0


def test_logits_become_probabilities(runtime: str, tmp_path: Path) -> None:
    opened = strictly(bundle(tmp_path, Toy(softmax=False), output="logits"), runtime)
    answer = opened.worker().classify(plain(10, 60, 20), k=3)
    assert [score for _, score in answer.top] == pytest.approx(
        sorted(softmax(np.array([10, 60, 20]) * 0.05))[::-1], abs=1e-5
    )


def test_below_the_threshold_the_label_is_unknown_and_the_ranking_stays(runtime: str, tmp_path: Path) -> None:
    answer = strictly(bundle(tmp_path, threshold=0.9), runtime).worker().classify(plain(10, 60, 20))
    assert (answer.label, answer.known) == (models.UNKNOWN, False)
    assert answer.top[0] == ("greenish", answer.score)


def test_a_score_at_the_threshold_is_known(runtime: str, tmp_path: Path) -> None:
    score = strictly(bundle(tmp_path / "a"), runtime).worker().classify(plain(10, 60, 20)).score
    exact = strictly(bundle(tmp_path / "b", threshold=score), runtime).worker().classify(plain(10, 60, 20))
    assert exact.known


def test_k_is_bounded(runtime: str, tmp_path: Path) -> None:
    worker = strictly(bundle(tmp_path), runtime).worker()
    assert len(worker.classify(plain(1, 2, 3), k=1).top) == 1
    assert len(worker.classify(plain(1, 2, 3), k=50).top) == 3
    with pytest.raises(ValueError, match="at least 1"):
        worker.classify(plain(1, 2, 3), k=0)


# What a bundle says about its input


@pytest.mark.parametrize("layout", ["nhwc", "nchw"])
@pytest.mark.parametrize("colour", ["bgr", "rgb"])
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_every_described_input_is_prepared(runtime: str, tmp_path: Path, layout: str, colour: str, dtype: str) -> None:
    mean, scale = ((10.0, 20.0, 30.0), (2.0, 4.0, 8.0)) if dtype == "float32" else ((0.0,) * 3, (1.0,) * 3)
    spec = Input(width=SIDE_PX, height=SIDE_PX, dtype=dtype, layout=layout, colour=colour, mean=mean, scale=scale)
    opened = strictly(bundle(tmp_path, Toy(dtype=dtype, layout=layout), input=spec), runtime)
    answer = opened.worker().classify(plain(50, 90, 130), k=3)
    channels = np.array([50, 90, 130] if colour == "bgr" else [130, 90, 50], float)
    expected = softmax((channels - mean) / scale * 0.05)
    assert dict(answer.top) == pytest.approx(dict(zip(LABELS, expected, strict=True)), abs=1e-4)


def test_crop_looks_at_the_middle_and_squash_at_all(runtime: str, tmp_path: Path) -> None:
    picture = np.hstack([plain(0, 0, 200, 100, 100), plain(0, 200, 0, 100, 100), plain(0, 0, 200, 100, 100)])
    middle = strictly(bundle(tmp_path / "crop"), runtime).worker().classify(picture)
    squash = Input(width=SIDE_PX, height=SIDE_PX, fit="squash")
    whole = strictly(bundle(tmp_path / "squash", input=squash), runtime).worker().classify(picture)
    assert (middle.label, whole.label) == ("greenish", "reddish")


def test_large_pictures_are_averaged_not_sampled(runtime: str, tmp_path: Path) -> None:
    """Columns of black and white, one pixel wide: sampling every n-th would see one of them only."""
    stripes = np.zeros((1600, 1600, 3), np.uint8)
    stripes[:, ::2] = 255
    opened = strictly(bundle(tmp_path, Toy(softmax=False, gain=1 / 255)), runtime)
    assert opened.worker().classify(stripes).score == pytest.approx(0.5, abs=0.1)


# Pictures


@pytest.mark.parametrize("shape", [(1, 1), (1, 5000), (5000, 1), (3, 2), (2160, 3840), (16, 16)])
def test_odd_sizes_get_an_answer(runtime: str, tmp_path: Path, shape: tuple[int, int]) -> None:
    worker = strictly(bundle(tmp_path), runtime).worker()
    assert worker.classify(plain(10, 60, 20, shape[1], shape[0])).label == "greenish"


def test_views_of_other_arrays_are_taken_as_they_are(runtime: str) -> None:
    frame = Scene(3, 320, 180).render(9)[0]
    large = np.zeros((400, 700, 3), np.uint8)
    large[20:200:1, 40:680:2] = frame
    worker = strictly(PRODUCE, runtime).worker()
    expected = worker.classify(frame).top
    for view in (
        large[20:200, 40:680:2],
        np.asfortranarray(frame),
        frame[::-1][::-1],
        frame[..., ::-1].copy()[..., ::-1],
    ):
        assert dict(worker.classify(view).top) == pytest.approx(dict(expected), abs=1e-6)


def test_a_picture_is_not_changed_and_not_kept(runtime: str) -> None:
    frame = Scene(3, 320, 180).render(9)[0]
    before = frame.copy()
    worker = strictly(PRODUCE, runtime).worker()
    first = worker.classify(frame)
    np.testing.assert_array_equal(frame, before)
    worker.classify(np.zeros_like(frame))
    frame[:] = 7
    assert worker.classify(before).top == first.top


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((0, 10, 3), np.uint8),
        np.zeros((10, 0, 3), np.uint8),
        np.zeros((10, 10), np.uint8),
        np.zeros((10, 10, 1), np.uint8),
        np.zeros((10, 10, 4), np.uint8),
        np.zeros((1, 10, 10, 3), np.uint8),
        np.zeros((10, 10, 3), np.float32),
        np.zeros((10, 10, 3), np.int8),
        np.zeros((10, 10, 3), np.uint16),
        None,
        "picture.jpg",
        [[[1, 2, 3]]],
    ],
    ids=lambda value: f"{type(value).__name__}-{getattr(value, 'shape', '')}-{getattr(value, 'dtype', '')}",
)
def test_other_arrays_are_refused_and_the_worker_lives_on(runtime: str, tmp_path: Path, wrong: object) -> None:
    worker = strictly(bundle(tmp_path), runtime).worker()
    with pytest.raises(PictureError) as refused:
        worker.classify(wrong)  # type: ignore[arg-type]
    assert refused.value.code == "picture-shape"
    assert refused.value.hint
    assert worker.classify(plain(10, 60, 20)).label == "greenish"


# Threads


@pytest.mark.parametrize("count", [1, 2, 4])
def test_workers_in_threads_answer_as_one_alone_does(runtime: str, pictures: list[np.ndarray], count: int) -> None:
    with strictly(PRODUCE, runtime) as alone:
        worker = alone.worker()
        expected = [worker.classify(picture).top for picture in pictures]
    found: dict[int, list[tuple[tuple[str, float], ...]]] = {}
    with strictly(PRODUCE, runtime, workers=count) as shared:

        def run(number: int) -> None:
            mine = shared.worker()
            found[number] = [mine.classify(picture).top for picture in pictures * 3]

        threads = [threading.Thread(target=run, args=(number,), name=f"worker-{number}") for number in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert sorted(found) == list(range(count))
    for tops in found.values():
        for top, wanted in zip(tops, expected * 3, strict=True):
            assert dict(top) == pytest.approx(dict(wanted), abs=1e-4)


def test_two_workers_do_not_share_a_buffer(runtime: str, tmp_path: Path) -> None:
    opened = strictly(bundle(tmp_path), runtime, workers=2)
    first, second = opened.worker(), opened.worker()
    kept = first.classify(plain(10, 60, 20))
    assert second.classify(plain(10, 20, 60)).label == "reddish"
    assert first.classify(plain(10, 60, 20)).top == kept.top


def test_no_worker_comes_from_a_closed_classifier(runtime: str, tmp_path: Path) -> None:
    opened = strictly(bundle(tmp_path), runtime)
    opened.close()
    opened.close()
    with pytest.raises(RuntimeError, match="closed"):
        opened.worker()


def test_less_than_one_worker_is_no_number_of_workers(runtime: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        strictly(bundle(tmp_path), runtime, workers=0)


def test_a_cache_folder_changes_no_answer(runtime: str, tmp_path: Path, pictures: list[np.ndarray]) -> None:
    expected = dict(strictly(PRODUCE, runtime).worker().classify(pictures[0]).top)
    for _ in range(2):
        with strictly(PRODUCE, runtime, cache_dir=tmp_path / "cache") as cached:
            assert dict(cached.worker().classify(pictures[0]).top) == pytest.approx(expected, abs=1e-6)


# Bundles that must not be opened


def _refusal(path: Path, runtime: str) -> BundleError:
    with pytest.raises(BundleError) as refused:
        strictly(path, runtime)
    assert refused.value.hint
    return refused.value


@pytest.mark.parametrize("outputs", [2, 4])
def test_a_wrong_number_of_labels_is_refused(runtime: str, tmp_path: Path, outputs: int) -> None:
    refused = _refusal(bundle(tmp_path, Toy(outputs=outputs)).folder, runtime)
    assert refused.code == "bundle-label-count"
    assert str(outputs) in str(refused)


def test_a_missing_file_is_refused(runtime: str, tmp_path: Path) -> None:
    bundle(tmp_path)
    (tmp_path / "model.onnx").unlink()
    assert _refusal(tmp_path, runtime).code == "bundle-file-missing"


def test_a_changed_file_is_refused(runtime: str, tmp_path: Path) -> None:
    bundle(tmp_path)
    content = bytearray((tmp_path / "model.onnx").read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "model.onnx").write_bytes(content)
    assert _refusal(tmp_path, runtime).code == "bundle-digest"


def test_a_file_changed_after_the_check_is_refused(runtime: str, tmp_path: Path) -> None:
    checked = bundle(tmp_path)
    (tmp_path / "model.onnx").write_bytes(model(Toy(gain=0.06)))
    with pytest.raises(BundleError) as refused:
        strictly(checked, runtime)
    assert refused.value.code == "bundle-digest"


def test_a_file_that_is_no_model_is_refused(runtime: str, tmp_path: Path) -> None:
    for number, content in enumerate((b"not a model at all, sorry", b"\x08\x09" + bytes(300), model(Toy())[:200])):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "model.onnx").write_bytes(content)
        pack.write(folder, manifest(folder, {"model.onnx": "model"}))
        assert _refusal(folder, runtime).code == "model-load"


@pytest.mark.parametrize("toy", [Toy(dtype="float32"), Toy(layout="nchw")])
def test_a_model_that_takes_something_else_is_refused(runtime: str, tmp_path: Path, toy: Toy) -> None:
    assert _refusal(bundle(tmp_path, toy).folder, runtime).code == "bundle-input"


def test_another_size_than_the_models_is_refused(runtime: str, tmp_path: Path) -> None:
    assert _refusal(bundle(tmp_path, input=Input(width=32, height=32)).folder, runtime).code == "bundle-input"


@pytest.mark.parametrize("place", ["weights.bin", "../weights.bin", "/etc/hostname"])
def test_weights_outside_the_model_are_refused_unless_listed(runtime: str, tmp_path: Path, place: str) -> None:
    (tmp_path / "weights.bin").write_bytes(bytes(36))
    assert _refusal(bundle(tmp_path / "inner", Toy(outside=place)).folder, runtime).code == "bundle-path"


def test_listed_weights_beside_the_model_are_read(runtime: str, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(model(Toy(outside="weights.bin")))
    (tmp_path / "weights.bin").write_bytes((np.eye(3, dtype=np.float32) * np.float32(0.05)).tobytes())
    files = {"model.onnx": "model", "weights.bin": "weights"}
    opened = strictly(pack.write(tmp_path, manifest(tmp_path, files)), runtime)
    assert opened.worker().classify(plain(10, 60, 20)).label == "greenish"


def test_a_model_that_gives_no_numbers_is_found_out(runtime: str, tmp_path: Path) -> None:
    worker = strictly(bundle(tmp_path, Toy(gain=float("nan"))), runtime).worker()
    with pytest.raises(BundleError) as refused:
        worker.classify(plain(10, 60, 20))
    assert refused.value.code == "model-output"


@pytest.mark.parametrize("asked", ["tensorrt", "", "OpenVINO"])
def test_a_runtime_nobody_knows_is_refused(asked: str, tmp_path: Path) -> None:
    refused = _refusal(bundle(tmp_path).folder, asked)
    assert refused.code == "bundle-runtime"
    assert "onnxruntime" in refused.hint


def test_a_runtime_the_bundle_was_not_made_for_is_refused(tmp_path: Path) -> None:
    only = bundle(tmp_path, limits=Limits(runtimes=("onnxruntime",)))
    assert _refusal(only.folder, "openvino").code == "bundle-runtime"
    assert Classifier.open(only).runtime == "onnxruntime"


# The golden check


def _with_golden(folder: Path, expected: dict[str, float]) -> Path:
    bundle(folder)
    cv2.imwrite(str(folder / "golden.png"), plain(10, 60, 20))
    files = {"model.onnx": "model", "golden.png": "golden"}
    golden = Golden(inputs=(GoldenInput(path="golden.png", expected=expected),))
    return pack.write(folder, manifest(folder, files, golden=golden)).folder


def test_golden_inputs_with_their_expected_scores_pass(runtime: str, tmp_path: Path) -> None:
    scores = softmax(np.array([10, 60, 20]) * 0.05)
    expected = {label: round(float(score), 6) for label, score in zip(LABELS, scores, strict=True)}
    strictly(_with_golden(tmp_path, expected), runtime).check_golden()


def test_golden_inputs_find_permuted_labels(runtime: str, tmp_path: Path) -> None:
    scores = softmax(np.array([10, 60, 20]) * 0.05)
    expected = {label: round(float(score), 6) for label, score in zip(LABELS[::-1], scores, strict=True)}
    with pytest.raises(BundleError) as refused:
        strictly(_with_golden(tmp_path, expected), runtime).check_golden()
    assert refused.value.code == "bundle-golden"
    assert "golden.png" in str(refused.value)


def test_a_score_nobody_expected_fails_the_golden_check(runtime: str, tmp_path: Path) -> None:
    with pytest.raises(BundleError) as refused:
        strictly(_with_golden(tmp_path, {"greenish": 0.811}), runtime).check_golden()
    assert refused.value.code == "bundle-golden"


def test_golden_pictures_of_the_shipped_bundle_are_pictures() -> None:
    shipped = models.Bundle.load(PRODUCE)
    assert len(shipped.manifest.golden.inputs) >= 4
    for item in shipped.manifest.golden.inputs:
        assert decode_picture(shipped.read(item.path)).ndim == 3
