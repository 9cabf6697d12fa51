"""Send what the outbox holds to the cloud and take its receipts, until stopped."""

import argparse
from functools import partial

from agent.app import Stop
from agent.cli.common import add_config, add_logging, load_config, start_logging
from agent.host import heap


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_config(parser)
    add_logging(parser)


def run(options: argparse.Namespace) -> int:
    """Run until stopped."""
    heap.share()  # before the first import that starts threads
    stop = Stop()
    stop.listen()
    from agent.app.sync import run_sync

    config = load_config(options)
    start_logging(options, "sync")
    return run_sync(config, stop, partial(load_config, options))
