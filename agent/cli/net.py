"""Walk the ways to the broker and to the cloud's API, hop by hop, and say who mends the first hop that fails.

While sync runs, login and echo are taken from what it says: the broker lets a device in once. Without sync this logs in
for a moment as the device, and sends itself a word.

Exit code 0 when both ways are whole, 1 when something on them ends soon, 2 when one is broken.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict

from agent.checks import Context, exit_code, spoken
from agent.checks.network import judge
from agent.cli import net_text
from agent.cli.common import add_config, add_json, load_config, on_terminal
from agent.errors import Rejected
from agent.link import trace
from agent.link.hops import Way

WHOLE_S = 10.0
"""How long the walks may take: far networks are slow, and here nothing else waits."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument(
        "--limit", type=float, default=WHOLE_S, metavar="S", help="seconds for all (default %(default)g)"
    )
    add_config(parser)
    add_json(parser)


def run(options: argparse.Namespace) -> int:
    """Walk, print, and give the exit code."""
    config = load_config(options)
    if config.cloud.broker is None and config.cloud.api is None:
        raise Rejected("no-cloud", "neither broker nor API is configured", "enrol the device, or set [cloud] broker")
    context = Context(options.config, config)
    if on_terminal(sys.stderr):
        print("walking to the cloud ...", end="\r", file=sys.stderr, flush=True)
    ways = trace.walk(config, context.sync(), options.limit)
    found = list(judge(ways))
    if options.json:
        print(json.dumps(as_json(ways, spoken(found)), indent=2))
    else:
        print(net_text.write(ways, spoken(found), colour=on_terminal(sys.stdout)))
    return exit_code(found)


def as_json(ways: Sequence[Way], code: str) -> dict[str, object]:
    """Give the ways for programs. A hop that was not tried has ``ok`` null."""
    return {
        "schema": 1,
        "code": code,
        "ways": [
            {
                "target": way.target,
                "address": way.address,
                "whole": way.broken is None,
                "certificate_days_left": way.days_left,
                "clock_ahead_s": way.skew_s,
                "hops": [{**asdict(hop), "who": hop.who} for hop in way.hops],
            }
            for way in ways
        ],
    }
