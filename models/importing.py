"""Somebody's classifier becomes a bundle: what it takes and gives is found out, tried and written down."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from models import bare as bare_runtime
from models import grey, pack, tflite
from models.bundle import Bundle, BundleFile, Golden, GoldenInput, Limits, Manifest, Provenance
from models.classifier import Classifier
from models.entry import Output, Wish, channels, describe
from models.errors import BundleError
from models.foreign import Foreign, Port, look
from models.inputs import Input
from models.label_file import LabelFile
from models.picture import decode_picture
from models.prepare import Pixels
from models.setup import Precision, Setup

MOST_DIFFERENCE: Final = 1e-4
"""How far a bundle's FP32 score may lie from the bare runtime's."""
_WORTH_WRITING: Final = 5e-4
_SUM_SLACK: Final = {"fp32": 1e-3, "int8": 0.1}


@dataclass(frozen=True, slots=True)
class Story:
    """What stands in the bundle beside the model."""

    name: str
    version: str
    release: int
    threshold: float
    created: str
    licence: str = "not stated"
    data_set: str = "not stated"


@dataclass(frozen=True, slots=True)
class Run:
    """How the bundle did in one runtime: the largest difference from the bare runtime, median ms of inference."""

    runtime: str
    difference: float
    inference_ms: float


@dataclass(slots=True)
class Imported:
    """A bundle that was made, and what was found out on the way."""

    bundle: Bundle
    source: Foreign
    entry: Port
    output: Output
    precision: Precision
    runs: list[Run]
    between: float | None
    """The largest difference between runtimes; None with one."""
    notes: list[str] = field(default_factory=list)


def import_model(
    source: Foreign, labels: LabelFile, wish: Wish, story: Story, pictures: Sequence[tuple[str, bytes]], folder: Path
) -> Imported:
    """Make `folder`, which is empty, the bundle of `source`, and try it on `pictures` (names with PNG bytes).

    The pictures become the golden inputs, with the scores that the model gave here. Raises BundleError: import-inputs,
    import-outputs, import-shape, import-batch, import-channels, import-size, import-type, import-scale,
    import-not-classifier, import-label-count, import-output, import-differs, and what opening the bundle raises.
    """
    notes = [*labels.notes]
    placed = _place(source, folder, notes)
    entry, leaves = _only(placed)
    layout, count = channels(entry, wish)
    if count == 1 and entry.kind == "float32":
        placed = grey.take_colours(placed, layout, wish.colour)
        notes.append("the model takes grey pictures: its graph makes grey of the colours now")
    spec = describe(placed.inputs[0], wish, notes)
    precision: Precision = "int8" if placed.quantised or _computes_with_bytes(placed) else "fp32"
    if precision == "int8":
        notes.append("the model computes with bytes: it is kept as the bundle's INT8 model")
    frames = [decode_picture(content) for _, content in pictures]
    bare = {runtime: bare_runtime.outputs(runtime, placed.path, spec, frames) for runtime in placed.runtimes}
    raw = next(iter(bare.values()))
    _check_outputs(leaves, raw, labels.names)
    output = wish.output or _kind_of(raw, precision, notes)
    files = _files(source, placed, precision)
    manifest = _manifest(source, labels, spec, output, story, placed.runtimes, files)
    bundle = pack.write(folder, manifest)
    runs, given = _try(bundle, placed.runtimes, precision, frames, bare)
    bundle, kept = _with_golden(bundle, pictures, given, precision, notes)
    between = _between([given[runtime] for runtime in kept])
    return Imported(bundle, source, entry, output, precision, runs, between, notes)


# the files


def _place(source: Foreign, folder: Path, notes: list[str]) -> Foreign:
    """Put the model's files into `folder`. TensorFlow Lite becomes OpenVINO's IR."""
    if source.kind == "tflite":
        notes.extend(tflite.to_ir(source.path, folder / "model.xml"))
        return look(folder / "model.xml")
    target = folder / ("model.onnx" if source.kind == "onnx" else "model.xml")
    shutil.copyfile(source.path, target)
    for name in source.weights:
        kept = folder / ("model.bin" if source.kind == "ir" else name)
        kept.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source.path.parent / name, kept)
    if source.kind == "onnx" and source.weights:
        notes.append(f"weights in {', '.join(source.weights)} were taken along")
    return replace(source, path=target)


def _files(source: Foreign, placed: Foreign, precision: Precision) -> list[BundleFile]:
    """What was placed, the model first."""
    folder = placed.path.parent
    model = pack.describe(folder, placed.path.name, "model").model_copy(update={"precision": precision})
    weights = source.weights if source.kind == "onnx" else ("model.bin",)
    return [model, *(pack.describe(folder, name, "weights") for name in weights)]


def _computes_with_bytes(placed: Foreign) -> bool:
    if placed.kind == "onnx":
        return False
    from models.runtimes.openvino import shared_core

    return any(node.get_type_name() == "FakeQuantize" for node in shared_core().read_model(str(placed.path)).get_ops())


def _manifest(
    source: Foreign,
    labels: LabelFile,
    spec: Input,
    output: Output,
    story: Story,
    runtimes: tuple[str, ...],
    files: list[BundleFile],
) -> Manifest:
    what = {"onnx": f"ONNX, operator set {source.opset}", "ir": "OpenVINO IR", "tflite": "TensorFlow Lite"}[source.kind]
    method = f"Imported from {source.path.name} ({what}, {source.size_bytes} bytes, SHA-256 {source.sha256})."
    return Manifest(
        name=story.name,
        version=story.version,
        release=story.release,
        minimum_agent="0.1.0",
        limits=Limits(runtimes=runtimes, devices=("cpu", "gpu", "npu")),
        input=spec,
        output=output,
        labels=labels.names,
        threshold=story.threshold,
        files=tuple(files),
        provenance=Provenance(data_set=story.data_set, licence=story.licence, method=method, created=story.created),
    )


# what it takes


def _only(placed: Foreign) -> tuple[Port, Port]:
    for ports, code, what in ((placed.inputs, "import-inputs", "takes"), (placed.outputs, "import-outputs", "gives")):
        if len(ports) != 1:
            named = "; ".join(map(str, ports[:6])) or "nothing"
            hint = "export it with the picture as its only input and the scores as its only output"
            raise BundleError(code, f"the model {what} {len(ports)} tensors, not one: {named}", hint)
    return placed.inputs[0], placed.outputs[0]


# what it gives


def _check_outputs(leaves: Port, raw: npt.NDArray[np.float32], labels: Sequence[str]) -> None:
    """One row of scores for a picture, as many as labels."""
    sides = raw.shape[2:] if raw.ndim > 2 and raw.shape[1] == 1 else raw.shape[1:]
    if sum(side > 1 for side in sides) > 1 or raw[0].size < 1:
        hint = "import a classifier: a model whose output is one row of scores, one for each label"
        shape = " x ".join(map(str, sides))
        told = ", as detectors do" if len(sides) == 2 else ", as networks without their last layers do"
        raise BundleError("import-not-classifier", f"the model gives {shape} numbers for a picture{told}", hint)
    if not np.isfinite(raw).all():
        hint = "look at --mean and --scale, or export the model with float32"
        raise BundleError("import-output", f"{leaves.name} is not finite for a rendered picture", hint)
    count = raw[0].size
    if count == 1:
        hint = "export it with two outputs: a label is chosen among at least two"
        raise BundleError("import-not-classifier", "the model gives one number for a picture", hint)
    if count != len(labels):
        raise BundleError(
            "import-label-count",
            f"the model gives {count} scores, the labels are {len(labels)}",
            _cure(count, len(labels)),
        )


def _cure(scores: int, labels: int) -> str:
    if scores == labels + 1:
        return (
            "networks of TensorFlow count from 'background': put that line at the top of the labels; "
            "others have 'other' or 'none' at the end"
        )
    if scores == labels - 1:
        return "take the line that is no label of this model out of the file: 'background' at its top, or a heading"
    return "give the labels that the model was trained with, all of them, in its order"


def _kind_of(raw: npt.NDArray[np.float32], precision: str, notes: list[str]) -> Output:
    """Whether scores are probabilities: never below 0, never above 1, and together 1."""
    rows = raw.reshape(len(raw), -1)
    if rows.min() < -1e-6 or rows.max() > 1.001:
        return "logits"
    sums = rows.sum(axis=1)
    if np.abs(sums - 1).max() > _SUM_SLACK[precision]:
        low, high = float(sums.min()), float(sums.max())
        notes.append(
            f"scores lie between 0 and 1 but add up to {low:.2f} to {high:.2f}: each label seems to be judged alone; "
            "they are taken as they are (say --output logits if that is wrong)"
        )
    return "probabilities"


# trying it


def _try(
    bundle: Bundle,
    runtimes: Sequence[str],
    precision: Precision,
    frames: Sequence[Pixels],
    bare: dict[str, npt.NDArray[np.float32]],
) -> tuple[list[Run], dict[str, npt.NDArray[np.float32]]]:
    """Open the bundle in each runtime and hold its scores against the bare runtime's. Raises import-differs."""
    runs, given = [], {}
    for runtime in runtimes:
        setup = Setup(runtime=runtime, precision=precision)  # type: ignore[arg-type]  # one of those that load it
        with Classifier.open(bundle, setup, strict=True) as classifier:
            worker = classifier.worker()
            scores = np.stack([worker.scores(frame) for frame in frames])
            times = sorted(worker.classify(frame, 1).inference_ms for frame in frames)
        difference = float(np.abs(scores - _probabilities(bare[runtime], bundle.manifest.output)).max())
        if difference > MOST_DIFFERENCE:
            text = f"in the bundle {runtime} gives other scores than alone, by {difference:.5f}"
            raise BundleError("import-differs", text, "report this with the model's file: it is not your mistake")
        runs.append(Run(runtime, difference, times[len(times) // 2]))
        given[runtime] = scores
    return runs, given


def _probabilities(raw: npt.NDArray[np.float32], output: str) -> npt.NDArray[np.float64]:
    rows = raw.reshape(len(raw), -1).astype(np.float64)
    if output == "probabilities":
        return rows.clip(0.0, 1.0)
    powers = np.exp(rows - rows.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def _between(given: Sequence[npt.NDArray[np.float32]]) -> float | None:
    return float(np.abs(given[0] - given[1]).max()) if len(given) > 1 else None


def _with_golden(
    bundle: Bundle,
    pictures: Sequence[tuple[str, bytes]],
    given: dict[str, npt.NDArray[np.float32]],
    precision: Precision,
    notes: list[str],
) -> tuple[Bundle, list[str]]:
    """The bundle with golden pictures; runtimes that do not give the first one's answers are taken out of it."""
    folder, manifest = bundle.folder, bundle.manifest
    (folder / "golden").mkdir()
    inputs = []
    first = next(iter(given.values()))
    for (name, content), scores in zip(pictures, first, strict=True):
        (folder / "golden" / name).write_bytes(content)
        named = {label: round(float(s), 6) for label, s in zip(manifest.labels, scores, strict=True)}
        expected = {label: score for label, score in named.items() if score >= _WORTH_WRITING}
        expected = expected or dict([max(named.items(), key=lambda item: item[1])])
        inputs.append(GoldenInput(path=f"golden/{name}", expected=expected))
    golden = Golden(inputs=tuple(inputs), tolerance={"cpu": 1e-3, "gpu": 2e-2, "npu": 5e-2})
    files = (*manifest.files, *(pack.describe(folder, item.path, "golden") for item in inputs))
    made = pack.write(folder, manifest.model_copy(update={"golden": golden, "files": files}))
    kept = [runtime for runtime in given if _agrees(made, precision, given, runtime, notes)]
    if len(kept) == len(given):
        return made, kept
    limits = made.manifest.limits.model_copy(update={"runtimes": tuple(kept)})
    return pack.write(folder, made.manifest.model_copy(update={"limits": limits})), kept


def _agrees(
    bundle: Bundle, precision: Precision, given: dict[str, npt.NDArray[np.float32]], runtime: str, notes: list[str]
) -> bool:
    """Whether a runtime gives the first one's answers, as far as golden inputs ask for that."""
    allowed = bundle.manifest.golden.allowed(precision, "cpu")
    difference = float(np.abs(given[runtime] - next(iter(given.values()))).max())
    if difference <= allowed:
        return True
    notes.append(f"{runtime} is left out, since its scores differ by up to {difference:.4f}, more than {allowed:g}")
    return False
