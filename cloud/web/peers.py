"""Devices that come in over TLS: who they are by their certificate, and that none acts under another's name."""

import asyncio
import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import psycopg
from psycopg_pool import PoolTimeout
from starlette.concurrency import run_in_threadpool
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from cloud.fleet.registry import Fleet, Peer, Refused
from cloud.web import problems
from cloud.web.guard import HEADERS
from wire import enrolment

log = logging.getLogger(__name__)

CERTIFICATE, PEER = "shelfwire.certificate", "shelfwire.peer"
"""Keys of a request's scope: what TLS has verified (the CN and the serial number), and what the fleet says of it."""

OPEN = (enrolment.HELLO, enrolment.ENROL, "/healthz")
"""What answers without a certificate."""


class PeerProtocol(H11Protocol):
    """uvicorn's HTTP/1.1, which tells the application whose certificate TLS has verified on this connection."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take the certificate from the TLS connection; every request on it is of that device."""
        super().connection_made(transport)
        app, shown = self.app, _shown(transport)

        async def with_certificate(scope: Any, receive: Any, send: Any) -> None:
            scope[CERTIFICATE] = shown
            await app(scope, receive, send)

        self.app = with_certificate


def _shown(transport: asyncio.Transport) -> tuple[str, str] | None:
    """Read CN and serial number of the peer's certificate; None when it has shown none."""
    tls = transport.get_extra_info("ssl_object")
    found: Mapping[str, Any] = (tls.getpeercert() if tls is not None else None) or {}
    names = [value for part in found.get("subject", ()) for key, value in part if key == "commonName"]
    if len(names) != 1 or "serialNumber" not in found:
        return None
    return names[0], f"{int(found['serialNumber'], 16):x}"


class PeerGuard:
    """Lets in devices of the fleet by their certificate, asked of the store at every request: a revocation counts at
    once. Without a certificate only enrolment answers."""

    def __init__(self, app: ASGIApp, fleet: Fleet) -> None:
        self._app = app
        self._fleet = fleet

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or scope["path"] in OPEN:
            await self._app(scope, receive, send)
            return
        try:
            scope[PEER] = await run_in_threadpool(self._let_in, scope.get(CERTIFICATE))
        except Refused as error:
            refusal = problems.answer(error.status, error.code, str(error), error.hint)
        except (psycopg.OperationalError, PoolTimeout) as error:
            log.warning("the database is away: %s", " ".join(str(error).split()))
            hint = "try again shortly; if this stays, start PostgreSQL or see the server's log"
            away = "the server cannot reach its database"
            refusal = problems.answer(HTTPStatus.SERVICE_UNAVAILABLE, "database-away", away, hint)
        else:
            await self._app(scope, receive, send)
            return
        refusal.headers.update({**HEADERS, "Connection": "close"})  # else the body of the request would be read
        await refusal(scope, receive, send)

    def _let_in(self, certificate: tuple[str, str] | None) -> Peer:
        if certificate is None:
            raise Refused(
                HTTPStatus.UNAUTHORIZED, "certificate-missing", "this port is for devices with a certificate",
                "enrol the device: shelfwire-agent enroll",
            )  # fmt: skip
        return self._fleet.let_in(*certificate)


def peer_of(request: HTTPConnection) -> Peer:
    """Give the device that a request came from, on the port for devices."""
    peer = request.scope[PEER]
    assert isinstance(peer, Peer)
    return peer


def only_as_itself(request: HTTPConnection, device: str) -> None:
    """Refuse a device that speaks of another one's frames. On loopback there are no certificates to compare with.

    Raises `ApiProblem` (``foreign-device``).
    """
    peer = request.scope.get(PEER)
    if peer is not None and peer.device != device:
        raise problems.ApiProblem(
            HTTPStatus.FORBIDDEN, "foreign-device",
            f"{peer.device}, as its certificate says, may not speak for {device}",
            "let [device] id agree with the certificate, or leave it out; else enrol the device anew",
        )  # fmt: skip
