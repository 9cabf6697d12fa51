"""`model quantize`: give a bundle an INT8 model beside its FP32 one, and say what that costs and gains.

The pictures are prepared exactly as the product prepares them. What was lost is always printed, and a model that has
lost too much is not written.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tqdm import tqdm

from agent.cli.common import add_json, table
from agent.cli.model_import import rendered
from agent.errors import Broken, Rejected

MOST_LOST_POINTS = 1.0
MOST_OTHERWISE_POINTS = 5.0
MOST_CHECKED = 1000

HELP = """\
Pictures: a folder with a folder per label or a list, as for `evaluate`; or any folder of pictures without labels, as
the cameras see them: then both models are only held against each other. 300 of them calibrate, the others check,
unless --check names pictures of its own. 50 are the least, several hundred are good.

examples:
  shelfwire-agent model quantize produce --calibration photos/
  shelfwire-agent model quantize ./mine --calibration train.txt --check val.txt --out ./mine-int8
It needs NNCF (pip install 'shelfwire[quantize]'); devices that run the result do not. More: docs/models.md.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = HELP
    parser.add_argument("bundle", metavar="BUNDLE", help="bundle name or folder, with an FP32 model in ONNX")
    parser.add_argument("--calibration", type=Path, required=True, metavar="FOLDER|LIST", help="pictures, see below")
    parser.add_argument("--check", type=Path, metavar="FOLDER|LIST", help="other pictures to hold both models against")
    parser.add_argument("--most-lost", type=float, metavar="POINTS",
                        help=f"most points lost (default: {MOST_LOST_POINTS:g} of accuracy; without labels"
                             f" {MOST_OTHERWISE_POINTS:g} of answers that are the same)")  # fmt: skip
    parser.add_argument("--anyway", action="store_true", help="write it though more is lost, or values are unusual")
    parser.add_argument("--ignore-unknown", action="store_true", help="leave out what is named as no label")
    parser.add_argument("--no-labels", action="store_true", help="folders' names are no labels, though some look so")
    parser.add_argument("--release", type=int, metavar="N", help="the new bundle's release (default: one higher)")
    parser.add_argument("--version", metavar="V", help="the new bundle's version (default: the old one with +int8)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="the new bundle's folder (default: ./NAME-int8)")
    add_json(parser)


def run(options: argparse.Namespace) -> int:
    """Quantise, compare, write; gives 0 when the bundle was written."""
    from models import Bundle, BundleError, resolve
    from models.errors import DataError
    from models.quantise import need_packages

    try:
        need_packages()
        bundle = Bundle.load(resolve(options.bundle))
        out = options.out or Path(f"{bundle.manifest.name}-int8")
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise Rejected("quantise-out", f"{out} is there already", "give a new folder with --out")
        return _quantize(bundle, out, options)
    except DataError as error:
        raise Rejected(error.code, str(error), error.hint) from None
    except BundleError as error:
        kind = Broken if error.code.startswith("bundle-") else Rejected
        raise kind(error.code, str(error), error.hint) from None


def _quantize(bundle: Any, out: Path, options: argparse.Namespace) -> int:
    from models.int8 import narrow, too_much_lost, write
    from models.picture import decode_picture

    sample, held_out = samples(bundle, options)
    golden = [bundle.read(item.path) for item in bundle.manifest.golden.inputs]
    known = [decode_picture(content) for content in golden or [content for _, content in rendered()]]
    release = options.release or bundle.manifest.release + 1
    version = options.version or f"{bundle.manifest.version.removesuffix('+int8')}+int8"[:64]
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as half:
        trial, folder = Path(half) / "trial", Path(half) / "bundle"
        trial.mkdir()
        folder.mkdir()
        narrowed = narrow(bundle, sample, held_out, known, trial, anyway=options.anyway)
        told = _told(narrowed, sample, held_out)
        most = options.most_lost if options.most_lost is not None else _most_lost(labelled=narrowed.labelled)
        if too_much_lost(narrowed, most) and not options.anyway:
            raise _lost(told, narrowed, most, as_json=options.json)
        made = write(bundle, narrowed, folder, release, version)
        folder.replace(out)
    told |= {"bundle": str(out), "name": made.ref.name, "version": version, "release": release}
    told |= {"digest": made.ref.digest, "size_bytes": len(narrowed.content)}
    print(json.dumps(told, indent=2) if options.json else text(told))
    return 0


def _most_lost(*, labelled: bool) -> float:
    return MOST_LOST_POINTS if labelled else MOST_OTHERWISE_POINTS


def _lost(told: dict[str, Any], narrowed: Any, most: float, *, as_json: bool) -> Rejected:
    """Print the comparison, which is always told, and give the refusal."""
    print("\n".join(_comparison(told)), file=sys.stderr if as_json else sys.stdout)
    lost = f"{narrowed.worst.lost_points:.1f} points are lost in {narrowed.worst.runtime}, at most {most:g} may be"
    hint = "calibrate with more, and more different, pictures; use the bundle as FP32; or write it with --anyway"
    return Rejected("quantise-lost", lost, hint)


def samples(bundle: Any, options: argparse.Namespace) -> tuple[Any, Any]:
    """Read the pictures to calibrate with and those to check with."""
    from models.int8 import divide, read_sample
    from models.labelled import spread
    from models.quantise import MOST_PICTURES

    pictures, labelled = _read(options.calibration, bundle, options)
    inside, outside = divide(pictures)
    check_labelled = labelled
    if options.check is not None:
        inside = spread(pictures, MOST_PICTURES)
        others, check_labelled = _read(options.check, bundle, options)
        outside = tuple(others)
    outside = spread(outside, MOST_CHECKED)
    spec = bundle.manifest.input
    with tqdm(total=len(inside) + len(outside), unit="picture", disable=not sys.stderr.isatty(), leave=False) as bar:
        sample = read_sample(inside, spec, labelled=labelled, step=bar.update)
        return sample, read_sample(outside, spec, labelled=check_labelled, step=bar.update)


def _read(source: Path, bundle: Any, options: argparse.Namespace) -> tuple[Sequence[Any], bool]:
    """Read labelled pictures; or, when no folder is named as any label, plain ones."""
    from models.errors import DataError
    from models.labelled import Labelled, pictures_below, read_labelled

    labels = bundle.manifest.labels
    if options.no_labels and source.is_dir():
        return [Labelled(path, "") for path in pictures_below(source)], False
    try:
        return read_labelled(source, labels, ignore_unknown=options.ignore_unknown).pictures, True
    except DataError as error:
        if error.code not in ("data-label", "data-empty") or not source.is_dir() or options.ignore_unknown:
            raise
        if any_label(source, labels):
            hint = f"{error.hint}; or give --no-labels when they are no labels at all"
            raise DataError(error.code, str(error), hint) from None
        return [Labelled(path, "") for path in pictures_below(source)], False


def any_label(source: Path, labels: Sequence[str]) -> bool:
    """Whether at least one picture below a folder lies in a folder of a label."""
    from models.errors import DataError
    from models.labelled import read_labelled

    try:
        return bool(read_labelled(source, labels, ignore_unknown=True).pictures)
    except DataError:
        return False


def _told(narrowed: Any, sample: Any, held_out: Any) -> dict[str, Any]:
    broken = [*sample.broken, *held_out.broken]
    return {
        "labelled": narrowed.labelled,
        "calibrated_with": len(sample.frames),
        "checked_with": len(held_out.frames),
        "measure": "accuracy" if narrowed.labelled else "agreement",
        "runtimes": [
            {**asdict(item), "lost_points": round(item.lost_points, 3), "times_faster": round(item.times_faster, 3)}
            for item in narrowed.compared
        ],
        "inner_values": None if narrowed.ratio != narrowed.ratio else round(narrowed.ratio, 3),  # NaN
        "notes": list(narrowed.notes),
        "broken": [{**asdict(item), "path": str(item.path)} for item in broken],
    }


def text(told: dict[str, Any]) -> str:
    """Put what a person reads."""
    size = f"{told['size_bytes'] / 1e6:.1f} MB"
    return "\n".join(
        [
            *_comparison(told),
            "",
            f"{told['bundle']}: {told['name']} {told['version']}, release {told['release']}, INT8 {size} beside FP32",
            "next: see what this device does best with it",
            f"  shelfwire-agent bench {told['bundle']}",
        ]
    )


def _comparison(told: dict[str, Any]) -> list[str]:
    what = "right answers" if told["labelled"] else "the same answers as FP32"
    rows = [("runtime", "FP32", "INT8", "lost", "faster")]
    rows += [
        (
            run["runtime"],
            f"{100 * run['before']:.1f} %",
            f"{100 * run['after']:.1f} %",
            f"{run['lost_points']:.1f}" if run["lost_points"] >= 0 else f"gained {-run['lost_points']:.1f}",
            f"{run['times_faster']:.2f} x",
        )
        for run in told["runtimes"]
    ]
    counts = f"calibrated with {told['calibrated_with']} pictures; {what} on {told['checked_with']} others:"
    notes = [f"note: {note}" for note in told["notes"]]
    broken = [f"not read: {item['path']}: {item['message']} [{item['code']}]" for item in told["broken"][:10]]
    return [counts, "", table(rows), *notes, *broken]
