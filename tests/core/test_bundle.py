"""Bundles: what is checked before anything is run, and what each refusal is called."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from training.card import figures

import models
from models import BUILTIN, Bundle, BundleError, onnx_file, pack
from models.bundle import MANIFEST, parse_manifest

CONTENT = b"stands for a model: loading a bundle runs nothing"


def _entry(path: str, content: bytes, role: str) -> dict[str, Any]:
    return {"path": path, "size_bytes": len(content), "sha256": hashlib.sha256(content).hexdigest(), "role": role}


def _facts() -> dict[str, Any]:
    return {
        "format": "shelfwire-bundle/1",
        "name": "toy",
        "version": "1.2.0",
        "release": 3,
        "minimum_agent": "0.1.0",
        "limits": {"runtimes": ["onnxruntime"], "devices": ["cpu"], "memory_bytes": 0},
        "input": {"width": 64, "height": 64},
        "labels": ["Apple", "Pear"],
        "threshold": 0.5,
        "files": [_entry("model.onnx", CONTENT, "model")],
        "golden": {"inputs": [], "tolerance": {"cpu": 0.001}},
        "provenance": {"data_set": "none", "licence": "none", "method": "by hand", "created": "2026-01-01"},
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "model.onnx").write_bytes(CONTENT)
    _write(tmp_path, _facts())
    return tmp_path


def _write(folder: Path, facts: dict[str, Any]) -> None:
    (folder / MANIFEST).write_text(json.dumps(facts), encoding="utf-8")


def _refusal(folder: Path | str) -> BundleError:
    with pytest.raises(BundleError) as refused:
        Bundle.load(folder)
    assert refused.value.hint
    return refused.value


def _changed(folder: Path, *steps: str | int, value: object) -> BundleError:
    """The refusal of the bundle with one value of its manifest replaced."""
    facts = _facts()
    place: Any = facts
    for step in steps[:-1]:
        place = place[step]
    place[steps[-1]] = value
    _write(folder, facts)
    return _refusal(folder)


def test_a_good_bundle_is_loaded(folder: Path) -> None:
    bundle = Bundle.load(folder)
    assert bundle.ref.name == "toy"
    assert (bundle.ref.version, bundle.ref.release) == ("1.2.0", 3)
    assert bundle.ref.digest == hashlib.sha256((folder / MANIFEST).read_bytes()).hexdigest()
    assert bundle.read("model.onnx") == CONTENT


def test_a_string_is_a_path_too(folder: Path) -> None:
    assert Bundle.load(str(folder)).ref.name == "toy"


@pytest.mark.parametrize("name", sorted(BUILTIN))
def test_every_shipped_bundle_is_whole(name: str) -> None:
    bundle = Bundle.load(models.resolve(name))
    assert bundle.ref.name == name
    assert bundle.manifest.provenance.card
    listed = {file.path for file in bundle.manifest.files} | {MANIFEST}
    found = {str(place.relative_to(bundle.folder)) for place in bundle.folder.rglob("*") if place.is_file()}
    assert found == listed
    assert sum(file.size_bytes for file in bundle.manifest.files) < 18_000_000
    assert bundle.manifest.models["int8"].size_bytes <= 8_000_000


def test_the_card_of_the_shipped_bundle_says_what_was_measured() -> None:
    bundle = Bundle.load(models.resolve("produce"))
    card = bundle.read(bundle.manifest.provenance.card).decode()
    metrics = bundle.manifest.provenance.metrics
    sizes = {precision: file.size_bytes for precision, file in bundle.manifest.models.items()}
    assert figures(metrics, sizes) in card
    assert metrics["val_fp32_top1"] >= 0.85
    assert metrics["val_fp32_top1"] - metrics["val_int8_top1"] <= 0.01
    assert metrics["synthetic_int8_top1"] >= 0.95


def test_names_and_paths_are_resolved(folder: Path) -> None:
    assert models.resolve("produce") == BUILTIN["produce"]
    assert models.resolve(str(folder)) == folder
    with pytest.raises(BundleError) as refused:
        models.resolve("prodce")
    assert refused.value.code == "bundle-missing"
    assert "produce" in refused.value.hint


@pytest.mark.parametrize("there", [False, True])
def test_no_folder_or_no_manifest_is_missing(tmp_path: Path, there: bool) -> None:
    place = tmp_path / "bundle"
    if there:
        place.mkdir()
    assert _refusal(place).code == "bundle-missing"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        '{"format": "shelfwire-bundle/1"}',
        '{"a": 1, "a": 2}',
        '{"threshold": NaN}',
        "[" * 200_000,
    ],
    ids=["empty", "cut", "list", "null", "bare", "doubled", "nan", "deep"],
)
def test_a_manifest_that_is_none_is_refused(folder: Path, text: str) -> None:
    (folder / MANIFEST).write_text(text, encoding="utf-8")
    assert _refusal(folder).code == "bundle-json"


def test_a_doubled_key_is_refused_even_in_a_good_manifest(folder: Path) -> None:
    text = json.dumps(_facts()).replace('"release": 3', '"release": 3, "release": 4')
    (folder / MANIFEST).write_text(text, encoding="utf-8")
    refused = _refusal(folder)
    assert refused.code == "bundle-json"
    assert "twice" in str(refused)


def test_bytes_that_are_no_text_are_refused(folder: Path) -> None:
    (folder / MANIFEST).write_bytes(b"\xff\xfe{}")
    assert _refusal(folder).code == "bundle-json"


def test_a_monstrous_manifest_is_refused_unread(folder: Path) -> None:
    with (folder / MANIFEST).open("wb") as stream:
        stream.truncate(5 * 1024 * 1024)
    assert _refusal(folder).code == "bundle-json"


@pytest.mark.parametrize(
    ("steps", "value"),
    [
        (("format",), "shelfwire-bundle/2"),
        (("name",), "Toy Model"),
        (("name",), ""),
        (("version",), "../1"),
        (("release",), 0),
        (("release",), "3"),
        (("release",), 1.5),
        (("threshold",), 1.1),
        (("threshold",), "0.5"),
        (("labels",), ["Apple"]),
        (("labels",), ["Apple", "Apple"]),
        (("labels",), ["Apple", "unknown"]),
        (("labels",), ["Apple", "Pe\nar"]),
        (("labels",), ["Apple", ""]),
        (("labels",), ["Apple", "P" * 65]),  # records hold 64
        (("limits", "devices"), ["tpu"]),
        (("limits", "runtimes"), []),
        (("files",), []),
        (("files", 0, "sha256"), "ab"),
        (("files", 0, "size_bytes"), 0),
        (("files", 0, "role"), "golden"),
        (("files",), [_entry("model.onnx", CONTENT, "model")] * 2),
        (("golden", "inputs"), [{"path": "other.png", "expected": {"Apple": 1.0}}]),
        (("golden", "inputs"), [{"path": "model.onnx", "expected": {"Plum": 1.0}}]),
        (("golden", "tolerance"), {"cpu": 0}),
        (("provenance", "created"), "yesterday"),
        (("surprise",), 1),
    ],
)
def test_a_manifest_with_a_wrong_value_is_refused_and_the_place_named(
    folder: Path, steps: tuple[str | int, ...], value: object
) -> None:
    refused = _changed(folder, *steps, value=value)
    assert refused.code == "bundle-json"
    assert str(steps[0]) in str(refused) or "the whole" in str(refused)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("width", 0),
        ("height", 5000),
        ("dtype", "float16"),
        ("layout", "chw"),
        ("colour", "grey"),
        ("fit", "stretch"),
        ("mean", [1.0, 0.0, 0.0]),
        ("scale", [0.0, 1.0, 1.0]),
        ("interpolation", "cubic"),
    ],
)
def test_an_input_that_cannot_be_prepared_is_refused(folder: Path, field: str, value: object) -> None:
    assert _changed(folder, "input", field, value=value).code == "bundle-input"


def test_an_unknown_runtime_is_refused_by_name(folder: Path) -> None:
    refused = _changed(folder, "limits", "runtimes", value=["onnxruntime", "tensorrt"])
    assert refused.code == "bundle-runtime"
    assert "tensorrt" in str(refused)


def test_a_missing_file_is_named(folder: Path) -> None:
    (folder / "model.onnx").unlink()
    refused = _refusal(folder)
    assert refused.code == "bundle-file-missing"
    assert "model.onnx" in str(refused)


def test_a_folder_is_no_file(folder: Path) -> None:
    (folder / "model.onnx").unlink()
    (folder / "model.onnx").mkdir()
    assert _refusal(folder).code == "bundle-file-missing"


@pytest.mark.parametrize(
    "content", [CONTENT + b"!", CONTENT[:-1], b"", CONTENT[::-1]], ids=["longer", "shorter", "empty", "other"]
)
def test_another_file_than_described_is_refused(folder: Path, content: bytes) -> None:
    (folder / "model.onnx").write_bytes(content)
    assert _refusal(folder).code == "bundle-digest"


@pytest.mark.parametrize(
    "path", ["../model.onnx", "a/../../model.onnx", "/etc/hostname", "a\\b", "c:/x", "a\x00b", ".."]
)
def test_a_path_that_climbs_out_is_refused(folder: Path, path: str) -> None:
    (folder.parent / "model.onnx").write_bytes(CONTENT)
    assert _changed(folder, "files", 0, "path", value=path).code == "bundle-path"


def test_a_link_is_refused_though_it_points_to_the_right_bytes(folder: Path) -> None:
    (folder / "model.onnx").rename(folder / "real.onnx")
    (folder / "model.onnx").symlink_to("real.onnx")
    assert _refusal(folder).code == "bundle-path"


def test_a_folder_that_is_a_link_is_refused(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    outside = tmp_path_factory.mktemp("outside")
    (outside / "model.onnx").write_bytes(CONTENT)
    (folder / "inner").symlink_to(outside)
    assert _changed(folder, "files", 0, "path", value="inner/model.onnx").code == "bundle-path"


def test_a_manifest_that_is_a_link_is_refused(folder: Path) -> None:
    (folder / MANIFEST).rename(folder / "real.json")
    (folder / MANIFEST).symlink_to("real.json")
    assert _refusal(folder).code == "bundle-path"


def test_only_listed_files_are_read(folder: Path) -> None:
    (folder / "secret").write_bytes(b"x")
    with pytest.raises(BundleError) as refused:
        Bundle.load(folder).read("secret")
    assert refused.value.code == "bundle-file-missing"


def test_packing_brings_digests_up_to_date(folder: Path) -> None:
    (folder / "model.onnx").write_bytes(b"another model")
    assert _refusal(folder).code == "bundle-digest"
    assert pack.main([str(folder)]) == 0
    assert Bundle.load(folder).read("model.onnx") == b"another model"
    assert Bundle.load(folder).ref.release == 3


def test_packing_what_is_not_there_says_so(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "model.onnx").unlink()
    assert pack.main([str(folder)]) == 1
    assert "bundle-file-missing" in capsys.readouterr().err


def test_a_manifest_survives_the_round_trip(folder: Path) -> None:
    first = Bundle.load(folder).manifest
    assert parse_manifest(first.model_dump_json().encode()) == first


@pytest.mark.parametrize("content", [b"\x3a", b"\x3a\xff\x01", b"\xff" * 20, b"\x0b", b"\x3a\x02\x0a\x05"])
def test_rubbish_is_no_onnx_file(content: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        onnx_file.external_files(content)


def test_importing_the_package_loads_no_runtime_and_silences_them() -> None:
    program = (
        "import models, os, sys; loaded = {'openvino', 'onnxruntime', 'torch', 'onnx'} & set(sys.modules);"
        "assert not loaded, loaded; assert os.environ['ORT_DISABLE_TELEMETRY'] == '1';"
        "import openvino; assert sys.modules['openvino_telemetry'] is None"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60, cwd=Path(models.__file__).parents[1])
