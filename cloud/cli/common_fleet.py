"""The port for devices of `serve`: TLS, the application behind it, and the revocations of the broker."""

import argparse
import socket
import ssl
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

from fastapi import FastAPI

from cloud.errors import Rejected
from cloud.fleet import Authority, Fleet
from cloud.fleet.keeper import Keeper
from cloud.listening import Address, listen
from cloud.store import Store
from cloud.web.devices import create_device_app
from cloud.web.serving import Devices
from wire import mqtt

TLS_PORT = 8883


def add_device_port(parser: argparse.ArgumentParser) -> None:
    """Add what opens the port for devices."""
    group = parser.add_argument_group("devices over TLS (docs/enrolment.md)")
    group.add_argument("--device-port", type=int, metavar="PORT", help="let devices in at this port, by certificate")
    group.add_argument(
        "--device-host", action="append", default=[], metavar="NAME",
        help="name or address by which devices reach this server and its broker; the first is given to them",
    )  # fmt: skip
    group.add_argument(
        "--device-listen", default="0.0.0.0", metavar="ADDRESS",  # noqa: S104 - it asks for certificates
        help="address to listen on for devices (%(default)s)",
    )  # fmt: skip
    group.add_argument(
        "--device-broker", metavar="URL", help=f"the broker's address for devices (mqtts://FIRST-HOST:{TLS_PORT})"
    )
    group.add_argument(
        "--broker-folder", type=Path, metavar="DIR",
        help="keep the revocations of the mosquitto whose files `fleet broker-config` wrote there",
    )  # fmt: skip
    group.add_argument("--device-cert", type=Path, metavar="FILE", help="certificate chain of your own for this port")
    group.add_argument("--device-key", type=Path, metavar="FILE", help="its key")


@dataclass(slots=True)
class PortForDevices:
    """The port for devices: opened, and the broker beside it kept."""

    options: argparse.Namespace
    authority: Authority
    url: str = ""
    _opened: socket.socket | None = field(default=None, repr=False)

    @property
    def hosts(self) -> str:
        """The names that the server answers to."""
        return ", ".join(self.options.device_host)

    def open(self, store: Store, pages: FastAPI, stack: ExitStack) -> Devices:
        """Listen, make the application, and tell the fleet where devices find it.

        Raises what `listen` does, and `Rejected` (``bad-host``, ``device-cert``).
        """
        options = self.options
        tls = self._tls(datetime.now(UTC))
        opened, address = listen(Address(options.device_listen, options.device_port), anywhere=True)
        stack.callback(opened.close)
        host = _in_url(options.device_host[0])
        self.url = f"https://{host}:{address.port}"
        fleet = Fleet(store.pool, self.authority)
        fleet.set_address(self.url, options.device_broker or f"mqtts://{host}:{TLS_PORT}")
        app = create_device_app(pages, fleet, lambda: datetime.now(UTC))
        return Devices(app, opened, tls)

    def keep_broker(
        self, store: Store, broker: mqtt.Options | None, stack: ExitStack, *, on_crash: Callable[[BaseException], None]
    ) -> None:
        """Start the keeper of the broker's revocations, when a broker folder is named."""
        if self.options.broker_folder is None or broker is None:
            return
        fleet = Fleet(store.pool)
        keeper = Keeper(fleet, self.authority, store.dsn, self.options.broker_folder, broker, on_crash=on_crash)
        keeper.start()
        stack.callback(keeper.stop)

    def _tls(self, now: datetime) -> ssl.SSLContext:
        """Ask for a certificate of ours and take none as well: enrolment comes without one."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.verify_mode = ssl.CERT_OPTIONAL
        context.num_tickets = 0  # no device resumes a session, and each ticket would carry its certificate: 1 kB
        context.load_verify_locations(self.authority.root_file)
        if self.options.device_cert is not None:
            _load_own(context, self.options.device_cert, self.options.device_key)
            return context
        certificate, key = self.authority.server(self.options.device_host, now)
        # The ssl module reads files only; this one is for its owner, and gone at once.
        with tempfile.NamedTemporaryFile(dir=self.authority.folder) as file:
            file.write(certificate.encode("ascii") + key)
            file.flush()
            context.load_cert_chain(file.name)
        return context


def _load_own(context: ssl.SSLContext, certificate: Path, key: Path | None) -> None:
    try:
        context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        raise Rejected(
            "device-cert", f"{certificate} and its key cannot be used: {error}",
            "name a PEM file with the whole chain with --device-cert, and its key with --device-key",
        ) from error  # fmt: skip


def _in_url(host: str) -> str:
    return f"[{host.strip('[]')}]" if ":" in host else host


def port_for_devices(options: argparse.Namespace) -> PortForDevices | None:
    """Read what `add_device_port` added; None when no such port is wanted.

    Raises `Rejected` (``device-port``, ``device-host``, ``bad-broker-url``) and what `Authority` raises.
    """
    if options.device_port is None:
        if options.device_host or options.device_broker or options.broker_folder or options.device_cert:
            raise Rejected("device-port", "there is no port for devices", "open one with --device-port, usually 8443")
        return None
    if not options.device_host:
        raise Rejected(
            "device-host", "devices must know by which name they reach this server",
            "give it with --device-host, for example --device-host cloud.example (several if there are)",
        )  # fmt: skip
    if options.device_broker is not None and urlsplit(options.device_broker).scheme not in ("mqtt", "mqtts"):
        raise Rejected("bad-broker-url", f"{options.device_broker[:80]} is no broker", "mqtts://cloud.example:8883")
    if options.broker_folder is not None and options.broker is None:
        raise Rejected("broker-missing", "--broker-folder needs --broker too", "name the same broker with --broker")
    return PortForDevices(options, Authority.in_data(options.data))
