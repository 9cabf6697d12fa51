"""Focus and exposure of one camera, live, as bars to read from a ladder; turn the ring until the bar stops growing.

On a terminal the screen is drawn anew with each picture; elsewhere there is a line each second, or with --json an
object for each picture. It ends after --seconds, or with Ctrl-C, and says what was best.
"""

import argparse
import json
import shutil
import sys
import textwrap
import time
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any, TextIO

from agent.camera.showing import Sighting, Wish
from agent.cli.common import add_config, add_json, load_config
from agent.cli.sightings import Request, camera_of, sightings, vision_runs
from agent.config import Camera
from agent.core.aiming import HINTS, Aim, bar, light_word
from agent.errors import Rejected

PACE_S = 0.15
WIDEST = 60
"""Columns: a phone held upright shows some 45."""
LINE_EVERY_S = 1.0
CLEAR, UP_AND_CLEAR = "\x1b[2J\x1b[H", "\x1b[H"
TO_END = "\x1b[K"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("camera", metavar="CAMERA", help="its name in the configuration")
    add_config(parser)
    parser.add_argument("--seconds", type=float, metavar="N", help="end after so long (default: until Ctrl-C)")
    add_json(parser)


def run(options: argparse.Namespace) -> int:
    """Show until stopped; gives 0."""
    config = load_config(options)
    camera = camera_of(config, options.camera)
    if options.seconds is not None and not 0 < options.seconds <= 86_400:
        raise Rejected("bad-seconds", "the time is out of bounds", "give --seconds from 1 to 86400")
    request = Request(config, options.config, camera, Wish(0, PACE_S))
    where = "vision" if vision_runs(config) else "the camera"
    aim = Aim()
    line_due_s = 0.0
    try:
        for seen, passed_s in _until(sightings(request), options.seconds):
            aim.take(seen.sight.sharpness)
            if options.json:
                print(json.dumps(_as_json(camera, aim, seen, passed_s)), flush=True)
            elif sys.stdout.isatty():
                width = min(WIDEST, shutil.get_terminal_size().columns)
                draw(sys.stdout, screen(camera.name, aim, seen, passed_s, where, width), first=aim.pictures == 1)
            elif passed_s >= line_due_s:
                line_due_s = passed_s + LINE_EVERY_S
                print(line(camera.name, aim, seen), flush=True)
    except KeyboardInterrupt:
        pass
    if not options.json:
        print(_ending(camera, aim))
    return 0


def _until(found: Iterator[Sighting], seconds: float | None) -> Iterator[tuple[Sighting, float]]:
    """Give each picture with the time since the first; ends when the time is over."""
    began_s: float | None = None
    for seen in found:
        began_s = time.monotonic() if began_s is None else began_s
        passed_s = time.monotonic() - began_s
        yield seen, passed_s
        if seconds is not None and passed_s >= seconds:
            return


def _as_json(camera: Camera, aim: Aim, seen: Sighting, passed_s: float) -> dict[str, Any]:
    sight = seen.sight
    return {
        "camera": camera.name,
        "frame": seen.number,
        "at_s": round(passed_s, 2),
        **{name: round(value, 4) for name, value in asdict(sight).items()},
        "smooth": round(aim.sharpness, 4),
        "best": round(aim.best, 4),
        "light": light_word(sight.brightness, sight.bright),
        "hint": aim.hint(sight.brightness),
    }


def line(name: str, aim: Aim, seen: Sighting) -> str:
    """Say it in one line, where nothing can be drawn over."""
    light = light_word(seen.sight.brightness, seen.sight.bright)
    return (
        f"{name}  focus {aim.sharpness:.2f}  best {aim.best:.2f}  light {seen.sight.brightness:.0f} {light}"
        f"  {HINTS[aim.hint(seen.sight.brightness)]}"
    )


def screen(name: str, aim: Aim, seen: Sighting, passed_s: float, where: str, width: int) -> list[str]:
    """Lay the screen out for so many columns."""
    sight = seen.sight
    cells = max(10, width - 2)
    rate = aim.pictures / passed_s if passed_s > 1 else 0.0
    light = light_word(sight.brightness, sight.bright)
    return [
        f"{name}  {seen.width}x{seen.height}  {passed_s:.0f} s" + (f"  {rate:.1f}/s" if rate else ""),
        "",
        f"FOCUS  {aim.sharpness:4.2f}" + (f"   best {aim.best:4.2f}" if aim.best else ""),
        bar(aim.sharpness, aim.best, cells),
        bar(aim.sharpness, aim.best, cells),
        "",
        *_wrapped(HINTS[aim.hint(sight.brightness)], width),
        "",
        f"LIGHT  {sight.brightness:3.0f}    {light}",
        bar(sight.brightness / 255, 0.0, cells),
        f"black {sight.dark:.0%}   white {sight.bright:.0%}",
        "",
        f"from {where}; Ctrl-C ends",
    ]


def _wrapped(text: str, width: int) -> list[str]:
    """Two lines always, so that nothing jumps."""
    lines = textwrap.wrap(text, width)[:2]
    return [*lines, *[""] * (2 - len(lines))]


def draw(out: TextIO, lines: list[str], *, first: bool) -> None:
    """Draw over what stood there, without a flicker."""
    out.write((CLEAR if first else UP_AND_CLEAR) + "".join(f"{line}{TO_END}\n" for line in lines) + "\x1b[J")
    out.flush()


def _ending(camera: Camera, aim: Aim) -> str:
    if not aim.pictures:
        return "no picture came"
    lines = [f"{camera.name}: focus {aim.sharpness:.2f}, at best {aim.best:.2f}, of {aim.pictures} pictures"]
    if aim.best and aim.sharpness < 0.95 * aim.best:
        lines.append("it was sharper before: run this again and turn back to the mark")
    lines.append(f"when it is right, keep the picture: shelfwire-agent snap {camera.name} --commission")
    return "\n".join(lines)
