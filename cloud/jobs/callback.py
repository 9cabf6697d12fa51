"""Calls addresses that strangers name, and never one inside our own network.

The name is resolved once, every address that comes back is judged, and the connection goes to the judged address
itself: a name that resolves otherwise a moment later (DNS rebinding) changes nothing. Redirects are not followed.
"""

import http.client
import ipaddress
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from cloud.errors import Rejected, Retryable

CALL_S = 10.0
"""The whole call, from the first packet to the last byte."""
MOST_ANSWER_BYTES = 4096
MOST_URL = 500
ALLOW = "SHELFWIRE_ALLOW_CALLBACK"
"""Environment variable: networks and host names inside, separated by commas, that callbacks may reach all the same."""

Ip = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolve = Callable[[str, int], Sequence[str]]

_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_LOCAL_NAMES = ("localhost", "local", "internal", "lan", "home.arpa", "localdomain")
_HINT = "name an address that the whole internet can reach, or have the operator allow this one: --allow-callback"


@dataclass(frozen=True, slots=True)
class Allowed:
    """What callbacks may reach although it is inside."""

    networks: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...] = ()
    names: tuple[str, ...] = ()

    @classmethod
    def parse(cls, words: Sequence[str]) -> "Allowed":
        """Read networks (``10.0.0.0/8``, ``::1``) and host names. Raises `Rejected` (``allow-callback``)."""
        networks, names = [], []
        for word in words:
            try:
                networks.append(ipaddress.ip_network(word))
            except ValueError:
                if "/" in word or ":" in word or not word.isprintable() or " " in word:
                    hint = "for example 10.0.0.0/8 or hooks.shop.lan"
                    raise Rejected("allow-callback", f"{word!r} is no network and no host name", hint) from None
                names.append(word.lower().rstrip("."))
        return cls(tuple(networks), tuple(names))

    @classmethod
    def from_environment(cls) -> "Allowed":
        """Read SHELFWIRE_ALLOW_CALLBACK."""
        return cls.parse([word.strip() for word in os.environ.get(ALLOW, "").split(",") if word.strip()])

    def holds(self, host: str, address: Ip | None) -> bool:
        """Whether a host name or an address is allowed."""
        if host.lower().rstrip(".") in self.names:
            return True
        return address is not None and any(address in network for network in self.networks)


@dataclass(frozen=True, slots=True)
class Url:
    """A callback's parts. `host` is without brackets; `path` is with the query."""

    secure: bool
    host: str
    port: int
    path: str

    @property
    def host_header(self) -> str:
        """What the Host header says."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.secure else 80) else f"{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Answer:
    """What the receiver said; `start` is the beginning of its body."""

    status: int
    start: bytes


def check_url(text: str, allowed: Allowed) -> Url:
    """Read a callback and judge what can be judged without asking the network.

    Raises `Rejected`: ``callback-bad`` (no URL of ours), ``callback-internal``.
    """
    hint = "give a URL such as https://example.com/hooks/shelfwire"
    if len(text) > MOST_URL or not text.isascii() or any(c.isspace() or not c.isprintable() for c in text):
        raise Rejected("callback-bad", f"the callback is no URL of at most {MOST_URL} plain characters", hint)
    if "\\" in text:
        raise Rejected("callback-bad", "the callback has a backslash", hint)
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise Rejected("callback-bad", f"the callback is no URL: {error}", hint) from None
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise Rejected("callback-bad", "the callback is no http:// or https:// URL with a host", hint)
    if "@" in parts.netloc:
        raise Rejected("callback-bad", "the callback has a user or a password in it", "verify the signature instead")
    secure = parts.scheme == "https"
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    url = Url(secure, parts.hostname, port or (443 if secure else 80), path)
    _judge_name(url.host, allowed)
    return url


def resolve(host: str, port: int) -> list[str]:
    """All addresses of a host. Raises `Retryable` (``callback-name``)."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise Retryable("callback-name", f"{host} has no address: {error}", "correct the callback") from None
    return [str(entry[4][0]) for entry in found]


def judge(host: str, addresses: Sequence[str], allowed: Allowed) -> list[str]:
    """Give the addresses if every one may be called. Raises `Rejected` (``callback-internal``).

    One inside refuses them all: a name that points both ways is not one to be trusted.
    """
    for text in addresses:
        address = ipaddress.ip_address(text.split("%", 1)[0])
        if not allowed.holds(host, address) and not is_public(address):
            raise Rejected("callback-internal", f"{host} is {address}, an address inside a network", _HINT)
    return list(addresses)


def is_public(address: Ip) -> bool:
    """Whether an address is one of the internet's, also by the address that a translated one carries inside."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour or (address.teredo or (None, None))[1]
        if inner is None and address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(inner)
        if int(address) >> 32 == 0 or address.is_site_local:
            return False
    return address.is_global and not address.is_multicast and not address.is_reserved


def call(
    url: Url,
    body: bytes,
    headers: Mapping[str, str],
    allowed: Allowed,
    *,
    look_up: Resolve = resolve,
    within_s: float = CALL_S,
    trust: ssl.SSLContext | None = None,
) -> Answer:
    """POST to a callback and give the answer, whatever its status.

    Raises `Rejected` (``callback-internal``), `Retryable` (``callback-name``, ``callback-away``, ``callback-slow``).
    """
    addresses = judge(url.host, look_up(url.host, url.port), allowed)
    late = threading.Event()
    connection = _Pinned(url, addresses, within_s, trust)

    def cut() -> None:
        late.set()
        connection.cut()

    watch = threading.Timer(within_s, cut)  # a socket's own timeout starts anew with every byte
    watch.daemon = True
    watch.start()
    try:
        sent = {"Host": url.host_header, "User-Agent": "shelfwire", "Connection": "close", **headers}
        connection.request("POST", url.path, body, sent)
        response = connection.getresponse()
        answer = Answer(response.status, response.read(MOST_ANSWER_BYTES))
        if late.is_set():  # what was cut in its headers can look like a whole answer
            raise TimeoutError
        return answer
    except (OSError, http.client.HTTPException, ValueError) as error:
        if late.is_set() or isinstance(error, TimeoutError):
            raise Retryable("callback-slow", f"no answer within {within_s:g} s", "answer first, work later") from error
        raise Retryable("callback-away", f"the call failed: {error}", "see that the receiver listens") from error
    finally:
        watch.cancel()
        connection.close()


class _Pinned(http.client.HTTPConnection):
    """A connection to judged addresses, whatever the name means by now."""

    def __init__(self, url: Url, addresses: Sequence[str], within_s: float, trust: ssl.SSLContext | None) -> None:
        super().__init__(url.host, url.port, timeout=within_s)
        self._url = url
        self._addresses = list(dict.fromkeys(addresses))
        self._until_s = time.monotonic() + within_s
        self._trust = trust
        self._raw: socket.socket | None = None

    def connect(self) -> None:
        """Connect to the first address that answers."""
        last: OSError = OSError("no address")
        for address in self._addresses[:4]:
            left_s = self._until_s - time.monotonic()
            if left_s <= 0:
                raise TimeoutError
            try:
                raw = socket.create_connection((address, self._url.port), timeout=left_s)
            except OSError as error:
                last = error
                continue
            self._raw = raw
            if self._url.secure:
                trust = self._trust or ssl.create_default_context()
                raw = trust.wrap_socket(raw, server_hostname=self._url.host)
                self._raw = raw
            self.sock = raw
            return
        raise last

    def cut(self) -> None:
        """End the call from another thread."""
        raw = self._raw
        if raw is not None:
            try:
                raw.shutdown(socket.SHUT_RDWR)
            except OSError:
                return


def _judge_name(host: str, allowed: Allowed) -> None:
    """Refuse names that mean the inside, and addresses in all the ways that they are written (2130706433, 0x7f.1)."""
    name = host.lower().rstrip(".")
    if allowed.holds(name, None):
        return
    try:
        numeric = socket.getaddrinfo(host, 80, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except (OSError, UnicodeError):
        if name.rsplit(".", 1)[-1] in _LOCAL_NAMES or name.endswith(".home.arpa") or "." not in name:
            raise Rejected("callback-internal", f"{host} is a name inside a network", _HINT) from None
        return
    judge(host, [str(entry[4][0]) for entry in numeric], allowed)
