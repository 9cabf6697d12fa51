"""Reads the body of a request under a limit, for whatever speaks ASGI."""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]  # as ASGI itself types it
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

MOST_DRAINED_BYTES = 64 * 1024 * 1024
"""A sender who is cut off while it sends never sees the answer; more than this is not waited for."""


async def read_body(receive: Receive, limit_bytes: int) -> bytes | None:
    """Read a body of at most `limit_bytes`; None for a longer one, whose rest is thrown away."""
    parts: list[bytes] = []
    size_bytes = 0
    while size_bytes <= MOST_DRAINED_BYTES:
        message = await receive()
        part: bytes = message.get("body", b"")
        size_bytes += len(part)
        if size_bytes <= limit_bytes:
            parts.append(part)
        else:
            parts.clear()
        if message["type"] == "http.disconnect" or not message.get("more_body", False):
            break
    return b"".join(parts) if size_bytes <= limit_bytes else None
