"""The event stream of the Live page (SSE), as a response that ends when its viewer leaves, lags or the server stops."""

import asyncio
from contextlib import suppress
from http import HTTPStatus

from fastapi import APIRouter
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from cloud.web import live, problems
from cloud.web.hub import Hub, Viewer
from cloud.web.parts import Shared

LAST_WORD_S = 0.2
"""How long the end of a stream may wait for a viewer that does not read."""

_DESCRIBED = """\
Everything that `/cameras`, `/devices` and `/alerts` give, told as it changes, as Server-Sent Events:

- `snapshot`: everything (schema Live), first on every connection and after a time without the database;
- `update`: what has changed (schema Update), at most five times a second;
- `jobs`: `{"now": ..., "jobs": [id, ...]}`, the asynchronous jobs that have changed; null when any may have;
- `beat`: `{"now": ...}` every three seconds;
- `trouble`: `{"now": ..., "trouble": Trouble}` when the server cannot reach its database; the next snapshot ends it.

A viewer who comes back needs no Last-Event-ID: it gets a snapshot again. One who reads too slowly is dropped.
"""

router = APIRouter(prefix=live.API)


class EventStream(Response):
    """Sends one viewer's events. Nothing is kept for a viewer beyond the hub's short queue."""

    media_type = "text/event-stream"

    def __init__(self, hub: Hub) -> None:
        super().__init__(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._hub = hub

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        """Send events until the viewer leaves or is dropped."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        viewer = await self._hub.join()
        ways = [
            asyncio.create_task(_send_events(viewer, send)),
            asyncio.create_task(_leaves(receive)),
            asyncio.create_task(viewer.gone.wait()),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._hub.leave(viewer)
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
        with suppress(TimeoutError):
            end = send({"type": "http.response.body", "body": b"", "more_body": False})
            await asyncio.wait_for(end, LAST_WORD_S)


async def _send_events(viewer: Viewer, send: Send) -> None:
    while True:
        await send({"type": "http.response.body", "body": await viewer.events.get(), "more_body": True})


async def _leaves(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


@router.get(
    "/events",
    tags=["live"],
    summary="Everything as it changes",
    description=_DESCRIBED,
    status_code=HTTPStatus.OK,
    response_class=EventStream,
    responses={
        200: {"description": "The stream.", "content": {"text/event-stream": {"schema": {"type": "string"}}}},
        **problems.documented(),
    },
)
async def events(shared: Shared) -> Response:
    """Open a stream."""
    if shared.hub.full:
        raise problems.ApiProblem(
            HTTPStatus.SERVICE_UNAVAILABLE, "too-many-viewers", "no more streams are opened now", "try again later"
        )
    return EventStream(shared.hub)
