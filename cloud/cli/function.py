"""Run the serverless function on this machine: workers from none to --concurrency, and a meter of what it would cost.

POST a picture to the address that is printed; /meter says what the calls have cost so far. Only this machine is served.
"""

import argparse
import json
import logging

from cloud.cli import common
from cloud.errors import Rejected
from cloud.function.host import serve
from cloud.function.pool import Options
from cloud.listening import Address, listen

log = logging.getLogger(__name__)

USUAL_PORT = 9000
MOST_CONCURRENCY = 64
LEAST_MEMORY_MB, MOST_MEMORY_MB = 128, 10_240
"""What AWS Lambda allows."""
MOST_TIMEOUT_S = 900.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `function`."""
    usual = Options()
    parser.add_argument("--host", default="127.0.0.1", help="loopback address to listen on (%(default)s)")
    parser.add_argument("--port", type=int, default=USUAL_PORT, help="port, 0 for a free one (%(default)s)")
    parser.add_argument(
        "--concurrency", type=int, default=usual.concurrency, metavar="N", help="most workers (%(default)s)"
    )
    parser.add_argument(
        "--idle", type=float, default=usual.idle_s, metavar="S", help="stop a worker without calls after (%(default)s)"
    )
    parser.add_argument(
        "--timeout", type=float, default=usual.timeout_s, metavar="S", help="a call may take (%(default)s)"
    )
    parser.add_argument(
        "--memory-mb", type=int, default=usual.memory_mb, metavar="M", help="memory to bill (%(default)s)"
    )
    common.add_json(parser)
    common.add_logging(parser)


def run(options: argparse.Namespace) -> int:
    """Serve until a signal; gives 0. With --json: one object with `url` when ready, one with the meter at the end."""
    common.start_logging(options, "function")
    logging.getLogger("uvicorn.error").setLevel(logging.INFO if options.verbose else logging.WARNING)
    logging.getLogger("asyncio").setLevel(logging.WARNING)
    wanted = _checked(options)
    stop = common.Stop()
    stop.listen()
    opened, address = listen(Address(options.host, options.port))

    def ready() -> None:
        log.info("serving %s with up to %d workers", address.url, wanted.concurrency)
        if options.json:
            print(json.dumps({"url": address.url, "port": address.port}), flush=True)
        else:
            print(
                f"\n  POST a picture to {address.url}; the bill is at {address.url}meter. Ctrl-C stops.\n", flush=True
            )

    shown = serve(wanted, opened, on_ready=ready, stop=stop.event.is_set)
    if options.json:
        print(json.dumps({"meter": {name: value for name, value in shown.items() if name != "calls"}}), flush=True)
    return 0


def _checked(options: argparse.Namespace) -> Options:
    bounds = (
        ("--concurrency", options.concurrency, 1, MOST_CONCURRENCY),
        ("--idle", options.idle, 0.1, 86_400.0),
        ("--timeout", options.timeout, 0.1, MOST_TIMEOUT_S),
        ("--memory-mb", options.memory_mb, LEAST_MEMORY_MB, MOST_MEMORY_MB),
    )
    for name, value, least, most in bounds:
        if not least <= value <= most:
            raise Rejected("function-option", f"{name} {value} is out of bounds", f"choose {least} to {most}")
    return Options(
        concurrency=options.concurrency,
        idle_s=options.idle,
        timeout_s=options.timeout,
        memory_mb=options.memory_mb,
    )
