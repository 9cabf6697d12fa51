"""The cloud's three calls for the night's files, as the contract says, on a real socket; and all the ways they fail."""

import hashlib
import json
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

RECEIVED = {"state": "received"}


class ShardCloud:
    """Takes files. `faults` are used up one per request of the kind named: announce, put, done.

    A fault is a status (alone, with a Retry-After, or with a code), or "cut" (the connection ends in the middle of the
    body), "hang-up" (no answer), "garbage", "redirect", or "lose" (says yes and keeps nothing).
    """

    def __init__(self) -> None:
        self.url = ""
        self.absolute = False
        self.objects: dict[str, bytes] = {}
        self.received: list[dict[str, Any]] = []
        self.announced: dict[str, dict[str, Any]] = {}
        self.faults: dict[str, deque[Any]] = {"announce": deque(), "put": deque(), "done": deque()}
        self.asked: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.pieces: list[int] = []
        self.sent = threading.Event()
        self.hold: threading.Event | None = None
        """When set, an upload stops after its first piece until this is set."""

    def fail(self, kind: str, *faults: Any) -> None:
        self.faults[kind].extend(faults)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    cloud: ShardCloud

    def log_message(self, *_: Any) -> None:
        pass

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        kind = "done" if self.path.endswith("/done") else "announce"
        self.cloud.asked.append(kind)
        if not self._fault(kind):
            getattr(self, f"_{kind}")(json.loads(body))

    def _announce(self, document: dict[str, Any]) -> None:
        sha256 = document["sha256"]
        self.cloud.announced[sha256] = document
        if any(sha256 == d["sha256"] for d in self.cloud.received):
            self._say(200, RECEIVED)
            return
        origin = self.cloud.url if self.cloud.absolute else ""
        put = {"url": f"{origin}/v1/objects/{sha256}?signature=1", "headers": {"X-Signed": "yes", "Host": "evil"}}
        self._say(200, {"state": "expected", "put": put, "expires_in_s": 900})

    def _done(self, document: dict[str, Any]) -> None:
        sha256 = self.path.split("/")[3]
        announced = self.cloud.announced[sha256]
        assert document == {"device": announced["device"]}
        content = self.cloud.objects.get(sha256)
        if content is None:
            self._say(409, {"state": "expected"})
        elif hashlib.sha256(content).hexdigest() != sha256 or len(content) != announced["bytes"]:
            self._say(422, {"code": "shard-bad", "detail": "not what was announced"})
        else:
            if all(d["sha256"] != sha256 for d in self.cloud.received):
                self.cloud.received.append(announced)
            self._say(200, RECEIVED)

    def do_PUT(self) -> None:
        cloud = self.cloud
        cloud.asked.append("put")
        cloud.headers.append({k.lower(): v for k, v in self.headers.items()})
        fault = cloud.faults["put"].popleft() if cloud.faults["put"] else None
        content = b""
        left = int(self.headers["Content-Length"])
        while left:
            piece = self.rfile.read1(min(left, 1 << 20))
            if not piece:
                return
            cloud.pieces.append(len(piece))
            content += piece
            left -= len(piece)
            cloud.sent.set()
            if cloud.hold is not None:
                cloud.hold.wait(10)
            if fault == "cut":
                self.close_connection = True
                self.connection.close()
                return
        if fault is None:
            cloud.objects[self.path.split("/")[3].split("?")[0]] = content
            self._say(201, {})
        elif fault == "lose":
            self._say(201, {})
        else:
            self._answer(fault)

    def _fault(self, kind: str) -> bool:
        if not self.cloud.faults[kind]:
            return False
        self._answer(self.cloud.faults[kind].popleft())
        return True

    def _answer(self, fault: Any) -> None:
        if fault == "hang-up":
            self.close_connection = True
            self.connection.close()
        elif fault == "garbage":
            self._raw(200, b"<html>welcome to the hotel</html>", "text/html", {})
        elif fault == "redirect":
            self._raw(302, b"", "text/plain", {"Location": f"{self.cloud.url}/elsewhere"})
        elif isinstance(fault, tuple) and isinstance(fault[1], str):
            self._say(fault[0], {"code": fault[1], "detail": "no"})
        elif isinstance(fault, tuple):
            self._say(fault[0], {"code": "slow-down", "detail": "later"}, {"Retry-After": str(fault[1])})
        else:
            self._say(fault, {"code": f"code-{fault}", "detail": "no"})

    def _say(self, status: int, document: dict[str, Any], headers: dict[str, str] | None = None) -> None:
        kind = "application/json" if status < 400 else "application/problem+json"
        self._raw(status, json.dumps(document).encode(), kind, headers or {})

    def _raw(self, status: int, body: bytes, kind: str, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def serving() -> Iterator[ShardCloud]:
    """Run one on a free port of the loopback address."""
    cloud = ShardCloud()
    handler = type("Handler", (_Handler,), {"cloud": cloud})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    cloud.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield cloud
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
