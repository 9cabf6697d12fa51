"""What a model of others takes: its only input, read together with what its user knows of it."""

from dataclasses import dataclass
from typing import Literal

from models.errors import BundleError
from models.foreign import Port
from models.inputs import Input, Triple

Output = Literal["probabilities", "logits"]


@dataclass(frozen=True, slots=True)
class Wish:
    """What its maker or user knows of a model; None is found out where that is possible.

    `size_px` is width and height. `mean` and `scale` are for values of 0..255, (value - mean) / scale, in the order of
    `colour`.
    """

    size_px: tuple[int, int] | None = None
    mean: Triple | None = None
    scale: Triple | None = None
    colour: Literal["rgb", "bgr"] = "rgb"
    layout: Literal["nchw", "nhwc"] | None = None
    fit: Literal["crop", "squash"] = "crop"
    output: Output | None = None


def channels(entry: Port, wish: Wish) -> tuple[Literal["nchw", "nhwc"], int | None]:
    """Where the model's only input has its channels, and how many; None is any number.

    Raises BundleError import-shape, import-batch.
    """
    shape = entry.shape
    if shape is None or len(shape) != 4:
        hint = "export it for pictures: batch, channels, height, width, or batch, height, width, channels"
        raise BundleError("import-shape", f"the model takes {entry}, which is no picture", hint)
    if shape[0] not in (1, None):
        hint = "export it for one picture at a time, or with an open batch (dynamic axis 0)"
        raise BundleError("import-batch", f"the model takes {shape[0]} pictures at once: {entry}", hint)
    layout = wish.layout or _layout(entry, shape)
    return layout, shape[1] if layout == "nchw" else shape[3]


def describe(entry: Port, wish: Wish, notes: list[str]) -> Input:
    """The input description for the model's only input. Raises BundleError; see `import_model`."""
    layout, count = channels(entry, wish)
    if count not in (3, None):
        hint = "export it for pictures with 3 channels, or with 1 and float32 (--layout says where the channels are)"
        raise BundleError("import-channels", f"the model takes pictures of {count} channels: {entry}", hint)
    assert entry.shape is not None
    shape = entry.shape
    sides = (shape[2], shape[3]) if layout == "nchw" else (shape[1], shape[2])
    width, height = _size(entry, sides, wish, notes)
    dtype = _dtype(entry)
    mean, scale = _scale(dtype, wish, notes)
    try:
        return Input(
            width=width,
            height=height,
            fit=wish.fit,
            dtype=dtype,
            layout=layout,
            colour=wish.colour,
            mean=mean,
            scale=scale,
        )
    except ValueError as wrong:
        reason = str(wrong).splitlines()[2].strip() if len(str(wrong).splitlines()) > 2 else str(wrong)
        hint = "give a size of 16 to 1024 pixels, and a scale that is not 0"
        raise BundleError("import-size", f"{width} x {height} cannot be used: {reason}", hint) from None


def _layout(entry: Port, shape: tuple[int | None, ...]) -> Literal["nchw", "nhwc"]:
    """Three is where the channels are."""
    first, last = shape[1], shape[3]
    if first == 3 and last != 3:
        return "nchw"
    if last == 3 and first != 3:
        return "nhwc"
    if first in (1, 4) and last not in (1, 3, 4):
        return "nchw"
    if last in (1, 4) and first not in (1, 3, 4):
        return "nhwc"
    hint = "say where the channels are: --layout nchw (PyTorch) or --layout nhwc (TensorFlow)"
    raise BundleError("import-shape", f"{entry} does not tell channels from sides", hint)


def _size(entry: Port, sides: tuple[int | None, int | None], wish: Wish, notes: list[str]) -> tuple[int, int]:
    """Width and height; `sides` are height and width as the model says."""
    fixed = (sides[1], sides[0])
    if wish.size_px is None:
        if fixed[0] is None or fixed[1] is None:
            hint = "say which it was trained for: --size 224, or --size 320x240 (width x height)"
            raise BundleError("import-size", f"the model takes pictures of any size: {entry}", hint)
        return fixed[0], fixed[1]
    if any(side not in (None, wanted) for side, wanted in zip(fixed, wish.size_px, strict=True)):
        said, given = (f"{'?' if w is None else w} x {'?' if h is None else h}" for w, h in (fixed, wish.size_px))
        hint = f"leave --size out, or give --size {fixed[0]}x{fixed[1]}"
        raise BundleError("import-size", f"the model takes pictures of {said} (width x height), not {given}", hint)
    if None in fixed:
        notes.append(f"the model takes any size; it is opened for {wish.size_px[0]} x {wish.size_px[1]}")
    return wish.size_px


def _dtype(entry: Port) -> Literal["uint8", "float32"]:
    if entry.kind == "float32":
        return "float32"
    if entry.kind == "uint8":
        return "uint8"
    hints = {
        "float16": "export it with float32 inputs (weights may be half floats), or keep_io_types=True when converting",
        "int8": "convert it with a float32 or uint8 input",
    }
    hint = hints.get(entry.kind, "export it with a float32 or uint8 input")
    raise BundleError("import-type", f"the model takes {entry.kind} numbers: {entry}", hint)


def _scale(dtype: str, wish: Wish, notes: list[str]) -> tuple[Triple, Triple]:
    mean, scale = wish.mean or (0.0, 0.0, 0.0), wish.scale or (1.0, 1.0, 1.0)
    if dtype == "uint8":
        if wish.mean is not None or wish.scale is not None:
            hint = "leave --mean and --scale out"
            raise BundleError("import-scale", "the model takes bytes as they are and scales them itself", hint)
        return mean, scale
    if wish.mean is None and wish.scale is None:
        notes.append("no --mean and --scale were given: the model gets values of 0 to 255 as they are")
    elif max(map(abs, (*mean, *scale))) <= 1.0 and any(value not in (0.0, 1.0) for value in (*mean, *scale)):
        means, scales = (" ".join(f"{255 * value:g}" for value in values) for values in (mean, scale))
        hint = f"values here are 0 to 255: multiply by 255: --mean {means} --scale {scales}"
        raise BundleError("import-scale", f"mean {mean} and scale {scale} are for values of 0 to 1", hint)
    return mean, scale
