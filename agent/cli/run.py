"""Run vision and sync together in the foreground, each started anew when it dies; Ctrl-C stops both in order.

Without a broker in the configuration only vision runs, and everything is kept.
"""

import argparse

from agent.app import Stop
from agent.app.both import run_both
from agent.cli.common import add_config, add_logging, load_config, start_logging
from agent.config import Config
from agent.store.inspect import look


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_config(parser)
    add_logging(parser)
    parser.add_argument(
        "--drain",
        type=float,
        default=0,
        metavar="S",
        help="at the stop, wait this long until all is sent that may leave",
    )


def run(options: argparse.Namespace) -> int:
    """Run until stopped."""
    config = load_config(options)
    start_logging(options, "run")
    stop = Stop()
    stop.listen()
    arguments = ["--config", str(options.config)]
    arguments += ["--verbose"] if options.verbose else []
    arguments += ["--json"] if options.json else []
    roles = ("vision", "sync") if config.cloud.broker else ("vision",)
    return run_both(arguments, stop, roles, lambda: may_leave(config), options.drain)


def may_leave(config: Config) -> int:
    """Count what waits and can leave: pictures that may not are no reason to stay."""
    snapshot = look(config.device.state_dir)
    return snapshot.waiting if config.frames_may_leave else snapshot.waiting - snapshot.waiting_frames
