"""What of this device decides how fast a model is: what can run it here, and what a measurement was made for."""

from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from agent.core.setups import Key, Possible
from agent.host import processor
from models.bundle import RUNTIMES, Bundle, Manifest
from models.setup import Setup


def possible(manifest: Manifest, workers: int) -> Possible:
    """Find out what can run a bundle here. Loads the runtimes, to ask them for accelerators."""
    spec = manifest.input
    as_it_is = spec.dtype == "uint8" and spec.layout == "nhwc" and spec.colour == "bgr"
    allowed = [name for name in RUNTIMES if name in manifest.limits.runtimes]
    runtimes: dict[str, Sequence[str]] = {name: _precisions(manifest, name) for name in allowed}
    here = {name: able for name, able in runtimes.items() if able and find_spec(name) is not None}
    devices = {name: _accelerators(manifest, name) for name in here}
    return Possible(here, workers, processor.cores(), arithmetic=not as_it_is, devices=devices)


def _precisions(manifest: Manifest, runtime: str) -> Sequence[str]:
    """The precisions whose file this runtime can read: IR is OpenVINO's alone."""
    return [name for name, file in manifest.models.items() if runtime == "openvino" or not file.is_ir]


def _accelerators(manifest: Manifest, runtime: str) -> Sequence[str]:
    """The kinds that a runtime knows of. ONNX Runtime names what it was built for, whether that is here or not."""
    kinds = [kind for kind in manifest.limits.devices if kind != "cpu"]
    if not kinds:
        return ()
    if runtime == "openvino":
        import openvino

        names = [name.partition(".")[0].lower() for name in openvino.Core().available_devices]
        return [kind for kind in kinds if kind in names]
    import onnxruntime

    from models.runtimes.providers import wanted

    return [kind for kind in kinds if wanted(kind, onnxruntime.get_available_providers(), kinds)]


def key_of(bundle: Bundle, workers: int, asked: Setup) -> Key:
    """Say what a measurement made now would be made for."""
    return Key(bundle.ref.digest, processor.describe(), processor.cores(), versions(), workers, str(asked))


def versions() -> str:
    """Name the runtimes that are installed, with their versions."""
    found: Mapping[str, str] = {name: _version(name) for name in RUNTIMES}
    return ", ".join(f"{name} {number}" for name, number in found.items() if number)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
