"""Serve the application over HTTP, on loopback, until told to stop."""

import asyncio
import logging
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import uvicorn
from fastapi import FastAPI

from cloud.web.hub import Hub

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


def serve(
    app: FastAPI, hub: Hub, opened: socket.socket, *, on_ready: Callable[[], None], stop: Callable[[], bool]
) -> None:
    """Serve on an open socket until `stop()` is true; it is asked ten times a second. Closes the socket.

    `on_ready` is called once, when requests are answered.
    """
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        lifespan="on",
        timeout_keep_alive=IDLE_S,
        timeout_graceful_shutdown=GRACE_S,
        limit_concurrency=MOST_CONNECTIONS,
        proxy_headers=False,
    )
    server = _Server(config, hub)
    asyncio.run(_serve(server, opened, on_ready, stop))


async def _serve(
    server: uvicorn.Server, opened: socket.socket, on_ready: Callable[[], None], stop: Callable[[], bool]
) -> None:
    running = asyncio.create_task(server.serve(sockets=[opened]), name="web-server")
    try:
        told = False
        while not running.done():
            if server.started and not told:
                on_ready()
                told = True
            if stop():
                server.should_exit = True
            await asyncio.wait((running,), timeout=0.1 if told else 0.01)
    finally:
        server.should_exit = True
        await running
