"""HTTP/1.1 for a handful of clients: a thread per connection, and a limit of time and bytes on everything they send."""

import contextlib
import io
import itertools
import logging
import selectors
import socket
import ssl
import threading
import time
from collections.abc import Callable
from http.client import responses
from http.server import BaseHTTPRequestHandler
from typing import Any

from agent.local.exchange import Refusal, Reply, Request, Site, split_target
from agent.local.guard import is_loopback

log = logging.getLogger(__name__)

MOST_CONNECTIONS = 32
"""Open at once; a browser opens up to six. Each costs a thread, some 100 kB."""
MOST_OF_ONE_PEER = 16
"""Of these, how many one other machine may hold; on this one all who come through a tunnel have one address."""
MOST_HEAD_BYTES = 32 * 1024
"""Of a request line with its headers."""
IDLE_S = 30.0
"""How long a connection may wait for its next request."""
HEAD_S = 10.0
"""How long a request line with its headers may take, as a whole."""
BODY_S = 30.0
"""How long a body may take, as a whole."""
SEND_S = 30.0
"""How long a client may take to receive an answer, as a whole."""
LINGER_S = 1.0
LINGER_BYTES = 64 << 20
"""What is still read from a client that was refused while it sends: closed at once, it would not see why."""


def _full() -> Refusal:
    hint = "close other pages and clients of this device, then try again"
    return Refusal(503, "too-many-connections", "too many connections are open", hint, {"Retry-After": "2"})


def _head_too_large() -> Refusal:
    return Refusal(431, "head-too-large", "the request's headers are too large", "send fewer or shorter ones")


class _Deadline(io.RawIOBase):
    """What a client sends, within a time and a number of bytes that hold for all of it, however slowly it drips."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self.until_s = 0.0
        self.left_bytes = 0

    def allow(self, time_s: float, n_bytes: int) -> None:
        """Begin anew with these limits."""
        self.until_s = time.monotonic() + time_s
        self.left_bytes = n_bytes

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        left_s = self.until_s - time.monotonic()
        if left_s <= 0:
            raise TimeoutError
        self._connection.settimeout(left_s)
        got = self._connection.recv_into(buffer, min(len(buffer), self.left_bytes) or 1)
        self.left_bytes -= got
        if self.left_bytes < 0:
            raise _head_too_large()
        return got


class _Connection(BaseHTTPRequestHandler):
    """One connection: its requests, one after the other. The base class reads heads; limits and answers are ours."""

    protocol_version = "HTTP/1.1"
    server: "Server"  # type: ignore[assignment]

    def setup(self) -> None:
        self._raw = _Deadline(self.request)
        self.connection = self.request
        self.rfile = io.BufferedReader(self._raw, 16 * 1024)
        self._request: Request | None = None
        self._left: int | None = None  # of the request that is not read yet, in bytes; None: unknown
        self._expects = False

    def finish(self) -> None:
        """Leave closing to the thread's owner."""

    def handle_one_request(self) -> None:
        self._request, self._left, self._expects, self.command = None, None, False, ""
        try:
            self._raw.allow(IDLE_S, MOST_HEAD_BYTES)
            if not self.rfile.peek(1):  # type: ignore[attr-defined]
                self.close_connection = True
                return
            self._raw.until_s = time.monotonic() + HEAD_S
            self.raw_requestline = self.rfile.readline(MOST_HEAD_BYTES + 1)
            if len(self.raw_requestline) > MOST_HEAD_BYTES:
                raise _head_too_large()
            if self.parse_request():
                self._reply_to(self._read_head())
        except Refusal as refusal:
            self._send(self.server.site.refuse(self._request, refusal))
        except (OSError, ValueError):  # gone, too slow, or closed by the stop
            self.close_connection = True

    def _read_head(self) -> Request:
        """Put the request together. Raises `Refusal`."""
        if self.request_version == "HTTP/0.9":
            raise Refusal(400, "bad-request", "this is not HTTP/1.1", "speak HTTP/1.1 to this port")
        path, query = split_target(self.path)
        request = Request(self.command, path, query, self.headers, str(self.client_address[0]), self._read_body)
        self._request = request
        self._left = self._length(request)
        return request

    def _length(self, request: Request) -> int | None:
        if request.headers.get("Transfer-Encoding") is not None:
            return None
        text = request.header("Content-Length")
        if text and not (text.isascii() and text.isdigit() and len(text) <= 18):
            raise Refusal(400, "bad-length", "Content-Length is not a number", "send the body's length in bytes")
        return int(text or 0)

    def _reply_to(self, request: Request) -> None:
        try:
            reply = self.server.site.answer(request)
        except Refusal as refusal:
            reply = self.server.site.refuse(request, refusal)
        except OSError:
            raise
        except Exception:  # a bug in one answer ends this answer, not the process that watches the cameras
            log.exception("local page: %s %s failed", request.method, request.path[:200])
            hint = "try again; if it stays, report it with the log of shelfwire-vision"
            reply = self.server.site.refuse(request, Refusal(500, "local-bug", "this could not be answered", hint))
        self._send(reply)

    def _read_body(self, limit_bytes: int) -> bytes:
        if self._left is None:
            hint = "send the body at once, with Content-Length, and not in chunks"
            raise Refusal(411, "no-length", "the body's length is not told", hint)
        if self._left > limit_bytes:
            text = f"the body has {self._left} bytes, at most {limit_bytes} are taken"
            raise Refusal(413, "too-large", text, "send less at once: a smaller picture, or fewer")
        if self._expects and self._left:
            self.connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        self._raw.allow(BODY_S, self._left)
        length, self._left = self._left, None
        body = self.rfile.read(length)
        if len(body) < length:
            raise ConnectionError
        self._left = 0
        return body

    def handle_expect_100(self) -> bool:
        """Say "go on" only when the body is wanted."""
        self._expects = True
        return True

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:  # noqa: ARG002
        """Refuse what the base class could not read."""
        text = message or responses.get(code, "bad request")
        self._send(
            self.server.site.refuse(None, Refusal(int(code), "bad-request", text, "speak HTTP/1.1 to this port"))
        )

    def _send(self, reply: Reply) -> None:
        """Send an answer whole; the connection ends after it when something of the request was left unread."""
        unread = self._left != 0
        self.close_connection = self.close_connection or unread
        head = _head(reply, close=self.close_connection)
        body = b"" if self.command == "HEAD" else reply.body
        self.connection.settimeout(SEND_S)
        self.connection.sendall(head + body)
        if unread and not self._expects:
            self._linger()

    def _linger(self) -> None:
        with contextlib.suppress(OSError, Refusal):
            self.connection.shutdown(socket.SHUT_WR)
            self._raw.allow(LINGER_S, LINGER_BYTES)
            while self.rfile.read1(65536):
                pass

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Keep quiet: a page asks every second."""


def _head(reply: Reply, *, close: bool) -> bytes:
    lines = [f"HTTP/1.1 {reply.status} {responses.get(reply.status, '')}"]
    fixed = {"Content-Type": reply.content_type, "Content-Length": str(len(reply.body))} if reply.status != 204 else {}
    lines += [f"{name}: {value}" for name, value in {**fixed, **reply.headers}.items()]
    lines.append("Connection: close" if close else "Connection: keep-alive")
    return "\r\n".join([*lines, "", ""]).encode("latin-1", "replace")


class Server:
    """Serves a site on a listening socket, until stopped. `settle` is called once by each connection's thread."""

    def __init__(
        self, listener: socket.socket, site: Site, settle: Callable[[], None], tls: ssl.SSLContext | None = None
    ) -> None:
        self.site = site
        self._listener = listener
        self._settle = settle
        self._tls = tls
        self._open: dict[threading.Thread, tuple[socket.socket, str]] = {}
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._runs = threading.Event()
        self._ended = threading.Event()
        self._numbers = itertools.count(1)
        self._woken, self._waker = socket.socketpair()
        listener.setblocking(False)

    def run(self) -> None:
        """Take connections until `stop`: the body of the thread "local"."""
        self._runs.set()
        with selectors.DefaultSelector() as selector:
            selector.register(self._listener, selectors.EVENT_READ)
            selector.register(self._woken, selectors.EVENT_READ)
            while not self._stopping.is_set():
                if any(key.fileobj is self._listener for key, _ in selector.select()):
                    self._accept()
        self._listener.close()
        self._ended.set()

    def stop(self, timeout_s: float = 1.0) -> None:
        """End at once: what is being answered is cut off. The socket of systemd itself stays open and keeps callers."""
        self._stopping.set()
        self._waker.send(b"x")
        if self._runs.is_set():
            self._ended.wait(timeout_s)
        else:
            self._listener.close()
        with self._lock:
            left = dict(self._open)
        for connection, _ in left.values():
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        until_s = time.monotonic() + timeout_s
        for thread in left:
            thread.join(max(0.0, until_s - time.monotonic()))

    def _accept(self) -> None:
        try:
            connection, address = self._listener.accept()
        except OSError:
            self._stopping.wait(0.05)  # out of files, perhaps: not in a tight loop
            return
        host = str(address[0])
        with self._lock:
            has_room = self._has_room(host)
            if has_room:
                name = f"local-{next(self._numbers)}"
                thread = threading.Thread(target=self._serve, args=(connection, address), name=name, daemon=True)
                self._open[thread] = connection, host
        if has_room:
            thread.start()
        else:
            self._turn_away(connection)

    def _has_room(self, host: str) -> bool:
        if len(self._open) >= MOST_CONNECTIONS:
            return False
        return is_loopback(host) or sum(other == host for _, other in self._open.values()) < MOST_OF_ONE_PEER

    def _turn_away(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            connection.setblocking(False)
            if self._tls is None:
                reply = self.site.refuse(None, _full())
                connection.send(_head(reply, close=True) + reply.body)

    def _serve(self, connection: socket.socket, address: Any) -> None:
        try:
            self._settle()
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._tls is not None:
                connection.settimeout(HEAD_S)
                connection = self._tls.wrap_socket(connection, server_side=True)
                with self._lock:
                    self._open[threading.current_thread()] = connection, str(address[0])
            _Connection(connection, address, self)  # type: ignore[arg-type]
        except OSError:
            pass  # gone, or no TLS was spoken
        except Exception:  # a bug in one connection ends this connection
            log.exception("local page: a connection ended by a bug")
        finally:
            with self._lock:
                del self._open[threading.current_thread()]
            connection.close()
