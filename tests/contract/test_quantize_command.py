"""`shelfwire-agent model quantize`: both models in one bundle, what was lost told, wrong calibration refused."""

import importlib.util
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import conv_models
import numpy as np
import pytest
import toy_bundles

from agent.cli import main
from models import Bundle, Classifier, decode_picture, pack
from models.bundle import Golden, GoldenInput
from models.calibration import count_distinct
from models.inputs import Input
from models.int8 import Compared, Narrowed, divide, too_much_lost
from models.labelled import Labelled
from models.setup import Setup

import cv2  # isort: skip

pytest.importorskip("nncf", reason="quantisation needs the extra [quantize]")

Change = Callable[[np.ndarray, int], np.ndarray]
NET = conv_models.Net()


def bundle_of(folder: Path, net: conv_models.Net = NET) -> Path:
    """An FP32 bundle with one golden picture."""
    folder.mkdir()
    (folder / "model.onnx").write_bytes(conv_models.content(net))
    assert cv2.imwrite(str(folder / "golden.png"), conv_models.pictures(1, seed=9)[0][0])
    files = {"model.onnx": "model", "golden.png": "golden"}
    spec = Input(width=NET.side_px, height=NET.side_px)
    bundle = pack.write(folder, toy_bundles.manifest(folder, files, input=spec, release=4))
    with Classifier.open(bundle) as classifier:
        scores = classifier.worker().scores(decode_picture(bundle.read("golden.png")))
    expected = dict(zip(toy_bundles.LABELS, map(float, scores), strict=True))
    golden = Golden(inputs=(GoldenInput(path="golden.png", expected=expected),))
    pack.write(folder, bundle.manifest.model_copy(update={"golden": golden}))
    return folder


def photos(folder: Path, count: int = 90, labelled: bool = True, change: Change = lambda picture, _: picture) -> Path:
    """Pictures in a folder per label, or all in one that is named as none."""
    for number, (picture, label) in enumerate(conv_models.pictures(count)):
        place = folder / (label if labelled else "monday")
        place.mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(place / f"{number:03}.png"), change(picture, number))
    return folder


Quantize = Callable[..., dict[str, Any]]


@pytest.fixture
def quantize(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Quantize:
    """Run the command; gives its JSON, {"error": ...} when it refused."""

    def run(bundle: Path, calibration: Path, *words: str) -> dict[str, Any]:
        out = tmp_path / "out"
        command = ["model", "quantize", str(bundle), "--calibration", str(calibration), "--out", str(out), "--json"]
        code = main([*command, *words])
        told: dict[str, Any] = json.loads(capsys.readouterr().out)
        assert (code == 0) == ("error" not in told) == out.exists()
        assert not list(tmp_path.glob(".out*"))
        return told

    return run


def test_a_bundle_gets_its_int8_model_with_expectations_and_figures(tmp_path: Path, quantize: Quantize) -> None:
    told = quantize(bundle_of(tmp_path / "toy"), photos(tmp_path / "photos"))
    assert (told["labelled"], told["calibrated_with"], told["checked_with"]) == (True, 60, 30)
    assert [run["runtime"] for run in told["runtimes"]] == ["openvino", "onnxruntime"]
    assert all(run["before"] == run["after"] == 1.0 for run in told["runtimes"])
    manifest = Bundle.load(told["bundle"]).manifest
    assert (manifest.release, manifest.version, set(manifest.models)) == (5, "1+int8", {"fp32", "int8"})
    assert manifest.provenance.metrics["int8_accuracy"] == 1.0
    item = manifest.golden.inputs[0]
    assert item.expected_int8
    assert item.expected_int8 != item.expected
    for runtime in ("openvino", "onnxruntime"):
        setup = Setup(runtime=runtime, precision="int8")  # type: ignore[arg-type]
        with Classifier.open(told["bundle"], setup, strict=True) as classifier:
            classifier.check_golden()
            assert classifier.setup.precision == "int8"


def test_without_labels_both_models_are_held_against_each_other(tmp_path: Path, quantize: Quantize) -> None:
    bundle, calibration = bundle_of(tmp_path / "toy"), photos(tmp_path / "photos", labelled=False)
    told = quantize(bundle, calibration, "--release", "9", "--check", str(photos(tmp_path / "others", 12)))
    assert (told["measure"], told["calibrated_with"], told["checked_with"], told["release"]) == ("accuracy", 90, 12, 9)
    Path(told["bundle"]).rename(tmp_path / "first")
    told = quantize(bundle, calibration)
    assert (told["measure"], told["calibrated_with"], told["checked_with"]) == ("agreement", 60, 30)
    assert all((run["before"], run["after"]) == (1.0, 1.0) for run in told["runtimes"])


def rotated(folder: Path) -> None:
    """Give each label's pictures the next one's name, as a list that is off by one does."""
    names = sorted(path.name for path in folder.iterdir())
    for name in names:
        (folder / name).rename(folder / f"{name}.moved")
    for name, other in zip(names, names[1:] + names[:1], strict=True):
        (folder / f"{name}.moved").rename(folder / other)


def test_labels_that_are_not_the_models_are_refused(tmp_path: Path, quantize: Quantize) -> None:
    folder = photos(tmp_path / "photos")
    rotated(folder)
    error = quantize(bundle_of(tmp_path / "toy"), folder)["error"]
    assert error["code"] == "calibration-labels"
    assert "near chance" in error["message"]
    assert "order" in error["hint"]


STILL = conv_models.pictures(1)[0][0]
WRONG: dict[str, tuple[int, Change, str]] = {
    "calibration-few": (40, lambda picture, _: picture, "100"),
    "calibration-flat": (90, lambda picture, number: picture * (number % 3 > 0), "black"),
    "calibration-alike": (90, lambda _, number: STILL + np.uint8(number % 2), "cameras"),
    "calibration-range": (90, lambda picture, _: (picture * 0.3).astype(np.uint8), "light"),
}


@pytest.mark.parametrize("code", WRONG)
def test_pictures_that_do_not_show_what_cameras_see_are_refused(code: str, tmp_path: Path, quantize: Quantize) -> None:
    count, change, cure = WRONG[code]
    folder = photos(tmp_path / "photos", count, labelled=False, change=change)
    error = quantize(bundle_of(tmp_path / "toy"), folder)["error"]
    assert error["code"] == code
    assert cure in error["hint"]


def test_a_model_that_loses_too_much_is_not_written_and_the_loss_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], quantize: Quantize
) -> None:
    bundle = bundle_of(tmp_path / "toy", conv_models.Net(loud=True))
    folder = photos(tmp_path / "photos")
    words = [
        "model",
        "quantize",
        str(bundle),
        "--calibration",
        str(folder),
        "--out",
        str(tmp_path / "lost"),
        "--anyway",
    ]
    assert main(words[:-1]) == 2
    captured = capsys.readouterr()
    assert "100.0 %" in captured.out
    assert "[quantise-lost]" in captured.err
    assert not (tmp_path / "lost").exists()
    assert main([*words, "--anyway"]) == 0
    assert Bundle.load(tmp_path / "lost").manifest.models["int8"]


def test_what_cannot_be_quantised_at_all(tmp_path: Path, quantize: Quantize, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle, folder = bundle_of(tmp_path / "toy"), photos(tmp_path / "photos", 3)
    assert quantize(tmp_path / "none", folder)["error"]["code"] == "bundle-missing"
    assert quantize(bundle, tmp_path / "none")["error"]["code"] == "data-missing"
    photos(tmp_path / "photos", 3, labelled=False)
    error = quantize(bundle, folder)["error"]
    assert (error["code"], "monday" in error["message"], "--no-labels" in error["hint"]) == ("data-label", True, True)
    assert quantize(bundle, folder, "--no-labels")["error"]["code"] == "calibration-few"
    there = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "nncf" else there(name))
    assert quantize(bundle, folder)["error"]["code"] == "quantise-missing"


# Pure rules


def test_two_thirds_calibrate_and_no_picture_does_both() -> None:
    pictures = [Labelled(Path(str(number)), "a") for number in range(90)]
    inside, outside = divide(pictures)
    assert (len(inside), len(outside)) == (60, 30)
    assert not {item.path for item in inside} & {item.path for item in outside}
    assert [len(part) for part in divide(pictures * 20)] == [300, 1500]
    assert divide([]) == ((), ())


@pytest.mark.parametrize(
    ("before", "after", "pictures", "most", "refused"),
    [
        (0.90, 0.89, 1000, 1.0, False),
        (0.90, 0.88, 1000, 1.0, True),
        (0.90, 0.92, 1000, 1.0, False),
        (0.90, 0.88, 50, 1.0, False),  # one picture of fifty is chance
        (0.90, 0.86, 50, 1.0, True),
        (0.90, 0.86, 50, 5.0, False),
    ],
)
def test_how_much_may_be_lost(before: float, after: float, pictures: int, most: float, refused: bool) -> None:
    good, worse = Compared("openvino", pictures, 0.9, 0.9, 2.0), Compared("onnxruntime", pictures, before, after, 2.0)
    narrowed = Narrowed(b"", True, (good, worse), math.nan, ())
    assert too_much_lost(narrowed, most) is refused


def test_pictures_that_differ_by_noise_alone_count_once() -> None:
    rng = np.random.default_rng(1)
    scenes = [np.kron(rng.integers(0, 200, (8, 8, 3)), np.ones((8, 8, 1), int)) for _ in range(4)]
    frames = [(scene + rng.integers(0, 12, scene.shape)).astype(np.uint8) for scene in scenes for _ in range(5)]
    assert count_distinct(frames) == 4
