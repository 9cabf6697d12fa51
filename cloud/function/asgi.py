"""Any ASGI server, and so Cloud Run, Knative and plain containers: `uvicorn cloud.function.asgi:app`."""

import asyncio
from collections.abc import MutableMapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from cloud.function.body import Receive, Send, read_body
from cloud.function.exchange import MOST_BODY_BYTES, Reply, reply_to_request, too_large
from cloud.function.handler import Model
from models.runtimes import cores

MODEL = Model.open()
_threads = ThreadPoolExecutor(cores(), thread_name_prefix="classify")


async def app(scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
    """Serve one connection of ASGI 3."""
    if scope["type"] == "lifespan":
        for word in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{word}.complete"})
    elif scope["type"] == "http":
        reply = await _reply(scope, receive)
        headers = [(name.encode(), value.encode()) for name, value in reply.headers.items()]
        headers.append((b"Content-Length", b"%d" % len(reply.body)))
        await send({"type": "http.response.start", "status": reply.status, "headers": headers})
        await send({"type": "http.response.body", "body": reply.body})


async def _reply(scope: MutableMapping[str, Any], receive: Receive) -> Reply:
    body = await read_body(receive, MOST_BODY_BYTES)
    if body is None:
        return too_large()
    headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
    asked = (MODEL, str(scope["method"]), headers, body)
    return await asyncio.get_running_loop().run_in_executor(_threads, reply_to_request, *asked)
