"""The cloud's API asked by hand: its health, its clock, and whether a login page answers in its place."""

import contextlib
import http.client
import json
import socket
import ssl
import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

from agent.link.hops import Hop, Way, failed, passed

MOST_BYTES = 16 * 1024
HEALTH = "/healthz"
LOGIN_NEEDED = 511
"""Network Authentication Required (RFC 6585): the honest kind of captive portal."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back."""

    status: int
    kind: str
    location: str
    date_s: float | None
    body: bytes


def get(connection: socket.socket, host: str, path: str, timeout_s: float) -> Reply:
    """Ask on an open connection, which is closed then. Raises `OSError`, `http.client.HTTPException`."""
    connection.settimeout(max(0.05, timeout_s))
    asked = f"GET {path} HTTP/1.1\r\nHost: {host}\r\nAccept: application/json\r\nUser-Agent: shelfwire-doctor\r\n"
    with contextlib.closing(connection):
        connection.sendall(f"{asked}Connection: close\r\n\r\n".encode())
        response = http.client.HTTPResponse(connection)
        response.begin()
        body = response.read(MOST_BYTES)
    kind = (response.getheader("Content-Type") or "").partition(";")[0].strip().lower()
    return Reply(response.status, kind, response.getheader("Location") or "", _date_s(response), body)


def _date_s(response: http.client.HTTPResponse) -> float | None:
    try:
        return parsedate_to_datetime(response.getheader("Date") or "").timestamp()
    except (TypeError, ValueError):
        return None


def answer(way: Way, connection: socket.socket, host: str, base: str, timeout_s: float) -> None:
    """Walk the hop ``answer``: the API must say that it is well."""
    began_s = time.monotonic()
    try:
        reply = get(connection, host, base + HEALTH, timeout_s)
    except (OSError, http.client.HTTPException) as error:
        way.take(_no_answer(host, began_s, error))
        return
    if reply.date_s is not None:
        way.skew_s = time.time() - reply.date_s
    way.take(_judge(reply, host, began_s))


def _no_answer(host: str, began_s: float, error: Exception) -> Hop:
    if isinstance(error, ssl.SSLError):
        return failed("answer", "NET-13", began_s, f"{host} refuses this device ({error.reason or error})")
    if isinstance(error, TimeoutError):
        return failed("answer", "NET-16", began_s, f"{host} takes the request, but does not answer")
    return failed("answer", "NET-16", began_s, f"{host} does not answer in HTTP ({type(error).__name__})")


def _judge(reply: Reply, host: str, began_s: float) -> Hop:
    portal = is_portal(reply, host)
    if portal:
        return failed("answer", "NET-8", began_s, portal)
    if reply.status in (401, 403):
        return failed("answer", "NET-13", began_s, f"{host} answers with status {reply.status}")
    if reply.status != 200 or not _is_health(reply.body):
        return failed("answer", "NET-16", began_s, f"{host} answers with status {reply.status}, not that it is well")
    return passed("answer", began_s, f"{host} says that it is well")


def is_portal(reply: Reply, host: str) -> str:
    """Say why an answer is a login page's, not the API's; empty when it is not."""
    to = urlsplit(reply.location).hostname
    if reply.status == LOGIN_NEEDED:
        return "the network asks for a login (status 511)"
    if 300 <= reply.status < 400 and to and to != host:
        return f"requests to {host} are sent on to {to}"
    if reply.status == 200 and reply.kind == "text/html":
        return f"a web page answers in place of {host}"
    return ""


def _is_health(body: bytes) -> bool:
    try:
        return isinstance(json.loads(body), dict)
    except ValueError:
        return False


def portal(host: str, port: int, timeout_s: float) -> str:
    """Ask in clear, as a login page wants to be found; says why there is one, empty when none shows."""
    try:
        connection = socket.create_connection((host, port), timeout=timeout_s)
        return is_portal(get(connection, host, HEALTH, timeout_s), host)
    except (OSError, UnicodeError, http.client.HTTPException):
        return ""


def skew_s(host: str, port: int, timeout_s: float) -> float | None:
    """How far our clock is ahead of the API's, asked without trust: for when nothing can be trusted."""
    blind = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    blind.check_hostname = False
    blind.verify_mode = ssl.CERT_NONE
    try:
        raw = socket.create_connection((host, port), timeout=timeout_s)
        reply = get(blind.wrap_socket(raw, server_hostname=host), host, HEALTH, timeout_s)
    except (OSError, UnicodeError, http.client.HTTPException):
        return None
    return None if reply.date_s is None else time.time() - reply.date_s
