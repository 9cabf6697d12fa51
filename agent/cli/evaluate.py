"""How good a bundle is on labelled pictures: accuracy, calibration, confusion and timing.

Classifies every picture with the product's own decoder and classifier. A broken picture is named and does not count.
"""

import argparse
import csv
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tqdm import tqdm

from agent.cli.common import add_json, add_setup, say_notes, setup_from
from agent.errors import Broken, Rejected

MOST_BROKEN_NAMED = 10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("bundle", metavar="BUNDLE", help="bundle name or folder")
    parser.add_argument(
        "data",
        type=Path,
        metavar="FOLDER|LIST",
        help="a folder with a folder per label, or a list with lines: path, label or number[, coarse class]",
    )
    parser.add_argument("--limit", type=_count, metavar="N", help="at most N pictures, evenly spread over all")
    parser.add_argument("--ignore-unknown", action="store_true", help="leave out what is named as no label; count it")
    parser.add_argument("--out", type=Path, metavar="FILE.csv", help="also write one line per picture there")
    add_setup(parser)
    add_json(parser)
    parser.epilog = (
        "examples:\n"
        "  shelfwire-agent evaluate produce photos/          photos/Banana/1.jpg, photos/Lemon/7.jpg, ...\n"
        "  shelfwire-agent evaluate produce val.txt --json   lines as: val/Banana/1.jpg, 6, 2\n"
        "  shelfwire-agent evaluate ./mine test.txt --precision int8 --out answers.csv\n"
        "What the figures mean: docs/models.md."
    )


def _count(word: str) -> int:
    if not word.isdigit() or int(word) < 1:
        raise argparse.ArgumentTypeError("give a number of 1 or more")
    return int(word)


def run(options: argparse.Namespace) -> int:
    """Evaluate and print; gives 0 when at least one picture could be classified."""
    from models import Bundle, BundleError, resolve
    from models.errors import DataError

    _check_out(options.out)
    try:
        bundle = Bundle.load(resolve(options.bundle))
        return _evaluate(bundle, options)
    except DataError as error:
        raise Rejected(error.code, str(error), error.hint) from None
    except BundleError as error:
        raise Broken(error.code, str(error), error.hint) from None


def _check_out(path: Path | None) -> None:
    if path is not None and path.suffix.lower() != ".csv":
        raise Rejected("evaluate-out", f"{path} is not named .csv", "give a file as answers.csv")


def _evaluate(bundle: Any, options: argparse.Namespace) -> int:
    from models import Classifier
    from models.examine import examine
    from models.labelled import read_labelled, spread

    listing = read_labelled(options.data, bundle.manifest.labels, ignore_unknown=options.ignore_unknown)
    pictures = spread(listing.pictures, options.limit)
    with Classifier.open(bundle, setup_from(options)) as classifier, _progress(len(pictures)) as bar:
        examined = examine(classifier, pictures, bar.update)
        setup, notes = classifier.setup, classifier.notes
    coarse = coarse_of(bundle.manifest.coarse, listing)
    found = examined.figures(bundle.manifest.labels, bundle.manifest.threshold, coarse)
    told = _told(bundle, options, listing.skipped, examined, found)
    told |= {"setup": setup.to_json(), "notes": [note.to_json() for note in notes]}
    if options.out is not None:
        _write_csv(options.out, examined, bundle.manifest.labels)
    if options.json:
        print("{" + ",\n ".join(f"{json.dumps(name)}: {json.dumps(value)}" for name, value in told.items()) + "}")
    else:
        say_notes(notes)
        print(text(told, str(setup)))
    return 0


def coarse_of(of_bundle: Any, listing: Any) -> Any:
    """Give the coarse class of each label: as the data set's classes.csv says, else the bundle, else the list."""
    return listing.coarse if listing.coarse_named else of_bundle or listing.coarse


def _progress(count: int) -> Any:
    return tqdm(total=count, unit="picture", disable=count < 20 or not sys.stderr.isatty(), leave=False)


def _told(bundle: Any, options: argparse.Namespace, skipped: Any, examined: Any, found: Any) -> dict[str, Any]:
    """What `--json` prints, but for the setup."""
    from models.evaluate import most_confused

    labels = bundle.manifest.labels
    figures = {name: _rounded(value) for name, value in asdict(found).items() if name not in ("confusion", "bins")}
    timing = asdict(examined.timing)
    pairs = {name: {"p50": _rounded(p[0]), "p95": _rounded(p[1])} for name, p in timing.items() if name.endswith("_ms")}
    return {
        "bundle": asdict(bundle.ref),
        "data": str(options.data),
        **figures,
        "calibration": [_rounded(asdict(item)) for item in found.bins],
        "most_confused": [asdict(pair) for pair in most_confused(found.confusion, labels)],
        "labels": list(labels),
        "confusion": found.confusion.tolist(),
        "timing": {**pairs, "pictures_per_s": _rounded(timing["pictures_per_s"])},
        "broken": [{**asdict(item), "path": str(item.path)} for item in examined.broken],
        "skipped": dict(skipped),
    }


def _rounded(value: Any) -> Any:
    """Figures with six decimals, which is more than any data set gives."""
    if isinstance(value, float):
        return round(value, 6)
    if isinstance(value, dict):
        return {key: _rounded(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(inner) for inner in value]
    return value


def _write_csv(path: Path, examined: Any, labels: Any) -> None:
    """One line per picture, the surest mistakes first: they are worth a look."""
    answers = examined.scores.argmax(axis=1)
    rows = [
        (str(p.path), p.label, labels[a], f"{row[a]:.6f}", f"{row[t]:.6f}", int(a == t))
        for p, a, t, row in zip(examined.pictures, answers, examined.truths, examined.scores, strict=True)
    ]
    rows.sort(key=lambda row: (row[5], -float(row[3])))
    try:
        with path.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream)
            writer.writerow(("path", "label", "answer", "score", "score_of_label", "right"))
            writer.writerows(rows)
    except OSError as error:
        raise Rejected("evaluate-out", f"{path}: {error.strerror}", "give a file that can be written") from None


def text(told: dict[str, Any], setup: str) -> str:
    """Put what a person reads: the figures, then what to look at."""
    return "\n".join([*_head(told, setup), "", *_figures(told), *_to_look_at(told)])


def _share(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f} %"


def _head(told: dict[str, Any], setup: str) -> list[str]:
    bundle = told["bundle"]
    shown = sum(item["pictures"] > 0 for item in told["by_label"])
    return [
        f"{bundle['name']} {bundle['version']}, release {bundle['release']}, digest {bundle['digest'][:12]}",
        setup,
        f"{told['pictures']} pictures of {shown} labels (of {len(told['labels'])}) from {told['data']}",
    ]


def _figures(told: dict[str, Any]) -> list[str]:
    surely = f"95 % sure: {_share(told['accuracy_low'])} to {_share(told['accuracy_high'])}"
    right = f"of them {_share(told['accepted_accuracy'])} right (score of {told['threshold']:g} or more)"
    time = {name: value for name, value in told["timing"].items() if name.endswith("_ms")}
    times = ", ".join(f"{name[:-3]} {each['p50']:.1f} (p95 {each['p95']:.1f})" for name, each in time.items())
    lines = [
        f"accuracy           {_share(told['accuracy']):>8}   {surely}",
        f"coarse accuracy    {_share(told['coarse_accuracy']):>8}",
        f"among the best 5   {_share(told['top5']):>8}",
        f"mean over labels   {_share(told['mean_label_accuracy']):>8}",
        f"accepted           {_share(told['accepted']):>8}   {right}",
        f"calibration error  {_share(told['calibration_error']):>8}   Brier score {told['brier']:.3f}",
        f"ms per picture     {times}",
        f"pictures a second  {told['timing']['pictures_per_s']:8.1f}   one thread, decoding included",
    ]
    return [line for line in lines if told["coarse_accuracy"] is not None or not line.startswith("coarse")]


def _to_look_at(told: dict[str, Any]) -> list[str]:
    worst = [item for item in told["by_label"] if item["accuracy"] is not None and item["accuracy"] < 1]
    worst.sort(key=lambda item: item["accuracy"])
    lines = ["", "least recognised"] if worst else []
    lines += [f"  {_share(item['accuracy']):>8}  of {item['pictures']:>4}  {item['label']}" for item in worst[:8]]
    if told["most_confused"]:
        lines += ["", "most often confused"]
        lines += [
            f"  {pair['pictures']:>4} x  {pair['truth']} taken for {pair['answer']}" for pair in told["most_confused"]
        ]
    for title, items in (("could not be read", _broken(told)), ("left out, as no labels", _skipped(told))):
        if items:
            lines += ["", f"{title}", *items]
    return lines


def _broken(told: dict[str, Any]) -> list[str]:
    items = [f"  {item['path']}: {item['message']} [{item['code']}]" for item in told["broken"]]
    more = len(items) - MOST_BROKEN_NAMED
    return items if more <= 0 else [*items[:MOST_BROKEN_NAMED], f"  and {more} more: see --json"]


def _skipped(told: dict[str, Any]) -> list[str]:
    return [f"  {count:>4} x  {name}" for name, count in told["skipped"].items()]
