"""A cloud's API for tests: a real HTTP server that answers as it is told, or not at all."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True)
class Say:
    """An answer. `then` is what happens instead of, or after, it."""

    status: int = 200
    body: bytes = b'{"state":"answered","usd":0.000002,"billed_ms":40}'
    headers: tuple[tuple[str, str], ...] = ()
    hang: bool = False
    cut: bool = False
    drip: bool = False


class ApiServer:
    """Answers by `behave`; keeps what it was asked. `release` ends every hang."""

    def __init__(self, behave: Callable[[Request], Say] = lambda _: Say()) -> None:
        self.behave = behave
        self.requests: list[Request] = []
        self.changed = threading.Condition()
        self.release = threading.Event()
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                request = Request(self.command, self.path, {k.lower(): v for k, v in self.headers.items()}, body)
                with owner.changed:
                    owner.requests.append(request)
                    owner.changed.notify_all()
                say = owner.behave(request)
                if say.hang:
                    owner.release.wait(30)
                    self.close_connection = True
                    return
                if say.cut:
                    self.close_connection = True
                    self.connection.close()
                    return
                self.send_response(say.status)
                for name, value in say.headers:
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(say.body)))
                self.end_headers()
                if say.drip:
                    for byte in say.body:
                        self.wfile.write(bytes([byte]))
                        self.wfile.flush()
                        if owner.release.wait(0.1):
                            return
                    return
                self.wfile.write(say.body)

            do_PUT = do_POST = do_GET = _answer  # noqa: N815 - the names are http.server's

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: object) -> None:
                pass

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def wait(self, n: int) -> None:
        """Wait until so many requests have come."""
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.requests) >= n, 20), self.requests

    def close(self) -> None:
        self.release.set()
        self._server.shutdown()
        self._server.server_close()
