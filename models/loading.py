"""The model's file out of a bundle, as a runtime takes it: nothing is read that the bundle does not list."""

from pathlib import Path

from models import onnx_file
from models.bundle import Bundle
from models.errors import BundleError
from models.runtimes import Model


def read_model(bundle: Bundle, precision: str) -> Model:
    """The model of `precision`, fp32 or int8. Raises BundleError bundle-path, bundle-digest, model-load."""
    manifest = bundle.manifest
    file = manifest.models[precision]
    content = bundle.read(file.path)
    if file.is_ir:
        weights = bundle.read(f"{file.path[:-4]}.bin")
        return Model(content, None, manifest.input, weights, manifest.limits.devices)
    outside = _outside(bundle, file.path, content)
    path = bundle.folder / file.path if outside else None
    return Model(content, path, manifest.input, None, manifest.limits.devices)


def _outside(bundle: Bundle, path: str, content: bytes) -> set[str]:
    """The files that an ONNX model reads beside itself, all of them listed."""
    try:
        outside = onnx_file.external_files(content)
    except ValueError as wrong:
        raise BundleError("model-load", f"{path} is no ONNX file: {wrong}", "pack the bundle again") from None
    listed = {weights.path for weights in bundle.manifest.files if weights.role == "weights"}
    beside = Path(path).parent
    strange = sorted(name for name in outside if (beside / name).as_posix() not in listed)
    if strange:
        raise BundleError(
            "bundle-path",
            f"the model reads {strange[0]!r}, which the bundle does not list",
            "export the model with its weights inside, or list the file with the role weights",
        )
    return outside
