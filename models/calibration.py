"""Whether pictures are fit to calibrate a quantised model with. A wrong set gives a wrong model without a word."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from models.errors import BundleError
from models.evaluate import Figures
from models.inputs import Input
from models.prepare import Pixels, Preparer, arithmetic

if TYPE_CHECKING:
    import onnx

LEAST: Final = 50
"""Fewer pictures do not show what values the network meets."""
GOOD: Final = 100
DISTINCT: Final = 30
"""So many must differ from one another by more than noise."""
NOISE: Final = 3.0
"""Two thumbnails whose bytes differ by less on average show the same."""
FLAT: Final = 4.0
"""Standard deviation of the bytes of a picture below which it shows nothing."""
MOST_FLAT: Final = 0.2
RANGE: Final = (0.75, 4.0)
"""How large the network's inner values on the pictures may be beside those on rendered shelves, in the middle of all
layers. Photos of shops: 0.9 to 1.2; the same far too dark: 0.55, noise: 0.73."""
_LOOKED_AT: Final = 48
_LAYERS: Final = frozenset({"Conv", "Gemm", "MatMul"})

Given = Mapping[str, Any]


def prepared(spec: Input, frames: Sequence[Pixels]) -> list[Pixels]:
    """Each of `frames` as the product prepares it: (height, width, 3) BGR bytes, copies."""
    buffer = np.zeros((spec.height, spec.width, 3), np.uint8)
    preparer = Preparer(spec, buffer)
    made = []
    for frame in frames:
        preparer.fill(frame)
        made.append(buffer.copy())
    return made


def check_pictures(pictures: Sequence[Pixels]) -> tuple[str, ...]:
    """Look at prepared pictures, (height, width, 3) each; gives notes.

    Raises BundleError: calibration-few, calibration-flat (many show nothing), calibration-alike.
    """
    count = len(pictures)
    if count < LEAST:
        hint = f"give at least {GOOD}, from all cameras and times of the day"
        raise BundleError("calibration-few", f"{count} pictures are too few to calibrate with", hint)
    flat = sum(float(picture.std()) < FLAT for picture in pictures)
    if flat > MOST_FLAT * count:
        hint = "take out black, white and covered pictures"
        raise BundleError("calibration-flat", f"{flat} of {count} pictures show nothing", hint)
    distinct = count_distinct(pictures)
    if distinct < DISTINCT:
        hint = "give pictures of different products, cameras and times, not frames of one film"
        raise BundleError("calibration-alike", f"only {distinct} of {count} pictures differ from the others", hint)
    return (f"{count} pictures are few: {GOOD} or more are better",) if count < GOOD else ()


def count_distinct(pictures: Sequence[Pixels]) -> int:
    """How many pictures can be chosen so that each differs from each other one by more than noise."""
    kept: list[npt.NDArray[np.float32]] = []
    for picture in pictures:
        small = _thumbnail(picture)
        if all(float(np.abs(small - other).mean()) > NOISE for other in kept):
            kept.append(small)
    return len(kept)


def _thumbnail(picture: Pixels) -> npt.NDArray[np.float32]:
    """(8, 8, 3) means."""
    rows, columns = (side // 8 * 8 for side in picture.shape[:2])
    blocks = picture[:rows, :columns].reshape(8, rows // 8, 8, columns // 8, 3)
    return np.asarray(blocks.mean(axis=(1, 3)), np.float32)


def check_ranges(model: "onnx.ModelProto", spec: Input, pictures: Sequence[Pixels], known: Sequence[Pixels]) -> float:
    """Compare the network's inner values on `pictures` with those on `known` ones; both are prepared.

    Gives the ratio in the middle of all layers. Raises BundleError calibration-range when it is far from 1.
    """
    layers = _Layers(model, spec)
    step = max(1, len(pictures) // _LOOKED_AT)
    usual = layers.largest(known)
    ratio = float(np.median(layers.largest(pictures[::step]) / np.maximum(usual, 1e-6)))
    if not RANGE[0] <= ratio <= RANGE[1]:
        size = "smaller" if ratio < 1 else "larger"
        text = f"on these pictures the network's inner values are {size} than usual, {ratio:.2f} times"
        hint = "give pictures as the cameras see them, in their light; look at some of them; or say --anyway"
        raise BundleError("calibration-range", text, hint)
    return ratio


class _Layers:
    """The model with all its convolutions and matrices as outputs."""

    def __init__(self, model: "onnx.ModelProto", spec: Input) -> None:
        import onnx
        import onnxruntime as ort

        open_model = onnx.ModelProto()
        open_model.CopyFrom(model)
        names = [node.output[0] for node in model.graph.node if node.op_type in _LAYERS]
        del open_model.graph.output[:]
        open_model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
        options = ort.SessionOptions()
        options.log_severity_level = 4
        content = open_model.SerializeToString()
        self._session = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        self._entry = self._session.get_inputs()[0].name
        self._spec = spec

    def largest(self, pictures: Sequence[Pixels]) -> npt.NDArray[np.float64]:
        """The largest value of each layer, but for one in a thousand, over all of `pictures`."""
        rows = []
        for picture in pictures:
            outputs = self._session.run(None, {self._entry: arithmetic(picture, self._spec)})
            rows.append([float(np.percentile(np.abs(output), 99.9)) for output in outputs])
        return np.asarray(np.max(rows, axis=0), np.float64)


def check_accuracy(found: Figures) -> None:
    """Refuse labelled pictures that the FP32 model gets no better than by chance: labels or preprocessing are wrong.

    Raises BundleError calibration-labels.
    """
    shown = sum(item.pictures > 0 for item in found.by_label)
    chance = 1 / max(2, min(shown, len(found.by_label)))
    if found.accuracy_low > 1.5 * chance:
        return
    text = f"the FP32 model gets {100 * found.accuracy:.1f} % of these pictures right, which is near chance"
    hint = (
        "look at the labels (is their order the model's? does a list count from 0?) and at mean, scale and colour of "
        "the bundle: shelfwire-agent evaluate must show what the model is known to reach"
    )
    raise BundleError("calibration-labels", text, hint)
