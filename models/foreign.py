"""Model files that others made: what they are, what they take and give, and which runtime can load them.

ONNX, OpenVINO's IR (.xml and .bin) and TensorFlow Lite are read; the last through OpenVINO. Nothing is written here.
"""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final, Literal

from models import onnx_file
from models.errors import BundleError

Kind = Literal["onnx", "ir", "tflite"]
SUFFIXES: Final[dict[str, Kind]] = {".onnx": "onnx", ".xml": "ir", ".tflite": "tflite"}
MOST_BYTES: Final = 2 * 1024**3 - 1
EXPORTS: Final = {
    b"PK\x03\x04": (
        "a PyTorch or Keras archive",
        "export it: torch.onnx.export(...), or model.export(..., format='onnx')",
    ),
    b"\x89HDF": ("a Keras HDF5 file", "export it as ONNX with tf2onnx, or as .tflite"),
    b"\x80\x02": ("a Python pickle", "export it: torch.onnx.export(model, example, 'model.onnx')"),
    b"version https://git-lfs": ("a Git LFS pointer, not the file itself", "fetch the file: git lfs pull"),
    b"<!DOCTYPE": ("a web page", "download the file itself, not the page about it"),
    b"<html": ("a web page", "download the file itself, not the page about it"),
}
_NOISE: Final = tuple(
    re.compile(pattern)
    for pattern in (
        r"^\[ONNXRuntimeError\] : \d+ : \w+ : ",
        r"^Load model from .*? failed: ?",
        r"^/\S+:\d+ .*?\) (?=[A-Z])",
    )
)
_UNKNOWN_OPERATOR: Final = (
    *("opset", "not a registered", "no op registered", "not supported", "ir version"),
    *("no translator", "translation is incomplete"),
)
_ORT_KINDS: Final = {"float": "float32", "double": "float64"}
_OV_KINDS: Final = {"f32": "float32", "f16": "float16", "f64": "float64", "u8": "uint8", "i8": "int8"}


@dataclass(frozen=True, slots=True)
class Port:
    """An input or output: its type, as numpy names it, and its shape, None for sides that are open."""

    name: str
    kind: str
    shape: tuple[int | None, ...] | None

    def __str__(self) -> str:
        sides = "of any shape" if self.shape is None else ", ".join("?" if s is None else str(s) for s in self.shape)
        return f"{self.name} {self.kind} ({sides})"


@dataclass(frozen=True, slots=True)
class Foreign:
    """A model file that can be loaded.

    `weights` are the files beside it that it reads, relative to its folder. `runtimes` are those that load it,
    `why_not` says of the others why they do not. `opset` is 0 but for ONNX.
    """

    path: Path
    kind: Kind
    sha256: str
    size_bytes: int
    opset: int
    quantised: bool
    weights: tuple[str, ...]
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    runtimes: tuple[str, ...]
    why_not: dict[str, str]


def look(path: Path) -> Foreign:
    """What the model file `path` is. Nothing in it is run.

    Raises BundleError: import-file (no such file, another kind of file, cut off), import-weights (data in files that
    are missing or lie elsewhere), import-operators (no runtime has all of its operators), import-load.
    """
    kind, content = _read(path)
    opset, quantised = 0, False
    weights: tuple[str, ...] = ()
    if kind == "onnx":
        opset, weights, quantised = _look_into_onnx(path, content)
    elif kind == "ir":
        weights = _beside_ir(path)
    found: dict[str, tuple[tuple[Port, ...], tuple[Port, ...]]] = {}
    why_not: dict[str, str] = {}
    for runtime in ("openvino", "onnxruntime") if kind == "onnx" else ("openvino",):
        try:
            found[runtime] = _by_onnxruntime(path) if runtime == "onnxruntime" else _by_openvino(path)
        except ImportError:
            why_not[runtime] = "not installed"
        except Exception as broken:  # noqa: BLE001  # neither library's errors have a public common base
            why_not[runtime] = _reason(broken)
    if not found:
        raise _not_loaded(path, opset, why_not)
    inputs, outputs = found[list(found)[-1]]
    digest = hashlib.sha256(content).hexdigest()
    return Foreign(path, kind, digest, len(content), opset, quantised, weights, inputs, outputs, tuple(found), why_not)


def _read(path: Path) -> tuple[Kind, bytes]:
    try:
        if path.is_dir():
            hint = "give the file: .onnx, .xml (OpenVINO) or .tflite; a SavedModel folder is exported with tf2onnx"
            raise BundleError("import-file", f"{path} is a folder", hint)
        if path.stat().st_size > MOST_BYTES:
            raise BundleError("import-file", f"{path} has over 2 GB", "a device cannot run it; export a smaller one")
        content = path.read_bytes()
    except OSError as error:
        raise BundleError("import-file", f"{path} cannot be read: {error.strerror}", "correct the path") from None
    _refuse_others(path, content)
    kind = SUFFIXES.get(path.suffix.lower())
    if kind is None:
        hint = f"give a file whose name ends in {', '.join(SUFFIXES)}"
        raise BundleError("import-file", f"{path} is none of the kinds that can be imported", hint)
    if kind == "tflite" and content[4:8] != b"TFL3":
        raise BundleError("import-file", f"{path} is no TensorFlow Lite file", "fetch or convert it again")
    return kind, content


def _refuse_others(path: Path, content: bytes) -> None:
    if not content:
        raise BundleError("import-file", f"{path} is empty", "fetch or export it again")
    for start, (what, hint) in EXPORTS.items():
        if content.startswith(start):
            raise BundleError("import-file", f"{path} is {what}", hint)


def _look_into_onnx(path: Path, content: bytes) -> tuple[int, tuple[str, ...], bool]:
    try:
        summary = onnx_file.summary(content)
        outside = onnx_file.external_files(content)
    except ValueError as wrong:
        hint = "fetch or export it again: it is cut off, or no ONNX file"
        raise BundleError("import-file", f"{path} cannot be read as ONNX: {wrong}", hint) from None
    for name in sorted(outside):
        _check_beside(path, name)
    return summary.opset, tuple(sorted(outside)), summary.is_quantised


def _check_beside(path: Path, name: str) -> None:
    """Weights are taken from files beside the model alone, never through links."""
    parts = PurePosixPath(name).parts
    place = path.parent.joinpath(*parts)
    climbs = not parts or ".." in parts or name.startswith("/") or "\\" in name or ":" in parts[0]
    if climbs or not place.resolve().is_relative_to(path.parent.resolve()):
        hint = "export the model with its weights inside, or in a file beside it"
        raise BundleError("import-weights", f"the model wants weights from {name!r}, which is not beside it", hint)
    if not place.is_file():
        hint = f"put {name} beside {path.name}, or export the model with its weights inside"
        raise BundleError("import-weights", f"the model's weights are in {name}, which is not there", hint)


def _beside_ir(path: Path) -> tuple[str, ...]:
    weights = path.with_suffix(".bin")
    if not weights.is_file():
        hint = f"put {weights.name} beside {path.name}: OpenVINO writes both"
        raise BundleError("import-weights", f"{weights} is missing", hint)
    return (weights.name,)


def _by_onnxruntime(path: Path) -> tuple[tuple[Port, ...], tuple[Port, ...]]:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def port(said: Any) -> Port:
        kind = said.type.removeprefix("tensor(").removesuffix(")")
        shape = tuple(side if isinstance(side, int) else None for side in said.shape)
        return Port(said.name, _ORT_KINDS.get(kind, kind), shape)

    return tuple(map(port, session.get_inputs())), tuple(map(port, session.get_outputs()))


def _by_openvino(path: Path) -> tuple[tuple[Port, ...], tuple[Port, ...]]:
    from models.runtimes.openvino import shared_core

    core = shared_core()
    graph = core.read_model(str(path))

    def port(said: Any) -> Port:
        kind = said.element_type.get_type_name()
        sides = said.partial_shape
        shape = None if sides.rank.is_dynamic else tuple(s.get_length() if s.is_static else None for s in sides)
        return Port(said.any_name if said.names else "?", _OV_KINDS.get(kind, kind), shape)

    return tuple(map(port, graph.inputs)), tuple(map(port, graph.outputs))


def _reason(broken: Exception) -> str:
    """What a library says, without where in its source it says so."""
    lines = [line.strip() for line in str(broken).splitlines() if line.strip()]
    telling = [line for line in lines if not line.startswith(("Exception from", "Check '", "FrontEnd API failed"))]
    text = " ".join(telling or lines or [type(broken).__name__])
    for noise in _NOISE:
        text = noise.sub("", text)
    return text[:300]


def _not_loaded(path: Path, opset: int, why_not: dict[str, str]) -> BundleError:
    reasons = "; ".join(f"{runtime}: {reason}" for runtime, reason in why_not.items())
    words = reasons.casefold()
    if any(word in words for word in _UNKNOWN_OPERATOR):
        which = f" of operator set {opset}" if opset else ""
        hint = "export it with an operator set of 13 to 21, from standard operators, or update the runtimes"
        if path.suffix.lower() == ".tflite":
            hint = "convert what it was made of as ONNX, or with TensorFlow Lite's built-in operators alone"
        return BundleError("import-operators", f"no runtime here can run {path.name}{which}: {reasons}", hint)
    return BundleError("import-load", f"no runtime here can load {path.name}: {reasons}", "fetch or export it again")
