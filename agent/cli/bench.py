"""Measure on this device: which setup of a model is fastest here, or with `density` how many cameras it holds.

`shelfwire-agent bench` tries every runtime, precision, number of streams and place of preprocessing that is possible
here, in turn; answers are compared with those of FP32. What it chooses is kept, and vision takes it up within seconds.
`shelfwire-agent bench density` runs the device's own pipeline with more and more cameras at 15 frames a second, then
with 1, 2 and 4 times the frames that it can answer.
"""

import argparse
import contextlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from agent.bench import choosing
from agent.bench.held import Asking, Measuring
from agent.bench.surroundings import key_of
from agent.cli import bench_text
from agent.cli.common import add_config, add_json, load_config
from agent.config import Config
from agent.errors import Broken, Rejected
from agent.host.processor import workers_for, workers_of
from agent.store import choice
from models.bundle import Bundle, resolve
from models.errors import BundleError, DataError
from models.labelled import read_labelled, spread
from models.setup import Setup

SECONDS = 30.0
DENSITY = "density"
MOST_PICTURES = 500
CAMERAS = 4
"""For as many a device without a configuration is measured."""
LOOK_EVERY_S = 0.2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument(
        "words", nargs="*", metavar="[density] [BUNDLE]", help="bundle name or folder (default: the one that answers)"
    )
    parser.add_argument("--seconds", type=float, metavar="S", help="time to measure (30; density: 6 for each step)")
    parser.add_argument("--workers", type=int, metavar="N", help="frames worked on at once (as configured)")
    parser.add_argument("--pictures", type=Path, metavar="FOLDER|LIST", help="labelled pictures, as for evaluate")
    parser.add_argument("--no-write", action="store_true", help="do not keep the choice")
    parser.add_argument("--frames", type=Path, metavar="FOLDER", help="density: pictures that the cameras show")
    add_config(parser)
    add_json(parser)


def run(options: argparse.Namespace) -> int:
    """Measure and tell."""
    words = list(options.words)
    is_density = words[:1] == [DENSITY]
    del words[: int(is_density)]
    if len(words) > 1:
        raise Rejected("bench-words", f"one bundle at a time, not {len(words)}", "see shelfwire-agent bench --help")
    config = _config(options)
    bundle = _bundle(words[0] if words else None, config)
    if is_density:
        from agent.cli.bench_density import run_density

        return run_density(options, config, bundle)
    return _run_setups(options, config, bundle)


def _config(options: argparse.Namespace) -> Config | None:
    """The device's configuration; a machine that has none is measured all the same."""
    try:
        return load_config(options)
    except Rejected as error:
        if error.code == "config-missing":
            return None
        raise


def _bundle(name: str | None, config: Config | None) -> Bundle:
    from agent.app.using import bundle_in_use

    if name is None and config is not None:
        return bundle_in_use(config)
    try:
        return Bundle.load(resolve(name or "produce"))
    except BundleError as error:
        raise Broken(error.code, str(error), error.hint) from None


@dataclass(frozen=True, slots=True)
class Place:
    """Where the choice is kept, and compiled models; `why_not` says why the choice is not."""

    state_dir: Path | None
    cache: Path
    why_not: str


@contextlib.contextmanager
def _place(options: argparse.Namespace, config: Config | None, bundle: Bundle, workers: int) -> Iterator[Place]:
    why_not = _why_not(options, config, bundle, workers)
    kept_in = config.device.state_dir if config is not None and not why_not else None
    with tempfile.TemporaryDirectory(prefix="shelfwire-bench-") as folder:
        mine = kept_in is not None and _is_own(kept_in)
        yield Place(kept_in, choosing.cache_of(kept_in) if kept_in is not None and mine else Path(folder), why_not)


def _is_own(folder: Path) -> bool:
    """Whether files made there belong to who runs vision: root must not leave any that vision cannot replace."""
    return folder.is_dir() and folder.stat().st_uid == os.geteuid()


def _why_not(options: argparse.Namespace, config: Config | None, bundle: Bundle, workers: int) -> str:
    """Say why the choice cannot be kept; empty when it can. A choice that does not fit vision would be no use to it."""
    from agent.app.using import bundle_in_use

    if options.no_write:
        return "--no-write was given"
    if config is None:
        return f"there is no configuration at {options.config}"
    if workers != workers_for(config):
        return f"vision has {workers_for(config)} workers here, not {workers}"
    if bundle.ref.digest != bundle_in_use(config).ref.digest:
        return "another model answers on this device"
    return ""


def _run_setups(options: argparse.Namespace, config: Config | None, bundle: Bundle) -> int:
    workers = options.workers or (workers_for(config) if config is not None else workers_of(CAMERAS))
    if not 1 <= workers <= 64 or not 1 <= (options.seconds or SECONDS) <= 3600:
        raise Rejected("bench-limits", "from 1 to 64 workers, and from 1 to 3600 seconds", "correct the option")
    asked = config.model.setup if config is not None else Setup()
    key = key_of(bundle, workers, asked)
    with _place(options, config, bundle, workers) as place:
        asking = Asking(
            bundle.folder, asked, workers, options.seconds or SECONDS, place.cache, choosing.memory_bytes(config),
            labelled=_labelled(options.pictures, bundle),
        )  # fmt: skip
        measuring = _measure(asking)
        chosen = choosing.choose(measuring.figures or [], measuring.others, key, time.time_ns())
        if place.state_dir is not None:
            choice.write(place.state_dir, chosen)
    if options.json:
        said: dict[str, Any] = {**chosen.to_json(), "model": _named(bundle), "kept": place.state_dir is not None}
        print(json.dumps(said | ({"why_not_kept": place.why_not} if place.why_not else {}), indent=2))
    else:
        kept = place.state_dir / choice.NAME if place.state_dir is not None else None
        print(bench_text.write(bundle.ref, chosen, kept, place.why_not))
    return 0


def _named(bundle: Bundle) -> dict[str, object]:
    ref = bundle.ref
    return {"name": ref.name, "version": ref.version, "release": ref.release, "digest": ref.digest}


def _labelled(source: Path | None, bundle: Bundle) -> list[tuple[Path, str]]:
    """At most so many labelled pictures of FOLDER or LIST, of all labels alike. Raises `Rejected`."""
    if source is None:
        return []
    try:
        found = read_labelled(source, bundle.manifest.labels, ignore_unknown=True)
    except DataError as error:
        raise Rejected(error.code, str(error), error.hint) from None
    return [(each.path.resolve(), each.label) for each in spread(found.pictures, MOST_PICTURES)]


def _measure(asking: Asking) -> Measuring:
    """Have it measured, and show on a terminal how far it is."""
    measuring = Measuring(asking)
    try:
        with tqdm(total=100, unit="%", disable=not sys.stderr.isatty(), leave=False, bar_format="{l_bar}{bar}|") as bar:
            while measuring.hear(LOOK_EVERY_S):
                bar.update(round(100 * measuring.part) - bar.n)
                bar.set_description(str(measuring.turn or "starting"), refresh=False)
    finally:
        measuring.close()
    return measuring
