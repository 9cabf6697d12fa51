"""Take what devices send into the store: validate, commit once, send receipts; and carry late answers to them.

Any number of these may run against one broker and one database; they share the work. Without --dsn the embedded
PostgreSQL in --data is used, which then belongs to this process; a second ingester, or one beside `serve`, is given
the DSN that the first one logs.
"""

import argparse
import json
import logging
from dataclasses import asdict, replace
from pathlib import Path

from prometheus_client import start_http_server

from cloud.cli import common
from cloud.courier import Courier
from cloud.errors import Broken, Rejected
from cloud.ingest import Ingest
from cloud.store import Store

log = logging.getLogger(__name__)

DEFAULT_DATA = Path("~/.local/share/shelfwire/cloud")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `ingest`."""
    common.add_broker(parser, required=True)
    parser.add_argument("--dsn", help="use this PostgreSQL, for example postgresql://user@host/database")
    parser.add_argument(
        "--data", type=Path, default=DEFAULT_DATA, metavar="DIR", help="folder of the embedded one (%(default)s)"
    )
    parser.add_argument("--metrics-port", type=int, metavar="N", help="serve Prometheus metrics on loopback")
    common.add_json(parser)
    common.add_logging(parser)


def run(options: argparse.Namespace) -> int:
    """Run ingest until a signal; gives 0. With --json, the store's counts are printed at the end."""
    common.start_logging(options, "ingest")
    broker = common.broker_options(options, "ingest")
    stop = common.Stop()
    stop.listen()
    store = Store.open(options.dsn, options.data)
    try:
        _serve_metrics(options.metrics_port)
        ingest = Ingest(store, broker, on_crash=stop.crashed)
        log.info("the store is %s", store.dsn if options.dsn is None else "open")
        courier = Courier(store, replace(broker, client_id=f"{broker.client_id}-courier"), on_crash=stop.crashed)
        ingest.start()
        courier.start()
        stop.wait()
        courier.stop()
        ingest.stop()
        if stop.crash is not None:
            raise Broken("ingest-crashed", f"ingest ended by a fault: {stop.crash!r}", "the log above says where")
        if options.json:
            print(json.dumps(asdict(store.counts())))
    finally:
        store.close()
    return 0


def _serve_metrics(port: int | None) -> None:
    if port is None:
        return
    try:
        start_http_server(port, addr="127.0.0.1")
    except (OSError, OverflowError) as error:
        raise Rejected("port-in-use", f"the metrics port {port} cannot be opened: {error}", "choose another") from error
