"""`shelfwire-agent`: one file per command, each with its arguments and a `run`."""

import argparse
import importlib
import json
import sys
from importlib.metadata import version

from agent.cli.common import say_error
from agent.errors import ShelfwireError
from agent.host.notify import Notifier

COMMANDS = {
    "run": "vision and sync together in the foreground",
    "vision": "cameras -> classify -> outbox",
    "sync": "outbox -> cloud",
    "nightly": "seal the day's pictures into files for the cloud",
    "submit": "give pictures to the cloud for an answer",
    "classify": "classify pictures, once",
    "evaluate": "how good a bundle is on labelled pictures",
    "snap": "take a picture of a camera, with what is known of it",
    "aim": "focus and exposure of a camera, live",
    "outbox": "look into the outbox: list, show, retry, bury, export, check",
    "model": "the models of this device: list, test, rollback, pin, update by hand",
    "bench": "measure on this device: the fastest setup of a model, or how many cameras it holds",
    "support-bundle": "one file for support, without secrets",
    "status": "what this device is doing, on one screen",
    "doctor": "look at everything that can be wrong, within 10 seconds",
    "net": "walk the way to the cloud, hop by hop",
    "enroll": "make this device a member of the fleet, by a one-time code",
    "config": "check, show or explain the configuration",
}
"""Name and one line of help; the code is in the module of the same name."""


def make_parser(only: str | None = None) -> argparse.ArgumentParser:
    """Build the command line of all commands.

    With `only`, the arguments of that command alone: what the others import takes time and, for those that run for
    long or on little memory, 100 MB.
    """
    parser = argparse.ArgumentParser(
        prog="shelfwire-agent", description="Classify what a store's cameras see, and get every answer to the cloud."
    )
    parser.add_argument("--version", action="version", version=f"shelfwire-agent {version('shelfwire')}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, text in COMMANDS.items():
        if only in COMMANDS and name != only:
            commands.add_parser(name, help=text)
            continue
        module = importlib.import_module(f"agent.cli.{name.replace('-', '_')}")
        command = commands.add_parser(name, help=text, description=module.__doc__)
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run one command; gives the exit code: 0 fine, 1 ended by a fault, 2 wrong input, 3 try later, 4 broken."""
    words = sys.argv[1:] if arguments is None else arguments
    options = make_parser(words[0] if words else None).parse_args(words)
    try:
        return int(options.run(options))
    except ShelfwireError as error:
        if getattr(options, "json", False):
            print(json.dumps({"error": {"code": error.code, "message": str(error), "hint": error.hint}}))
        say_error(error.code, str(error), error.hint)
        # systemd shows it for as long as the service has not started again.
        Notifier.from_environment().status(f"{error} [{error.code}]; cure: {error.hint}")
        return error.exit_code
    except BrokenPipeError:
        sys.stderr.close()
        return 0
    except KeyboardInterrupt:
        return 130
