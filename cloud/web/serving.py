"""Serve the application over HTTP, on loopback, until told to stop; beside it devices, over TLS on a port of theirs."""

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import uvicorn
from fastapi import FastAPI

from cloud.web.hub import Hub
from cloud.web.peers import PeerProtocol

log = logging.getLogger(__name__)

GRACE_S = 1
"""How long calls under way may take once the server stops."""
IDLE_S = 30
MOST_CONNECTIONS = 1_000


class _Server(uvicorn.Server):
    """uvicorn, but that streams end when it stops and that signals stay with the caller."""

    def __init__(self, config: uvicorn.Config, hub: Hub) -> None:
        super().__init__(config)
        self._hub = hub

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals alone."""
        yield

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End the streams first: an open one would keep the server waiting."""
        await self._hub.stop()
        await super().shutdown(sockets)


@dataclass(frozen=True, slots=True)
class Devices:
    """The application for devices, the socket where they come in, and what TLS needs."""

    app: FastAPI
    opened: socket.socket
    tls: ssl.SSLContext


def serve(
    app: FastAPI,
    hub: Hub,
    opened: socket.socket,
    *,
    on_ready: Callable[[], None],
    stop: Callable[[], bool],
    devices: Devices | None = None,
) -> None:
    """Serve on an open socket until `stop()` is true; it is asked ten times a second. Closes the socket.

    `on_ready` is called once, when requests are answered.
    """
    servers = [(_Server(_config(app, lifespan="on"), hub), opened)]
    if devices is not None:
        tls = devices.tls
        config = _config(devices.app, lifespan="off", http=PeerProtocol, ssl_context_factory=lambda *_: tls)
        servers.append((_Server(config, hub), devices.opened))
    asyncio.run(_serve(servers, on_ready, stop))


def _config(app: FastAPI, **more: Any) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=IDLE_S,
        timeout_graceful_shutdown=GRACE_S,
        limit_concurrency=MOST_CONNECTIONS,
        proxy_headers=False,
        **more,
    )


async def _serve(
    servers: list[tuple[_Server, socket.socket]], on_ready: Callable[[], None], stop: Callable[[], bool]
) -> None:
    running = [
        asyncio.create_task(server.serve(sockets=[opened]), name=f"web-server-{number}")
        for number, (server, opened) in enumerate(servers)
    ]
    try:
        told = False
        while not any(task.done() for task in running):
            if not told and all(server.started for server, _ in servers):
                on_ready()
                told = True
            if stop():
                break
            await asyncio.wait(running, timeout=0.1 if told else 0.01, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for server, _ in servers:
            server.should_exit = True
        await asyncio.gather(*running)
