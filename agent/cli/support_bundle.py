"""Pack what support needs to know of this device into one file, without passwords, keys or tokens.

It works with a broken configuration and with the daemons dead. On a full disk send it elsewhere: `-o -` writes to
standard output, as in `ssh DEVICE sudo shelfwire-agent support-bundle -o - > bundle.tar.gz`.
"""

import argparse
import json
import os
import re
import sys
import time
import tomllib
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from agent import config
from agent.cli.common import add_config, add_json
from agent.cli.status_text import size
from agent.config import Device
from agent.errors import Broken, Rejected, ShelfwireError
from agent.support.bundle import Bundle, pack
from agent.support.collect import Wanted, collect, tasks
from agent.support.redact import Redactor
from agent.support.secrets import gather

UNITS = {"s": "seconds", "min": "minutes", "h": "hours", "d": "days"}
SUFFIX = ".tar.gz"
PICTURES_WARNING = "the bundle holds pictures of the shop: see that whoever gets it may have them"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_config(parser)
    parser.add_argument("-o", "--output", metavar="FILE", help="NAME.tar.gz, a folder, or - (default: this folder)")
    parser.add_argument("--since", default="24h", metavar="TIME", help="journal from so long ago: 90min, 24h, 3d")
    parser.add_argument("--pictures", action="store_true", help="the cameras' last pictures too: ask the shop first")
    parser.add_argument("--log", action="append", default=[], type=Path, metavar="FILE", help="this log file too")
    parser.add_argument("--hide-addresses", action="store_true", help="IP and MAC addresses get other names")
    parser.add_argument("--at", metavar="TIME", help="date it with this time, as 2026-01-31T12:00:00Z, for a test")
    add_json(parser)


def run(options: argparse.Namespace) -> int:
    """Build the bundle and write it; gives 0."""
    at_s = _read_at(options.at)
    since = _read_since(options.since)
    target = _check_target(options.output)
    device, trouble = _device(options.config)
    if options.pictures:
        print(f"note: {PICTURES_WARNING}", file=sys.stderr)
    bundle = build(options, device, since, at_s, trouble)
    path = _write(bundle, target, device.id if device else "device", at_s)
    if options.json:
        left_out = [{"part": name, "reason": reason} for name, reason in bundle.left_out]
        shown = {"marker": bundle.marker, "file": path, "bytes": len(bundle.content), "redacted": bundle.redacted,
                 "members": bundle.members, "left_out": left_out}  # fmt: skip
        print(json.dumps(shown, indent=2), file=sys.stderr if path == "-" else sys.stdout)
    else:
        print(_as_text(bundle, path), file=sys.stderr if path == "-" else sys.stdout)
    return 0


def build(options: argparse.Namespace, device: Device | None, since: str, at_s: int, trouble: str) -> Bundle:
    """Gather the secrets, collect, redact, pack."""
    from agent.cli import COMMANDS

    state_dirs = [device.state_dir] if device else []
    secrets = gather(options.config, state_dirs, os.environ)
    wanted = Wanted(
        options.config,
        device.state_dir if device else None,
        device.runtime_dir if device else None,
        since,
        COMMANDS,
        options.pictures,
        options.log,
    )
    began_s = time.monotonic()
    parts = collect(tasks(wanted))
    about = {
        "format": 1,
        "at": datetime.fromtimestamp(at_s, UTC).isoformat().replace("+00:00", "Z"),
        "took_s": 0.0 if options.at else round(time.monotonic() - began_s, 1),
        "device": device.id if device else None,
        "store": device.store if device else None,
        "agent": version("shelfwire"),
        "config": str(options.config),
        "config_trouble": trouble,
        "journal_since": options.since,
        "secrets_known": len(secrets),
        "secrets_too_short_to_look_for": secrets.too_short,
    }
    return pack(parts, Redactor(secrets, hide_addresses=options.hide_addresses), at_s, about)


def _device(path: Path) -> tuple[Device | None, str]:
    """Tell where this device keeps its files, also from a configuration with mistakes; and what they are."""
    try:
        return config.load(path).device, ""
    except ShelfwireError as error:
        trouble = str(error)
    try:
        raw = tomllib.loads(path.read_text("utf-8", "replace")).get("device", {})
    except (OSError, tomllib.TOMLDecodeError):
        raw = {}
    table = raw if isinstance(raw, dict) else {}
    folders = {key: value for key, value in table.items() if key in ("state_dir", "runtime_dir", "store")}
    try:
        return Device(id=str(table.get("id", "device")), **folders), trouble
    except ValueError:
        return Device(id="device"), trouble


def _read_at(text: str | None) -> int:
    if text is None:
        return int(time.time())
    try:
        return int(datetime.fromisoformat(text).timestamp())
    except ValueError:
        raise Rejected("bad-time", f'"{text}" is no time', "write it as 2026-01-31T12:00:00Z") from None


def _read_since(text: str) -> str:
    """Give the time as journalctl takes it."""
    match = re.fullmatch(r"(\d{1,4})\s*(s|min|h|d)", text)
    if match is None:
        raise Rejected("bad-since", f'"{text}" is no span of time', "write it as 90min, 24h or 3d")
    return f"{match[1]} {UNITS[match[2]]} ago"


def _check_target(output: str | None) -> Path | None:
    """Say before the work what will not do after it; None is standard output."""
    if output == "-":
        if sys.stdout.isatty():
            raise Rejected("terminal", "the bundle is no text for a terminal", "add > bundle.tar.gz, or name a file")
        return None
    path = Path(output or ".")
    if not path.is_dir() and not path.name.endswith((SUFFIX, ".tgz")):
        raise Rejected("bad-output", f"{path} is neither a folder nor a name that ends in {SUFFIX}",
                       f"write -o NAME{SUFFIX}, -o FOLDER or -o -")  # fmt: skip
    folder = path if path.is_dir() else path.parent
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise Broken("output-folder", f"this user may not write to {folder}", "name another: -o /tmp, or -o - > FILE")
    return path


def _write(bundle: Bundle, target: Path | None, device: str, at_s: int) -> str:
    """Write the file for this user alone, whole or not at all; gives its name."""
    if target is None:
        sys.stdout.buffer.write(bundle.content)
        sys.stdout.buffer.flush()
        return "-"
    when = datetime.fromtimestamp(at_s, UTC).strftime("%Y%m%dT%H%M%SZ")
    name = f"shelfwire-{re.sub(r'[^A-Za-z0-9_.-]', '-', device)}-{when}-{bundle.marker}{SUFFIX}"
    path = target / name if target.is_dir() else target
    fresh = path.with_name(f".{path.name}.part")
    try:
        try:
            file = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            with os.fdopen(file, "wb") as stream:
                stream.write(bundle.content)
            fresh.replace(path)
        finally:
            fresh.unlink(missing_ok=True)
    except OSError as error:
        cure = "free disk space, name another place with -o, or send it elsewhere: -o - > FILE"
        raise Broken("output-failed", f"{path} cannot be written: {error.strerror}", cure) from None
    return str(path)


def _as_text(bundle: Bundle, path: str) -> str:
    taken = ", ".join(f"{n:,} {how}" for how, n in bundle.redacted.items()) or "none found"
    lines = [
        f"marker    {bundle.marker}   (read this out, or write it into the ticket)",
        f"file      {'standard output' if path == '-' else path}, {size(len(bundle.content))}",
        f"redacted  {taken}",
        f"holds     {len(bundle.members)} parts; README.txt in it says what they are",
    ]
    lines += [f"left out  {name}: {reason}" for name, reason in bundle.left_out]
    return "\n".join(lines)
