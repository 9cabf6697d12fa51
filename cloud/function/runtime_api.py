"""The AWS Lambda Runtime API, version 2018-06-01, for one worker: one small HTTP server each, so that no worker can
be taken for another.

https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html
"""

import asyncio
import contextlib
import re
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Protocol

import h11

VERSION = "/2018-06-01/runtime"
MOST_ANSWER_BYTES = 6 * 1024 * 1024
"""Lambda's limit on what a function may return."""
READ_BYTES = 256 * 1024

_ANSWER = re.compile(rf"{VERSION}/invocation/([0-9a-f-]{{36}})/(response|error)")


@dataclass(frozen=True, slots=True)
class Invocation:
    """What a worker gets when it asks for the next call."""

    request_id: str
    event: bytes
    deadline_ms: int
    """Wall time in milliseconds since 1970."""
    arn: str


class Desk(Protocol):
    """Who gives a worker its calls and takes its answers."""

    async def next(self) -> Invocation | None:
        """Wait for the next call; None when the worker has to go."""
        ...

    def answered(self, request_id: str, body: bytes) -> bool:
        """Take an answer; False when nobody waits for it."""
        ...

    def failed(self, request_id: str, body: bytes) -> bool:
        """Take the error that the function raised, JSON; False when nobody waits for it."""
        ...

    def init_failed(self, body: bytes) -> None:
        """Take the error that kept the function from starting, JSON."""
        ...


@dataclass(frozen=True, slots=True)
class _Reply:
    status: int
    body: bytes = b"{}"
    headers: tuple[tuple[str, str], ...] = field(default=())


async def listen(desk: Desk) -> tuple[asyncio.Server, int]:
    """Serve `desk` on a free loopback port, which is given too."""
    opened = socket.create_server(("127.0.0.1", 0))
    opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # every connection inherits it

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, h11.RemoteProtocolError, asyncio.CancelledError):
            await _serve(reader, writer, lambda method, path, body: _route(desk, method, path, body))
        writer.close()

    return await asyncio.start_server(connected, sock=opened), int(opened.getsockname()[1])


async def _serve(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    route: Callable[[str, str, bytes], Awaitable[_Reply | None]],
) -> None:
    """Serve one connection until it ends, or until there is nothing more to say."""
    connection = h11.Connection(h11.SERVER)
    while True:
        request, body = await _read(connection, reader, writer)
        if request is None:
            return
        reply = _Reply(413) if body is None else await route(request.method.decode(), request.target.decode(), body)
        if reply is None:
            return
        headers = [("Content-Type", "application/json"), ("Content-Length", str(len(reply.body))), *reply.headers]
        parts = (h11.Response(status_code=reply.status, headers=headers), h11.Data(reply.body), h11.EndOfMessage())
        # In one write: a second small one would wait 40 ms and more for the acknowledgement of the first.
        writer.write(b"".join(connection.send(part) or b"" for part in parts))
        await writer.drain()
        if connection.our_state is h11.MUST_CLOSE:
            return
        connection.start_next_cycle()


async def _read(
    connection: h11.Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> tuple[h11.Request | None, bytes | None]:
    """Read one request; no request at the end, no body when that is too large."""
    request: h11.Request | None = None
    body = bytearray()
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            if connection.they_are_waiting_for_100_continue:
                writer.write(connection.send(h11.InformationalResponse(status_code=100, headers=[])) or b"")
            connection.receive_data(await reader.read(READ_BYTES))
        elif isinstance(event, h11.Request):
            request = event
        elif isinstance(event, h11.Data):
            if len(body) <= MOST_ANSWER_BYTES:
                body += event.data
        elif isinstance(event, h11.EndOfMessage):
            return request, bytes(body) if len(body) <= MOST_ANSWER_BYTES else None
        else:
            return None, None


async def _route(desk: Desk, method: str, path: str, body: bytes) -> _Reply | None:
    if method == "GET" and path == f"{VERSION}/invocation/next":
        call = await desk.next()
        return None if call is None else _Reply(200, call.event, _headers(call))
    if method == "POST" and path == f"{VERSION}/init/error":
        desk.init_failed(body)
        return _Reply(202)
    if method == "POST" and (found := _ANSWER.fullmatch(path)):
        take = desk.answered if found[2] == "response" else desk.failed
        return _Reply(202 if take(found[1], body) else 400)
    return _Reply(404)


def _headers(call: Invocation) -> tuple[tuple[str, str], ...]:
    return (
        ("Lambda-Runtime-Aws-Request-Id", call.request_id),
        ("Lambda-Runtime-Deadline-Ms", str(call.deadline_ms)),
        ("Lambda-Runtime-Invoked-Function-Arn", call.arn),
    )
