"""A bundle: a folder with a model, its labels, its checks and `bundle.json`, which says what each file must be."""

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Final, Literal, Never, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, field_validator, model_validator

from models.errors import BundleError
from models.inputs import Input

MANIFEST: Final = "bundle.json"
FORMAT: Final = "shelfwire-bundle/1"
UNKNOWN: Final = "unknown"
RUNTIMES: Final = ("openvino", "onnxruntime")
MOST_MANIFEST_BYTES: Final = 4 * 1024 * 1024
MOST_FILE_BYTES: Final = 2 * 1024**3

BUILTIN: Final[dict[str, Path]] = {"produce": Path(__file__).resolve().parent / "produce"}
"""The bundles that come with the package, by name."""

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
Version = Annotated[str, StringConstraints(pattern=r"^[0-9A-Za-z][0-9A-Za-z.+_-]{0,63}$")]
Label = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f]{1,64}$", strip_whitespace=False)]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Score = Annotated[float, Field(ge=0.0, le=1.0, allow_inf_nan=False)]
Text = Annotated[str, StringConstraints(max_length=4000)]
Role = Literal["model", "weights", "golden", "card", "licence"]
Kind = Literal["cpu", "gpu", "npu"]
Precision = Literal["fp32", "int8"]
Allowed = Annotated[float, Field(gt=0, le=0.5)]
PRECISIONS: Final = ("fp32", "int8")
INT8_TOLERANCE: Final = 0.05
"""How far an INT8 score may lie from its own expectation: processors round and saturate differently."""


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class BundleFile(_Strict):
    """One file of the bundle. `weights` are data that a model's file keeps outside itself.

    A model is ONNX, or OpenVINO's IR when its name ends in .xml: then a file of the same name with .bin is its weights.
    `precision` is the model's own, fp32 when nothing is said.
    """

    path: Annotated[str, StringConstraints(min_length=1, max_length=240)]
    size_bytes: Annotated[int, Field(ge=1, le=MOST_FILE_BYTES)]
    sha256: Sha256
    role: Role
    precision: Precision | None = None

    @property
    def is_ir(self) -> bool:
        """Whether this is a model in OpenVINO's own format, which no other runtime reads."""
        return self.path.endswith(".xml")


class GoldenInput(_Strict):
    """A picture and the scores it must get; labels left out must score below the tolerance or 0.001.

    `expected_int8` is what the INT8 model answers, which is not quite the same.
    """

    path: str
    expected: Annotated[dict[str, Score], Field(min_length=1)]
    expected_int8: Annotated[dict[str, Score], Field(min_length=1)] | None = None


class Golden(_Strict):
    """Pictures with known answers, and by how much a score may differ on which kind of accelerator.

    `tolerance` holds for FP32; an INT8 score may differ by `tolerance_int8`, 0.05 where nothing is said.
    """

    inputs: tuple[GoldenInput, ...] = ()
    tolerance: dict[Kind, Allowed] = {"cpu": 1e-3}
    tolerance_int8: dict[Kind, Allowed] | None = None

    def allowed(self, precision: str, device: str) -> float:
        """By how much a score may differ on `device` (cpu, gpu or npu)."""
        int8 = precision == "int8"
        by_kind = {
            str(kind): value for kind, value in ((self.tolerance_int8 or {}) if int8 else self.tolerance).items()
        }
        return by_kind.get(device, INT8_TOLERANCE if int8 else 1e-3)


class Limits(_Strict):
    """Where the model may run: runtimes it was checked with, kinds of accelerator, and its peak memory."""

    runtimes: Annotated[tuple[str, ...], Field(min_length=1)]
    devices: Annotated[tuple[Kind, ...], Field(min_length=1)] = ("cpu",)
    memory_bytes: Annotated[int, Field(ge=0)] = 0


class Provenance(_Strict):
    """Where the model comes from and how good it was found to be."""

    data_set: Text
    licence: Text
    method: Text
    created: Annotated[str, StringConstraints(pattern=r"^\d{4}-\d\d-\d\d$")]
    metrics: dict[str, Annotated[float, Field(allow_inf_nan=False)]] = {}
    card: str = ""


class Manifest(_Strict):
    """`bundle.json`. `release` is a counter that never goes down; `threshold` is the least score of an answer.

    `coarse` gives labels the class above them, as Pink-Lady is an Apple; accuracy is counted by both.
    """

    format: Literal["shelfwire-bundle/1"] = FORMAT
    name: Name
    version: Version
    release: Annotated[int, Field(ge=1)]
    minimum_agent: Version
    limits: Limits
    input: Input
    output: Literal["probabilities", "logits"] = "probabilities"
    labels: Annotated[tuple[Label, ...], Field(min_length=2, max_length=10_000)]
    coarse: dict[Label, Label] | None = None
    threshold: Score
    files: Annotated[tuple[BundleFile, ...], Field(min_length=1, max_length=1000)]
    golden: Golden = Golden()
    provenance: Provenance

    @field_validator("labels")
    @classmethod
    def _labels_differ(cls, labels: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(labels)) != len(labels):
            raise ValueError("two labels are the same")
        if UNKNOWN in labels:
            raise ValueError(f"{UNKNOWN!r} is what an answer below the threshold is called, no label may be")
        return labels

    @model_validator(mode="after")
    def _parts_agree(self) -> Self:
        paths = [file.path for file in self.files]
        if len(set(paths)) != len(paths):
            raise ValueError("a file is listed twice")
        self._check_models(paths)
        if set(self.coarse or {}) - set(self.labels):
            raise ValueError("coarse names something that is no label")
        for golden in self.golden.inputs:
            if golden.path not in paths:
                raise ValueError(f"golden input {golden.path} is not among the files")
            strange = {*golden.expected, *(golden.expected_int8 or {})} - set(self.labels)
            if strange:
                raise ValueError(f"golden input {golden.path} expects {sorted(strange)[:3]}, which are no labels")
        return self

    def _check_models(self, paths: list[str]) -> None:
        models = [file for file in self.files if file.role == "model"]
        if not 1 <= len(models) == len(self.models):
            raise ValueError("one file has the role model, or one for each precision")
        for file in self.files:
            if file.precision is not None and file.role != "model":
                raise ValueError(f"{file.path} is no model and has no precision")
        for model in models:
            if model.is_ir and "openvino" not in self.limits.runtimes:
                raise ValueError(f"{model.path} needs the runtime openvino among limits.runtimes")
            if model.is_ir and f"{model.path[:-4]}.bin" not in paths:
                raise ValueError(f"{model.path} needs {model.path[:-4]}.bin, with the role weights")

    @property
    def models(self) -> dict[str, BundleFile]:
        """The model's file for each precision that is there, fp32 first."""
        found = {file.precision or "fp32": file for file in self.files if file.role == "model"}
        return {precision: found[precision] for precision in PRECISIONS if precision in found}


@dataclass(frozen=True, slots=True)
class ModelRef:
    """Which model gave an answer; `digest` is the SHA-256 of `bundle.json`, which holds those of all files."""

    name: str
    version: str
    release: int
    digest: str


@dataclass(frozen=True, slots=True)
class Bundle:
    """A folder whose every listed file is there and is what `bundle.json` says."""

    folder: Path
    manifest: Manifest
    ref: ModelRef

    @classmethod
    def load(cls, path: Path | str) -> "Bundle":
        """Read and check the bundle in folder `path`; nothing is executed.

        Raises BundleError: bundle-missing, bundle-json, bundle-input, bundle-runtime, bundle-path (a file that
        lies outside or is a link), bundle-file-missing, bundle-digest (size or SHA-256 differs).
        """
        folder = Path(path)
        manifest, digest = read_manifest(folder)
        _check_runtimes(manifest)
        for file in manifest.files:
            _check_file(folder, file)
        ref = ModelRef(manifest.name, manifest.version, manifest.release, digest)
        return cls(folder, manifest, ref)

    def file(self, role: Role) -> BundleFile:
        """The first file with that role. Raises BundleError bundle-file-missing when there is none."""
        for file in self.manifest.files:
            if file.role == role:
                return file
        raise BundleError("bundle-file-missing", f"the bundle lists no {role} file", "pack the bundle again")

    def read(self, path: str) -> bytes:
        """The bytes of a listed file, checked again as they are read, so that what was checked is what is used."""
        file = next((file for file in self.manifest.files if file.path == path), None)
        if file is None:
            raise BundleError("bundle-file-missing", f"{path} is not listed in {MANIFEST}", "pack the bundle again")
        return _checked_bytes(self.folder, file)


def resolve(name_or_path: str | Path) -> Path:
    """The folder of a shipped bundle by its name, or of any bundle by its path. Raises bundle-missing."""
    if str(name_or_path) in BUILTIN:
        return BUILTIN[str(name_or_path)]
    folder = Path(name_or_path)
    if not folder.is_dir():
        names = ", ".join(sorted(BUILTIN))
        raise BundleError(
            "bundle-missing", f"there is no bundle {folder}", f"give a bundle's folder, or one of: {names}"
        )
    return folder


def read_manifest(folder: Path) -> tuple[Manifest, str]:
    """The manifest of `folder` and the SHA-256 of its bytes. Raises bundle-missing, bundle-json, bundle-input."""
    path = folder / MANIFEST
    if not path.is_file():
        raise BundleError("bundle-missing", f"there is no {MANIFEST} in {folder}", "give the folder that holds it")
    if path.is_symlink():
        raise BundleError("bundle-path", f"{MANIFEST} is a link", "copy the file itself into the bundle")
    if path.stat().st_size > MOST_MANIFEST_BYTES:
        raise BundleError("bundle-json", f"{MANIFEST} has over {MOST_MANIFEST_BYTES} bytes", "pack the bundle again")
    raw = path.read_bytes()
    return parse_manifest(raw), hashlib.sha256(raw).hexdigest()


def parse_manifest(raw: bytes) -> Manifest:
    """`raw` as a manifest; doubled keys, NaN and unknown keys are refused. Raises bundle-json, bundle-input."""
    hint = "fetch the bundle again, or write it with python -m models.pack"
    try:
        json.loads(raw.decode("utf-8"), object_pairs_hook=_no_doubles, parse_constant=_no_constant)
        return Manifest.model_validate_json(raw)
    except ValidationError as wrong:
        first = wrong.errors()[0]
        where = ".".join(str(step) for step in first["loc"]) or "the whole"
        code = "bundle-input" if first["loc"][:1] == ("input",) else "bundle-json"
        raise BundleError(code, f"{MANIFEST}: {where}: {first['msg']}", hint) from None
    except (ValueError, RecursionError) as wrong:
        raise BundleError("bundle-json", f"{MANIFEST} is not valid JSON: {wrong}", hint) from None


def _no_doubles(pairs: list[tuple[str, object]]) -> dict[str, object]:
    seen = dict(pairs)
    if len(seen) != len(pairs):
        raise ValueError("a key is there twice")
    return seen


def _no_constant(word: str) -> Never:
    raise ValueError(f"{word} is no JSON number")


def _check_runtimes(manifest: Manifest) -> None:
    strange = [name for name in manifest.limits.runtimes if name not in RUNTIMES]
    if strange:
        raise BundleError(
            "bundle-runtime",
            f"the bundle asks for the runtime {strange[0]!r}, which is not known here",
            f"update Shelfwire, or pack the bundle for one of: {', '.join(RUNTIMES)}",
        )


def inside(folder: Path, path: str) -> Path:
    """`path` below `folder`. Raises bundle-path when it is absolute, climbs out, or any part of it is a link."""
    parts = PurePosixPath(path).parts
    if re.search(r"[\\\x00-\x1f]", path) or path.startswith("/") or not parts or ".." in parts or ":" in parts[0]:
        raise BundleError(
            "bundle-path", f"{path!r} does not stay inside the bundle", "fetch the bundle from its maker again"
        )
    place = folder
    for part in parts:
        place = place / part
        if place.is_symlink():
            raise BundleError("bundle-path", f"{path!r} is a link", "put the file itself into the bundle")
    return place


def _check_file(folder: Path, file: BundleFile) -> None:
    place = _present(folder, file)
    with place.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    _compare(file, digest)


def _checked_bytes(folder: Path, file: BundleFile) -> bytes:
    content = _present(folder, file).read_bytes()
    _compare(file, hashlib.sha256(content).hexdigest())
    return content


def _present(folder: Path, file: BundleFile) -> Path:
    place = inside(folder, file.path)
    if not place.is_file():
        raise BundleError("bundle-file-missing", f"{file.path} is missing from {folder}", "fetch the bundle again")
    size_bytes = place.stat().st_size
    if size_bytes != file.size_bytes:
        raise BundleError(
            "bundle-digest", f"{file.path} has {size_bytes} bytes, not {file.size_bytes}", "fetch the bundle again"
        )
    return place


def _compare(file: BundleFile, digest: str) -> None:
    if digest != file.sha256:
        raise BundleError(
            "bundle-digest", f"{file.path} is not the file that {MANIFEST} describes", "fetch the bundle again"
        )
