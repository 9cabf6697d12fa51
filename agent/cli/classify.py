"""Classify pictures with a bundle and print label and score. A broken picture is named and does not stop the others."""

import argparse
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tqdm import tqdm

from agent.cli.common import add_json, add_setup, say_error, say_notes, setup_from, table
from agent.errors import Broken, Rejected

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp"}
UNREADABLE = 1
"""Exit code when some pictures could not be classified."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("path", nargs="+", type=Path, metavar="PATH", help="a picture, or a folder of pictures")
    parser.add_argument(
        "--bundle", default="produce", metavar="BUNDLE", help="bundle name or folder (default: produce)"
    )
    add_setup(parser)
    parser.add_argument("--top", type=int, default=3, choices=range(1, 11), metavar="1-10", help="labels per picture")
    add_json(parser)


def run(options: argparse.Namespace) -> int:
    """Classify; gives 0, or 1 when some pictures could not be."""
    from models import BundleError, Classifier, resolve

    paths = list(_pictures(options.path))
    try:
        classifier = Classifier.open(resolve(options.bundle), setup_from(options))
    except BundleError as error:
        raise Broken(error.code, str(error), error.hint) from None
    worker = classifier.worker()
    answers = [_classify(worker, path, options.top) for path in _with_progress(paths)]
    failed = sum("error" in answer for answer in answers)
    if options.json:
        model = classifier.model
        head = {"name": model.name, "version": model.version, "release": model.release, "digest": model.digest}
        how = {"runtime": classifier.runtime, "setup": classifier.setup.to_json()}
        notes = [note.to_json() for note in classifier.notes]
        print(json.dumps({"model": head, **how, "notes": notes, "pictures": answers}, indent=2))
    else:
        say_notes(classifier.notes)
        _print(answers)
    return UNREADABLE if failed else 0


def _pictures(paths: Iterable[Path]) -> Iterator[Path]:
    for path in paths:
        if path.is_dir():
            found = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES)
            if not found:
                hint = f"name a folder with {', '.join(sorted(SUFFIXES))} files"
                raise Rejected("no-pictures", f"{path} holds no pictures", hint)
            yield from found
        else:
            yield path


def _with_progress(paths: list[Path]) -> Iterable[Path]:
    return tqdm(paths, unit="picture", disable=len(paths) < 20 or not sys.stderr.isatty(), leave=False)


def _classify(worker: Any, path: Path, top: int) -> dict[str, Any]:
    from models import PictureError, decode_picture

    try:
        answer = worker.classify(decode_picture(path.read_bytes()), top)
    except PictureError as error:
        return {"path": str(path), "error": {"code": error.code, "message": str(error), "hint": error.hint}}
    except OSError as error:
        hint = "correct the path, or give the file to this user"
        return {
            "path": str(path),
            "error": {"code": "picture-unreadable", "message": str(error.strerror), "hint": hint},
        }
    return {
        "path": str(path),
        "label": answer.label,
        "score": round(answer.score, 4),
        "known": answer.known,
        "labels": [{"label": label, "score": round(score, 4)} for label, score in answer.top],
        "prepare_ms": round(answer.prepare_ms, 2),
        "inference_ms": round(answer.inference_ms, 2),
    }


def _print(answers: list[dict[str, Any]]) -> None:
    good = [a for a in answers if "error" not in a]
    if good:
        rows = [("label", "score", "next best", "picture")]
        for answer in good:
            others = [item for item in answer["labels"] if item["label"] != answer["label"]]
            nearby = ", ".join(f"{item['label']} {item['score']:.2f}" for item in others)
            rows.append((answer["label"], f"{answer['score']:.2f}", nearby, answer["path"]))
        print(table(rows))
    for answer in answers:
        if "error" in answer:
            error = answer["error"]
            say_error(error["code"], f"{answer['path']}: {error['message']}", error["hint"])
