"""Read the cameras, classify, decide, and keep every answer in the outbox, until stopped."""

import argparse
from functools import partial

from agent.app import Stop
from agent.cli.common import add_config, add_logging, load_config, start_logging
from agent.host import heap


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_config(parser)
    add_logging(parser)
    parser.add_argument("--exit-when-done", action="store_true", help="end when every file and folder has been read")


def run(options: argparse.Namespace) -> int:
    """Run until stopped."""
    heap.share()  # before the first import that starts threads
    stop = Stop()
    stop.listen()
    from agent.app.vision import run_vision

    config = load_config(options)
    start_logging(options, "vision")
    return run_vision(config, stop, partial(load_config, options), exit_when_done=options.exit_when_done)
