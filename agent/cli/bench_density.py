"""`shelfwire-agent bench density`: how many cameras at 15 frames a second this device holds."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from agent.app import Stop
from agent.bench import choosing
from agent.bench.density import Bench, Terms
from agent.cli.bench_text import MUCH, others_words
from agent.cli.common import table
from agent.config import Config
from agent.core import density
from agent.core.density import Density
from agent.errors import Broken, Rejected
from agent.host import processor
from models.bundle import Bundle
from models.errors import BundleError
from models.setup import Setup

WINDOW_S = 6.0
LIMIT_S = 120.0
LIMIT_WINDOWS = 18
"""Windows that must fit into the time where they are longer: a dozen for the search, and three for the ages."""
PICTURES = 12
MOST_PICTURES = 200
WIDTH, HEIGHT, QUALITY = 1280, 720, 85


def run_density(options: argparse.Namespace, config: Config | None, bundle: Bundle) -> int:
    """Measure and tell."""
    window_s = options.seconds or WINDOW_S
    if not 2 <= window_s <= 600:
        raise Rejected("bench-limits", "a step takes from 2 to 600 seconds", "correct --seconds")
    setup = choosing.chosen(config, bundle).setup if config is not None else Setup()
    fixed = options.workers or (config.model.workers if config is not None else 0)
    terms = Terms(
        window_s, max(LIMIT_S, LIMIT_WINDOWS * (window_s + 1)), lambda n: fixed or processor.workers_of(n)
    )  # fmt: skip
    processor.share_cores(2)
    try:
        found, setup = _measure(bundle, setup, _jpegs(options.frames), terms)
    except KeyboardInterrupt:
        print("stopped before all was measured: nothing is kept", file=sys.stderr)
        raise
    if options.json:
        print(json.dumps(_as_json(found, setup, window_s), indent=2))
    else:
        print(_text(found, setup, window_s))
    return 0


def _measure(bundle: Bundle, setup: Setup, jpegs: Sequence[bytes], terms: Terms) -> tuple[Density, Setup]:
    """Measure, and show on a terminal how far it is; gives also the setup in which the model ran last."""
    from models import Classifier

    ran = [setup]

    def opened(workers: int) -> Classifier:
        try:
            classifier = Classifier.open(bundle, setup, workers)
        except BundleError as error:
            raise Broken(error.code, str(error), error.hint) from None
        ran[0] = classifier.setup
        return classifier

    with tqdm(total=100, disable=not sys.stderr.isatty(), leave=False, bar_format="{desc} {bar}|") as bar:

        def tell(what: str, part: float) -> None:
            bar.set_description(what, refresh=False)
            bar.update(round(100 * part) - bar.n)

        stop = Stop()
        stop.listen()
        return Bench(opened, jpegs, terms, tell, stop.event).measure(), ran[0]


def _jpegs(folder: Path | None) -> list[bytes]:
    """What the cameras show: 1280 x 720 pictures of FOLDER, or of the rendered shelf."""
    from agent.camera.encode import to_jpeg

    return [to_jpeg(picture, quality=QUALITY, max_side=WIDTH)[0] for picture in _pictures(folder)]


def _pictures(folder: Path | None) -> list[Any]:
    from agent.camera.synthetic import Scene

    if folder is None:
        return [Scene(seed=n % 3, width=WIDTH, height=HEIGHT).render(40 * n)[0] for n in range(PICTURES)]
    from models import PictureError, decode_picture
    from models.errors import DataError
    from models.labelled import pictures_below

    import cv2  # isort: skip - after models, which sets the decoder's limits

    try:
        paths = pictures_below(folder)[:MOST_PICTURES]
    except DataError as error:
        raise Rejected(error.code, str(error), error.hint) from None
    try:
        return [cv2.resize(decode_picture(path.read_bytes()), (WIDTH, HEIGHT)) for path in paths]
    except PictureError as error:
        raise Rejected(error.code, str(error), error.hint) from None


def _as_json(found: Density, setup: Setup, window_s: float) -> dict[str, Any]:
    return {
        "cameras": found.streams,
        "sure": found.sure,
        "rate_fps": density.RATE_FPS,
        "target_fps": density.TARGET_FPS,
        "pass_ratio": density.PASS_RATIO,
        "window_s": window_s,
        "cpu_ms_per_frame": round(found.cpu_ms_per_frame, 2),
        "others_part": round(found.others, 3),
        "setup": setup.to_json(),
        "steps": [
            {
                "cameras": streams,
                "passed": window.passes,
                "reached": round(window.reached, 3),
                "slowest_fps": round(window.slowest_fps, 2),
            }
            for streams, windows in found.windows.items()
            for window in windows
        ],
        "ages": [
            {"load": a.load, "cameras": a.streams, "p50_ms": a.p50_ms, "p95_ms": a.p95_ms, "answered": a.answered}
            for a in found.ages
        ],
    }


def _text(found: Density, setup: Setup, window_s: float) -> str:
    steps = [("cameras", "slowest", "samples at 14.95", "")]
    for streams, windows in sorted(found.windows.items()):
        steps += [
            (str(streams), f"{w.slowest_fps:.2f} fps", f"{100 * w.reached:.0f} %", "holds" if w.passes else "does not")
            for w in windows
        ]
    ages = [("load", "cameras", "age p50", "age p95", "answered")]
    ages += [
        (f"{a.load:g}x", str(a.streams), f"{a.p50_ms:.0f} ms", f"{a.p95_ms:.0f} ms", f"{100 * a.answered:.0f} %")
        for a in found.ages
    ]
    cameras = f"{found.streams} camera{'s' * (found.streams != 1)}"
    held = f"this device holds {cameras} of 1280 x 720 at {density.RATE_FPS:g} frames a second"
    unsure = "" if found.sure else " (the time was over before this was confirmed: give more with --seconds)"
    part = f"{100 * density.PASS_RATIO:g} %"
    rule = f"windows of {window_s:g} s; {part} of all seconds must reach {density.TARGET_FPS} frames"
    busy = [others_words(found.others)] if found.others >= MUCH else []
    return "\n".join([held + unsure, rule, f"setup: {setup}", *busy, "", table(steps), "", table(ages)])
