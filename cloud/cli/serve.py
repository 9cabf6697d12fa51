"""Serve the Live page and its API and, with --broker, take in what devices send and carry late answers to them: the
whole cloud in one process.

Without --dsn the embedded PostgreSQL in --data is started and belongs to this process. The pages are for this machine
alone: there are no accounts yet. With --device-port devices come in over TLS, each by its certificate; see
docs/enrolment.md.
"""

import argparse
import json
import logging
import random
import sys
from contextlib import ExitStack
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

from cloud.cli import common, common_fleet
from cloud.courier import Courier
from cloud.errors import Broken, Rejected
from cloud.gateway import Function
from cloud.ingest import Ingest
from cloud.repository.folder import RepositoryFolder
from cloud.repository.resigning import Resigner
from cloud.rollout.conductor import Conductor
from cloud.store import Store
from cloud.store.read import Reader
from cloud.web import Address, Hub, create_app, listen, serve, version_of_pages, wall_clock

log = logging.getLogger(__name__)

DEFAULT_DATA = Path("~/.local/share/shelfwire/cloud")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `serve`."""
    parser.add_argument("--host", default="127.0.0.1", help="loopback address to listen on (%(default)s)")
    parser.add_argument("--port", type=int, default=8000, help="port to listen on, 0 for a free one (%(default)s)")
    parser.add_argument("--dsn", help="use this PostgreSQL, for example postgresql://user@host/database")
    parser.add_argument(
        "--data", type=Path, default=DEFAULT_DATA, metavar="DIR", help="folder of the embedded one (%(default)s)"
    )
    common.add_objects(parser)
    common.add_broker(parser, required=False)
    parser.add_argument(
        "--function", metavar="URL", help="answer what devices ask about at once by this function (its URL)"
    )
    common_fleet.add_device_port(parser)
    parser.add_argument("--no-ingest", action="store_true", help="take nothing in, even with --broker")
    common.add_json(parser)
    common.add_logging(parser)


def run(options: argparse.Namespace) -> int:
    """Serve until a signal; gives 0. With --json, one object with `url`, `port`, `dsn`, `ingest` says it is ready, and
    with a port for devices `device_url`."""
    common.start_logging(options, "serve")
    logging.getLogger("uvicorn.error").setLevel(logging.INFO if options.verbose else logging.WARNING)
    ingests = options.broker is not None and not options.no_ingest
    if not ingests and options.password_file is not None and options.broker is None:
        raise Rejected(
            "broker-missing", "--password-file without --broker does nothing", "name the broker with --broker"
        )
    broker = common.broker_options(options, "serve") if options.broker is not None else None
    function = Function(options.function) if options.function is not None else None
    port_for_devices = common_fleet.port_for_devices(options)
    stop = common.Stop()
    stop.listen()
    with ExitStack() as stack:
        opened, address = listen(Address(options.host, options.port))
        stack.callback(opened.close)
        store = Store.open(options.dsn, options.data)
        stack.callback(store.close)
        if broker is not None and ingests:
            ingest = Ingest(store, broker, on_crash=stop.crashed)
            ingest.start()
            stack.callback(ingest.stop)
        if broker is not None:
            courier = Courier(store, replace(broker, client_id=f"{broker.client_id}-courier"), on_crash=stop.crashed)
            courier.start()
            stack.callback(courier.stop)
            conductor = Conductor(
                store, replace(broker, client_id=f"{broker.client_id}-conductor"), on_crash=stop.crashed
            )
            conductor.start()
            stack.callback(conductor.stop)
        pages_version = version_of_pages(version("shelfwire"))
        reader = Reader(store.pool)
        hub = Hub(reader, store.dsn, now=wall_clock, rng=random.Random(), version=pages_version)  # noqa: S311
        objects = common.objects_of(options)
        models = RepositoryFolder.of_cloud(options.data)
        resigner = Resigner(models)
        resigner.start()
        stack.callback(resigner.stop)
        app = create_app(
            reader, hub=hub, pages_version=pages_version, objects=objects, function=function, models=models
        )
        devices = None
        if port_for_devices is not None:
            devices = port_for_devices.open(store, app, stack)
            port_for_devices.keep_broker(store, broker, stack, on_crash=stop.crashed)
        ready = _Ready(options, address, store.dsn, ingests, port_for_devices)
        serve(app, hub, opened, on_ready=ready.say, stop=stop.event.is_set, devices=devices)
        log.info("stopping")
    if stop.crash is not None:
        raise Broken("ingest-crashed", f"ingest ended by a fault: {stop.crash!r}", "the log above says where")
    return 0


class _Ready:
    """Says where the page is, once it answers."""

    def __init__(
        self,
        options: argparse.Namespace,
        address: Address,
        dsn: str,
        ingests: bool,
        devices: common_fleet.PortForDevices | None,
    ) -> None:
        self._options = options
        self._address = address
        self._dsn = dsn
        self._ingests = ingests
        self._devices = devices

    def say(self) -> None:
        """Print the address, for a person or for a program."""
        log.info("serving %s", self._address.url)
        log.info("%s", "taking in what devices send" if self._ingests else "taking nothing in: no --broker")
        if self._devices is not None:
            log.info("devices come in at %s, as %s", self._devices.url, self._devices.hosts)
        if self._options.json:
            told = {"url": self._address.url, "port": self._address.port, "dsn": self._dsn, "ingest": self._ingests}
            if self._devices is not None:
                told["device_url"] = self._devices.url
            print(json.dumps(told), flush=True)
        else:
            print(f"\n  Open {self._address.url} in a browser. Ctrl-C stops.\n", file=sys.stdout, flush=True)
