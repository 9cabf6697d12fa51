"""`shelfwire-cloud`: one file per command, each with its arguments and a `run`."""

import argparse
import importlib
import importlib.util
import json
import sys
from collections.abc import Sequence
from importlib.metadata import version

from cloud.cli.common import say_error
from cloud.errors import CloudError

COMMANDS = {
    "serve": "the pages, their API and, with a broker, ingest: all in one process",
    "ingest": "take what devices send into the store; start as many as you need",
    "function": "the serverless function on this machine: scales from zero, and meters what it would cost",
    "worker": "classify the pictures of asynchronous jobs; start as many as you need",
    "batch": "answer a day's frames again, shard by shard, and report what came of it",
    "fleet": "who belongs to the fleet: codes to enrol devices, their certificates, and shutting them out",
    "demo": "broker, store, cloud and one device with synthetic cameras on this machine",
}
"""Name and one line of help; the code is in the module of the same name."""


def make_parser(wanted: str | None = None) -> argparse.ArgumentParser:
    """Build the command line. Only the module of the command `wanted` is imported; None imports all of them."""
    parser = argparse.ArgumentParser(
        prog="shelfwire-cloud", description="Take what stores' devices send, keep it once, and show it."
    )
    parser.add_argument("--version", action="version", version=f"shelfwire-cloud {version('shelfwire')}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, text in COMMANDS.items():
        if importlib.util.find_spec(f"cloud.cli.{name}") is None:
            continue
        command = commands.add_parser(name, help=text)
        if wanted in (name, None):
            module = importlib.import_module(f"cloud.cli.{name}")
            command.description = module.__doc__
            module.add_arguments(command)
            command.set_defaults(run=module.run)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; gives the exit code: 0 fine, 1 ended by a fault, 2 wrong input, 3 try later, 4 broken."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    wanted = next((word for word in given if not word.startswith("-")), "")
    options = make_parser(wanted).parse_args(given)
    try:
        return int(options.run(options))
    except CloudError as error:
        if getattr(options, "json", False):
            print(json.dumps({"error": {"code": error.code, "message": str(error), "hint": error.hint}}))
        say_error(error.code, str(error), error.hint)
        return error.exit_code
    except BrokenPipeError:
        sys.stderr.close()
        return 0
    except KeyboardInterrupt:
        return 130
