"""Run everything on this machine: broker, PostgreSQL, cloud, and one device with four rendered cameras.

Without options it runs until Ctrl-C. With --seconds it ends by itself, waits until every frame has its answer, and says
what both sides counted. All four ways to an answer are there: --overload shows the function and the night take what the
device cannot, --night closes the day now.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

from cloud.cli.common import Stop
from cloud.demo import Demo, Options, closing
from cloud.demo.child import LOOK_EVERY_S
from cloud.demo.device import Sights
from cloud.errors import Rejected

SAY_EVERY_S = 5.0
NIGHT_AFTER_S = 20.0
MOST_DEVICES = 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("--frames", type=Path, metavar="DIR", help="show the pictures of a folder instead")
    parser.add_argument("--camera", action="append", default=[], metavar="URL", help="a real camera: rtsp://, http://, "
                        "/dev/videoN or a video file; may be given several times")  # fmt: skip
    parser.add_argument("--rate", type=float, metavar="FPS", help="frames per second and camera (5; 2 with --frames)")
    parser.add_argument(
        "--overload", type=float, metavar="X", help="give the device X times the frames that it can take"
    )
    parser.add_argument("--night", action="store_true", help="close the day now and have the batch score it: after "
                        f"{NIGHT_AFTER_S:.0f} s, or at the end with --seconds")  # fmt: skip
    parser.add_argument("--tls", action="store_true", help="TLS everywhere, and devices that are enrolled by codes")
    parser.add_argument(
        "--devices", type=int, default=1, metavar="N", help="so many devices, and models to roll out to them (1)"
    )
    parser.add_argument("--port", type=int, metavar="PORT", help="port of the page (8000, or a free one)")
    parser.add_argument("--seconds", type=float, metavar="S", help="end after this time, and count")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep everything in this folder and go on there")
    parser.add_argument("--json", action="store_true", help="print one JSON object at the end, all else on stderr")


def run(options: argparse.Namespace) -> int:
    """Run the demo."""
    _check(options)
    stop = Stop()
    stop.listen()
    folder = options.keep or Path(tempfile.mkdtemp(prefix="shelfwire-demo-"))
    sights = Sights(options.frames, tuple(options.camera), options.rate, options.overload)
    demo = Demo(Options(folder, options.port, sights, options.tls, options.devices))
    counted = None
    try:
        demo.start(_say)
        _print_addresses(demo)
        _watch(demo, stop, options.seconds, night=options.night)
        counted = demo.finish(_say, night=options.night and options.seconds is not None)
    finally:
        _say("stopping everything")
        demo.stop()
        if options.keep is None:
            demo.remove()
    if options.json:
        print(json.dumps(counted))
    else:
        print(closing.told(counted))
    return 0 if options.keep is not None or closing.lost(counted) == 0 else 1


def _check(options: argparse.Namespace) -> None:
    if options.frames is not None and not options.frames.is_dir():
        raise Rejected("demo-frames", f"there is no folder {options.frames}", "name a folder with pictures")
    if options.frames is not None and options.camera:
        raise Rejected("demo-sources", "--frames and --camera do not go together", "give one of them")
    if options.seconds is not None and options.seconds <= 0:
        raise Rejected("demo-seconds", "--seconds must be more than 0", "for example --seconds 30")
    if options.overload is not None:
        if options.frames is not None or options.camera or options.rate is not None:
            raise Rejected("demo-sources", "--overload chooses cameras and rate itself", "leave the others out")
        if not 0.1 <= options.overload <= 10:
            raise Rejected("demo-overload", "--overload must lie between 0.1 and 10", "for example --overload 4")
    if not 1 <= options.devices <= MOST_DEVICES:
        raise Rejected("demo-devices", f"--devices must lie between 1 and {MOST_DEVICES}", "for example --devices 3")
    if options.rate is not None and not 0 < options.rate <= 120:
        raise Rejected("demo-rate", "--rate must lie between 0 and 120", "for example --rate 5")


def _watch(demo: Demo, stop: Stop, seconds: float | None, *, night: bool) -> None:
    """Look after the processes until it is time; without an end, `night` falls once in between."""
    began_s = time.monotonic()
    night_s = began_s + NIGHT_AFTER_S if night and seconds is None else None
    said_s = began_s
    while not stop.event.wait(LOOK_EVERY_S):
        demo.look_after()
        now_s = time.monotonic()
        if seconds is not None and now_s - began_s >= seconds:
            return
        if night_s is not None and now_s >= night_s:
            night_s = None
            demo.night(_say)
        if now_s - said_s >= SAY_EVERY_S:
            said_s = now_s
            _say_progress(f"{now_s - began_s:4.0f} s: {demo.progress()}")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _say_progress(text: str) -> None:
    """One line that moves on a terminal; a line each elsewhere."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)
    else:
        _say(text)


def _print_addresses(demo: Demo) -> None:
    _say("")
    _say(f"  Open {demo.url} in a browser. Ctrl-C stops everything.")
    _say("")
    for name, text in demo.addresses().items():
        _say(f"  {name:<8} {text}")
    _say("")
