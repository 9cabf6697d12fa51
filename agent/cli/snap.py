"""Take a picture of a camera with what is known of it written below: label, score, age, focus and exposure.

While vision runs it is vision's own next frame, else the camera is opened for it. Privacy zones are painted over.
With --commission it is also kept as the picture that focus and view are compared with from then on.
"""

import argparse
import json
import os
import sys
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from agent.camera.showing import Sighting, Wish
from agent.cli.common import add_config, add_json, load_config, say_error
from agent.cli.sightings import Request, camera_of, sightings
from agent.cli.status_text import duration
from agent.config import Camera, Config
from agent.core.aiming import light_word
from agent.core.records import moment
from agent.errors import Broken, Rejected, ShelfwireError
from agent.host.clock import SystemClock
from agent.store.outside import run_as

WIDTH = 1920
PACE_S = 0.2
COMMISSION_FOLDER = "commission"
UNTAKEN = 1
"""Exit code: of some cameras there was no picture."""


@dataclass(frozen=True, slots=True)
class Snap:
    """What was taken of one camera. `view` compares it with the picture of its commissioning, if there is one."""

    camera: Camera
    seen: Sighting
    age_s: float
    view: dict[str, float] | None
    troubles: tuple[tuple[str, str, str], ...]
    """Code, message and cure of each."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("camera", nargs="*", metavar="CAMERA", help="names in the configuration")
    parser.add_argument("--all", action="store_true", help="every camera")
    add_config(parser)
    parser.add_argument("-o", "--output", metavar="FILE", help="NAME.jpg, a folder, or - (default: this folder)")
    parser.add_argument("--plain", action="store_true", help="write nothing below the picture")
    parser.add_argument("--commission", action="store_true", help="keep it as the picture to compare with")
    parser.add_argument("--force", action="store_true", help="keep it although something is wrong with it")
    add_json(parser)


def run(options: argparse.Namespace) -> int:
    """Take the pictures; gives 0, or 1 when one could not be taken."""
    config = load_config(options)
    cameras = _cameras(config, options)
    target = _target(options, len(cameras))
    shown: list[dict[str, Any]] = []
    for camera in cameras:
        try:
            shown.append(_one(config, camera, options, target))
        except ShelfwireError as error:
            if len(cameras) == 1:
                raise
            shown.append({"camera": camera.name, "error": {"code": error.code, "message": str(error),
                                                            "hint": error.hint}})  # fmt: skip
            if not options.json:
                say_error(error.code, str(error), error.hint)
    if options.json:
        print(json.dumps({"pictures": shown}, indent=2), file=sys.stderr if target is None else sys.stdout)
    return UNTAKEN if any("error" in item for item in shown) else 0


def _cameras(config: Config, options: argparse.Namespace) -> list[Camera]:
    if options.all == bool(options.camera):
        known = ", ".join(camera.name for camera in config.camera) or "none"
        raise Rejected("which-camera", "it is not said which camera", f"name one, or --all; configured are: {known}")
    return list(config.camera) if options.all else [camera_of(config, name) for name in options.camera]


def _target(options: argparse.Namespace, pictures: int) -> Path | None:
    """Say before the work what will not do after it; None is standard output."""
    if options.output == "-":
        if sys.stdout.isatty() or pictures != 1:
            raise Rejected("bad-output", "one picture can go to a file or a program this way, not to a terminal",
                           "name one camera and add > FILE.jpg, or name a file with -o")  # fmt: skip
        return None
    path = Path(options.output or ".")
    if not path.is_dir() and (path.suffix.lower() not in (".jpg", ".jpeg", ".png") or pictures != 1):
        raise Rejected("bad-output", f"{path} is no folder" + ("" if pictures != 1 else " and no name of a picture"),
                       "write -o NAME.jpg, or -o FOLDER for several")  # fmt: skip
    folder = path if path.is_dir() else path.parent
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise Broken("output-folder", f"this user may not write to {folder}", "name another: -o /tmp, or -o - > FILE")
    return path


def _one(config: Config, camera: Camera, options: argparse.Namespace, target: Path | None) -> dict[str, Any]:
    snap = take(config, camera, options.config)
    kept = _commission(config, snap, force=options.force) if options.commission else None
    picture = snap.seen.jpeg if options.plain else _drawn(snap)
    file = _write(picture, target, snap)
    said = _as_json(snap, file, kept)
    if not options.json:
        print(_as_text(snap, file, kept), file=sys.stderr if target is None else sys.stdout)
    return said


def take(config: Config, camera: Camera, config_path: Path) -> Snap:
    """Take one picture of a camera and look at it. Raises why there is none."""
    request = Request(config, config_path, camera, Wish(WIDTH, PACE_S), classify=True)
    found = sightings(request)
    seen = next(found, None)
    found.close()  # type: ignore[attr-defined]  # ends the process or the wish behind it
    if seen is None:
        raise Rejected("camera-ended", f"camera {camera.name} gave no picture", "see its url in the configuration")
    age_s = max(0.0, (SystemClock().now().boot_ns - seen.captured_ns) / 1e9)
    return _judged(camera, seen, age_s, config.device.state_dir / COMMISSION_FOLDER / f"{camera.name}.jpg")


def _judged(camera: Camera, seen: Sighting, age_s: float, reference: Path) -> Snap:
    from agent.camera.sight import compare
    from agent.probe.picture import judge
    from models import PictureError, decode_picture

    picture = decode_picture(seen.jpeg)
    troubles = tuple(judge(camera, [picture], reference))
    try:
        view = asdict(compare(picture, decode_picture(reference.read_bytes()), camera.mask))
    except (OSError, PictureError):
        view = None
    return Snap(camera, seen, age_s, view, troubles)


def _commission(config: Config, snap: Snap, *, force: bool) -> Path:
    """Keep the picture, without anything written on it, and what was measured, for the group to read."""
    bad = [(code, text) for code, text, _ in snap.troubles if code not in ("camera-moved", "camera-blurred")]
    if bad and not force:
        raise Rejected("commission-bad", f"camera {snap.camera.name}: {bad[0][1]} [{bad[0][0]}]",
                       "mend that and take it again; --force keeps it as it is")  # fmt: skip
    folder = config.device.state_dir / COMMISSION_FOLDER
    path = folder / f"{snap.camera.name}.jpg"
    measured = {**_measured(snap), "agent": version("shelfwire"), "clock": SystemClock().trust(),
                "zones": len(snap.camera.mask)}  # fmt: skip
    try:
        if not folder.is_dir():
            folder.mkdir()
            folder.chmod(0o750)  # whatever this user's mask is
        _replace(path.with_suffix(".json"), (json.dumps(measured, indent=2) + "\n").encode(), 0o640)
        _replace(path, snap.seen.jpeg, 0o640)
    except PermissionError:
        raise Broken("commission-permission", f"this user may not write to {folder}", run_as(folder.parent)) from None
    except OSError as error:
        raise Broken("commission-failed", f"{path} cannot be written: {error.strerror}", "free disk space") from None
    return path


def _replace(path: Path, content: bytes, mode: int) -> None:
    """Write a file whole or not at all, owned by whom the folder belongs to."""
    fresh = path.with_name(f".{path.name}.new")
    file = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(file, "wb") as stream:
        stream.write(content)
        os.fchmod(stream.fileno(), mode)
        if os.geteuid() == 0:
            owner = path.parent.parent.stat()
            os.fchown(stream.fileno(), owner.st_uid, owner.st_gid)
            os.chown(path.parent, owner.st_uid, owner.st_gid)
        stream.flush()
        os.fsync(stream.fileno())
    fresh.replace(path)


def _drawn(snap: Snap) -> bytes:
    from agent.camera.encode import to_jpeg
    from agent.camera.overlay import overlaid
    from models import decode_picture

    picture = overlaid(decode_picture(snap.seen.jpeg), _lines(snap), snap.camera.mask)
    return to_jpeg(picture, 90, 2 * WIDTH)[0]


def _lines(snap: Snap) -> list[str]:
    """What stands below the picture, for people."""
    seen, sight = snap.seen, snap.seen.sight
    when = moment(seen.captured_wall_ns)[:19]
    light = f"{sight.brightness:.0f} {light_word(sight.brightness, sight.bright)}"
    answer = "not classified" if seen.label is None else seen.label + (f" ({seen.state})" if seen.state else "")
    scores = ", ".join(f"{label} {score:.2f}" for label, score in seen.top)
    lines = [
        f"{snap.camera.name}   {when}Z   {snap.age_s:.1f} s old   {seen.width}x{seen.height}",
        answer + (f"   frame {seen.number}: {scores}" if scores else ""),
        f"focus {sight.sharpness:.2f}   light {light}   black {sight.dark:.0%}   white {sight.bright:.0%}",
    ]
    if snap.view is not None:
        lines.append(f"against commissioning: shifted {snap.view['shift']:.1%}, {snap.view['overlap']:.0%} found again")
    return [*lines, *(f"{text} [{code}]; {cure}" for code, text, cure in snap.troubles)]


def _write(picture: bytes, target: Path | None, snap: Snap) -> str:
    """Write the picture for this user alone; gives its name."""
    if target is None:
        sys.stdout.buffer.write(picture)
        sys.stdout.buffer.flush()
        return "-"
    when = datetime.fromtimestamp(snap.seen.captured_wall_ns / 1e9, UTC).strftime("%Y%m%dT%H%M%SZ")
    path = target / f"{snap.camera.name}-{when}.jpg" if target.is_dir() else target
    if path.suffix.lower() == ".png":
        picture = _as_png(picture)
    try:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(file, "wb") as stream:
            stream.write(picture)
    except OSError as error:
        raise Broken("output-failed", f"{path} cannot be written: {error.strerror}", "name another with -o") from None
    return str(path)


def _as_png(jpeg: bytes) -> bytes:
    from models import decode_picture

    import cv2  # isort: skip

    return bytes(cv2.imencode(".png", decode_picture(jpeg))[1].tobytes())


def _measured(snap: Snap) -> dict[str, Any]:
    seen = snap.seen
    return {
        "camera": snap.camera.name,
        "captured_at": moment(seen.captured_wall_ns),
        "width": seen.width,
        "height": seen.height,
        "sight": {name: round(value, 4) for name, value in asdict(seen.sight).items()},
        "label": seen.label,
        "state": seen.state or None,
        "labels": [{"label": label, "score": round(score, 4)} for label, score in seen.top],
    }


def _as_json(snap: Snap, file: str, kept: Path | None) -> dict[str, Any]:
    return {
        **_measured(snap),
        "age_s": round(snap.age_s, 3),
        "view": snap.view,
        "troubles": [{"code": code, "message": text, "hint": cure} for code, text, cure in snap.troubles],
        "file": file,
        "commissioned": str(kept) if kept else None,
    }


def _as_text(snap: Snap, file: str, kept: Path | None) -> str:
    lines = [f"{line}" if n == 0 else f"  {line}" for n, line in enumerate(_lines(snap))]
    lines.insert(1, f"  taken {duration(snap.age_s)} ago, in {'standard output' if file == '-' else file}")
    if kept is not None:
        lines.append(f"  kept as the picture to compare with: {kept}")
    return "\n".join(lines)
