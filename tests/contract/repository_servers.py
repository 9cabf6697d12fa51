"""Servers of a repository's files: ours, a plain one that knows no ranges, and ones that mean harm."""

import contextlib
import http.server
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from cloud.repository import RepositoryFolder
from cloud.web import repository
from cloud.web.guard import Guard


@contextlib.contextmanager
def ours(folder: Path) -> Iterator[str]:
    """`serve`'s own routes for a repository's files."""
    app = FastAPI()
    app.state.repository = RepositoryFolder(folder, folder.parent / "keys")
    app.include_router(repository.files_router)
    app.add_middleware(Guard)
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False, server_header=False))
    with socket.create_server(("127.0.0.1", 0)) as opened:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [opened]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{opened.getsockname()[1]}/repository"
        finally:
            server.should_exit = True
            thread.join(10)


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def plain(folder: Path) -> Iterator[str]:
    """Python's own file server: no ranges, a connection for each file."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join(10)


@contextlib.contextmanager
def raw(answer: Callable[[socket.socket, str], None]) -> Iterator[str]:
    """A server that answers each request, given by its head, as the test says."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            head = b""
            with contextlib.suppress(OSError):
                while b"\r\n\r\n" not in head:
                    more = self.request.recv(4096)
                    if not more:
                        return
                    head += more
                answer(self.request, head.decode("latin-1"))

    class Server(socketserver.ThreadingTCPServer):
        allow_reuse_address = daemon_threads = True

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join(10)


class Wire:
    """Passes one client's connections on to a server and counts every byte on them."""

    def __init__(self, url: str) -> None:
        host, _, port = url.removeprefix("http://").partition("/")[0].partition(":")
        self._to = (host, int(port))
        self._opened = socket.create_server(("127.0.0.1", 0))
        self.url = url.replace(f"{host}:{port}", f"127.0.0.1:{self._opened.getsockname()[1]}")
        self.up_bytes = self.down_bytes = self.connections = 0
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._opened.accept()
                self.connections += 1
                far = socket.create_connection(self._to)
                for source, target, up in ((near, far, True), (far, near, False)):
                    threading.Thread(target=self._pass, args=(source, target, up), daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket, up: bool) -> None:
        with contextlib.suppress(OSError):
            while piece := source.recv(65536):
                if up:
                    self.up_bytes += len(piece)
                else:
                    self.down_bytes += len(piece)
                target.sendall(piece)
            target.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self._opened.shutdown(socket.SHUT_RDWR)
        self._opened.close()


def head(status: str, *lines: str) -> bytes:
    """The head of an answer."""
    return "\r\n".join([f"HTTP/1.1 {status}", *lines, "", ""]).encode("latin-1")
