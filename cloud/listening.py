"""Where a server of ours listens: pages on this machine alone, for there are no accounts yet; devices anywhere."""

import errno
import ipaddress
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cloud.errors import Rejected

SEND_BUFFER_BYTES = 128 * 1024
"""What the system keeps for a client who does not read; left alone it grows to megabytes each."""


def is_loopback(host: str) -> bool:
    """Whether a host name or address, with or without a port, can only mean this machine itself."""
    name = host.strip().lower()
    if name.startswith("["):
        name, _, rest = name[1:].partition("]")
        if rest and not (rest.startswith(":") and rest[1:].isdigit()):
            return False
    elif name.count(":") == 1:
        name, _, port = name.partition(":")
        if not port.isdigit():
            return False
    if name.rstrip(".") == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def names_this_machine(scope: Mapping[str, Any]) -> bool:
    """Whether an ASGI request was made under a name of this machine: no page of a stranger can have a browser ask."""
    hosts = [value.decode("latin-1") for name, value in scope["headers"] if name == b"host"]
    return len(hosts) == 1 and is_loopback(hosts[0])


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen. Port 0 means a free one."""

    host: str
    port: int

    @property
    def url(self) -> str:
        """What to open in a browser."""
        return f"http://[{self.host}]:{self.port}/" if ":" in self.host else f"http://{self.host}:{self.port}/"


def listen(wanted: Address, *, anywhere: bool = False) -> tuple[socket.socket, Address]:
    """Open the listening socket and name the address it really has. `anywhere` is for those who ask for certificates.

    Raises `Rejected` (``host-not-loopback``, ``bad-port``, ``port-in-use``, ``port-forbidden``, ``host-unknown``).
    """
    if not anywhere and not is_loopback(wanted.host):
        raise Rejected(
            "host-not-loopback",
            f"will not listen on {wanted.host}: there are no accounts and no TLS yet, everybody there could come in",
            "keep --host 127.0.0.1 and come through an SSH tunnel (ssh -L 8000:localhost:8000 THIS-MACHINE) "
            "or a reverse proxy on this machine that checks who asks",
        )
    if not 0 <= wanted.port <= 65535:
        raise Rejected("bad-port", f"{wanted.port} is no port", "choose one from 1024 to 65535, or 0 for a free one")
    host = wanted.host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        opened = socket.create_server((host, wanted.port), family=family, backlog=256)
    except OSError as error:
        raise _explain(wanted, error) from error
    # Every connection inherits both. Without the first, the body of an answer waits 40 ms for the acknowledgement of
    # its head: asyncio sets it itself only for sockets that name their protocol.
    opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
    return opened, Address(host, opened.getsockname()[1])


def _explain(wanted: Address, error: OSError) -> Rejected:
    if error.errno == errno.EADDRINUSE:
        return Rejected(
            "port-in-use",
            f"port {wanted.port} of {wanted.host} is taken by another program",
            "choose another with --port, or --port 0 for a free one",
        )
    if error.errno == errno.EACCES:
        hint = "choose one above 1023 with --port, or --port 0 for a free one"
        return Rejected("port-forbidden", f"this user may not listen on port {wanted.port}", hint)
    return Rejected("host-unknown", f"cannot listen on {wanted.host}: {error.strerror}", "use --host 127.0.0.1")
