"""What a model is (a bundle), how it is opened and run, and how a picture becomes its input.

Importing this package sets, once and before they are loaded, what the native libraries read at import:
OpenCV's limit on the pixels of a picture, and that no runtime phones home. Import it before `cv2`.
"""

import os
import sys
from importlib import import_module
from typing import TYPE_CHECKING

MOST_PIXELS = 64_000_000
"""OpenCV refuses larger pictures before it takes memory for them; ours are refused well below."""

os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(MOST_PIXELS))
# ONNX Runtime reads it once, when it is loaded: since 1.29 it sends usage events on Linux too, and keeps an identifier
# of the machine below the user's cache folder. Whatever was set before, ours does not.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
# OpenVINO and NNCF send theirs through this package if it is there; told that it is not, they stay silent.
sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from models.bundle import BUILTIN, Bundle, Manifest, ModelRef, resolve
    from models.classifier import UNKNOWN, Answer, Classifier, Worker
    from models.errors import BundleError, PictureError
    from models.picture import decode_picture, picture_size

_HOMES = {
    "models.bundle": ("BUILTIN", "Bundle", "Manifest", "ModelRef", "resolve"),
    "models.classifier": ("UNKNOWN", "Answer", "Classifier", "Worker"),
    "models.errors": ("BundleError", "PictureError"),
    "models.picture": ("decode_picture", "picture_size"),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> object:
    """Load a part when it is first asked for: sync and `status` import this package and need none of its 40 MB."""
    if name not in _HOME:
        raise AttributeError(f"module 'models' has no attribute {name!r}")
    value: object = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


__all__ = [
    "BUILTIN",
    "MOST_PIXELS",
    "UNKNOWN",
    "Answer",
    "Bundle",
    "BundleError",
    "Classifier",
    "Manifest",
    "ModelRef",
    "PictureError",
    "Worker",
    "decode_picture",
    "picture_size",
    "resolve",
]
