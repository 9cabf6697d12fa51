"""The lower hops: a link, an address, a way out, a name, a connection."""

import errno
import ipaddress
import os
import queue
import socket
import threading
import time

from agent.link import interfaces as network
from agent.link.hops import Hop, Way, failed, passed, untried

Target = tuple[int, tuple[str, int]]
"""Address family, and address with port."""

GIVEN_UP = (socket.EAI_AGAIN, socket.EAI_FAIL, socket.EAI_SYSTEM)
"""The resolver's words for: nobody answered. The others mean that there is no such name."""


def near(way: Way, host: str) -> bool:
    """Walk the hops inside this machine: interface, address, gateway. Gives whether the way goes on."""
    if _is_loopback(host):
        for name in ("interface", "address", "gateway"):
            way.take(untried(name, "the server is on this machine"))
        return True
    began_s = time.monotonic()
    found = network.interfaces()
    linked = [interface for interface in found if interface.linked]
    if not linked:
        names = ", ".join(interface.name for interface in found) or "none"
        return way.take(failed("interface", "NET-1", began_s, f"interfaces without a link: {names}"))
    way.take(passed("interface", began_s, ", ".join(interface.name for interface in linked)))
    addresses = [f"{address} on {interface.name}" for interface in linked for address in interface.addresses]
    if not addresses:
        names = ", ".join(interface.name for interface in linked)
        return way.take(failed("address", "NET-2", began_s, f"no address on {names}"))
    way.take(passed("address", began_s, ", ".join(addresses)))
    return way.take(_gateway(host))


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _gateway(host: str) -> Hop:
    began_s = time.monotonic()
    gateways = network.gateways()
    silent = [gateway.address for gateway in gateways if network.is_silent(gateway)]
    if gateways and len(silent) == len(gateways):
        return failed("gateway", "NET-3", began_s, f"the gateway {silent[0]} does not answer")
    if gateways:
        return passed("gateway", began_s, ", ".join(f"{g.address} by {g.interface}" for g in gateways))
    if _is_address(host) and network.way_to(host) is not None:
        return untried("gateway", "none is needed")
    if _is_address(host):
        return failed("gateway", "NET-3", began_s, f"there is no default gateway, and no route to {host}")
    return untried("gateway", "there is none")


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def resolve(way: Way, host: str, port: int, timeout_s: float) -> list[Target]:
    """Walk the hop ``dns``; gives the host's addresses, or none. A resolver knows no deadline, hence the thread."""
    began_s = time.monotonic()
    answers: queue.SimpleQueue[list[Target] | OSError | UnicodeError] = queue.SimpleQueue()

    def ask() -> None:
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            answers.put([(int(family), (str(t[0]), port)) for family, _, _, _, t in found])
        except (OSError, UnicodeError) as error:
            answers.put(error)

    threading.Thread(target=ask, name="resolve", daemon=True).start()
    try:
        answer = answers.get(timeout=max(0.01, timeout_s))
    except queue.Empty:
        answer = socket.gaierror(socket.EAI_AGAIN, "no answer")
    if isinstance(answer, list) and answer:
        shown = "an address, no name" if _is_address(host) else ", ".join(dict.fromkeys(a for _, (a, _) in answer))
        way.take(untried("dns", shown) if _is_address(host) else passed("dns", began_s, shown))
        return answer
    way.take(_no_name(host, began_s, answer))
    return []


def _no_name(host: str, began_s: float, error: object) -> Hop:
    servers = network.name_servers()
    asked = f"asked: {', '.join(servers)}" if servers else "no name server is configured"
    nobody = isinstance(error, socket.gaierror) and error.errno in GIVEN_UP
    if nobody and not network.gateways():
        return failed("dns", "NET-3", began_s, f"no default gateway, and no name server answers ({asked})")
    if nobody:
        return failed("dns", "NET-4", began_s, f"no answer for {host} ({asked})")
    return failed("dns", "NET-5", began_s, f"there is no {host} ({asked})")


def connect(way: Way, targets: list[Target], timeout_s: float) -> socket.socket | None:
    """Walk the hop ``tcp``: connect to the first address that answers; None when none does."""
    began_s = time.monotonic()
    until_s = began_s + timeout_s
    hop = untried("tcp", "no address")
    for n, (family, target) in enumerate(targets):
        share_s = max(0.05, (until_s - time.monotonic()) / (len(targets) - n))
        raw = socket.socket(family, socket.SOCK_STREAM)
        try:
            raw.settimeout(share_s)
            raw.connect(target)
        except OSError as error:
            raw.close()
            hop = _no_connection(target, began_s, error)
        else:
            way.take(passed("tcp", began_s, f"{target[0]} port {target[1]}"))
            return raw
    way.take(hop)
    return None


def _no_connection(target: tuple[str, int], began_s: float, error: OSError) -> Hop:
    where = f"{target[0]} port {target[1]}"
    if isinstance(error, ConnectionRefusedError):
        return failed("tcp", "NET-7", began_s, f"{where} refuses the connection")
    if isinstance(error, TimeoutError):
        silent = [gateway.address for gateway in network.gateways() if network.is_silent(gateway)]
        if silent and network.way_to(target[0]) is not None and not _is_loopback(target[0]):
            return failed("tcp", "NET-3", began_s, f"the gateway {silent[0]} does not answer")
        return failed("tcp", "NET-6", began_s, f"{where} does not answer",
                      f"ask to let this device out to {where} (TCP)")  # fmt: skip
    if error.errno in (errno.ENETUNREACH, errno.EADDRNOTAVAIL):
        return failed("tcp", "NET-3", began_s, f"no route to {target[0]}")
    code = "NET-6" if error.errno in (errno.EACCES, errno.EPERM) else "NET-20"
    return failed("tcp", code, began_s, f"{where}: {os.strerror(error.errno or 0)}")
