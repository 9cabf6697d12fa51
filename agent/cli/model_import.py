"""`model import`: somebody's classifier becomes a bundle that is tried, or it is said what does not fit and what to do.

The description of the options' conventions is part of the help, since that is where most imports go wrong.
"""

import argparse
import datetime as dt
import json
import re
import tempfile
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from agent.cli.common import add_json, table
from agent.errors import Rejected

GOLDEN_SEED = 40_000
GOLDEN_SIZE = (320, 180)
GOLDEN_PICTURES = 6
THRESHOLD = 0.5

HELP = """\
mean and scale: the model gets (value - mean) / scale, for values of 0 to 255 in the order of --colour.
  torchvision       --mean 123.675 116.28 103.53 --scale 58.395 57.12 57.375   (255 x its mean and std)
  Keras, TF: -1..1  --mean 127.5 --scale 127.5          (MobileNet, Inception, EfficientNetV2 without its layers)
  0..1              --mean 0 --scale 255                (Ultralytics, many TensorFlow Hub models)
  Keras "caffe"     --colour bgr --mean 103.939 116.779 123.68 --scale 1       (ResNet50, VGG)
  inside the model  leave both out: it gets 0 to 255    (EfficientNet of Keras; models that take bytes)

examples:
  shelfwire-agent model import mobilenet.onnx --labels imagenet.txt --mean 127.5 --scale 127.5
  shelfwire-agent model import best.onnx --labels names.txt --size 224 --mean 0 --scale 255 --name shelf
  shelfwire-agent model import fruit.tflite --labels labels.txt --out /var/lib/shelfwire/fruit
What is made and what may not fit: docs/models.md.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = HELP
    parser.add_argument("file", type=Path, metavar="FILE", help="the model: .onnx, .xml (OpenVINO) or .tflite")
    parser.add_argument("--labels", type=Path, required=True, metavar="F", help="text, one per line; .json; .csv")
    parser.add_argument("--size", type=_size, metavar="N|WxH", help="pixels (default: as the model says)")
    parser.add_argument("--mean", type=_numbers, nargs="+", metavar="X", help="one number, or one per channel")
    parser.add_argument("--scale", type=_numbers, nargs="+", metavar="X", help="one number, or one per channel")
    parser.add_argument("--colour", choices=["rgb", "bgr"], default="rgb", help="order of channels (default: rgb)")
    parser.add_argument("--layout", choices=["nchw", "nhwc"], help="where channels are (default: found out)")
    parser.add_argument(
        "--fit", choices=["crop", "squash"], default="crop", help="the middle of a picture, or all of it"
    )
    parser.add_argument("--output", choices=["logits", "probabilities"], help="what it gives (default: found out)")
    parser.add_argument("--name", metavar="NAME", help="the bundle's name (default: from the file's)")
    parser.add_argument("--version", default="1", metavar="V", help="the bundle's version (default: 1)")
    parser.add_argument("--release", type=int, default=1, metavar="N", help="a counter that never goes down")
    parser.add_argument("--threshold", type=float, default=THRESHOLD, metavar="S", help="least score of an answer")
    parser.add_argument("--licence", default="not stated", metavar="TEXT", help="the model's licence, for its card")
    parser.add_argument("--out", type=Path, metavar="DIR", help="the bundle's folder, new (default: ./NAME)")
    add_json(parser)


def _size(word: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d{1,5})(?:[xX](\d{1,5}))?", word)
    if match is None:
        raise argparse.ArgumentTypeError("give a size as 224, or 320x240 (width x height)")
    return int(match[1]), int(match[2] or match[1])


def _numbers(word: str) -> list[float]:
    try:
        return [float(part) for part in word.split(",") if part]
    except ValueError:
        raise argparse.ArgumentTypeError("give one number, or three, as 127.5 or 123.7 116.3 103.5") from None


def run(options: argparse.Namespace) -> int:
    """Make the bundle and print what was found; gives 0."""
    from models import BundleError
    from models.entry import Wish
    from models.foreign import look
    from models.label_file import read_labels

    name = options.name or _name_of(options.file)
    out = options.out or Path(name)
    _check(name, out, options)
    wish = Wish(options.size, _triple("mean", options.mean), _triple("scale", options.scale),
                options.colour, options.layout, options.fit, options.output)  # fmt: skip
    try:
        made = _make(look(options.file), read_labels(options.labels), wish, name, out, options)
    except BundleError as error:
        raise Rejected(error.code, str(error), error.hint) from None
    told = _told(made, out)
    print(json.dumps(told, indent=2) if options.json else text(told))
    return 0


def _name_of(path: Path) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", path.stem.lower()).strip("-.")[:64] or "model"


def _triple(what: str, given: list[list[float]] | None) -> Any:
    """Three numbers from one or three; None when nothing was given."""
    if given is None:
        return None
    numbers = [number for part in given for number in part]
    if len(numbers) not in (1, 3):
        hint = f"give one number for all channels, or three: --{what} 123.7 116.3 103.5"
        raise Rejected("import-scale", f"--{what} has {len(numbers)} numbers", hint)
    return tuple(numbers * 3 if len(numbers) == 1 else numbers)


def _check(name: str, out: Path, options: argparse.Namespace) -> None:
    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,63}", name):
        hint = "use small letters, digits, points and dashes, as shelf-2"
        raise Rejected("import-name", f"{name!r} cannot be a bundle's name", hint)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise Rejected("import-out", f"{out} is there already", "give a new folder with --out, or remove that one")
    if not 0 <= options.threshold <= 1:
        raise Rejected("import-threshold", f"a threshold of {options.threshold} cannot be", "give 0 to 1")
    if options.release < 1:
        raise Rejected("import-release", f"a release of {options.release} cannot be", "give 1 or more")


def _make(source: Any, labels: Any, wish: Any, name: str, out: Path, options: argparse.Namespace) -> Any:
    """Make the bundle beside its place and move it there when it is whole."""
    from models.importing import Story, import_model

    today = dt.datetime.now(dt.UTC).date().isoformat()
    story = Story(name, options.version, options.release, options.threshold, today, options.licence)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as half:
            folder = Path(half) / "bundle"
            folder.mkdir()
            made = import_model(source, labels, wish, story, rendered(), folder)
            folder.replace(out)
    except OSError as error:
        raise Rejected(
            "import-out", f"{out}: {error.strerror}", "give a folder that can be written with --out"
        ) from None
    return made


@lru_cache
def rendered() -> Sequence[tuple[str, bytes]]:
    """Give the golden pictures: shelves of the synthetic camera, as PNG: every decoder gives the same pixels."""
    from agent.camera.synthetic import PRODUCTS, Scene

    import cv2  # isort: skip

    pictures = []
    for number in range(GOLDEN_PICTURES):
        label = PRODUCTS[number * len(PRODUCTS) // GOLDEN_PICTURES]
        scene = Scene(GOLDEN_SEED + number, *GOLDEN_SIZE, labels=(label,))
        _, png = cv2.imencode(".png", scene.render(1)[0], [cv2.IMWRITE_PNG_COMPRESSION, 9])
        pictures.append((f"{number + 1}-{label.lower()}.png", png.tobytes()))
    return tuple(pictures)


def _told(made: Any, out: Path) -> dict[str, Any]:
    from models import Bundle

    bundle = Bundle.load(out)
    manifest = bundle.manifest
    source = made.source
    return {
        "bundle": str(out),
        "name": manifest.name,
        "version": manifest.version,
        "release": manifest.release,
        "digest": bundle.ref.digest,
        "files": [{"path": file.path, "size_bytes": file.size_bytes, "role": file.role} for file in manifest.files],
        "source": {
            "file": str(source.path),
            "kind": source.kind,
            "opset": source.opset,
            "sha256": source.sha256,
            "size_bytes": source.size_bytes,
            "weights": list(source.weights),
        },
        "takes": str(made.entry),
        "input": manifest.input.model_dump(),
        "output": made.output,
        "precision": made.precision,
        "labels": len(manifest.labels),
        "threshold": manifest.threshold,
        "golden": len(manifest.golden.inputs),
        "runtimes": [
            {
                "runtime": run.runtime,
                "difference": run.difference,
                "inference_ms": round(run.inference_ms, 2),
                "kept": run.runtime in manifest.limits.runtimes,
            }
            for run in made.runs
        ],
        "difference_between_runtimes": made.between,
        "not_loaded_by": source.why_not,
        "notes": made.notes,
    }


def text(told: dict[str, Any]) -> str:
    """Put what a person reads: what was found, how it was tried, what to look at and what to do next."""
    source, given = told["source"], told["input"]
    kind = {"onnx": f"ONNX, operator set {source['opset']}", "ir": "OpenVINO IR", "tflite": "TensorFlow Lite"}
    rows = [
        ("model", f"{source['file']}: {kind[source['kind']]}, {source['size_bytes'] / 1e6:.1f} MB"),
        ("takes", f"{told['takes']}: {given['layout']}, {given['colour']}, {_arithmetic(given)}"),
        ("pictures", f"{_fit(given)} at {given['width']} x {given['height']}"),
        ("gives", f"{told['labels']} {told['output']}, in {told['precision'].upper()}"),
        *(("runs in", _run(run)) for run in told["runtimes"]),
        *(("not in", f"{runtime}: {why}") for runtime, why in told["not_loaded_by"].items()),
    ]
    if told["difference_between_runtimes"] is not None:
        rows.append(("both", f"scores differ by at most {told['difference_between_runtimes']:.1e}"))
    rows += [("note", note) for note in told["notes"]]
    rows.append(("bundle", f"{told['bundle']}: {_named(told)}"))
    following = (
        "next: see how good it is and choose its threshold\n"
        f"  shelfwire-agent evaluate {told['bundle']} PHOTOS/\n"
        f'and have it answer: bundle = "{told["bundle"]}" in [model]'
    )
    return f"{table(rows)}\n\n{following}"


def _named(told: dict[str, Any]) -> str:
    model = f"{told['name']} {told['version']}, release {told['release']}"
    return f"{model}, {told['golden']} golden pictures, threshold {told['threshold']:g}"


def _arithmetic(given: dict[str, Any]) -> str:
    if given["dtype"] == "uint8":
        return "bytes as they are"
    mean, scale = (" ".join(f"{value:g}" for value in dict.fromkeys(given[name])) for name in ("mean", "scale"))
    return f"(value - {mean}) / {scale}"


def _fit(given: dict[str, Any]) -> str:
    return "the middle of a picture" if given["fit"] == "crop" else "all of a picture, squeezed"


def _run(run: dict[str, Any]) -> str:
    kept = "" if run["kept"] else "; left out, see below"
    return f"{run['runtime']}: {run['difference']:.1e} from the bare runtime, {run['inference_ms']:.1f} ms{kept}"
