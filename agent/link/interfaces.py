"""What Linux says of this machine's network: interfaces, addresses, the way out. Nothing is sent."""

import errno
import fcntl
import ipaddress
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

# linux/sockios.h and linux/if.h
_SIOCGIFFLAGS, _SIOCGIFADDR = 0x8913, 0x8915
_IFF_UP, _IFF_LOOPBACK, _IFF_RUNNING = 0x1, 0x8, 0x40
_IFREQ_BYTES = 40

_ROUTE_UP, _ROUTE_GATEWAY = 0x1, 0x2
_ARP_COMPLETE = 0x2

PROC_NET = Path("/proc/net")


@dataclass(frozen=True, slots=True)
class Interface:
    """A network interface that is no loopback. `addresses` are those that reach further than its own wire."""

    name: str
    linked: bool
    """Whether it is up and has a carrier: a cable with somebody at its other end, or Wi-Fi that is joined."""
    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Gateway:
    """The way out of this network."""

    address: str
    interface: str


def interfaces() -> list[Interface]:
    """List the interfaces of this machine, loopback left out."""
    found = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        for _, name in socket.if_nameindex():
            flags = _flags(asking, name)
            if flags & _IFF_LOOPBACK:
                continue
            linked = bool(flags & _IFF_UP and flags & _IFF_RUNNING)
            found.append(Interface(name, linked, (*_ipv4(asking, name), *_ipv6(name))))
    return found


def _flags(asking: socket.socket, name: str) -> int:
    try:
        reply = fcntl.ioctl(asking, _SIOCGIFFLAGS, struct.pack(f"{_IFREQ_BYTES}s", name.encode()[:15]))
    except OSError:
        return 0
    return int(struct.unpack_from("=H", reply, 16)[0])


def _ipv4(asking: socket.socket, name: str) -> Iterator[str]:
    try:
        reply = fcntl.ioctl(asking, _SIOCGIFADDR, struct.pack(f"{_IFREQ_BYTES}s", name.encode()[:15]))
    except OSError:
        return
    address = ipaddress.IPv4Address(reply[20:24])
    if not address.is_link_local:
        yield str(address)


def _ipv6(name: str) -> Iterator[str]:
    for row in _rows("if_inet6"):
        if len(row) == 6 and row[5] == name:
            address = ipaddress.IPv6Address(int(row[0], 16))
            if not address.is_link_local:
                yield str(address)


def gateways() -> list[Gateway]:
    """List the default gateways, those of IPv4 first."""
    found = []
    for row in _rows("route")[1:]:
        if row[1] == "00000000" and int(row[3], 16) & (_ROUTE_UP | _ROUTE_GATEWAY) == _ROUTE_UP | _ROUTE_GATEWAY:
            address = ipaddress.IPv4Address(struct.pack("=I", int(row[2], 16)))
            found.append(Gateway(str(address), row[0]))
    return found + [
        Gateway(str(ipaddress.IPv6Address(int(row[4], 16))), row[9])
        for row in _rows("ipv6_route")
        if row[0] == "0" * 32 and row[1] == "00" and row[4] != "0" * 32
    ]


def is_silent(gateway: Gateway) -> bool:
    """Whether the kernel has asked for a gateway's hardware address and got no answer (IPv4 only)."""
    rows = [row for row in _rows("arp")[1:] if row[0] == gateway.address]
    return bool(rows) and not any(int(row[2], 16) & _ARP_COMPLETE for row in rows)


def way_to(address: str) -> str | None:
    """Give the address of ours from which `address` would be reached; None when there is no way. Nothing is sent."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as asking:
        try:
            asking.connect((address, 9))
        except OSError as error:
            if error.errno in (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EADDRNOTAVAIL, errno.EINVAL):
                return None
            raise
        return str(asking.getsockname()[0])


def name_servers(path: Path = Path("/etc/resolv.conf")) -> list[str]:
    """List the name servers that the system asks."""
    try:
        rows = [line.split() for line in path.read_text(encoding="utf-8", errors="replace").splitlines()]
    except OSError:
        return []
    return [row[1] for row in rows if len(row) > 1 and row[0] == "nameserver"]


def _rows(name: str) -> list[list[str]]:
    try:
        return [line.split() for line in (PROC_NET / name).read_text(encoding="ascii").splitlines()]
    except OSError:
        return []
