"""What several commands share: the configuration option, logging, errors that name the cure."""

import argparse
import faulthandler
import json
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO, get_args

from agent import config
from agent.config import Config
from models.setup import Device, Note, Precision, Preprocess, Runtime, Setup

DEFAULT_CONFIG = Path("/etc/shelfwire/shelfwire.toml")


def add_config(parser: argparse.ArgumentParser) -> None:
    """Add `--config`."""
    parser.add_argument(
        "-c",
        "--config",
        type=Path,
        default=Path(os.environ.get("SHELFWIRE_CONFIG", DEFAULT_CONFIG)),
        metavar="FILE",
        help="configuration (default: $SHELFWIRE_CONFIG, else %(default)s)",
    )


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add `--json`."""
    parser.add_argument("--json", action="store_true", help="print JSON for programs")


def add_setup(parser: argparse.ArgumentParser) -> None:
    """Add the options that say how a model is run. See `setup_from`."""
    parser.add_argument("--runtime", default="auto", choices=get_args(Runtime))
    parser.add_argument("--device", default="auto", choices=get_args(Device), help="accelerator (default: auto, cpu)")
    parser.add_argument("--precision", default="auto", choices=get_args(Precision), help="default: auto, fp32")
    parser.add_argument("--preprocess", default="auto", choices=get_args(Preprocess), help="where colour and scale go")


def setup_from(options: argparse.Namespace) -> Setup:
    """Give what the options of `add_setup` say."""
    return Setup(options.runtime, options.device, options.precision, 0, options.preprocess)


def say_notes(notes: Sequence[Note]) -> None:
    """Warn on standard error of everything in which a model runs otherwise than was asked for."""
    for note in notes:
        print(f"warning: {note.message} [{note.code}]\n  cure: {note.hint}", file=sys.stderr)


def add_logging(parser: argparse.ArgumentParser) -> None:
    """Add `--verbose` and, for commands that go on until they are stopped, `--json`: what they say is their log."""
    parser.add_argument("-v", "--verbose", action="store_true", help="log more")
    parser.add_argument("--json", action="store_true", help="log one JSON object per line")


def load_config(options: argparse.Namespace, ordered: str | None = None) -> Config:
    """Load the configuration that the options name, with other ordered settings than those in force if given."""
    return config.load(options.config, ordered=ordered)


class _JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "thread": record.threadName,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)


class _Journal(logging.Formatter):
    """Says how serious each line is, so that ``journalctl -p err`` finds it (sd-daemon(3))."""

    def format(self, record: logging.LogRecord) -> str:
        level = 3 if record.levelno >= logging.ERROR else 4 if record.levelno >= logging.WARNING else 6
        return "\n".join(f"<{level}>{line}" for line in super().format(record).splitlines())


def start_logging(options: argparse.Namespace, role: str) -> None:
    """Log to standard error; the service manager adds the time there, a terminal needs it.

    A process that is aborted, as by the watchdog, says there where each of its threads stood.
    """
    faulthandler.enable(2)  # by number: what stands for standard error may be no file
    stream = logging.StreamHandler(sys.stderr)
    if options.json:
        stream.setFormatter(_JsonLines())
    elif "JOURNAL_STREAM" in os.environ:
        stream.setFormatter(_Journal("%(levelname)s: %(message)s"))
    else:
        stream.setFormatter(logging.Formatter(f"%(asctime)s {role:<6} %(levelname)-7s %(message)s", "%H:%M:%S"))
    logging.basicConfig(level=logging.DEBUG if options.verbose else logging.INFO, handlers=[stream], force=True)


def say_error(code: str, message: str, hint: str) -> None:
    """Print an error and its cure for a person."""
    text = f"error: {message} [{code}]"
    if hint:
        text += f"\n  cure: {hint}"
    if "JOURNAL_STREAM" in os.environ:
        text = "\n".join(f"<3>{line}" for line in text.splitlines())
    print(text, file=sys.stderr)


def on_terminal(stream: TextIO) -> bool:
    """Whether a person watches, who may be shown colours and progress (https://no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def paint(text: str, style: str, *, colour: bool) -> str:
    """Colour a text by an ANSI style, where colours are wanted."""
    return f"\x1b[{style}m{text}\x1b[0m" if colour else text


def table(rows: Sequence[tuple[str, ...]]) -> str:
    """Line up columns, two spaces apart; the last one is not padded."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]) - 1)]
    return "\n".join(
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]]).rstrip()
        for row in rows
    )
