"""Setups of real models are measured by the real runtimes: good answers alone count, and a crash harms nobody."""

import argparse
import json
import threading
from dataclasses import replace
from pathlib import Path

import bad_bundles
import numpy as np
import pytest
import toy_bundles
from toy_bundles import LABELS, Toy, plain, softmax

from agent.bench import choosing, density, measure
from agent.bench.held import Asking, Measuring
from agent.bench.measure import Bench
from agent.bench.surroundings import key_of, possible
from agent.cli import bench as bench_command
from agent.cli import main
from agent.config import Config
from agent.core.setups import Figures, candidates
from agent.errors import Broken
from agent.host import processor
from agent.store import choice
from models import Bundle, Classifier, pack
from models.bundle import Golden, GoldenInput
from models.labelled import Labelled
from models.setup import Setup

import cv2  # isort: skip

GAIN = 0.05
COLOURS = {"blueish": (90, 10, 10), "greenish": (10, 60, 20), "reddish": (20, 30, 80)}
OPEN = Setup()


def with_int8(folder: Path, int8: Toy) -> Bundle:
    """A toy with a second model that says it is INT8, and golden pictures that it need not answer quite alike."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx").write_bytes(toy_bundles.model(Toy(gain=GAIN)))
    (folder / "model-int8.onnx").write_bytes(toy_bundles.model(int8))
    golden = []
    for label, colour in COLOURS.items():
        cv2.imwrite(str(folder / f"{label}.png"), plain(*colour))
        fp32, other = (_expected(colour, gain) for gain in (GAIN, int8.gain))
        golden.append(GoldenInput(path=f"{label}.png", expected=fp32, expected_int8=other))
    roles = {"model.onnx": "model", **{f"{label}.png": "golden" for label in COLOURS}}
    manifest = toy_bundles.manifest(folder, roles, golden=Golden(inputs=tuple(golden)))
    files = (*manifest.files, pack.describe(folder, "model-int8.onnx", "model", "int8"))
    return pack.write(folder, manifest.model_copy(update={"files": files}))


def _expected(colour: tuple[int, int, int], gain: float) -> dict[str, float]:
    scores = softmax(np.array(colour) * gain)
    return {label: round(float(score), 6) for label, score in zip(LABELS, scores, strict=True)}


@pytest.fixture(autouse=True)
def few_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "ROUNDS", 2)


def measured(bundle: Bundle, tmp_path: Path, *labelled: Labelled, workers: int = 2) -> list[Figures]:
    bench = Bench(bundle, workers, 0.2, tmp_path / "cache", labelled, lambda part, setup: None)
    return bench.measure(candidates(possible(bundle.manifest, workers), OPEN))


def test_every_setup_is_measured_as_it_is_meant_and_its_answers_compared(tmp_path: Path) -> None:
    bundle = with_int8(tmp_path / "toy", Toy(gain=GAIN * 1.02))
    figures = measured(bundle, tmp_path)
    assert {each.setup.precision for each in figures} == {"fp32", "int8"}
    assert {each.setup.runtime for each in figures} == {"openvino", "onnxruntime"}
    for each in figures:
        assert each.trouble == ""
        assert each.fps > 0 < each.latency_ms
        assert each.golden is not None
        assert each.golden.same == each.golden.many == 3
        assert (each.golden.difference > 1e-4) is (each.setup.precision == "int8")


def test_a_setup_that_answers_otherwise_than_fp32_is_left_out_though_it_answers_as_it_was_made(tmp_path: Path) -> None:
    bundle = with_int8(tmp_path / "toy", Toy(gain=-GAIN))
    figures = measured(bundle, tmp_path)
    chosen = choosing.choose(figures, 0.0, key_of(bundle, 2, OPEN), 0)
    assert chosen.setup.precision == "fp32"
    for each in figures:
        assert bool(each.trouble) is (each.setup.precision == "int8")
    assert "3 of 3 golden pictures otherwise than FP32" in next(each.trouble for each in figures if each.trouble)


def test_labelled_pictures_are_counted(tmp_path: Path) -> None:
    bundle = with_int8(tmp_path / "toy", Toy(gain=GAIN))
    labelled = [Labelled(bundle.folder / "greenish.png", label) for label in ("greenish", "reddish")]
    first = measured(bundle, tmp_path, *labelled)[0]
    assert first.pictures is not None
    assert (first.pictures.right, first.pictures.many, first.pictures.same) == (1, 2, 2)


def hold(bundle: Bundle, tmp_path: Path) -> Measuring:
    return Measuring(Asking(bundle.folder, OPEN, 1, 0.2, tmp_path / "cache", 1 << 30))


def test_a_way_that_ends_its_process_is_left_out_and_the_rest_is_measured(tmp_path: Path) -> None:
    measuring = hold(bad_bundles.crashing(tmp_path / "bad"), tmp_path)
    while measuring.hear(1.0):
        pass
    measuring.close()
    assert measuring.figures is not None
    by_runtime = {each.setup.runtime: each.trouble for each in measuring.figures}
    assert "ended the process that measured it (signal 11)" in by_runtime["openvino"]
    assert by_runtime["onnxruntime"]  # it looks where it reads, and says so
    with pytest.raises(Broken) as refused:
        choosing.choose(measuring.figures, 0.0, key_of(Bundle.load(tmp_path / "bad"), 1, OPEN), 0)
    assert refused.value.code == "bench-nothing-runs"


def test_a_bundle_that_is_damaged_is_told_by_its_code(tmp_path: Path) -> None:
    bundle = toy_bundles.bundle(tmp_path / "toy")
    (bundle.folder / "model.onnx").write_bytes(b"other")
    measuring = hold(bundle, tmp_path)
    with pytest.raises(Broken) as refused:
        while measuring.hear(1.0):
            pass
    assert refused.value.code == "bundle-digest"


# The choice that is kept.


@pytest.fixture
def config(tmp_path: Path) -> Config:
    bundle = toy_bundles.bundle(tmp_path / "toy")
    return Config(device={"id": "b", "state_dir": tmp_path / "state"}, model={"bundle": str(bundle.folder)})  # type: ignore[arg-type]


def keep(config: Config, setup: Setup, **changes: object) -> choice.Choice:
    bundle = Bundle.load(config.model.bundle)
    key = key_of(bundle, processor.workers_for(config), config.model.setup)
    made = choice.Choice(replace(key, **changes), setup, "it was faster", "2026-01-31T12:00:00Z")  # type: ignore[arg-type]
    choice.write(config.device.state_dir, made)
    return made


def test_what_was_measured_is_used_and_what_is_configured_wins(config: Config) -> None:
    bundle = Bundle.load(config.model.bundle)
    assert choosing.chosen(config, bundle).missing == "nothing was measured yet"
    kept = keep(config, Setup("onnxruntime", "cpu", "fp32", 1, "graph"))
    assert choice.read(config.device.state_dir) == kept
    found = choosing.chosen(config, bundle)
    assert (found.setup, found.reason, found.measured, found.missing) == (kept.setup, "it was faster", True, "")
    assert Classifier.open(bundle, found.setup).setup == kept.setup
    other = config.model_copy(update={"model": config.model.model_copy(update={"runtime": "openvino"})})
    assert choosing.chosen(other, bundle).setup.runtime == "openvino"
    assert "the configuration asks for something else" in choosing.chosen(other, bundle).missing


def test_what_was_measured_for_something_else_is_not_used(config: Config) -> None:
    keep(config, Setup("onnxruntime", "cpu", "fp32", 1, "graph"), cpu="another", runtimes="older")
    found = choosing.chosen(config, Bundle.load(config.model.bundle))
    assert found.setup == config.model.setup
    assert found.missing.endswith("the processor is another one and the runtimes have other versions")


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"format": "shelfwire-choice/1"}', "\x00", '{"format": 7}'])
def test_a_damaged_choice_is_told_and_not_used(config: Config, content: str) -> None:
    config.device.state_dir.mkdir(exist_ok=True)
    (config.device.state_dir / choice.NAME).write_text(content)
    found = choosing.chosen(config, Bundle.load(config.model.bundle))
    assert found.setup == config.model.setup
    assert "cannot be read" in found.missing
    with pytest.raises(Broken, match="cannot be read"):
        choice.read(config.device.state_dir)


# The cameras.


def test_frames_of_cameras_go_the_devices_whole_way_and_have_an_age(tmp_path: Path) -> None:
    bundle = toy_bundles.bundle(tmp_path / "toy")
    jpeg = cv2.imencode(".jpg", plain(10, 60, 20, 320, 180))[1].tobytes()
    terms = density.Terms(window_s=1.0, limit_s=60.0, workers=processor.workers_of)
    bench = density.Bench(
        lambda workers: Classifier.open(bundle, OPEN, workers), [jpeg], terms, lambda what, part: None
    )
    window = bench.window(3)
    assert [len(samples) for samples in window.rates_fps] == [1, 1, 1]
    assert max(rate for (rate,) in window.rates_fps) <= 15
    ages = bench.ages(2.0, 1)
    assert (ages.load, ages.streams) == (2.0, 2)
    assert 0 < ages.p50_ms <= ages.p95_ms
    assert 0 < ages.answered <= 1


def test_a_measurement_that_is_stopped_ends_its_threads_and_leaves_nothing(tmp_path: Path) -> None:
    bundle = with_int8(tmp_path / "toy", Toy(gain=GAIN))
    jpeg = cv2.imencode(".jpg", plain(10, 60, 20))[1].tobytes()
    terms = density.Terms(window_s=60.0, limit_s=600.0, workers=processor.workers_of)
    stop, opened, before = threading.Event(), [], set(threading.enumerate())

    def once_running(what: str, part: float) -> None:
        threading.Timer(0.5, stop.set).start()

    def opens(workers: int) -> Classifier:
        opened.append(Classifier.open(bundle, OPEN, workers))
        return opened[-1]

    with pytest.raises(KeyboardInterrupt):
        density.Bench(opens, [jpeg], terms, once_running, stop).measure()
    assert stop.is_set()
    assert {thread.name for thread in set(threading.enumerate()) - before} == set()
    with pytest.raises(RuntimeError, match="closed"):
        opened[0].worker()


# The command.


def test_the_command_keeps_what_it_chose(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = with_int8(tmp_path / "toy", Toy(gain=GAIN * 1.02))
    camera = '[[camera]]\nname = "a"\nurl = "synthetic:1"\n'
    state = f'[device]\nid = "b"\nstate_dir = "{tmp_path / "state"}"\n'
    (tmp_path / "b.toml").write_text(f'{state}[model]\nbundle = "{bundle.folder}"\n{camera}')
    assert main(["bench", "--config", str(tmp_path / "b.toml"), "--seconds", "1", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    kept = choice.read(tmp_path / "state")
    assert kept is not None
    assert said["kept"] is True
    assert said["setup"] == kept.setup.to_json()
    assert said["reason"] == kept.reason
    assert kept.key.workers == 1


def test_a_choice_that_vision_could_not_use_is_not_kept(config: Config, tmp_path: Path) -> None:
    here, another = Bundle.load(config.model.bundle), toy_bundles.bundle(tmp_path / "another", Toy(gain=2.0))
    options = argparse.Namespace(no_write=False, config=tmp_path / "b.toml")
    assert bench_command._why_not(options, config, here, 1) == ""
    assert bench_command._why_not(options, config, here, 3) == "vision has 1 workers here, not 3"
    assert bench_command._why_not(options, config, another, 1) == "another model answers on this device"
    assert "there is no configuration" in bench_command._why_not(options, None, here, 1)
    options.no_write = True
    assert bench_command._why_not(options, config, here, 1) == "--no-write was given"
