"""How a model is to be run: what was asked for, in which order ways are tried, and what is said about it."""

import pytest

from models.bundle import BundleFile, Limits, Manifest, Provenance
from models.choosing import plan
from models.errors import BundleError
from models.inputs import Input
from models.runtimes import providers
from models.setup import Setup

BOTH = ("openvino", "onnxruntime")


def file(path: str, role: str = "model", precision: str | None = None) -> BundleFile:
    return BundleFile(path=path, size_bytes=1, sha256="0" * 64, role=role, precision=precision)  # type: ignore[arg-type]


def made(*files: BundleFile, runtimes: tuple[str, ...] = BOTH, devices: tuple[str, ...] = ("cpu",)) -> Manifest:
    return Manifest(
        name="toy",
        version="1",
        release=1,
        minimum_agent="0.1.0",
        limits=Limits(runtimes=runtimes, devices=devices),  # type: ignore[arg-type]
        input=Input(width=16, height=16),
        labels=("a", "b"),
        threshold=0.5,
        files=files or (file("m.onnx"), file("m8.onnx", precision="int8")),
        provenance=Provenance(data_set="", licence="", method="", created="2026-01-01"),
    )


def ways(asked: Setup, manifest: Manifest, installed: tuple[str, ...] = BOTH) -> tuple[list[str], list[str]]:
    """The ways tried, in brief, and the codes of the notes."""
    found = plan(asked, manifest, installed.__contains__)
    return [way.brief for way in found.tries], [note.code for note in found.notes]


def test_what_is_left_open_is_fp32_on_the_cpu() -> None:
    assert ways(Setup(), made()) == (["openvino (cpu, fp32)", "onnxruntime (cpu, fp32)"], [])
    assert ways(Setup(), made(), ("onnxruntime",)) == (["onnxruntime (cpu, fp32)"], [])
    assert ways(Setup(), made(file("m8.onnx", precision="int8"))) == (
        ["openvino (cpu, int8)", "onnxruntime (cpu, int8)"],
        [],
    )


def test_the_cpu_comes_first_then_fp32_then_the_other_runtime() -> None:
    asked = Setup("onnxruntime", "gpu", "int8", 2, "host")
    found = plan(asked, made(devices=("cpu", "gpu")), BOTH.__contains__).tries
    assert [way.brief for way in found] == [
        "onnxruntime (gpu, int8)",
        "onnxruntime (cpu, int8)",
        "onnxruntime (cpu, fp32)",
        "openvino (cpu, int8)",
        "openvino (cpu, fp32)",
    ]
    assert {(way.streams, way.preprocess) for way in found} == {(2, "host")}


def test_what_the_bundle_or_the_machine_lacks_is_noted() -> None:
    fp32 = made(file("m.onnx"))
    assert ways(Setup(precision="int8"), fp32)[1] == ["precision-missing"]
    assert ways(Setup(device="npu"), fp32)[1] == ["device-unfit"]
    assert ways(Setup("openvino"), fp32, ("onnxruntime",)) == (["onnxruntime (cpu, fp32)"], ["runtime-missing"])


def test_a_format_that_one_runtime_reads_is_left_to_it() -> None:
    mixed = made(file("m.onnx"), file("m8.xml", precision="int8"), file("m8.bin", "weights"))
    assert ways(Setup("onnxruntime", precision="int8"), mixed) == (
        ["onnxruntime (cpu, fp32)", "openvino (cpu, fp32)"],
        ["precision-missing"],
    )
    assert ways(Setup(precision="int8"), mixed) == (
        ["openvino (cpu, int8)", "openvino (cpu, fp32)", "onnxruntime (cpu, fp32)"],
        [],
    )


@pytest.mark.parametrize(
    ("asked", "manifest", "installed", "says"),
    [
        (Setup("openvino"), made(runtimes=("onnxruntime",)), BOTH, "not made for openvino"),
        (Setup(), made(), (), "none of openvino, onnxruntime is installed"),
        (Setup(), made(file("m.xml"), file("m.bin", "weights")), ("onnxruntime",), "none of openvino is installed"),
    ],
)
def test_without_any_way_the_cure_is_named(
    asked: Setup, manifest: Manifest, installed: tuple[str, ...], says: str
) -> None:
    with pytest.raises(BundleError, match=says) as refused:
        plan(asked, manifest, installed.__contains__)
    assert (refused.value.code, bool(refused.value.hint)) == ("bundle-runtime", True)


@pytest.mark.parametrize(
    ("said", "code", "hint"),
    [
        ({"runtime": "tensorflow"}, "bundle-runtime", "openvino"),
        ({"device": "GPU"}, "model-setup", "gpu"),
        ({"precision": "fp16"}, "model-setup", "int8"),
        ({"preprocess": True}, "model-setup", "host"),
        ({"streams": -1}, "model-setup", "0 to 64"),
        ({"streams": "2"}, "model-setup", "0 to 64"),
        ({"threads": 2}, "model-setup", "streams"),
    ],
)
def test_a_word_that_is_not_known_is_an_error_with_its_cure(said: dict[str, object], code: str, hint: str) -> None:
    with pytest.raises(BundleError) as refused:
        Setup.from_json(said)
    assert refused.value.code == code
    assert hint in refused.value.hint


def test_a_setup_goes_through_json_and_lies_over_another() -> None:
    asked = Setup("openvino", precision="int8")
    assert Setup.from_json(asked.to_json()) == asked
    assert Setup.from_json({}) == Setup()
    measured = Setup("onnxruntime", "cpu", "fp32", 2, "host")
    assert asked.over(measured) == Setup("openvino", "cpu", "int8", 2, "host")
    assert str(asked.over(measured)) == "openvino on cpu, int8, 2 streams, preprocessing on the host"


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ((file("a.onnx"), file("b.onnx")), "one for each precision"),
        ((file("a.onnx", precision="int8"), file("b.onnx", precision="int8")), "one for each precision"),
        ((file("c.md", "card"),), "one file has the role model"),
        ((file("a.onnx"), file("c.md", "card", "int8")), "is no model"),
        ((file("a.xml"),), "needs a.bin"),
    ],
)
def test_a_bundle_has_one_model_for_each_precision(files: tuple[BundleFile, ...], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        made(*files)


# ONNX Runtime's execution providers


def names(device: str, *available: str, fit: tuple[str, ...] = ("cpu", "gpu", "npu"), cache: str = "") -> list[str]:
    full = [f"{name}ExecutionProvider" for name in available]
    return [providers.short(provider) for provider in providers.wanted(device, full, fit, cache)]


def test_only_providers_that_the_device_needs_are_tried() -> None:
    everything = ("Tensorrt", "CUDA", "OpenVINO", "QNN", "CPU", "Xnnpack")
    assert names("cpu", *everything) == ["CPU"]
    assert names("gpu", *everything) == ["CUDA", "OpenVINO GPU"]
    assert names("npu", *everything) == ["QNN", "OpenVINO NPU"]
    assert names("gpu", "CPU") == []
    assert names("any", "CPU") == ["CPU"]
    assert names("any", *everything) == ["CUDA", "OpenVINO GPU", "QNN", "OpenVINO NPU", "Xnnpack", "CPU"]
    assert names("any", *everything, fit=("cpu", "npu")) == ["QNN", "OpenVINO NPU", "Xnnpack", "CPU"]
    assert names("gpu", *everything, cache="/var/x") == ["Tensorrt", "CUDA", "OpenVINO GPU"]


def test_a_provider_stands_for_a_kind_of_device() -> None:
    for device in ("gpu", "npu"):
        every = [f"{name}ExecutionProvider" for name in ("Tensorrt", "CUDA", "OpenVINO", "QNN", "CoreML")]
        for provider in providers.wanted(device, every, (), "/var/x"):
            assert providers.kind_of(provider) == device
    assert providers.kind_of((providers.CPU, {})) == "cpu"
    assert providers.kind_of(("XnnpackExecutionProvider", {})) == "cpu"
