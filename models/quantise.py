"""From a model that computes with floats to one that computes with bytes: post-training quantisation by NNCF.

The result is an ONNX file with QuantizeLinear and DequantizeLinear nodes (QDQ), which every runtime of ours runs, and
fuses to arithmetic with bytes where the processor has it. NNCF and `onnx` are the extra `[quantize]`; a device that
runs a quantised model needs neither.
"""

import contextlib
import io
import logging
import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from models.errors import BundleError
from models.inputs import Input
from models.prepare import Pixels, Preparer, arithmetic

if TYPE_CHECKING:
    import onnx

MOST_PICTURES: Final = 300
"""Calibration looks at so many pictures; more have not been found to change the ranges that it measures."""
LEAST_OPSET: Final = 13
"""Before this version of ONNX's operators, weights could not have a scale for each channel."""
PACKAGES: Final = ("nncf", "onnx")

Progress = Callable[[str], None]


def quantise(model: bytes, spec: Input, pictures: Iterable[Pixels]) -> bytes:
    """Give the INT8 model of the FP32 ONNX file `model`, calibrated on the first 300 of `pictures`.

    `pictures` are BGR, (H, W, 3) uint8 of any size; they are prepared as `spec` says, by the code that prepares a
    camera's frames. The same model and pictures give the same bytes. It takes seconds to a minute, on all cores.

    Weights are rounded for each channel, activations have one scale each. In plain networks of convolutions weights
    use half of a byte's range: then sums of products stay within 16 bits on processors that add them there (AVX2 and
    AVX-512 without VNNI), and answers are the same on all processors. Others (see `leaves_room`) use the whole range
    but in their first layer, and may answer a little otherwise on such processors.

    Raises BundleError: quantise-missing (NNCF is not installed), quantise-pictures (there are none), quantise-model (no
    ONNX file that can be quantised, or one that is quantised already), and PictureError.
    """
    need_packages()
    prepared = _prepared(spec, pictures)
    if not prepared:
        raise BundleError("quantise-pictures", "there are no pictures to calibrate with", "give at least 100 of them")
    simple = simplified(model)
    entry = simple.graph.input[0].name
    with _quietly():
        return _by_nncf(simple, [{entry: arithmetic(buffer, spec)} for buffer in prepared])


def need_packages() -> None:
    """Raise BundleError quantise-missing unless NNCF and onnx are installed."""
    from importlib.util import find_spec

    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        raise BundleError(
            "quantise-missing",
            f"{' and '.join(missing)} are needed to quantise, and not installed here",
            "pip install 'shelfwire[quantize]', on any machine: devices that run the bundle do not need it",
        )


def simplified(model: bytes, keep: Sequence[str] = ()) -> "onnx.ModelProto":
    """Give `model` as a graph whose weights are plain constants and whose normalisations are folded into convolutions.

    Quantisation looks at the constant beside a convolution: weights that are computed when the model is loaded, as
    half floats that are widened, would stay as they are. ONNX Runtime's basic optimisations do this and stay within
    standard operators. `keep` names optimisations of it that are not wanted. Raises BundleError quantise-model.
    """
    import onnx
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.log_severity_level = 4
    hint = "give the FP32 ONNX model, of operator set 13 or newer, with its weights inside"
    with tempfile.TemporaryDirectory(prefix="shelfwire-quantise-") as folder:
        path = Path(folder) / "simple.onnx"
        options.optimized_model_filepath = str(path)
        try:
            ort.InferenceSession(
                model, options, providers=["CPUExecutionProvider"], disabled_optimizers=list(keep) or None
            )
            simple = onnx.load(str(path))
        except Exception as broken:  # noqa: BLE001  # the library's errors have no public common base
            reason = str(broken).strip().splitlines()[0][:300]
            raise BundleError("quantise-model", f"the model cannot be read: {reason}", hint) from None
    opset = next((item.version for item in simple.opset_import if item.domain in ("", "ai.onnx")), 0)
    if opset < LEAST_OPSET:
        raise BundleError("quantise-model", f"the model has operator set {opset}", hint)
    if any(node.op_type in ("QuantizeLinear", "DequantizeLinear", "QLinearConv") for node in simple.graph.node):
        raise BundleError("quantise-model", "the model is quantised already", "give the FP32 model it was made from")
    _forget_unused_domains(simple)
    return simple


def _forget_unused_domains(model: "onnx.ModelProto") -> None:
    """ONNX Runtime writes every operator domain that it knows; other readers stumble over them."""
    used = {node.domain for node in model.graph.node}
    kept = [item for item in model.opset_import if item.domain in used or item.domain in ("", "ai.onnx")]
    kept = [type(item).FromString(item.SerializeToString()) for item in kept]
    del model.opset_import[:]
    model.opset_import.extend(kept)


def _prepared(spec: Input, pictures: Iterable[Pixels]) -> list[Pixels]:
    buffer = np.zeros((spec.height, spec.width, 3), np.uint8)
    preparer = Preparer(spec, buffer)
    prepared = []
    for picture in pictures:
        preparer.fill(picture)
        prepared.append(buffer.copy())
        if len(prepared) == MOST_PICTURES:
            break
    return prepared


def _by_nncf(model: "onnx.ModelProto", inputs: list[dict[str, Any]]) -> bytes:
    import nncf
    import onnx
    from nncf.quantization.advanced_parameters import (
        AdvancedQuantizationParameters,
        OverflowFix,
        QuantizationParameters,
    )

    room = "enable" if leaves_room(model) else "first_layer_only"
    logging.getLogger("nncf").setLevel(logging.ERROR)  # its own way to say so also quiets the handlers of others
    try:
        quantised = nncf.quantize(
            model,
            nncf.Dataset(inputs),
            preset=nncf.QuantizationPreset.MIXED,
            subset_size=len(inputs),
            fast_bias_correction=True,
            model_type=nncf.ModelType.TRANSFORMER if _is_transformer(model) else None,
            advanced_parameters=AdvancedQuantizationParameters(
                overflow_fix=OverflowFix(room),
                # A scale for each channel of an activation costs ONNX Runtime its fused arithmetic, and gained nothing.
                activations_quantization_params=QuantizationParameters(per_channel=False),
            ),
        )
        onnx.checker.check_model(quantised)
    except Exception as broken:  # noqa: BLE001  # the library's errors have no public common base
        reason = (str(broken).strip() or type(broken).__name__).splitlines()[0][:300]
        raise BundleError("quantise-model", f"the model cannot be quantised: {reason}", "use it as FP32") from None
    content: bytes = quantised.SerializeToString(deterministic=True)
    return content


def leaves_room(model: "onnx.ModelProto") -> bool:
    """Whether weights use half of a byte's range: all but transformers and networks with a filter for each channel.

    MobileNetV2 on photos of groceries: 83.8 % as FP32, 76.7 % with half of the range, 83.8 % with all of it; a residual
    network of 3x3 convolutions: no difference.
    """
    groups = [
        item.i for node in model.graph.node if node.op_type == "Conv" for item in node.attribute if item.name == "group"
    ]
    return not _is_transformer(model) and all(group == 1 for group in groups)


def _is_transformer(model: "onnx.ModelProto") -> bool:
    """Whether attention does the work: a softmax between two multiplications of matrices, not only the last one."""
    kinds = [node.op_type for node in model.graph.node]
    return "LayerNormalization" in kinds or kinds.count("Softmax") > 1


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Its progress goes to the terminal of standard error, or nowhere: standard output belongs to the command.

    The library phones home unless it believes that it is tested; `models` keeps it from doing so already.
    """
    os.environ.setdefault("NNCF_CI", "1")
    shown = sys.stderr if sys.stderr.isatty() else io.StringIO()
    with contextlib.redirect_stdout(shown):
        yield
