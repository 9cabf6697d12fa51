"""The function's URL: one POST over a connection that is kept open, bounded in the size of its answer.

Time is the caller's business: put a deadline around the call (`asyncio.timeout`), and the connection ends with it.
"""

import asyncio
import contextlib
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import h11

from cloud.errors import Rejected, Retryable

MOST_ANSWER_BYTES = 64 * 1024
READ_BYTES = 64 * 1024
MOST_IDLE = 32
IDLE_S = 20.0
"""Connections unused for longer are not used again: servers close theirs after half a minute or more."""
PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Answer:
    """What the function's URL said; names in `headers` are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(slots=True)
class _Connection:
    """An open connection; `used` is whether it has brought an answer already."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    protocol: h11.Connection = field(default_factory=lambda: h11.Connection(h11.CLIENT))
    used: bool = False
    idle_since_s: float = 0.0

    def cut(self) -> None:
        """End it at once."""
        self.writer.transport.abort()


class _Stale(Exception):
    """A connection that was kept had been closed by the other side before it brought anything."""


class Function:
    """A function behind a URL. For one event loop; as many calls at once as the caller lets through."""

    def __init__(self, url: str) -> None:
        """Read the URL. Raises `Rejected` (``bad-function-url``)."""
        hint = "for example http://127.0.0.1:9000/, as shelfwire-cloud function prints it"
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise Rejected("bad-function-url", f"the function's URL is not understood: {error}", hint) from None
        plain = url.isascii() and url.isprintable() and " " not in url
        if parts.scheme not in PORTS or not parts.hostname or not plain or "@" in parts.netloc or parts.fragment:
            raise Rejected("bad-function-url", "the function's URL is no plain http:// or https:// address", hint)
        self.url = url
        self._host, self._port = parts.hostname, port or PORTS[parts.scheme]
        self._host_header = parts.netloc
        self._target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._idle: list[_Connection] = []

    async def post(self, headers: Mapping[str, str], body: bytes) -> Answer:
        """Call the function. Raises `Retryable` (``function-away``, ``function-lost``, ``function-reply``)."""
        connection = self._kept() or await self._open()
        try:
            return await self._exchange(connection, headers, body)
        except _Stale:
            return await self._exchange(await self._open(), headers, body)

    def close(self) -> None:
        """End the connections that are kept."""
        while self._idle:
            self._idle.pop().cut()

    def _kept(self) -> _Connection | None:
        while self._idle:
            connection = self._idle.pop()
            fresh = time.monotonic() - connection.idle_since_s < IDLE_S
            if fresh and not connection.reader.at_eof() and not connection.writer.is_closing():
                return connection
            connection.cut()
        return None

    async def _open(self) -> _Connection:
        try:
            return _Connection(*await asyncio.open_connection(self._host, self._port, ssl=self._tls))
        except OSError as error:
            hint = "start it with shelfwire-cloud function, or correct --function; it will be tried again"
            raise Retryable("function-away", f"the function cannot be reached: {error}", hint) from error

    async def _exchange(self, connection: _Connection, headers: Mapping[str, str], body: bytes) -> Answer:
        """Send a request and read its answer; the connection is kept if it can serve another."""
        kept = False
        try:
            answer = await self._ask(connection, headers, body)
            kept = connection.protocol.our_state is h11.DONE and connection.protocol.their_state is h11.DONE
            if kept and len(self._idle) < MOST_IDLE:
                connection.protocol.start_next_cycle()
                connection.used, connection.idle_since_s = True, time.monotonic()
                self._idle.append(connection)
            else:
                kept = False
            return answer
        finally:
            if not kept:
                connection.cut()

    async def _ask(self, connection: _Connection, headers: Mapping[str, str], body: bytes) -> Answer:
        heard = False
        try:
            request = h11.Request(
                method="POST", target=self._target,
                headers=[("Host", self._host_header), ("Content-Length", str(len(body))), *headers.items()],
            )  # fmt: skip
            parts = (request, h11.Data(body), h11.EndOfMessage())
            connection.writer.write(b"".join(connection.protocol.send(part) or b"" for part in parts))
            with contextlib.suppress(ConnectionError):  # it may have answered before it had heard everything
                await connection.writer.drain()
            status, said, read = 0, {}, bytearray()
            while True:
                event = connection.protocol.next_event()
                if event is h11.NEED_DATA:
                    received = await connection.reader.read(READ_BYTES)
                    heard = heard or bool(received)
                    connection.protocol.receive_data(received)
                elif isinstance(event, h11.Response):
                    status = event.status_code
                    said = {name.decode("ascii"): value.decode("latin-1") for name, value in event.headers}
                elif isinstance(event, h11.Data):
                    read += event.data
                    if len(read) > MOST_ANSWER_BYTES:
                        hint = "see that --function names the function and nothing else"
                        raise Retryable("function-reply", f"its answer has more than {MOST_ANSWER_BYTES} bytes", hint)
                elif isinstance(event, h11.EndOfMessage):
                    return Answer(status, said, bytes(read))
                elif isinstance(event, h11.ConnectionClosed):
                    raise ConnectionError("the connection ended")
        except (OSError, h11.RemoteProtocolError) as error:
            if connection.used and not heard:
                raise _Stale from error
            hint = "see the function's log; it will be tried again"
            raise Retryable(
                "function-lost", f"the function hung up in the middle of the call: {error}", hint
            ) from error
